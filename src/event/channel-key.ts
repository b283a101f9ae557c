import { BrokerError, type ErrorCode, quote } from "../base/errors.ts";

// Three namespaces share the log: what is broadcast with no channel, channels, and the inboxes of recipients. A key says which,
// by its first character, so that no channel name can address an inbox.

/** The key of what every client receives. */
export const COMMON = "";
/** The key of a channel. */
const channelKey = (name: string): string => `#${name}`;
/** The key of what is sent to one recipient. */
export const inboxKey = (clientId: string): string => `@${clientId}`;

/** How a key is named to a client: the channel's name, `fanwire-common` or `fanwire-inbox`. */
export const publicName = (key: string): string =>
  key === COMMON ? "fanwire-common" : key.startsWith("@") ? "fanwire-inbox" : key.slice(1);

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters that must not pass
const CONTROL = /[\0-\x1f\x7f]/;
const EVERYBODY: readonly string[] = [COMMON];

/** Bounds of names. */
export interface NameBounds {
  readonly maxNameLength: number;
  readonly maxChannelsPerClient: number;
  readonly maxChannelsPerEvent: number;
}

/** Which names are good. */
export class NameRules {
  readonly #bounds: NameBounds;

  constructor(bounds: NameBounds) {
    this.#bounds = bounds;
  }

  /** @throws {@link BrokerError} `bad-id` */
  clientId(id: unknown): string {
    return this.#check("Client id", "bad-id", id);
  }

  /** @throws {@link BrokerError} `bad-id` */
  subject(subject: unknown): string {
    return this.#check("Subject", "bad-id", subject);
  }

  /** @throws {@link BrokerError} `bad-key` */
  key(key: unknown): string {
    return this.#check("Key", "bad-key", key);
  }

  /** The channels of one client: each once. @throws {@link BrokerError} `bad-channel` */
  channels(channels: string | readonly string[], most: number = this.#bounds.maxChannelsPerClient): readonly string[] {
    const names = new Set(typeof channels === "string" ? [channels] : channels);
    if (names.size > most) throw new BrokerError("bad-channel", `Channels refused: they are more than ${most}.`);
    for (const name of names) {
      this.#check("Channel name", "bad-channel", name);
      if (name.startsWith("fanwire-"))
        throw new BrokerError("bad-channel", `Channel name ${quote(name)} refused: the prefix is reserved.`);
    }
    return [...names];
  }

  /**
   * The channels of one event; none stands for everybody. A list that is empty is refused, because who made it hardly meant everybody.
   *
   * @throws {@link BrokerError} `bad-channel`
   */
  targets(channels: string | readonly string[] | undefined): readonly string[] {
    if (channels === undefined) return [];
    const names = this.channels(channels, this.#bounds.maxChannelsPerEvent);
    if (names.length === 0)
      throw new BrokerError("bad-channel", "Channels refused: the list is empty; leave it out to reach everybody.");
    return names;
  }

  #check(kind: string, code: ErrorCode, name: unknown): string {
    if (typeof name !== "string") throw new TypeError(`${kind} refused: it must be a string, not ${typeof name}.`);
    const most = this.#bounds.maxNameLength;
    const fault =
      name === ""
        ? "it is empty"
        : name.length > most
          ? `it is over ${most} characters`
          : CONTROL.test(name)
            ? "it has a control character"
            : // A lone surrogate has no UTF-8 form, so it could not come back the same.
              /\p{Surrogate}/u.test(name)
              ? "it has a lone surrogate"
              : undefined;
    if (fault) throw new BrokerError(code, `${kind} ${quote(name)} refused: ${fault}.`);
    return name;
  }
}

/** What a client reads: what is for everybody, its inbox, and its channels. */
export const keysOfClient = (clientId: string, channels: readonly string[]): readonly string[] => [
  COMMON,
  inboxKey(clientId),
  ...channels.map(channelKey),
];

/** The keys of channels, for an event: everybody's where none is named. */
export const keysOf = (channels: readonly string[]): readonly string[] =>
  channels.length > 0 ? channels.map(channelKey) : EVERYBODY;

/** What an event that a publisher gives a key is known by; no key has a line break. */
export const nonceOf = (publisher: string, key: string): string => `${publisher}\n${key}`;

/** Whose event is known by this. */
export const publisherOf = (nonce: string): string => nonce.slice(0, nonce.lastIndexOf("\n") + 1);
