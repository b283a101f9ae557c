// The SDK of OpenTelemetry, with exporters that keep spans and metrics in memory.
import { type Attributes, type Context, type ContextManager, context, ROOT_CONTEXT } from "@opentelemetry/api";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  type MetricData,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";

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

  /** Returns the spans that have ended. */
  async spans(): Promise<readonly ReadableSpan[]> {
    await this.tracerProvider.forceFlush();
    return this.#spans.getFinishedSpans();
  }

  /** Collects the metrics and returns them by name. */
  async metrics(): Promise<Map<string, MetricData>> {
    await this.meterProvider.forceFlush();
    const last = this.#metrics.getMetrics().at(-1);
    return new Map(
      (last?.scopeMetrics ?? []).flatMap(({ metrics }) => metrics.map((metric) => [metric.descriptor.name, metric])),
    );
  }

  async close(): Promise<void> {
    await this.tracerProvider.shutdown();
    await this.meterProvider.shutdown();
  }
}

/** Returns the data points of a metric, as attributes and value. */
export const pointsOf = (metrics: Map<string, MetricData>, name: string): (readonly [Attributes, unknown])[] =>
  (metrics.get(name)?.dataPoints ?? []).map(({ attributes, value }) => [attributes, value] as const);

/** Knows the active context only during a synchronous call, so it needs no module of a runtime. */
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

/** Runs `work` with a context manager, so that spans can be active. */
export async function withActiveContext(work: () => Promise<void>): Promise<void> {
  context.setGlobalContextManager(new CallStack());
  try {
    await work();
  } finally {
    context.disable();
  }
}
