import { checkKnownKeys } from "../base/validate.ts";
import type { Published, Reported } from "../delivery/delivery-report.ts";
import type { Listened } from "../delivery/listener.ts";
import type { ClientInfo } from "../delivery/stream-connection.ts";
import { inboxKey, keysOf, nonceOf } from "../event/channel-key.ts";
import type { EventInput } from "../event/event.ts";
import { type BrokerBackend, type ClientOverrides, type EventOverrides, HttpHandler } from "../http/handler.ts";
import type { StartOptions } from "../log/resume.ts";
import { checkHealth, respondWithHealth } from "../monitoring/health.ts";
import { BROKER_METRICS, HTTP_METRICS } from "../monitoring/metric-definitions.ts";
import { respondWithMetrics } from "../monitoring/prometheus.ts";
import { type BrokerStats, statsOf } from "../monitoring/stats.ts";
import { Core } from "./core.ts";
import { type BrokerOptions, resolveOptions } from "./options.ts";

/** Options of `broadcastTo`. */
export interface SendOptions {
  /** Whether to watch what becomes of the event at each client. @default false */
  readonly report?: boolean;
  /**
   * Names this event: called again with the same key, nothing is published and the answer has the position of the first time. The engine
   * says for how long, and the report is about who still waits for it. Keys of HTTP publishers (`Idempotency-Key`) are not these.
   */
  readonly key?: string;
}

/** Options of `broadcast`. */
export interface BroadcastOptions extends SendOptions {
  /** A channel or several; without any the event goes to every client. */
  readonly channel?: string | readonly string[];
}

/** Options of `listen`. */
export interface ListenOptions extends StartOptions {
  /** A channel or several; without any it is what is broadcast to every client. */
  readonly channel?: string | readonly string[];
  /** Ends the listening. */
  readonly signal?: AbortSignal;
}

const SEND_OPTIONS = new Set(["report", "key"]);
const BROADCAST_OPTIONS = new Set([...SEND_OPTIONS, "channel"]);
const LISTEN_OPTIONS = new Set(["channel", "signal", "lastEventId", "from"]);

/** A broker. All methods may be called detached. */
export interface Broker {
  /**
   * Serves `GET /connect` and `POST /broadcast`; `context` is whatever the runtime passes beside the request.
   * @example export default { fetch: broker.fetch };
   */
  fetch(request: Request, context?: unknown): Promise<Response>;
  /** Answers a client with its stream, at any path. Asks `authorize` where there is one; else nobody is turned away. */
  clientHandler(request: Request, overrides?: ClientOverrides): Promise<Response>;
  /**
   * Publishes the body of a POST, at any path. Asks `authorize` where there is one; else nobody is turned away: to mount it is the
   * application's decision.
   */
  eventHandler(request: Request, overrides?: EventOverrides): Promise<Response>;
  /**
   * Answers GET and HEAD of a load balancer, at any path: 200 while the broker takes work and its engine can append, else 503 (`closed`,
   * `engine-down`), whatever `errorHandler` says. Nobody is asked for a token, and nothing is told of the inside. A broker that is full is
   * well. An engine that was not used before is opened.
   *
   * @example if (pathname === "/health") return broker.health(request);
   */
  health(request: Request): Promise<Response>;
  /**
   * Answers GET and HEAD of Prometheus, at any path, with what `stats()` says. Nobody is asked for a token: who may ask is your decision. It
   * tells numbers, and no name of a channel or a client.
   *
   * @example if (pathname === "/metrics") return broker.metrics(request);
   */
  metrics(request: Request): Promise<Response>;
  /**
   * Publishes an event to every client, or to channels. Events keep the order of the calls, awaited or not. Resolves when the
   * publisher may go on, which is at once unless it is far ahead of those who read.
   *
   * @throws `TypeError` for what is not an event; `BrokerError` `bad-event-type`, `bad-channel`, `bad-key`, `event-too-large`, `key-reused`,
   * `closed`, and what the engine rejects with: `engine-down` (it was not published), `publish-outcome-unknown` (it may have been).
   */
  broadcast(event: EventInput, options: BroadcastOptions & { readonly report: true }): Promise<Reported>;
  broadcast(event: EventInput, options?: BroadcastOptions): Promise<Published>;
  /**
   * Publishes an event to one recipient, on all of its connections.
   *
   * @throws as `broadcast`; `BrokerError` `unknown-client` if it is not connected and was not within `inboxLinger`.
   */
  broadcastTo(clientId: string, event: EventInput, options: SendOptions & { readonly report: true }): Promise<Reported>;
  broadcastTo(clientId: string, event: EventInput, options?: SendOptions): Promise<Published>;
  /**
   * What is published, from the call on or from a position; where processes share the log, from when its store has answered. Ends with
   * `return()`, its signal, or the broker.
   */
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
export const createBroker = (options: BrokerOptions = {}): Broker => brokerOf(new Core(resolveOptions(options)));

/** A broker as its user sees it. */
export function brokerOf(core: Core): Broker {
  const http = new HttpHandler(core);
  const { names } = core;
  return {
    fetch: (request, context) => http.fetch(request, context),
    clientHandler: (request, overrides = {}) => http.clientHandler(request, overrides),
    eventHandler: (request, overrides = {}) => http.eventHandler(request, overrides),
    health: (request) => respondWithHealth(request, () => checkHealth(core)),
    metrics: (request) => respondWithMetrics(request, [...BROKER_METRICS, ...HTTP_METRICS], () => statsOf(core)),
    ...sendersOf({ names, publish: (keys, event, options) => core.publish(keys, event, options) }),
    listen(options = {}) {
      checkKnownKeys("listen()", "option", LISTEN_OPTIONS, options);
      const { channel, signal, ...start } = options;
      if (start.from !== undefined && start.from !== "earliest")
        throw new TypeError('listen() refused: from may be "earliest" and nothing else.');
      return core.listen(keysOf(names.targets(channel)), start, signal);
    },
    disconnect: async (clientId, { for: barFor = 0 } = {}) => ({
      clients: await core.disconnect(names.clientId(clientId), barFor),
    }),
    clients: () => Array.from(core.clients, (client) => client.info),
    stats: () => statsOf(core),
    close: ({ over = 0 } = {}) => {
      try {
        return core.close(over);
      } catch (error) {
        return Promise.reject(error);
      }
    },
  };
}

/** What publishes through a broker, which need not be in this process. */
export function sendersOf({
  names,
  publish,
}: Pick<BrokerBackend, "names" | "publish">): Pick<Broker, "broadcast" | "broadcastTo"> {
  async function send(
    keys: readonly string[],
    event: EventInput,
    { report, key }: SendOptions,
    recipient?: string,
  ): Promise<Reported> {
    const nonce = key === undefined ? undefined : nonceOf("own", names.key(key));
    return (await publish(keys, event, { report, idempotencyKey: nonce, recipient })) as Reported;
  }

  async function broadcast(event: EventInput, options: BroadcastOptions = {}): Promise<Reported> {
    checkKnownKeys("broadcast()", "option", BROADCAST_OPTIONS, options);
    return send(keysOf(names.targets(options.channel)), event, options);
  }

  async function broadcastTo(clientId: string, event: EventInput, options: SendOptions = {}): Promise<Reported> {
    checkKnownKeys("broadcastTo()", "option", SEND_OPTIONS, options);
    return send([inboxKey(names.clientId(clientId))], event, options, clientId);
  }

  return { broadcast, broadcastTo };
}
