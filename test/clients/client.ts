// The common form of the clients under test: what an adapter implements, and the events that it reports. Runs in Node, in Chromium and in Deno.

/** An event, as a client gave it to its user. */
export interface ClientEvent {
  readonly type: string;
  /** The id of the event, or the client's last one. Missing if the client does not show ids. */
  readonly id?: string | undefined;
  readonly data: string;
}

/**
 * Connects a client and returns a function that closes it.
 *
 * @param onEvent - Called with every event that the client shows to its user.
 * @param onStopped - Called when the client ends by itself and does not return.
 */
export type Connect = (url: string, onEvent: (event: ClientEvent) => void, onStopped: () => void) => () => void;

/** Types that a client has to name, if it shows only named types. */
export const EVENT_TYPES = [
  "message",
  "price",
  "fanwire-ready",
  "fanwire-position",
  "fanwire-gap",
  "fanwire-snapshot",
  "fanwire-end",
] as const;
