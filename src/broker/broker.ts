// `createBroker` and the interface that applications use.
import { checkKnownKeys } from "../base/validate.ts";
import type { ClientInfo } from "../delivery/connection.ts";
import type { Published, Reported, Sent } from "../delivery/delivery-report.ts";
import { DEFAULT_LIMIT, type History, MAX_LIMIT } from "../engine/history.ts";
import { idempotencyKeyOf, inboxKey, keysOf } from "../event/channel-key.ts";
import type { EventInput } from "../event/event.ts";
import {
  type BrokerBackend,
  type BrokerPaths,
  type ClientOverrides,
  type EventOverrides,
  HttpHandler,
} from "../http/handler.ts";
import type { Listened } from "../log/listened.ts";
import type { StartOptions } from "../log/resume.ts";
import { checkHealth, respondWithHealth } from "../monitoring/health.ts";
import { BROKER_METRICS, HTTP_METRICS } from "../monitoring/metric-definitions.ts";
import { respondWithMetrics } from "../monitoring/prometheus.ts";
import type { BrokerStats } from "../monitoring/stats.ts";
import { BrokerCore } from "./broker-core.ts";
import { type BrokerOptions, resolveOptions } from "./options.ts";

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
  /** Where to begin without `after`. @default "earliest" */
  readonly from?: "earliest";
  /** The most events to return, from 0 to 1,000. 0 reads nothing: `position` is then the head. @default 100 */
  readonly limit?: number;
  /** Ends the call, which then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Options of `disconnect`. */
