// `hub` and `worker`: the broker of a namespace of Durable Objects, as a Worker uses it.

import { ErrorReporter } from "../base/error-reporter.ts";
import { checkKnownKeys } from "../base/validate.ts";
import type { BrokerFor } from "../broker/interface.ts";
import { disconnectionOf, historyMethod, publishMethods, streamMethods } from "../broker/methods.ts";
import { type BrokerOptions, resolveOptions } from "../broker/options.ts";
import type { EventInputOf, EventTypes } from "../event/event-map.ts";
import { NameRules } from "../event/name-rules.ts";
import { AuthorizeQueue } from "../http/authorize-queue.ts";
import { HttpHandler } from "../http/handler.ts";
import type { ListenedEventOf } from "../log/listened.ts";
import { respondWithHealth } from "../monitoring/health.ts";
import { BROKER_METRICS } from "../monitoring/metric-definitions.ts";
import { respondWithMetrics } from "../monitoring/prometheus.ts";
import type { BrokerStats } from "../monitoring/stats.ts";
import { type HubContext, isObjectName, ObjectBackend, type ObjectNamespace } from "./object-backend.ts";

/** The options of a broker that concern requests. */
export const REQUEST_OPTIONS = [
  "allowQuery",
  "authorize",
  "authorizeTimeout",
  "bodyTimeout",
  "cors",
  "errorHandler",
  "maxBodyBytes",
  "maxChannelsPerClient",
  "maxChannelsPerEvent",
  "maxNameLength",
  "maxPending",
  "onError",
  "paths",
  "publishToken",
  "rate",
  "retry",
] as const;

/**
 * Options of {@link hub}: the options of `createBroker` that concern requests, and the choice of the object. Options that concern events and
 * clients belong to the object.
 */
export interface HubOptions extends Pick<BrokerOptions, (typeof REQUEST_OPTIONS)[number]> {
  /**
   * The name of the object in its namespace, or a function that chooses it by the request, for example by room or tenant. Clients of one
   * object share one order and one log. Clients of different objects share nothing. @default "fanwire"
   */
  readonly name?: string | ((request: Request) => string);
  /**
   * The holder of the streams. `bridge`: in the Worker, and the object hibernates while nothing happens. `direct`: in the object, which is faster
   * and is billed for as long as a client is connected. @default "bridge"
   */
  readonly mode?: "bridge" | "direct";
}

/**
 * The broker of a namespace of objects, as a Worker uses it. All methods may be called detached. `Events` and `Inputs` are as in `Broker`: the
 * types of the objects' option `events`.
 */
export type Hub<Events = unknown, Inputs = Events> = HubFor<
  EventInputOf<Inputs>,
  ListenedEventOf<Events>,
  EventTypes<Events, Inputs>
>;

interface HubFor<Input, Event, Types>
  extends Pick<
    BrokerFor<Input, Event, Types>,
    | "~events"
    | "fetch"
    | "clientHandler"
    | "eventHandler"
    | "broadcast"
    | "broadcastTo"
    | "checkChannel"
    | "disconnect"
    | "history"
    | "subscribe"
    | "unsubscribe"
  > {
  /** Answers as `health` of a broker. Each call is a request to the object that `name` chooses, and wakes it. */
  health(request: Request): Promise<Response>;
  /**
   * Answers as `metrics` of a broker, with the numbers of the object that `name` chooses. Counts of this isolate (pending requests, failures)
   * are left out: the next scrape may reach another isolate, which has its own counts.
   */
  metrics(request: Request): Promise<Response>;
  /** Returns the counters of the object. `pending` and `failures` are counts of the requests that this isolate answered. */
  stats(): Promise<BrokerStats>;
}

const DEFAULT_NAME = "fanwire";

/**
 * Creates the broker of a namespace of Durable Objects, with the HTTP handlers of `createBroker`. May be called at module scope.
 *
 * @example
 * import { env } from "cloudflare:workers";
 * const broker = hub(env.HUB, { authorize });
 * app.route("/events", sse(broker));
 * await broker.broadcast("to everybody");
 * @example
 * hub<EventsOf<Hub>, EventInputsOf<Hub>>(env.HUB); // typed by its objects, which check the events
 * @throws `RangeError` or `TypeError` for an invalid option.
 */
