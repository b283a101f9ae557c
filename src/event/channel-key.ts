// Keys of the log. The log keeps three kinds of channels: the common channel (events for every client), named channels, and inboxes (events
// for one client). The first character of a key separates them, so no channel name can address an inbox.

/** The key of the common channel. */
export const COMMON = "";
/** The key of a channel. */
const channelKey = (name: string): string => `#${name}`;
/** The key of a client's inbox. */
export const inboxKey = (clientId: string): string => `@${clientId}`;

const EVERY_CLIENT: readonly string[] = [COMMON];

/** Returns the name of a key as clients see it: the channel's name, `fanwire-common` or `fanwire-inbox`. */
export const publicName = (key: string): string =>
  key === COMMON ? "fanwire-common" : key.startsWith("@") ? "fanwire-inbox" : key.slice(1);

/** The keys that a client reads: the common channel, its inbox, and its channels. */
export const keysOfClient = (clientId: string, channels: readonly string[]): readonly string[] => [
  COMMON,
  inboxKey(clientId),
  ...channels.map(channelKey),
];

/** The keys whose history a client reads without naming a channel: as {@link keysOfClient}, without an inbox for no client id. */
export const keysOfReader = (clientId: string | undefined, channels: readonly string[]): readonly string[] =>
  clientId === undefined ? [COMMON, ...channels.map(channelKey)] : keysOfClient(clientId, channels);

/** The keys that an event is appended to. Without channels, that is the common channel. */
export const keysOf = (channels: readonly string[]): readonly string[] =>
  channels.length > 0 ? channels.map(channelKey) : EVERY_CLIENT;

/** Combines a publisher and its idempotency key. The key has no line break, so the publisher can be read back. */
export const idempotencyKeyOf = (publisher: string, key: string): string => `${publisher}\n${key}`;

/** Returns the publisher part of a combined idempotency key. */
export const publisherOf = (idempotencyKey: string): string =>
  idempotencyKey.slice(0, idempotencyKey.lastIndexOf("\n") + 1);
