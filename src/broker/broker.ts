// `createBroker`: the broker behind the interface that applications use.
import { checkKnownKeys } from "../base/validate.ts";
import { keysOf } from "../event/channel-key.ts";
import type { EventSchemas, SchemaInputs, SchemaOutputs, SchemasFor } from "../event/event-map.ts";
import { HttpHandler } from "../http/handler.ts";
import { findStartFault } from "../log/resume.ts";
import { checkHealth, respondWithHealth } from "../monitoring/health.ts";
import { BROKER_METRICS, HTTP_METRICS } from "../monitoring/metric-definitions.ts";
import { respondWithMetrics } from "../monitoring/prometheus.ts";
import { BrokerCore } from "./broker-core.ts";
import type { Broker } from "./interface.ts";
import { disconnectionOf, historyMethod, publishMethods, streamMethods } from "./methods.ts";
import { type BrokerOptions, resolveOptions } from "./options.ts";
import { RUNS_HOST, type RunsHost, type WithRuns } from "./runs-host.ts";

const LISTEN_OPTIONS = new Set(["channels", "signal", "lastEventId", "from", "last"]);
const CLOSE_OPTIONS = new Set(["spreadOver", "force"]);

/**
 * Creates a broker whose events are checked and typed by schemas. Does nothing else yet.
 *
 * @example createBroker({ events: { price: z.object({ ada: z.number() }) } });
 * @throws as without schemas
 */
export function createBroker<const Schemas extends EventSchemas>(
  options: BrokerOptions & { readonly events: Schemas },
): Broker<SchemaOutputs<Schemas>, SchemaInputs<Schemas>>;
/**
 * Creates a broker. Does nothing else yet, so a Workers module may call it in its scope. With `Events`, a map of event types to their data, the
 * compiler checks the events.
 *
 * @example
 * const broker = createBroker({ publishToken: "…" });
 * export default { fetch: broker.fetch };
 * @example createBroker<{ price: { ada: number } }>();
 * @throws `RangeError` or `TypeError` for an invalid option; `BrokerError` `engine-refused` on Workers without an engine.
 */
export function createBroker<Events = unknown>(
  options?: BrokerOptions<NoInfer<Events>> & { readonly events?: NoInfer<SchemasFor<Events>> | undefined },
): Broker<Events>;
export function createBroker(options: unknown = {}): unknown {
  return brokerOf(new BrokerCore(resolveOptions(options as BrokerOptions)));
}

/** Wraps a core in the public interface. */
export function brokerOf(core: BrokerCore): Broker & WithRuns {
  const http = new HttpHandler(core);
  const { names } = core;
  const broker: Broker = {
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
      const fault = findStartFault(start.from, start.last);
      if (fault) throw new TypeError(`listen() refused: ${fault}`);
      return core.listen(keysOf(names.targets(channels)), start, signal);
    },
    ...historyMethod({ names, history: (...args) => core.history(...args) }),
    ...streamMethods({ names, requestStreams: (request) => core.requestStreams(request) }),
    disconnect: async (clientId, options) => ({
      clients: await core.disconnect(names.clientId(clientId), disconnectionOf(options)),
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
  return Object.assign(broker, { [RUNS_HOST]: { core, http } satisfies RunsHost });
}
