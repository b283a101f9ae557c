/**
 * Compares fanwire with other servers under many loads.
 *
 *     node test/bench/run.ts [--loads broadcast,idle] [--servers "bun|nchan"] [--rounds 3] [--seconds 10] [--warmup 2]
 *                            [--json results.json] [--plot cost.svg]
 *
 * `--loads` takes names from scenarios.ts, or `all`. `--servers "bun|nchan"` selects servers whose name contains one of these words. In each round
 * every server is started again for every load, one after another, and loaded from a process of its own. `--plot` measures how the cost of a
 * delivery grows, and draws it. The exit code is 1 if fanwire lost or repeated an event, or a server could not be measured.
 */
import { writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { parseArgs } from "node:util";
import type { Load } from "./client.ts";
import type { EventsOutcome } from "./loads/events.ts";
import { measure } from "./measure.ts";
import { plot } from "./plot.ts";
import { killAllAtExit } from "./processes.ts";
import { clientHeadroom, clientLimits, isWrong, oneLine, panels, summary, tables, targetTable } from "./report.ts";
import { Results } from "./results.ts";
import { growths, type Scenario, SUSTAINED, scenarios } from "./scenarios.ts";
import { targets } from "./targets.ts";
import { technologies } from "./technologies.ts";

const { values } = parseArgs({
  options: {
    loads: { type: "string", default: "broadcast,intake" },
    servers: { type: "string", default: "" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "10" },
    warmup: { type: "string", default: "2" },
    json: { type: "string" },
    plot: { type: "string" },
  },
});
const [rounds, seconds, warmup] = [values.rounds, values.seconds, values.warmup].map(Number) as [
  number,
  number,
  number,
];
const loadNames = values.loads.split(",");
const serverWords = values.servers.toLowerCase().split("|");
const chosen = technologies.filter(({ name }) => serverWords.some((word) => name.toLowerCase().includes(word)));
const loads = scenarios(seconds, warmup).filter(({ name }) => values.loads === "all" || loadNames.includes(name));
const points = values.plot === undefined ? [] : growths(seconds, warmup);
const results = new Results();
const unknown = loadNames.filter((name) => name !== "all" && !scenarios(1, 0).some((each) => each.name === name));
if (unknown.length > 0) throw new Error(`bench: unknown load ${unknown.join(", ")}`);
if (![rounds, seconds].every((value) => value > 0) || !(warmup >= 0))
  throw new Error("bench: --rounds and --seconds must be numbers above 0, --warmup 0 or more");
if (chosen.length === 0) throw new Error(`bench: no server matches --servers ${values.servers}`);

/** The share of nchan's throughput with one publisher that it sustains. At the whole throughput a queue would grow. */
const SUSTAINED_SHARE = 0.9;

/** Returns the load with nchan's rate filled in; `undefined` if that rate was not measured. */
function withKnownRate(load: Load, round: number): Load | undefined {
  if (load.kind !== "events" || load.patterns.every(({ rate }) => rate !== SUSTAINED)) return load;
  const [nchan] = (results.of("broadcast", "nginx, nchan")[round - 1] as EventsOutcome | undefined)?.phases ?? [];
  if (!nchan) {
    console.error("skipped: a load at nchan's rate needs the load broadcast on nchan in the same run");
    return undefined;
  }
  const rate = Math.floor((SUSTAINED_SHARE * nchan.published) / nchan.seconds);
  return { ...load, patterns: load.patterns.map((pattern) => ({ ...pattern, rate })) };
}

async function runScenario(scenario: Scenario, round: number): Promise<void> {
  const load = withKnownRate(scenario.load, round);
  if (!load) return;
  for (const technology of chosen.filter((technology) => scenario.appliesTo(technology))) {
    const { name, kind } = technology;
    const outcome = await measure(technology, load).catch((error: unknown) => {
      // One failed run does not stop the others.
      console.error(error);
      process.exitCode = 1;
      return undefined;
    });
    results.add(scenario.name, name, outcome);
    if (!outcome) continue;
    if (kind === "fanwire" && isWrong(outcome)) process.exitCode = 1;
    console.error(`round ${round}, ${scenario.name}: ${name}: ${oneLine(outcome)}`);
  }
}

function serversOf(scenario: Scenario): string[] {
  return chosen.filter((technology) => scenario.appliesTo(technology)).map(({ name }) => name);
}

function report(): void {
  const [cpu] = cpus();
  console.log(`${cpus().length} × ${cpu?.model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}`);
  for (const { name, configuration } of chosen) console.log(`${name}: ${configuration}`);
  for (const scenario of loads) {
    const each = scenario.load.kind === "events" ? `, medians of ${rounds} rounds of ${seconds} s` : "";
    console.log(`\n# ${scenario.name}: ${scenario.title}${each}\n`);
    console.log(tables(results, scenario, serversOf(scenario)));
  }
  const [broadcast] = loads.filter(({ name }) => name === "broadcast");
  if (broadcast) console.log(`\n${summary(results, serversOf(broadcast))}`);
  const known = targets(results).filter(({ value }) => !Number.isNaN(value));
  if (known.length > 0) console.log(`\n${targetTable(known)}`);
  for (const limit of clientLimits(
    results,
    loads,
    chosen.map(({ name }) => name),
  ))
    console.log(`the client was busy and may have been the limit: ${limit}`);
  const headroom = clientHeadroom(results);
  if (!Number.isNaN(headroom))
    console.log(`\nThe client can take ${headroom.toFixed(1)} times what the fastest server sent.`);
}

killAllAtExit();
for (let round = 1; round <= rounds; round++) for (const scenario of loads) await runScenario(scenario, round);
for (const point of points) await runScenario(point, 1);
if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(results));
if (values.plot !== undefined) {
  const servers = [...new Set(points.flatMap(serversOf))];
  writeFileSync(values.plot, plot("CPU cost of a delivery", panels(results, points, servers)));
}
report();
