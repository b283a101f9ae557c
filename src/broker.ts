import type { ClientInfo, DisconnectReason } from "./client.ts";
import { Core, type Published, type Reported, type Start } from "./core.ts";
import type { EventInput } from "./event.ts";
import { type ClientOverrides, type EventOverrides, HttpFace } from "./http.ts";
import type { Listened } from "./listener.ts";
import { checkClientId, inboxKey, keysOf } from "./names.ts";
import { type BrokerOptions, resolveOptions } from "./options.ts";

/** Options of `broadcast`. */
export interface BroadcastOptions {
  /** A channel or several; without any the event goes to every client. */
  readonly channel?: string | readonly string[];
  /** Whether to watch what becomes of the event at each client. @default false */
  readonly report?: boolean;
}

/** Options of `listen`. */
export interface ListenOptions extends Start {
  /** A channel or several; without any it is what is broadcast to every client. */
  readonly channel?: string | readonly string[];
  /** Ends the listening. */
  readonly signal?: AbortSignal;
}

/** What a broker counts, for this process. Counters begin at 0 with the broker. */
export interface BrokerStats {
  /** Connections now. */
  readonly clients: number;
  /** Client ids connected now. */
  readonly recipients: number;
  /** Connections now that have something to receive and do not take it. */
  readonly blocked: number;
  /** Streams that were told to end and whose client has not read that yet. */
  readonly departing: number;
  /** Channels and inboxes that somebody reads now. */
  readonly topics: number;
  /** Events published through this broker. */
  readonly published: number;
  /** Events handed to clients: given to the runtime, not received. */
  readonly handed: number;
  /** Gaps told to clients. */
  readonly gaps: number;
  /** Connections that ended, by reason. */
  readonly disconnects: Readonly<Partial<Record<DisconnectReason, number>>>;
  /** What this process holds of the log. */
  readonly log: { readonly events: number; readonly bytes: number; readonly channels: number };
}

/** A broker. All methods may be called detached. */
export interface Broker {
  /**
   * Serves `GET /connect` and `POST /broadcast`; `context` is whatever the runtime passes beside the request.
   * @example export default { fetch: broker.fetch };
   */
  fetch(request: Request, context?: unknown): Promise<Response>;
  /** Answers a client with its stream, at any path. Nobody is turned away: who may read is the application's decision here. */
  clientHandler(request: Request, overrides?: ClientOverrides): Promise<Response>;
  /** Publishes the body of a POST, at any path. Nobody is turned away: who may publish is the application's decision here. */
  eventHandler(request: Request, overrides?: EventOverrides): Promise<Response>;
  /**
   * Publishes an event to every client, or to channels. Events keep the order of the calls, awaited or not. Resolves when the
   * publisher may go on, which is at once unless it is far ahead of those who read.
   *
   * @throws `TypeError` for what is not an event; `BrokerError` `bad-event-type`, `bad-channel`, `event-too-large`, `closed`.
   */
  broadcast(event: EventInput, options: BroadcastOptions & { readonly report: true }): Promise<Reported>;
  broadcast(event: EventInput, options?: BroadcastOptions): Promise<Published>;
  /**
   * Publishes an event to one recipient, on all of its connections.
   *
   * @throws as `broadcast`; `BrokerError` `unknown-client` if it is not connected and was not within `inboxLinger`.
   */
  broadcastTo(clientId: string, event: EventInput, options: { readonly report: true }): Promise<Reported>;
  broadcastTo(clientId: string, event: EventInput, options?: { readonly report?: boolean }): Promise<Published>;
  /** What is published, from the call on or from a position. Ends with `return()`, its signal, or the broker. */
  listen(options?: ListenOptions): AsyncIterableIterator<Listened, undefined>;
  /** Ends the connections of an id. With `for` it is answered 204 for so many milliseconds, which stops an EventSource for good. */
  disconnect(clientId: string, options?: { readonly for?: number }): Promise<{ readonly clients: number }>;
  /** The connections of this process. */
  clients(): ClientInfo[];
  stats(): BrokerStats;
  /**
   * Refuses new work, hands on what is pending, and ends each stream with `fanwire-end`, spread over `over` milliseconds. A client that does
   * not read its end within `timeout` is cut off. Resolves when all have ended, within `over` + `timeout`; further calls get the same promise.
   * The server is the caller's to stop, after this.
   */
  close(options?: { readonly over?: number }): Promise<void>;
}

/**
 * Makes a broker. Does nothing yet: a Workers module may call it in its scope.
 *
 * @example
 * const broker = createBroker({ publishToken: "…" });
 * export default { fetch: broker.fetch };
 * @throws `RangeError` or `TypeError` for an option that is none; `BrokerError` `engine-refused` on Workers without an engine.
 */
export function createBroker(options: BrokerOptions = {}): Broker {
  const core = new Core(resolveOptions(options));
  const http = new HttpFace(core);
  async function broadcast(event: EventInput, { channel, report }: BroadcastOptions = {}): Promise<Reported> {
    return (await core.publish(keysOf(channel), event, report)) as Reported;
  }

  async function broadcastTo(
    clientId: string,
    event: EventInput,
    { report }: { report?: boolean } = {},
  ): Promise<Reported> {
    core.checkRecipient(checkClientId(clientId));
    return (await core.publish([inboxKey(clientId)], event, report)) as Reported;
  }

  return {
    fetch: (request, context) => http.fetch(request, context),
    clientHandler: (request, overrides = {}) => http.clientHandler(request, overrides),
    eventHandler: (request, overrides = {}) => http.eventHandler(request, overrides),
    broadcast,
    broadcastTo,
    listen({ channel, signal, ...start } = {}) {
      return core.listen(keysOf(channel), start, signal);
    },
    disconnect: async (clientId, { for: barFor = 0 } = {}) => ({
      clients: core.disconnect(checkClientId(clientId), barFor),
    }),
    clients: () => Array.from(core.clients, (client) => client.info),
    stats: () => core.stats(),
    close: ({ over = 0 } = {}) => core.close(over),
  };
}
