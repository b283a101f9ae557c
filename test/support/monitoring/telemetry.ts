import { type Attributes, type Context, type ContextManager, context, ROOT_CONTEXT } from "@opentelemetry/api";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  type MetricData,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";

/** The SDK of OpenTelemetry, which keeps all that it is told in memory. */
export class Telemetry {
  readonly tracerProvider: TracerProvider;
  readonly meterProvider: MeterProvider;
  readonly #spans = new InMemorySpanExporter();
  readonly #metrics = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);

  constructor() {
    this.tracerProvider = new TracerProvider({
      spanProcessors: [new SimpleSpanProcessor({ exporter: this.#spans })],
    });
    this.meterProvider = new MeterProvider({
      readers: [new PeriodicExportingMetricReader({ exporter: this.#metrics })],
    });
  }

  get providers(): Pick<Telemetry, "tracerProvider" | "meterProvider"> {
    const { tracerProvider, meterProvider } = this;
    return { tracerProvider, meterProvider };
  }

  /** The spans that have ended. */
  async spans(): Promise<readonly ReadableSpan[]> {
    await this.tracerProvider.forceFlush();
    return this.#spans.getFinishedSpans();
  }

  /** What is collected now, by name. */
  async metrics(): Promise<Map<string, MetricData>> {
    await this.meterProvider.forceFlush();
    const last = this.#metrics.getMetrics().at(-1);
    return new Map(
      (last?.scopeMetrics ?? []).flatMap(({ metrics }) => metrics.map((metric) => [metric.descriptor.name, metric])),
    );
  }

  async end(): Promise<void> {
    await this.tracerProvider.shutdown();
    await this.meterProvider.shutdown();
  }
}

/** The points of a metric, as attributes and value. */
export const pointsOf = (metrics: Map<string, MetricData>, name: string): (readonly [Attributes, unknown])[] =>
  (metrics.get(name)?.dataPoints ?? []).map(({ attributes, value }) => [attributes, value] as const);

/** Knows which context is active in a call, and not what comes of it later: no module of any runtime is needed for that. */
class CallStack implements ContextManager {
  #active = ROOT_CONTEXT;

  active(): Context {
    return this.#active;
  }

  with<A extends unknown[], F extends (...args: A) => ReturnType<F>>(
    active: Context,
    fn: F,
    thisArg?: ThisParameterType<F>,
    ...args: A
  ): ReturnType<F> {
    const before = this.#active;
    this.#active = active;
    try {
      return fn.call(thisArg as ThisParameterType<F>, ...args);
    } finally {
      this.#active = before;
    }
  }

  bind<T>(_context: Context, target: T): T {
    return target;
  }

  enable(): this {
    return this;
  }

  disable(): this {
    return this;
  }
}

/** Does something while it is known which span is active. */
export async function withContext(work: () => Promise<void>): Promise<void> {
  context.setGlobalContextManager(new CallStack());
  try {
    await work();
  } finally {
    context.disable();
  }
}
