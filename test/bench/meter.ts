// Measures CPU and time of the server, the client and the rest of the machine.
import { cpus } from "node:os";
import { performance } from "node:perf_hooks";
import type { Usage } from "./usage.ts";

/** Time and CPU used between two points. */
export interface Reading {
  /** Seconds that passed. */
  readonly seconds: number;
  /** Microseconds of the server's CPU. */
  readonly cpu: number;
  /** Share of the time in which this thread was busy. Near 1 the client is the limit, not the server. */
  readonly clientBusy: number;
  /** Share of the machine that other processes used. The higher it is, the less the figures mean. */
  readonly elsewhere: number;
}

/** Reads what a server has used so far. */
export async function usageOf(port: number, collect = false): Promise<Usage> {
  return (await fetch(`http://127.0.0.1:${port}/cpu${collect ? "?collect" : ""}`)).json() as Promise<Usage>;
}

/** Starts a measurement. Returns a function that ends it and returns the reading. */
export async function startMeter(port: number): Promise<() => Promise<Reading>> {
  const before = await usageOf(port);
  const machine = machineTime();
  const own = process.cpuUsage();
  const loop = performance.eventLoopUtilization();
  const start = performance.now();
  return async () => {
    const clientBusy = performance.eventLoopUtilization(loop).utilization;
    const seconds = (performance.now() - start) / 1000;
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

/** Returns microseconds of all processors, since they started or since an earlier call. */
function machineTime(since = { busy: 0, total: 0 }): { busy: number; total: number } {
  let [idle, total] = [0, 0];
  for (const { times } of cpus()) {
    idle += times.idle;
    total += times.idle + times.user + times.nice + times.sys + times.irq;
  }
  return { busy: (total - idle) * 1000 - since.busy, total: total * 1000 - since.total };
}
