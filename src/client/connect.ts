// `connect()`: a stream of one's own.
import { createClient, type EventClient } from "./client.ts";
import type { EventMap } from "./events.ts";
import { type AnyOptions, type ConnectOptions, resolveUrl } from "./options.ts";
import { createStream } from "./stream.ts";

/**
 * Opens a stream of events, and keeps it open. Each event comes once and in order; what is missing is reported as `gap`.
 *
 * ```ts
 * const client = connect<{ price: { ada: number } }>("/connect", { channels: "market" });
 * client.on("price", ({ value }) => console.log(value.ada));
 * client.on("gap", ({ channels }) => console.log("load the state again", channels));
 * ```
 *
 * @param url - The address of the stream. In a page it may be relative.
 * @throws `TypeError` for a URL that is not valid.
 */
export const connect = <Events = EventMap>(
  url: string | URL,
  options: ConnectOptions<Events> = {},
): EventClient<Events> =>
  createClient(resolveUrl(url), options as AnyOptions, createStream) as unknown as EventClient<Events>;
