/**
 * Loads one server and prints what came of it, as a line of JSON: `node client.ts '{"port":…}'`. A process of its own,
 * so that neither the server nor the runner shares its time.
 */
import { once } from "node:events";
import { cpus } from "node:os";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { countingCapacity } from "./counter.ts";
import type { Pattern, PublishOrder, PublishReport } from "./publisher.ts";
import { percentile } from "./statistics.ts";
import { Subscribers } from "./subscribers.ts";
import type { Usage } from "./usage.ts";

/** What to do. */
export interface Load {
  readonly port: number;
  readonly clients: number;
  readonly warmup: number;
  readonly seconds: number;
  /** One phase for each, on the same connections. */
  readonly patterns: readonly Pattern[];
}

/** What one phase came to. */
export interface Phase {
  readonly published: number;
  readonly delivered: number;
  /** From the first publish to the last delivery. */
  readonly seconds: number;
  /** Milliseconds from the publisher's call to the subscriber. */
  readonly p50: number;
  readonly p99: number;
  /** Microseconds of the server's CPU for each delivery. */
  readonly cpu: number;
  /** Share of the time that the counting thread was busy; near 1 it is the limit, not the server. */
  readonly clientBusy: number;
  /** Share of the machine that neither the server nor this process used; the more, the less the figures say. */
  readonly elsewhere: number;
  /** Events that did not come, all connections together; negative if more came than were published. */
  readonly missing: number;
  /** Connections that did not get exactly what was published. */
  readonly uneven: number;
  /** Of the sampled connections. */
  readonly repeated: number;
  readonly disordered: number;
  readonly gaps: number;
  /** Connections that ended. */
  readonly closed: number;
}

/** What one run came to. */
export interface Outcome {
  /** Bytes of the server's memory for each connection. */
  readonly memory: number;
  /** Events per second that counting alone gets through. */
  readonly capacity: number;
  readonly phases: readonly Phase[];
}

/** How long the server is left alone after the connections, before its memory is read. */
const SETTLE_MS = 500;
/** Seconds without a delivery after which what is missing counts as lost. */
const PATIENCE = 2;

async function run({ port, clients, warmup, seconds, patterns }: Load): Promise<Outcome> {
  const capacity = countingCapacity();
  const usage = async (): Promise<Usage> => (await fetch(`http://127.0.0.1:${port}/cpu`)).json() as Promise<Usage>;
  const subscribers = new Subscribers();
  const publisher = new Worker(new URL("./publisher.ts", import.meta.url), { workerData: { port } });
  const publish = async (order: PublishOrder): Promise<PublishReport> => {
    const answered = once(publisher, "message");
    publisher.postMessage(order);
    return (await answered)[0];
  };
  const empty = await usage();
  await subscribers.open(port, clients);
  await sleep(SETTLE_MS);
  const memory = ((await usage()).rss - empty.rss) / clients;

  const measured: Phase[] = [];
  for (const pattern of patterns) {
    const delivered = subscribers.delivered;
    const { published } = await publish({ ...pattern, seconds: warmup });
    await subscribers.settled(delivered + published * clients, PATIENCE);
    measured.push(await measure(pattern));
  }
  return { memory, capacity, phases: measured };

  async function measure(pattern: Pattern): Promise<Phase> {
    const counted = [...subscribers.counts];
    const delivered = subscribers.delivered;
    for (const sampler of subscribers.samplers) sampler.reset();
    const before = await usage();
    const machine = machineTime();
    const own = process.cpuUsage();
    const loop = performance.eventLoopUtilization();
    const { published, start } = await publish({ ...pattern, seconds });
    await subscribers.settled(delivered + published * clients, PATIENCE);
    const clientBusy = performance.eventLoopUtilization(loop).utilization;
    const after = await usage();
    const { user, system } = process.cpuUsage(own);
    const { busy, total } = machineTime(machine);
    const got = subscribers.delivered - delivered;
    const { samplers } = subscribers;
    const latencies = samplers.flatMap((sampler) => sampler.latencies).sort((a, b) => a - b);
    const sum = (name: "repeated" | "disordered" | "gaps"): number =>
      samplers.reduce((all, sampler) => all + sampler[name], 0);
    return {
      published,
      delivered: got,
      seconds: (subscribers.lastAt - start) / 1_000_000,
      p50: percentile(latencies, 0.5),
      p99: percentile(latencies, 0.99),
      cpu: (after.cpu - before.cpu) / got,
      clientBusy,
      elsewhere: Math.max(0, busy - (after.cpu - before.cpu) - user - system) / total,
      missing: published * clients - got,
      uneven: subscribers.counts.filter((count, index) => count - (counted[index] as number) !== published).length,
      repeated: sum("repeated"),
      disordered: sum("disordered"),
      gaps: sum("gaps"),
      closed: subscribers.closed,
    };
  }
}

/** Microseconds of all processors, since they started or since then. */
function machineTime(since = { busy: 0, total: 0 }): { busy: number; total: number } {
  let [idle, total] = [0, 0];
  for (const { times } of cpus()) {
    idle += times.idle;
    total += times.idle + times.user + times.nice + times.sys + times.irq;
  }
  return { busy: (total - idle) * 1000 - since.busy, total: total * 1000 - since.total };
}

const outcome = await run(JSON.parse(process.argv[2] as string));
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit());