export interface DisconnectOptions {
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

const SEND_OPTIONS = new Set(["report", "idempotencyKey", "ephemeral"]);
const BROADCAST_OPTIONS = new Set([...SEND_OPTIONS, "channels"]);
const LISTEN_OPTIONS = new Set(["channels", "signal", "lastEventId", "from"]);
const HISTORY_OPTIONS = new Set(["channels", "after", "from", "limit", "signal"]);
const DISCONNECT_OPTIONS = new Set(["blockFor"]);
const CLOSE_OPTIONS = new Set(["spreadOver", "force"]);

/** A broker. All methods may be called detached. */
export interface Broker {
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
   * @throws `TypeError` for a value that is not an event; `BrokerError` `bad-event-type`, `bad-channel`, `bad-key`, `event-too-large`,
   * `key-reused`, `closed`, and the engine's `engine-down` (the event was not published) and `publish-outcome-unknown` (it may have been).
   */
  broadcast(event: EventInput, options: BroadcastOptions & { readonly report: true }): Promise<Reported>;
  broadcast(event: EventInput, options: BroadcastOptions & EphemeralOptions): Promise<Sent>;
  broadcast(event: EventInput, options?: BroadcastOptions): Promise<Published>;
  /**
   * Publishes an event to one client, on all of its connections.
   *
   * @throws as `broadcast`; `BrokerError` `unknown-client` if the client is not connected and was not within `inboxLinger`.
   */
  broadcastTo(clientId: string, event: EventInput, options: SendOptions & { readonly report: true }): Promise<Reported>;
  broadcastTo(clientId: string, event: EventInput, options: EphemeralOptions): Promise<Sent>;
  broadcastTo(clientId: string, event: EventInput, options?: SendOptions): Promise<Published>;
  /**
   * Iterates over published events, from the time of the call or from a position. Where processes share the log, it starts when the store has
   * answered. Ends with `return()`, its signal, or the broker. Does not keep the process alive.
   */
  listen(options?: ListenOptions): AsyncIterableIterator<Listened, undefined>;
  /**
   * Reads a part of the history of channels: up to `limit` events and about 1 MiB. A stream with its `position` as `Last-Event-ID` continues
   * exactly there. What the store retains is read too, whether this process holds it or not.
   *
   * @throws `TypeError`, `RangeError`; `BrokerError` `bad-channel`, `closed`, `engine-down`
   */
  history(options?: HistoryOptions): Promise<History>;
  /** Ends the connections of a client id. Resolves with their number. @throws `RangeError`, `TypeError` */
  disconnect(clientId: string, options?: DisconnectOptions): Promise<{ readonly clients: number }>;
  /**
   * Returns the name of a channel, if a channel can have it. Call this where users name channels: a grant with another name is `bad-grant`.
   *
   * @throws `BrokerError` `bad-channel`; `TypeError` if it is no string
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

/**
 * Creates a broker. Does nothing else yet, so a Workers module may call it in its scope.
 *
 * @example
 * const broker = createBroker({ publishToken: "…" });
 * export default { fetch: broker.fetch };
 * @throws `RangeError` or `TypeError` for an invalid option; `BrokerError` `engine-refused` on Workers without an engine.
 */
export const createBroker = (options: BrokerOptions = {}): Broker => brokerOf(new BrokerCore(resolveOptions(options)));

/** Wraps a core in the public interface. */
export function brokerOf(core: BrokerCore): Broker {
  const http = new HttpHandler(core);
  const { names } = core;
  return {
    paths: core.settings.paths,
    fetch: (request, context) => http.fetch(request, context),
    clientHandler: (request, overrides = {}) => http.clientHandler(request, overrides),
    eventHandler: (request, overrides = {}) => http.eventHandler(request, overrides),
    health: (request) => respondWithHealth(request, () => checkHealth(core)),
    metrics: (request) => respondWithMetrics(request, [...BROKER_METRICS, ...HTTP_METRICS], () => core.stats()),
    ...publishMethods({ names, publish: (keys, event, options) => core.publish(keys, event, options) }),
    listen(options = {}) {
      checkKnownKeys("listen()", "option", LISTEN_OPTIONS, options);
      const { channels, signal, ...start } = options;
      if (start.from !== undefined && start.from !== "earliest")
        throw new TypeError(`listen() refused: from must be "earliest" or left out, not ${String(start.from)}.`);
      return core.listen(keysOf(names.targets(channels)), start, signal);
    },
    ...historyMethod({ names, history: (...args) => core.history(...args) }),
    disconnect: async (clientId, options) => ({
      clients: await core.disconnect(names.clientId(clientId), blockForOf(options)),
    }),
    checkChannel: (name) => names.channel(name),
    clients: () => Array.from(core.connections, ({ info }) => info),
    stats: () => core.stats(),
    close: (options = {}) => {
      try {
        checkKnownKeys("close()", "option", CLOSE_OPTIONS, options);
        const { spreadOver, force = false } = options;
        if (typeof force !== "boolean" || (force && spreadOver !== undefined))
          throw new TypeError(
            "close() refused: force must be true or false; write { force: true } without spreadOver.",
          );
        return core.close(force, spreadOver);
      } catch (error) {
        return Promise.reject(error);
      }
    },
  };
}

/** Reads the options of `disconnect`. @throws `TypeError` */
export function blockForOf(options: DisconnectOptions = {}): number {
  checkKnownKeys("disconnect()", "option", DISCONNECT_OPTIONS, options);
  // A default only for `undefined`: null is not a number.
  const { blockFor = 0 } = options;
  return blockFor;
}

/** Returns `history` of a broker, which may live in another process. */
export function historyMethod({ names, history }: Pick<BrokerBackend, "names" | "history">): Pick<Broker, "history"> {
  return {
    history: async (options = {}) => {
      checkKnownKeys("history()", "option", HISTORY_OPTIONS, options);
      const { channels, after, from = "earliest", limit = DEFAULT_LIMIT, signal } = options;
      if (after !== undefined && typeof after !== "string")
        throw new TypeError(`history() refused: after must be an id, not ${String(after)}.`);
      if (from !== "earliest")
        throw new TypeError(`history() refused: from must be "earliest" or left out, not ${String(from)}.`);
      if (!Number.isInteger(limit) || limit < 0 || limit > MAX_LIMIT)
        throw new RangeError(`history() refused: limit must be from 0 to ${MAX_LIMIT}, not ${String(limit)}.`);
      return history(keysOf(names.targets(channels)), { lastEventId: after, from }, limit, signal);
    },
  };
}

/** Returns `broadcast` and `broadcastTo` of a broker, which may live in another process. */
export function publishMethods({
  names,
  publish,
}: Pick<BrokerBackend, "names" | "publish">): Pick<Broker, "broadcast" | "broadcastTo"> {
  async function send(
    keys: readonly string[],
    event: EventInput,
    { report, idempotencyKey: key, ephemeral }: SendOptions,
    recipient?: string,
  ): Promise<Reported> {
    const idempotencyKey = key === undefined ? undefined : idempotencyKeyOf("own", names.idempotencyKey(key));
    if ((ephemeral !== undefined && typeof ephemeral !== "boolean") || (ephemeral && (report || key !== undefined)))
      throw new TypeError(
        "Event refused: ephemeral must be true or false, and an ephemeral event has neither report nor idempotencyKey.",
      );
    return (await publish(keys, event, { report, idempotencyKey, recipient, ephemeral })) as Reported;
  }

  async function broadcast(event: EventInput, options: BroadcastOptions = {}): Promise<Reported> {
    checkKnownKeys("broadcast()", "option", BROADCAST_OPTIONS, options);
    return send(keysOf(names.targets(options.channels)), event, options);
  }

  async function broadcastTo(clientId: string, event: EventInput, options: SendOptions = {}): Promise<Reported> {
    checkKnownKeys("broadcastTo()", "option", SEND_OPTIONS, options);
    return send([inboxKey(names.clientId(clientId))], event, options, clientId);
  }

  return { broadcast, broadcastTo };
}
