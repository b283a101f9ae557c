// `connect()` with one stream for all tabs. A module of its own, because it is half as large as the rest.
import { createClient, type EventClient } from "./client.ts";
import type { EventMap } from "./events.ts";
import { type AnyOptions, type ConnectOptions, resolveUrl } from "./options.ts";
import { createStream } from "./stream.ts";
import { locks } from "./tab-messages.ts";
import { SharedSource } from "./tabs.ts";

/** Options of `connect()` of `fanwire/client/share`. */
export interface ShareOptions<Events> extends ConnectOptions<Events> {
  /**
   * Whether all tabs of an origin that ask for the same have one stream: the same URL, channels, client id and method. A text is the subject,
   * such as the user's id: tabs with different ones share nothing. Pass it if tabs of one browser may have different logins. Without Web Locks
   * or BroadcastChannel, as outside of secure contexts, each tab has a stream of its own.
   * @default true
   */
  readonly share?: boolean | string | undefined;
}

/** Opens a stream as `connect()` of `fanwire/client` does, and shares it with other tabs. Throws the same. */
export const connect = <Events = EventMap>(
  url: string | URL,
  { share = true, ...options }: ShareOptions<Events> = {},
): EventClient<Events> =>
  createClient(resolveUrl(url), options as AnyOptions, (host) =>
    share !== false && typeof BroadcastChannel !== "undefined" && locks()
      ? new SharedSource(host, share)
      : createStream(host),
  ) as unknown as EventClient<Events>;
