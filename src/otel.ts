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
import type { BroadcastOptions, Broker, SendOptions } from "./broker/broker.ts";
import type { Published } from "./delivery/delivery-report.ts";
import { COMMON, inboxKey, publicName } from "./event/channel-key.ts";
import type { EventInput } from "./event/event.ts";
import { BROKER_METRICS, HTTP_METRICS, type MetricDefinition, samplesOf } from "./monitoring/metric-definitions.ts";
import type { BrokerStats } from "./monitoring/stats.ts";
import type { Hub } from "./workers/hub.ts";

// Names are those of OpenTelemetry's conventions for messaging: https://opentelemetry.io/docs/specs/semconv/messaging/

/** Options of {@link instrument}. */
export interface InstrumentOptions {
  /** Where spans go. @default the one registered with `@opentelemetry/api` when the first span is made */
  readonly tracerProvider?: TracerProvider;
  /** Where metrics go. @default the one registered with `@opentelemetry/api` when {@link instrument} is called */
  readonly meterProvider?: MeterProvider;
  /**
   * A channel's name without what makes it one of many, such as `room-{id}` for `room-7`. It names spans and tells metrics apart, which a channel's own
   * name does not: whoever collects metrics keeps a series for each. MUST NOT throw. @default none
   */
  readonly template?: (channel: string) => string | undefined;
  /** Added to every span and metric, to tell this broker from another one of the same process. @default none */
  readonly attributes?: Attributes;
}

/**
 * Has OpenTelemetry know what a broker does. The answer is the broker, to be used in its place: `broadcast` and `broadcastTo` make a span each, and count
 * into `messaging.client.sent.messages` and `messaging.client.operation.duration`. What `stats()` says is observed as `fanwire.…`; of a `hub()` it is
 * not, because every isolate would tell the same of one object.
 *
 * What comes by HTTP is spans of your server's instrumentation. No span has the id of a client: who knows one may read what is sent to it.
 *
 * @example const broker = instrument(createBroker());
 * @throws `TypeError` for what is no broker or no option.
 */
export function instrument<B extends Broker | Hub>(broker: B, options: InstrumentOptions = {}): B {
  checkKnownKeys("instrument()", "option", OPTIONS, options);
  // From JavaScript anything may come.
  if (typeof (broker as Partial<Broker> | undefined)?.broadcastTo !== "function")
    throw new TypeError("instrument() refused: pass what createBroker() or hub() gives.");
  const { tracerProvider = trace, meterProvider = metrics, template, attributes = {} } = options;
  const meter = meterProvider.getMeter(SCOPE);
  const send = senderOf(tracerProvider.getTracer(SCOPE), meter, attributes);
  const instrumented = {
    ...broker,
    broadcast: (event: EventInput, given?: BroadcastOptions) =>
      send("broadcast", channelsTo(given?.channels, template), () => broker.broadcast(event, given)),
    broadcastTo: (clientId: string, event: EventInput, given?: SendOptions) =>
      send("broadcastTo", INBOX, () => broker.broadcastTo(clientId, event, given)),
  };
  return isHere(broker)
    ? { ...instrumented, close: closing(broker, observe(broker, meter, attributes)) }
    : instrumented;
}

const SCOPE = "fanwire";
const OPTIONS = new Set(["tracerProvider", "meterProvider", "template", "attributes"]);
const isHere = (broker: Broker | Hub): broker is Broker => "clients" in broker;

/** What an event is for. */
interface Destination {
  /** For people to read, and for metrics: there are few of these. */
  readonly few: Attributes;
  readonly all: Attributes;
}

const NAME = "messaging.destination.name";
const TEMPLATE = "messaging.destination.template";
const toOne = (few: Attributes): Destination => ({ few, all: few });
const EVERYBODY = toOne({ [NAME]: publicName(COMMON) });
const INBOX = toOne({ [NAME]: publicName(inboxKey("")) });

