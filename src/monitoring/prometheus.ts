import { respondToMonitor } from "./endpoint.ts";
import { type MetricDefinition, samplesOf } from "./metric-definitions.ts";
import type { BrokerStats } from "./stats.ts";

/** Tells Prometheus what `look` sees. */
export const respondWithMetrics = (
  request: Request,
  readings: readonly MetricDefinition[],
  look: () => BrokerStats | Promise<BrokerStats>,
): Promise<Response> =>
  respondToMonitor(request, "text/plain; version=0.0.4; charset=utf-8", async () => textOf(readings, await look()));

/** In Prometheus' text format, version 0.0.4. No value of a label has a character that would have to be escaped. */
function textOf(readings: readonly MetricDefinition[], stats: BrokerStats): string {
  let text = "";
  for (const reading of readings) {
    const { help, label } = reading;
    const name = `fanwire_${reading.name}`;
    text += `# HELP ${name} ${help}\n# TYPE ${name} ${name.endsWith("_total") ? "counter" : "gauge"}\n`;
    for (const [value, count] of samplesOf(reading, stats))
      text += `${name}${label ? `{${label}="${value}"}` : ""} ${count}\n`;
  }
  return text;
}