export function hub<Events = unknown, Inputs = Events>(
  namespace: ObjectNamespace,
  options?: HubOptions,
): Hub<Events, Inputs>;
export function hub(namespace: ObjectNamespace, options: HubOptions = {}): Hub {
  const where = "hub()";
  checkKnownKeys(where, "option", HUB_OPTIONS, options);
  const { name = DEFAULT_NAME, mode = "bridge", ...requestOptions } = options;
  if (typeof (namespace as ObjectNamespace | undefined)?.getByName !== "function")
    throw new TypeError(
      `${where} refused: there is no namespace of Durable Objects; check its binding in the configuration.`,
    );
  if (typeof name !== "function" && !isObjectName(name))
    throw new TypeError(`${where} refused: name must be a string that is not empty, or a function that returns one.`);
  if (mode !== "bridge" && mode !== "direct")
    throw new TypeError(`${where} refused: mode must be "bridge" or "direct".`);
  const settings = resolveOptions({ ...requestOptions, engine: NO_ENGINE }, where);
  const context: HubContext = {
    settings,
    names: new NameRules(settings),
    authorizeQueue: new AuthorizeQueue(settings.maxPending, settings.authorizeTimeout),
    failures: {},
    errors: new ErrorReporter(settings.onError),
    namespace,
    mode,
    secrets: new Map(),
  };

  const backendFor = (request: Request): ObjectBackend =>
    new ObjectBackend(context, () => (typeof name === "function" ? name(request) : name));
  const handlerFor = (request: Request): HttpHandler => new HttpHandler(backendFor(request));
  const backend = (): ObjectBackend => {
    if (typeof name === "function")
      throw new TypeError(
        "Call refused: name() needs a request; use hub(namespace, { name: … }), or the object's stub.",
      );
    return new ObjectBackend(context, () => name);
  };
  return {
    fetch: (request, runtimeContext) => handlerFor(request).fetch(request, runtimeContext),
    clientHandler: (request, overrides = {}) => handlerFor(request).clientHandler(request, overrides),
    eventHandler: (request, overrides = {}) => handlerFor(request).eventHandler(request, overrides),
    health: (request) => respondWithHealth(request, () => backendFor(request).callAndReport({ type: "check" })),
    metrics: (request) =>
      respondWithMetrics(request, BROKER_METRICS, () => backendFor(request).callAndReport({ type: "stats" })),
    ...publishMethods({
      names: context.names,
      publish: async (keys, event, publishOptions) => backend().publish(keys, event, publishOptions),
    }),
    ...historyMethod({
      names: context.names,
      history: async (keys, start, limit) => backend().history(keys, start, limit),
    }),
    ...streamMethods({
      names: context.names,
      requestStreams: async (request) => backend().requestStreams(request),
    }),
    checkChannel: (channel) => context.names.channel(channel),
    disconnect: async (clientId, disconnectOptions) =>
      backend().call({
        type: "disconnect",
        clientId: context.names.clientId(clientId),
        ...disconnectionOf(disconnectOptions),
      }),
    stats: async () => ({
      ...(await backend().call<BrokerStats>({ type: "stats" })),
      pending: context.authorizeQueue.pending,
      failures: { ...context.failures },
    }),
  };
}

const HUB_OPTIONS = new Set<string>([...REQUEST_OPTIONS, "name", "mode"]);
/** Takes the place of an engine in the options, because the log is in the object. */
const NO_ENGINE = {
  open(): never {
    throw new Error("The log is in the object.");
  },
};

/** Options of {@link worker}. */
export interface WorkerOptions extends HubOptions {
  /** The name of the namespace's binding, as in the Worker's configuration. */
  readonly binding: string;
}

/**
 * Creates a Worker that is the broker of a namespace of objects. Secrets are in the Worker's environment: pass a function of it. `authorize`
 * receives the environment as `context`.
 *
 * @example
 * export class Hub extends BrokerObject {}
 * export default worker(({ PUBLISH_TOKEN }) => ({ binding: "HUB", publishToken: PUBLISH_TOKEN }));
 */
export function worker<E extends object = Record<string, never>>(
  options: WorkerOptions | ((env: E) => WorkerOptions),
): { fetch(request: Request, env: E): Promise<Response> } {
  const hubs = new WeakMap<object, Hub>();
  const createHub = (env: E): Hub => {
    const { binding, ...hubOptions } = typeof options === "function" ? options(env) : options;
    const created = hub((env as Record<string, ObjectNamespace>)[binding] as ObjectNamespace, hubOptions);
    hubs.set(env, created);
    return created;
  };
  return { fetch: (request, env) => (hubs.get(env) ?? createHub(env)).fetch(request, env) };
}
