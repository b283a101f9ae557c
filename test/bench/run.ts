/**
 * Compares fanwire with others, under many loads.
 *
 *     node test/bench/run.ts [--loads broadcast,idle] [--servers "bun|nchan"] [--rounds 3] [--seconds 10] [--warmup 2]
 *                            [--json results.json] [--plot cost.svg]
 *
 * `--loads` names scenarios.ts's, or `all`; `--servers "bun|nchan"` picks those whose name has one of the words in it. In each round every
 * server is started anew for every load, one after another, and loaded by a process of its own. `--plot` measures how the cost of a
 * delivery grows, and draws it. Exits 1 if fanwire lost an event or gave one twice, or a server could not be measured.
 */
import { writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { parseArgs } from "node:util";
import type { Load } from "./client.ts";
import type { EventsOutcome } from "./loads/events.ts";
import { measure } from "./measure.ts";
import { plot } from "./plot.ts";
import { killAllAtExit } from "./processes.ts";
import { brief, headroom, isWrong, limits, panels, summary, tables, verdicts } from "./report.ts";
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
const wanted = values.loads.split(",");
const words = values.servers.toLowerCase().split("|");
const chosen = technologies.filter(({ name }) => words.some((word) => name.toLowerCase().includes(word)));
const loads = scenarios(seconds, warmup).filter(({ name }) => values.loads === "all" || wanted.includes(name));
const points = values.plot === undefined ? [] : growths(seconds, warmup);
const results = new Results();
const unknown = wanted.filter((name) => name !== "all" && !scenarios(1, 0).some((each) => each.name === name));
if (unknown.length > 0) throw new Error(`measuring: there is no load ${unknown.join(", ")}`);
if (![rounds, seconds].every((value) => value > 0) || !(warmup >= 0)) throw new Error("measuring: a number is none");
if (chosen.length === 0) throw new Error(`measuring: no server is called ${values.servers}`);

/** Of what it takes when each event waits for the one before; without that, a queue would grow at the whole of it. */
const SUSTAINABLE = 0.9;

/** The load with nothing left open in it; `undefined` if that cannot be known here. */
function settled(load: Load, round: number): Load | undefined {
  if (load.kind !== "events" || load.patterns.every(({ rate }) => rate !== SUSTAINED)) return load;
  const [nchan] = (results.of("broadcast", "nginx, nchan")[round - 1] as EventsOutcome | undefined)?.phases ?? [];
  if (!nchan) {
    console.error("Left out: a load at the rate of nchan, which needs the load broadcast on nchan.");
    return undefined;
  }
  const rate = Math.floor((SUSTAINABLE * nchan.published) / nchan.seconds);
  return { ...load, patterns: load.patterns.map((pattern) => ({ ...pattern, rate })) };
}

async function carryOut(scenario: Scenario, round: number): Promise<void> {
  const load = settled(scenario.load, round);
  if (!load) return;
  for (const technology of chosen.filter((technology) => scenario.takes(technology))) {
    const { name, kind } = technology;
    const outcome = await measure(technology, load).catch((error: unknown) => {
      // What the others came to is not lost by that.
      console.error(error);
      process.exitCode = 1;
      return undefined;
    });
    results.add(scenario.name, name, outcome);
    if (!outcome) continue;
    if (kind === "fanwire" && isWrong(outcome)) process.exitCode = 1;
    console.error(`round ${round}, ${scenario.name}: ${name}: ${brief(outcome)}`);
  }
}

function serversOf(scenario: Scenario): string[] {
  return chosen.filter((technology) => scenario.takes(technology)).map(({ name }) => name);
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
  if (known.length > 0) console.log(`\n${verdicts(known)}`);
  for (const limit of limits(
    results,
    loads,
    chosen.map(({ name }) => name),
  ))
    console.log(`The client was busy, and may have been the limit: ${limit}`);
  const room = headroom(results);
  if (!Number.isNaN(room))
    console.log(`\nThe client takes in ${room.toFixed(1)} times what the fastest server gave it.`);
}

killAllAtExit();
for (let round = 1; round <= rounds; round++) for (const scenario of loads) await carryOut(scenario, round);
for (const point of points) await carryOut(point, 1);
if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(results));
if (values.plot !== undefined) {
  const servers = [...new Set(points.flatMap(serversOf))];
  writeFileSync(values.plot, plot("What a delivery costs the server", panels(results, points, servers)));
}
report();