function channelsTo(channel: BroadcastOptions["channels"], template: InstrumentOptions["template"]): Destination {
  if (channel === undefined) return EVERYBODY;
  const [name, ...others] = [channel].flat();
  // The conventions have one destination, so that several are an attribute of ours.
  if (name === undefined || others.length > 0)
    return { few: {}, all: { "messaging.fanwire.channels": [channel].flat() } };
  const pattern = template?.(name);
  const few: Attributes = pattern === undefined ? {} : { [TEMPLATE]: pattern };
  return { few, all: { ...few, [NAME]: name } };
}

type Send = <T extends Published>(operation: string, destination: Destination, publish: () => Promise<T>) => Promise<T>;

function senderOf(tracer: Tracer, meter: Meter, own: Attributes): Send {
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
      ...own,
      "messaging.system": "fanwire",
      "messaging.operation.name": operation,
      "messaging.operation.type": "send",
    };
    const attributes = { ...common, ...all };
    const name = [operation, few[TEMPLATE] ?? few[NAME] ?? ""].join(" ").trim();
    return tracer.startActiveSpan(name, { kind: SpanKind.PRODUCER, attributes }, async (span) => {
      const began = now();
      const outcome: Attributes = {};
      try {
        // Called at once, so that events keep the order of the calls.
        const published = await publish();
        span.setAttributes({ "messaging.message.id": published.id, "messaging.fanwire.clients": published.clients });
        return published;
      } catch (error) {
        outcome["error.type"] = fail(span, error);
        throw error;
      } finally {
        const told = { ...common, ...few, ...outcome };
        sent.add(1, told);
        duration.record((now() - began) / 1000, told);
        span.end();
      }
    });
  };
}

/** Its message stays out of it: it may quote the id of a client. */
function fail(span: Span, error: unknown): string {
  const type = error instanceof BrokerError ? error.code : error instanceof Error ? error.name : "_OTHER";
  span.setStatus({ code: SpanStatusCode.ERROR }).setAttribute("error.type", type);
  return type;
}

/** What a broker counts. */
type Source = { stats(): BrokerStats };

/** Has a source looked at whenever metrics are collected. The answer has what it says now be its last, and lets go of it. */
function observe(source: Source, meter: Meter, own: Attributes): () => void {
  let observed = source;
  const instruments = new Map([...BROKER_METRICS, ...HTTP_METRICS].map((reading) => [make(meter, reading), reading]));
  const tell: BatchObservableCallback = (result) => {
    const stats = observed.stats();
    for (const [instrument, reading] of instruments) {
      const { label } = reading;
      for (const [value, count] of samplesOf(reading, stats))
        result.observe(instrument, count, label ? { ...own, [label]: value } : own);
    }
  };
  meter.addBatchObservableCallback(tell, [...instruments.keys()]);
  return () => {
    const last = observed.stats();
    observed = { stats: () => last };
  };
}

/** Under a name that exporters make the one for Prometheus of: `fanwire.log.size`, in bytes, is `fanwire_log_size_bytes`. */
function make(meter: Meter, { name: ending, help: description }: MetricDefinition): Observable {
  const name = `fanwire.${ending
    .replace(/_total$/, "")
    .replace(/_bytes$/, "")
    .replaceAll("_", ".")}`;
  const unit = /_bytes(_total)?$/.test(ending) ? "By" : "";
  const options = { description, unit, valueType: ValueType.INT };
  return ending.endsWith("_total")
    ? meter.createObservableCounter(name, options)
    : meter.createObservableUpDownCounter(name, options);
}

/** `close()` of a broker whose last counts are still to be collected, though nothing else of it is to stay. */
const closing =
  (broker: Broker, end: () => void): Broker["close"] =>
  (options) => {
    const closed = broker.close(options);
    // One that is refused, because `over` is no number, closes nothing.
    void closed.then(end, () => undefined);
    return closed;
  };
