import { cpus } from "node:os";
import { performance } from "node:perf_hooks";
import type { Usage } from "./usage.ts";

/** What the server, this process and the rest of the machine used in the meantime. */
export interface Reading {
  /** Seconds that passed. */
  readonly seconds: number;
  /** Microseconds of the server's CPU. */
  readonly cpu: number;
  /** Share of the time that this thread was busy; near 1 it is the limit, not the server. */
  readonly clientBusy: number;
  /** Share of the machine that neither the server nor this process used; the more, the less the figures say. */
  readonly elsewhere: number;
}

/** Reads what a server uses. */
export async function usageOf(port: number, collect = false): Promise<Usage> {
  return (await fetch(`http://127.0.0.1:${port}/cpu${collect ? "?collect" : ""}`)).json() as Promise<Usage>;
}

/** Begins to measure; call what it resolves with for the reading. */
export async function meter(port: number): Promise<() => Promise<Reading>> {
  const before = await usageOf(port);
  const machine = machineTime();
  const own = process.cpuUsage();
  const loop = performance.eventLoopUtilization();
  const began = performance.now();
  return async () => {
    const clientBusy = performance.eventLoopUtilization(loop).utilization;
    const seconds = (performance.now() - began) / 1000;
    const after = await usageOf(port);
    const cpu = after.cpu - before.cpu;
    const { user, system } = process.cpuUsage(own);
    const { busy, total } = machineTime(machine);
    return {
      seconds,
      cpu,
      clientBusy,
      elsewhere: Math.max(0, busy - cpu - user - system) / total,
    };
  };
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
