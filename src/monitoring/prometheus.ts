// Metrics in Prometheus' text format.
import { respondToMonitor } from "./endpoint.ts";
import { type MetricDefinition, samplesOf } from "./metric-definitions.ts";
import type { BrokerStats } from "./stats.ts";

/** Answers a scrape with the metrics of what `readStats` returns. */
export const respondWithMetrics = (
  request: Request,
  metrics: readonly MetricDefinition[],
  readStats: () => BrokerStats | Promise<BrokerStats>,
): Promise<Response> =>
  respondToMonitor("metrics", request, "text/plain; version=0.0.4; charset=utf-8", async () =>
    format(metrics, await readStats()),
  );

/** Formats metrics in version 0.0.4 of the text format. Nothing is escaped: no label value has a character that needs it. */
function format(metrics: readonly MetricDefinition[], stats: BrokerStats): string {
  let text = "";
  for (const metric of metrics) {
    const { help, label } = metric;
    const name = `fanwire_${metric.name}`;
    text += `# HELP ${name} ${help}\n# TYPE ${name} ${name.endsWith("_total") ? "counter" : "gauge"}\n`;
    for (const [value, count] of samplesOf(metric, stats))
      text += `${name}${label ? `{${label}="${value}"}` : ""} ${count}\n`;
  }
  return text;
}
