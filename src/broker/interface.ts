// The interface that applications use: a broker, and the options of its methods.
import type { ClientInfo } from "../delivery/connection.ts";
import type { Published, Reported, Sent } from "../delivery/delivery-report.ts";
import type { History } from "../engine/history.ts";
import type { EventInputOf, EventTypes } from "../event/event-map.ts";
import type { BrokerPaths, ClientOverrides, EventOverrides } from "../http/handler.ts";
import type { ListenedEventOf, ListenedGap } from "../log/listened.ts";
import type { StartOptions } from "../log/resume.ts";
import type { BrokerStats } from "../monitoring/stats.ts";

/** Options of `broadcast` and `broadcastTo`. */
export interface SendOptions {
  /**
   * Whether the event is not stored: it has no id, is sent at most once, in order with the others, to connections that can take it now, and
   * counts neither for retention nor for a gap. Not together with `report` and `idempotencyKey`. @default false
   */
  readonly ephemeral?: boolean;
  /** Whether to report which connections received the event. @default false */
  readonly report?: boolean;
  /**
   * Identifies this event. A second call with the same key publishes nothing and returns the position of the first; its report covers the
   * connections that still wait for the event. The engine defines for how long (`idempotencyWindow`). `Idempotency-Key` of HTTP publishers is
   * a separate set of keys.
   */
  readonly idempotencyKey?: string;
}

/** Options for an event that is not stored. */
export interface EphemeralOptions extends SendOptions {
  readonly ephemeral: true;
  readonly report?: false;
}

/** Options of `broadcast`. */
export interface BroadcastOptions extends SendOptions {
  /** A channel, or several. Without it the event goes to every client. */
  readonly channels?: string | readonly string[];
}

/** Options of `listen`. */
export interface ListenOptions extends StartOptions {
  /** A channel, or several. Without it the iterator yields the events for every client. */
  readonly channels?: string | readonly string[];
  /** Ends the iterator. */
  readonly signal?: AbortSignal;
}

