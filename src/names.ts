import { BrokerError, type ErrorCode, quote } from "./errors.ts";

// Three namespaces share the log: what is broadcast with no channel, channels, and the inboxes of recipients. A key says which,
// by its first character, so that no channel name can address an inbox.

/** The key of what every client receives. */
export const COMMON = "";
/** The key of a channel. */
export const channelKey = (name: string): string => `#${name}`;
/** The key of what is sent to one recipient. */
export const inboxKey = (clientId: string): string => `@${clientId}`;

/** How a key is named to a client: the channel's name, `fanwire-common` or `fanwire-inbox`. */
export const publicName = (key: string): string =>
  key === COMMON ? "fanwire-common" : key.startsWith("@") ? "fanwire-inbox" : key.slice(1);

/** The longest channel name and client id, in UTF-16 code units. */
const MAX_NAME = 256;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters that must not pass
const CONTROL = /[\0-\x1f\x7f]/;

function checkName(kind: string, code: ErrorCode, name: unknown): string {
  if (typeof name !== "string") throw new TypeError(`${kind} refused: it must be a string, not ${typeof name}.`);
  const fault =
    name === ""
      ? "it is empty"
      : name.length > MAX_NAME
        ? `it is over ${MAX_NAME} characters`
        : CONTROL.test(name)
          ? "it has a control character"
          : // A lone surrogate has no UTF-8 form, so it could not come back the same.
            /\p{Surrogate}/u.test(name)
            ? "it has a lone surrogate"
            : undefined;
  if (fault) throw new BrokerError(code, `${kind} ${quote(name)} refused: ${fault}.`);
  return name;
}

/** @throws {@link BrokerError} `bad-id` */
export const checkClientId = (id: unknown): string => checkName("Client id", "bad-id", id);

/** The most channels that one client may read, and that one event may go to. */
const MAX_CHANNELS = 100;

/** One channel or several, checked, each once. @throws {@link BrokerError} `bad-channel` */
export function checkChannels(channels: string | readonly string[]): readonly string[] {
  const names = new Set(typeof channels === "string" ? [channels] : channels);
  if (names.size > MAX_CHANNELS)
    throw new BrokerError("bad-channel", `Channels refused: they are more than ${MAX_CHANNELS}.`);
  for (const name of names) {
    checkName("Channel name", "bad-channel", name);
    if (name.startsWith("fanwire-"))
      throw new BrokerError("bad-channel", `Channel name ${quote(name)} refused: the prefix is reserved.`);
  }
  return [...names];
}

const EVERYBODY: readonly string[] = [COMMON];

/**
 * The keys of channels, for an event: everybody's where none is named. A list that is empty is refused, because who made it hardly
 * meant everybody.
 *
 * @throws {@link BrokerError} `bad-channel`
 */
export function keysOf(channels: string | readonly string[] | undefined): readonly string[] {
  if (channels === undefined) return EVERYBODY;
  const names = checkChannels(channels);
  if (names.length === 0)
    throw new BrokerError("bad-channel", "Channels refused: the list is empty; leave it out to reach everybody.");
  return names.map(channelKey);
}
