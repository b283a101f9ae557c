/**
 * Compares fanwire with others: deliveries per second, latency, CPU and memory.
 *
 *     node test/bench/run.ts [--seconds 5] [--warmup 2] [--rounds 3] [--clients 1000] [--load 1,8] [--only bun]
 *
 * `--load` says how many publishes are in flight, for one measurement each; `1@100` keeps to 100 events per second.
 * In each round every server is started anew, one after another, and loaded by a client process. Exits 1 if an event was
 * lost, came twice, or could not be told to be there.
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Load, Outcome, Phase } from "./client.ts";
import { killAllAtExit, line, start, stop } from "./processes.ts";
import type { Pattern } from "./publisher.ts";
import { median, table } from "./statistics.ts";
import { type Technology, technologies } from "./technologies.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "5" },
    warmup: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    clients: { type: "string", default: "1000" },
    load: { type: "string", default: "1,8" },
    only: { type: "string", default: "" },
  },
});
const rounds = Number(values.rounds);
const load: Omit<Load, "port"> = {
  clients: Number(values.clients),
  warmup: Number(values.warmup),
  seconds: Number(values.seconds),
  patterns: values.load.split(",").map((text) => {
    const [inFlight, rate = 0] = text.split("@").map(Number);
    return { inFlight: inFlight as number, rate };
  }),
};
const chosen = technologies.filter(({ name }) => name.toLowerCase().includes(values.only.toLowerCase()));
/** Seconds for one run, with time for starting, connecting and what is not delivered in time. */
const patience = 30 + load.patterns.length * (load.warmup + load.seconds + 20);

const COLUMNS = [
  "server",
  "deliveries/s",
  "to better-sse",
  "published/s",
  "p50 ms",
  "p99 ms",
  "CPU µs each",
  "kB/connection",
  "client busy",
  "elsewhere",
  "missing",
  "gaps",
];

const outcomes = new Map<string, Outcome[]>(chosen.map(({ name }) => [name, []]));

async function measure({ command: [binary, ...args], file, argument = "" }: Technology): Promise<Outcome> {
  const server = start(binary, [...args, path(`servers/${file}`), argument]);
  try {
    const [, port] = await line(server, /^listening (\d+)$/, 20);
    const client = start("node", [path("client.ts"), JSON.stringify({ ...load, port: Number(port) } satisfies Load)]);
    try {
      return JSON.parse((await line(client, /^\{.*\}$/, patience))[0]);
    } finally {
      await stop(client);
    }
  } finally {
    await stop(server);
  }
}

function path(file: string): string {
  return fileURLToPath(new URL(file, import.meta.url));
}

const rate = (phase: Phase): number => phase.delivered / phase.seconds;

function describe({ inFlight, rate }: Pattern): string {
  return `${inFlight} in flight${rate > 0 ? ` at ${rate}/s` : ""}`;
}

function summary(phase: Phase, pattern: Pattern): string {
  const faults = (["missing", "uneven", "repeated", "gaps", "closed"] as const).filter((name) => phase[name] !== 0);
  const told = faults.map((name) => `, ${name} ${phase[name]}`).join("");
  return `${describe(pattern)}: ${thousands(rate(phase))}/s, ${phase.published} published${told}`;
}

function report(): void {
  for (const [index, pattern] of load.patterns.entries()) {
    const phases = (name: string | undefined): Phase[] =>
      (outcomes.get(name ?? "") ?? []).map((each) => each.phases[index] as Phase);
    const of = (name: string | undefined, value: (phase: Phase) => number): number => median(phases(name).map(value));
    const rows = chosen.map(({ name, against }) => {
      // Round by round, because what was measured in one round had about the same of the machine.
      const ratio = median(phases(against).map((other, round) => rate(phases(name)[round] as Phase) / rate(other)));
      return [
        name,
        thousands(of(name, rate)),
        Number.isNaN(ratio) ? "" : `${ratio.toFixed(1)}×`,
        of(name, (phase) => phase.published / phase.seconds).toFixed(0),
        of(name, (phase) => phase.p50).toFixed(1),
        of(name, (phase) => phase.p99).toFixed(1),
        of(name, (phase) => phase.cpu).toFixed(2),
        (median((outcomes.get(name) ?? []).map(({ memory }) => memory)) / 1000).toFixed(0),
        percent(of(name, (phase) => phase.clientBusy)),
        percent(of(name, (phase) => phase.elsewhere)),
        String(phases(name).reduce((all, phase) => all + phase.missing, 0)),
        String(phases(name).reduce((all, phase) => all + phase.gaps, 0)),
      ];
    });
    console.log(
      `\n${load.clients} subscribers, ${describe(pattern)}, medians of ${rounds} rounds of ${load.seconds} s\n`,
    );
    console.log(table([COLUMNS, ...rows]));
  }
  const all = [...outcomes.values()].flat();
  console.log(`\nThe client alone counts ${thousands(median(all.map(({ capacity }) => capacity)))} events/s.`);
  const wrong = all.flatMap(({ phases }) => phases).filter((phase) => phase.uneven + phase.repeated + phase.gaps > 0);
  if (wrong.length > 0) process.exitCode = 1;
}

function thousands(value: number): string {
  return `${Math.round(value / 1000).toLocaleString("en")} k`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`;
}

killAllAtExit();
for (let round = 1; round <= rounds; round++) {
  for (const technology of chosen) {
    const outcome = await measure(technology);
    outcomes.get(technology.name)?.push(outcome);
    console.error(
      `round ${round}: ${technology.name}: ${outcome.phases.map((phase, index) => summary(phase, load.patterns[index] as Pattern)).join("; ")}`,
    );
  }
}
report();