/** Options of `history`. */
export interface HistoryOptions {
  /** A channel, or several. Without it the history is that of events for every client. */
  readonly channels?: string | readonly string[];
  /** The id after which to read: of an event, of a stream's `Last-Event-ID`, or the `position` of another part. */
  readonly after?: string | undefined;
  /** The beginning without `after`. @default "earliest" */
  readonly from?: "earliest";
  /** The most events to return, from 0 to 1,000. 0 reads nothing: `position` is then the head. @default 100 */
  readonly limit?: number;
  /** Ends the call, which then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Options of `broadcastTo`. */
export interface SendToOptions extends SendOptions {
  /**
   * The one connection of the client that the event is for. It has no id and is not stored: it waits for the connection, and is gone with it. Not
   * together with `report`, `idempotencyKey` and `ephemeral`.
   */
  readonly connectionId?: string;
}

/** Options for an event to one connection. */
export interface ConnectionOptions extends SendToOptions {
  readonly connectionId: string;
  readonly report?: false;
}

/** Options of `subscribe`. */
export interface SubscribeOptions {
  /** The one connection to change. @default all connections of the client id */
  readonly connectionId?: string;
}

/** Options of `unsubscribe`. */
export interface UnsubscribeOptions extends SubscribeOptions {
  /** The application's reason, for the page; at most 1,024 characters. */
  readonly reason?: string;
}

/** Options of `disconnect`. */
export interface DisconnectOptions {
  /** The application's reason, for the page: `detail` of `fanwire-end`. At most 1,024 characters. */
  readonly reason?: string;
  /**
   * Milliseconds for which the client id is barred, 0 or more. A barred id is answered 204, which stops an EventSource for good.
   * @default 0
   */
  readonly blockFor?: number;
}

/** Options of `close`. */
export interface CloseOptions {
  /** Milliseconds over which the ends of the streams are spread: 0 or more, an hour at most. @default 0 */
  readonly spreadOver?: number;
  /**
   * Whether to end every stream at once. A client that can take `fanwire-end` now receives it, and any other stream is aborted. Also cuts
   * short a `close()` that is under way. Not together with `spreadOver`.
   * @default false
   */
  readonly force?: boolean;
}

/**
 * A broker. All methods may be called detached.
 *
 * `Events` maps event types to the data that is read, and `Inputs` to the data that is published. Without them, any event may be published.
 */
export type Broker<Events = unknown, Inputs = Events> = BrokerFor<
  EventInputOf<Inputs>,
  ListenedEventOf<Events>,
  EventTypes<Events, Inputs>
>;

/** The same by what its methods take and return, so that a typed broker may be passed on as one without types. */
export interface BrokerFor<Input, Event, Types> {
  /** Only for `EventsOf`, and never there. */
  readonly "~events"?: Types | undefined;
  /** The paths that `fetch` serves. */
  readonly paths: BrokerPaths;
  /**
   * Serves `GET /connect` and `POST /broadcast`. `context` is the second argument that the runtime passes to its fetch handler.
   *
   * @example export default { fetch: broker.fetch };
   */
  fetch(request: Request, context?: unknown): Promise<Response>;
  /**
   * Answers a client with its stream, at any path. Asks `authorize` if it is set; without it every client may read.
   *
   * @example app.get("/events", (request) => broker.clientHandler(request));
   * @throws `TypeError` for overrides that are not a plain object, or have an unknown name.
   */
  clientHandler(request: Request, overrides?: ClientOverrides): Promise<Response>;
  /**
   * Publishes the body of a POST, at any path. Asks `authorize` if it is set; without it everybody who can reach this path may publish, so
   * mount it behind a check of your own.
   *
   * @throws as `clientHandler`
   */
  eventHandler(request: Request, overrides?: EventOverrides): Promise<Response>;
  /**
   * Answers GET and HEAD of a load balancer, at any path: 200 while the broker takes work and its engine can append, else 503 (`closed`,
   * `engine-down`), in this form whatever `errorHandler` is. Asks for no token and reveals nothing else. A broker at `maxClients` is healthy.
   * Opens an engine that was not used before.
   *
   * @example if (pathname === "/health") return broker.health(request);
   */
  health(request: Request): Promise<Response>;
  /**
   * Answers GET and HEAD of Prometheus, at any path, with the numbers of `stats()`. Asks for no token: restrict the path if you need to. The
   * answer has numbers only, no name of a channel or client.
   *
   * @example if (pathname === "/metrics") return broker.metrics(request);
   */
  metrics(request: Request): Promise<Response>;
  /**
   * Publishes an event to every client, or to channels. Events keep the order of the calls, awaited or not. Resolves when the publisher may
   * go on: at once, unless it is far ahead of the subscribers.
   *
   * @throws `TypeError` for a value that is not an event; `BrokerError` `bad-event-type`, `bad-event-data`, `bad-channel`, `bad-key`, `event-too-large`,
   * `key-reused`, `closed`, and the engine's `engine-down` (the event was not published) and `publish-outcome-unknown` (it may have been).
   */
  broadcast(event: Input, options: BroadcastOptions & { readonly report: true }): Promise<Reported>;
  broadcast(event: Input, options: BroadcastOptions & EphemeralOptions): Promise<Sent>;
  broadcast(event: Input, options?: BroadcastOptions): Promise<Published>;
  /**
   * Publishes an event to one client, on all of its connections.
   *
   * @throws as `broadcast`; `BrokerError` `unknown-client` if the client is not connected and was not within `inboxLinger`.
   */
  broadcastTo(clientId: string, event: Input, options: SendOptions & { readonly report: true }): Promise<Reported>;
  broadcastTo(clientId: string, event: Input, options: EphemeralOptions | ConnectionOptions): Promise<Sent>;
  broadcastTo(clientId: string, event: Input, options?: SendOptions): Promise<Published>;
  /**
   * Adds channels to the open streams of a client id, in all processes. Each joins at its position: every event that is published after this has
   * resolved arrives. `position` is that of the newest event then; `history()` has what was before. The client receives `fanwire-channels`.
   * After a reconnect, its request and its grant decide. Resolves with the number of streams, which may be 0.
   *
   * @throws `TypeError`; `BrokerError` `bad-channel` (also for more than `maxChannelsPerClient` in all; nothing has changed then in that process),
   * `at-capacity`, `closed`, `engine-down`
   */
  subscribe(
    clientId: string,
    channels: string | readonly string[],
    options?: SubscribeOptions,
  ): Promise<{ readonly clients: number; readonly position: string }>;
  /** Removes channels from the open streams of a client id, in all processes. @throws as `subscribe` */
  unsubscribe(
    clientId: string,
    channels: string | readonly string[],
    options?: UnsubscribeOptions,
  ): Promise<{ readonly clients: number }>;
  /**
   * Iterates over published events, from the time of the call or from a position. Where processes share the log, it starts when the store has
   * answered. Ends with `return()`, its signal, or the broker. Does not keep the process alive.
   */
  listen(options?: ListenOptions): AsyncIterableIterator<Event | ListenedGap, undefined>;
  /**
   * Reads a part of the history of channels: up to `limit` events and about 1 MiB. A stream with its `position` as `Last-Event-ID` continues
   * exactly there. What the store retains is read too, whether this process holds it or not.
   *
   * @throws `TypeError`, `RangeError`; `BrokerError` `bad-channel`, `closed`, `engine-down`
   */
  history(options?: HistoryOptions): Promise<History<Event>>;
  /** Ends the connections of a client id, in all processes. Resolves with their number. @throws `RangeError`, `TypeError` */
  disconnect(clientId: string, options?: DisconnectOptions): Promise<{ readonly clients: number }>;
  /**
   * Returns the name of a channel, if a channel can have it. Call this where users name channels: a grant with another name is `bad-grant`.
   *
   * @throws `BrokerError` `bad-channel`; `TypeError` if it is not a string
   */
  checkChannel(name: string): string;
  /** Returns the connections of this process. */
  clients(): ClientInfo[];
  /** Returns the counters and gauges of this process. */
  stats(): BrokerStats;
  /**
   * Closes the broker: refuses new work, sends what is pending, and ends each stream with `fanwire-end`, spread over `spreadOver` milliseconds.
   * A client that does not read its end within `timeout` is cut off. Resolves when all streams have ended, within `spreadOver` + `timeout`;
   * until then the process stays alive. Further calls return the same promise. With `force` it waits for no client. Stop the server after this.
   *
   * @example await broker.close({ force: true }); // in a test, or when the supervisor's patience is over
   * @throws `RangeError`, `TypeError` for an invalid option; the call then changes nothing.
   */
  close(options?: CloseOptions): Promise<void>;
}
