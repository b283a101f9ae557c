import { answerMonitor } from "./endpoint.ts";
import { type Reading, samplesOf } from "./metric-definitions.ts";
import type { BrokerStats } from "./stats.ts";

/** Tells Prometheus what `look` sees. */
export const answerMetrics = (
  request: Request,
  readings: readonly Reading[],
  look: () => BrokerStats | Promise<BrokerStats>,
): Promise<Response> =>
  answerMonitor(request, "text/plain; version=0.0.4; charset=utf-8", async () => textOf(readings, await look()));

/** In Prometheus' text format, version 0.0.4. No value of a label has a character that would have to be escaped. */
function textOf(readings: readonly Reading[], stats: BrokerStats): string {
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
