/**
 * Measures runs: CPU of a server for each token, beside a bare stream, and memory of a run that has ended.
 *
 *     node test/bench/runs/run.ts [--runs 1000] [--rate 50] [--readers 2] [--seconds 6] [--rounds 3] [--runtimes bun,node]
 *
 * A client process (this one) reads over sockets of loopback. Each server starts again for each round, and the two take turns.
 */
import { connect, type Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { killAllAtExit, line, start, stop } from "../processes.ts";
import { median, table } from "../statistics.ts";
import type { Usage } from "../usage.ts";
import type { Kind } from "./server.ts";

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "1000" },
    rate: { type: "string", default: "50" },
    readers: { type: "string", default: "2" },
    seconds: { type: "string", default: "6" },
    warmup: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    runtimes: { type: "string", default: "bun,node" },
  },
});
const [runs, rate, readers, seconds, warmup, rounds] = (
  ["runs", "rate", "readers", "seconds", "warmup", "rounds"] as const
).map((name) => Number(values[name])) as [number, number, number, number, number, number];
const COMMANDS: Readonly<Record<string, readonly [binary: string, ...args: string[]]>> = {
  bun: ["bun"],
  node: ["node", "--expose-gc"],
};
/** How many connections are opened at a time. */
const AT_A_TIME = 50;
const fileOf = (name: string): string => fileURLToPath(new URL(`${name}.ts`, import.meta.url));
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Cost {
  /** Microseconds of the server's CPU for a token, which goes to all readers of its run. */
  readonly cpu: number;
  /** The share of the events of the measured time that arrived in it, about 1. */
  readonly arrived: number;
  /** Tokens a second, as a share of the rate. */
  readonly rate: number;
}

class Readers {
  events = 0;
  readonly #sockets: Socket[] = [];

  async open(port: number): Promise<void> {
    const paths = Array.from({ length: runs * readers }, (_, index) => `/run/${index % runs}`);
    for (let first = 0; first < paths.length; first += AT_A_TIME)
      await Promise.all(paths.slice(first, first + AT_A_TIME).map((path) => this.#open(port, path)));
  }

  #open(port: number, path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () => socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`));
      this.#sockets.push(socket);
      socket.on("error", reject).on("data", (chunk) => {
        resolve();
        // No token has two line feeds inside; the head has `\r\n\r\n`.
        for (let at = chunk.indexOf("data: "); at >= 0; at = chunk.indexOf("data: ", at + 6)) this.events++;
      });
    });
  }

  close(): void {
    for (const socket of this.#sockets) socket.on("error", () => undefined).destroy();
  }
}

async function measure(runtime: string, kind: Kind): Promise<Cost> {
  const [binary, ...args] = COMMANDS[runtime] as [string, ...string[]];
  const server = start(binary, [...args, fileOf(runtime), kind]);
  const [, port] = await line(server, /^listening (\d+)$/, 20);
  const ask = (path: string): Promise<Response> => fetch(`http://127.0.0.1:${port}${path}`);
  const usage = async (): Promise<Usage & { tokens: number }> => (await ask("/cpu")).json();
  await ask(`/start?runs=${runs}`);
  const clients = new Readers();
  await clients.open(Number(port));
  await ask(`/pace?rate=${rate}`);
  await sleep(warmup * 1_000);
  const [first, events, begin] = [await usage(), clients.events, performance.now()];
  await sleep(seconds * 1_000);
  const last = await usage();
  const tokens = last.tokens - first.tokens;
  const cost = {
    cpu: (last.cpu - first.cpu) / tokens,
    arrived: (clients.events - events) / (tokens * readers),
    rate: tokens / (runs * rate * ((performance.now() - begin) / 1_000)),
  };
  clients.close();
  await stop(server);
  return cost;
}

/** The memory of runs that have ended, in a process of its own. */
async function measureMemory(runtime: string): Promise<{ each: number; bytes: number; text: number }> {
  const [binary, ...args] = COMMANDS[runtime] as [string, ...string[]];
  const child = start(binary, [...args, fileOf("memory")]);
  const [json] = await line(child, /^\{.*\}$/, 120);
  await stop(child);
  return JSON.parse(json);
}

killAllAtExit();
const rows = [
  ["", "CPU µs a token", "bare", "ratio", "arrived", "bare", "rate", "bare", "bytes a run", "its events", "more"],
];
for (const runtime of values.runtimes.split(",")) {
  const costs: { fanwire: Cost; bare: Cost }[] = [];
  for (let round = 0; round < rounds; round++) {
    const fanwire = await measure(runtime, "fanwire");
    const bare = await measure(runtime, "bare");
    costs.push({ fanwire, bare });
    console.error(`${runtime}, round ${round + 1}: ${fanwire.cpu.toFixed(1)} µs, bare ${bare.cpu.toFixed(1)} µs`);
  }
  const { each, bytes } = await measureMemory(runtime);
  const of = (kind: Kind, field: keyof Cost): number => median(costs.map((cost) => cost[kind][field]));
  // A ratio is computed per round, because the machine is in about the same state within a round.
  const ratio = median(costs.map(({ fanwire, bare }) => fanwire.cpu / bare.cpu));
  rows.push([
    ...[runtime, of("fanwire", "cpu").toFixed(1), of("bare", "cpu").toFixed(1), `${ratio.toFixed(2)}×`],
    ...[of("fanwire", "arrived"), of("bare", "arrived"), of("fanwire", "rate"), of("bare", "rate")].map((share) =>
      share.toFixed(2),
    ),
    ...[each, bytes, each - bytes].map((value) => value.toFixed(0)),
  ]);
}
console.log(
  `${runs} runs of ${rate} tokens a second, ${readers} readers each; ${rounds} rounds of ${seconds} s; medians\n\n${table(rows)}`,
);
