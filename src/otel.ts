// `fanwire/otel`: spans and metrics of a broker for OpenTelemetry. Names follow its conventions for messaging:
// https://opentelemetry.io/docs/specs/semconv/messaging/
import {
  type Attributes,
  type BatchObservableCallback,
  type Meter,
  type MeterProvider,
  metrics,
  type Observable,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  type TracerProvider,
  trace,
  ValueType,
} from "@opentelemetry/api";
import { BrokerError } from "./base/errors.ts";
import { now } from "./base/runtime.ts";
import { checkKnownKeys } from "./base/validate.ts";
import type { BroadcastOptions, Broker, SendOptions } from "./broker/interface.ts";
import type { Published } from "./delivery/delivery-report.ts";
import { COMMON, inboxKey, publicName } from "./event/channel-key.ts";
import type { EventInput } from "./event/event.ts";
import { BROKER_METRICS, HTTP_METRICS, type MetricDefinition, samplesOf } from "./monitoring/metric-definitions.ts";
import type { BrokerStats } from "./monitoring/stats.ts";
import type { Hub } from "./workers/hub.ts";

/** Options of {@link instrument}. */
export interface InstrumentOptions {
  /** The provider that receives spans. @default the one registered with `@opentelemetry/api` when the first span starts */
  readonly tracerProvider?: TracerProvider;
  /** The provider that receives metrics. @default the one registered with `@opentelemetry/api` when {@link instrument} is called */
  readonly meterProvider?: MeterProvider;
  /**
   * Returns the pattern of a channel's name, such as `room-{id}` for `room-7`. Spans are named after the pattern, and metrics have it as an
   * attribute. They never have the channel's own name, because a metrics store keeps one series for each value. MUST NOT throw. @default none
   */
  readonly template?: (channel: string) => string | undefined;
  /** Attributes of every span and metric, to distinguish this broker from another one in the same process. @default none */
  readonly attributes?: Attributes;
}

/**
 * Reports a broker's work to OpenTelemetry. Returns a broker to use in place of the given one. Its `broadcast` and `broadcastTo` start a span for
 * each call, and record `messaging.client.sent.messages` and `messaging.client.operation.duration`. The numbers of `stats()` are observed as
 * `fanwire.…`, except those of a `hub()`, because every isolate would report the same object.
 *
 * Requests are spans of your server's own instrumentation. No span or metric has a client id, because everybody who knows an id may be able to
 * read its inbox.
 *
 * @example const broker = instrument(createBroker());
 * @throws `TypeError` for an unknown option, or a value that is not a broker.
 */
export function instrument<B extends Broker | Hub>(broker: B, options: InstrumentOptions = {}): B {
  checkKnownKeys("instrument()", "option", OPTIONS, options);
  // JavaScript callers may pass any value.
  if (typeof (broker as Partial<Broker> | undefined)?.broadcastTo !== "function")
    throw new TypeError("instrument() refused: pass the broker that createBroker() or hub() returned.");
  const { tracerProvider = trace, meterProvider = metrics, template, attributes = {} } = options;
  const meter = meterProvider.getMeter(SCOPE);
  const send = createSender(tracerProvider.getTracer(SCOPE), meter, attributes);
  const instrumented = {
    ...broker,
    broadcast: (event: EventInput, sendOptions?: BroadcastOptions) =>
      send("broadcast", destinationOf(sendOptions?.channels, template), () => broker.broadcast(event, sendOptions)),
    broadcastTo: (clientId: string, event: EventInput, sendOptions?: SendOptions) =>
      send("broadcastTo", INBOX, () => broker.broadcastTo(clientId, event, sendOptions)),
  };
  return isInThisProcess(broker)
    ? { ...instrumented, close: closeAndStop(broker, observe(broker, meter, attributes)) }
    : instrumented;
}

const SCOPE = "fanwire";
const OPTIONS = new Set(["tracerProvider", "meterProvider", "template", "attributes"]);
const isInThisProcess = (broker: Broker | Hub): broker is Broker => "clients" in broker;

/** The destination of an event, as attributes. */
interface Destination {
  /** Attributes with few different values, for metrics and for the names of spans. */
  readonly few: Attributes;
  /** Attributes of the span. */
  readonly all: Attributes;
}

const NAME = "messaging.destination.name";
const TEMPLATE = "messaging.destination.template";
const fixedDestination = (name: string): Destination => ({ few: { [NAME]: name }, all: { [NAME]: name } });
const EVERY_CLIENT = fixedDestination(publicName(COMMON));
const INBOX = fixedDestination(publicName(inboxKey("")));

function destinationOf(channels: BroadcastOptions["channels"], template: InstrumentOptions["template"]): Destination {
  if (channels === undefined) return EVERY_CLIENT;
  const names = [channels].flat();
  const [name, ...others] = names;
  // The conventions know one destination only, so several channels are an attribute of our own.
  if (name === undefined || others.length > 0) return { few: {}, all: { "messaging.fanwire.channels": names } };
  const pattern = template?.(name);
  const few: Attributes = pattern === undefined ? {} : { [TEMPLATE]: pattern };
  return { few, all: { ...few, [NAME]: name } };
}

/** Runs one publish inside a span, and counts it. */
type Send = <T extends Published>(operation: string, destination: Destination, publish: () => Promise<T>) => Promise<T>;

function createSender(tracer: Tracer, meter: Meter, ownAttributes: Attributes): Send {
  const sent = meter.createCounter("messaging.client.sent.messages", {
    description: "Number of messages producer attempted to send to the broker.",
    unit: "{message}",
    valueType: ValueType.INT,
  });
  const duration = meter.createHistogram("messaging.client.operation.duration", {
    description: "Duration of messaging operation initiated by a producer or consumer client.",
    unit: "s",
    advice: { explicitBucketBoundaries: [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10] },
  });
  return (operation, { few, all }, publish) => {
    const common: Attributes = {
      ...ownAttributes,
      "messaging.system": "fanwire",
      "messaging.operation.name": operation,
      "messaging.operation.type": "send",
    };
    const attributes = { ...common, ...all };
    const name = [operation, few[TEMPLATE] ?? few[NAME] ?? ""].join(" ").trim();
    return tracer.startActiveSpan(name, { kind: SpanKind.PRODUCER, attributes }, async (span) => {
      const startMs = now();
      const outcome: Attributes = {};
      try {
        // Called before any other work, so that events keep the order of the calls.
        const published = await publish();
        span.setAttributes({ "messaging.message.id": published.id, "messaging.fanwire.clients": published.clients });
        return published;
      } catch (error) {
        outcome["error.type"] = recordError(span, error);
        throw error;
      } finally {
        const metricAttributes = { ...common, ...few, ...outcome };
        sent.add(1, metricAttributes);
        duration.record((now() - startMs) / 1000, metricAttributes);
        span.end();
      }
    });
  };
}

/** Marks a span as failed. Leaves out the error's message, because it may quote a client id. Returns the type of the error. */
function recordError(span: Span, error: unknown): string {
  const type = error instanceof BrokerError ? error.code : error instanceof Error ? error.name : "_OTHER";
  span.setStatus({ code: SpanStatusCode.ERROR }).setAttribute("error.type", type);
  return type;
}

/** The part of a broker that metrics are read from. */
type StatsSource = { stats(): BrokerStats };

/**
 * Observes a source whenever metrics are collected. Returns a function that takes the last numbers and releases the source; they are still
 * collected afterwards.
 */
function observe(source: StatsSource, meter: Meter, ownAttributes: Attributes): () => void {
  let observed = source;
  const definitions = new Map(
    [...BROKER_METRICS, ...HTTP_METRICS].map((metric) => [createInstrument(meter, metric), metric]),
  );
  const collect: BatchObservableCallback = (result) => {
    const stats = observed.stats();
    for (const [instrument, metric] of definitions) {
      const { label } = metric;
      for (const [value, count] of samplesOf(metric, stats))
        result.observe(instrument, count, label ? { ...ownAttributes, [label]: value } : ownAttributes);
    }
  };
  meter.addBatchObservableCallback(collect, [...definitions.keys()]);
  return () => {
    const last = observed.stats();
    observed = { stats: () => last };
  };
}

/** Creates an instrument whose name exporters turn into the one for Prometheus: `fanwire.log.size`, in bytes, is `fanwire_log_size_bytes`. */
function createInstrument(meter: Meter, { name: prometheusName, help: description }: MetricDefinition): Observable {
  const name = `fanwire.${prometheusName
    .replace(/_total$/, "")
    .replace(/_bytes$/, "")
    .replaceAll("_", ".")}`;
  const unit = /_bytes(_total)?$/.test(prometheusName) ? "By" : "";
  const options = { description, unit, valueType: ValueType.INT };
  return prometheusName.endsWith("_total")
    ? meter.createObservableCounter(name, options)
    : meter.createObservableUpDownCounter(name, options);
}

/** Returns a `close()` that also calls `stopObserving`, so that a closed broker's memory is released. */
const closeAndStop =
  (broker: Broker, stopObserving: () => void): Broker["close"] =>
  (options) => {
    const closed = broker.close(options);
    // A call with an invalid `spreadOver` rejects, and closes nothing.
    void closed.then(stopObserving, () => undefined);
    return closed;
  };
