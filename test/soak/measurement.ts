// Measures what a server still holds after all visitors have gone.
import { readdirSync } from "node:fs";
import type { BrokerState, Server, TestBroker } from "../support/servers/server.ts";
import type { Inspector } from "./inspector.ts";

/** What a server holds when all visitors have gone and garbage was collected. */
export interface Measurement {
  /** Connections so far. */
  readonly connects: number;
  /** Heap in use, in bytes. */
  readonly heap: number;
  /** Memory of the process by the kernel's count, in bytes. */
  readonly resident: number;
  /** Open files and sockets of the process. */
  readonly files: number;
  /** Timers that are set. */
  readonly timers: number;
  /** Open resources by Node's count. */
  readonly resources: number;
  /** Connections that ended since the previous measurement. */
  readonly ended: number;
  /** Ended connections whose object is still in memory. */
  readonly uncollected: number;
  readonly state: BrokerState;
}

/** Attempts until everything that ended is collected, and milliseconds between them. */
const ATTEMPTS = 20;
const ATTEMPT_MS = 250;
/** Readings of the heap, of which the smallest counts. */
const READINGS = 3;

/** Measures a server on which `steady` connections stay. */
export async function measure(
  broker: TestBroker,
  connects: number,
  steady: number,
  inspector?: Inspector,
): Promise<Measurement> {
  const { server } = broker;
  let state = await broker.state(true);
  for (let attempt = 0; attempt < ATTEMPTS && state.alive > steady; attempt++) {
    await new Promise((resolve) => setTimeout(resolve, ATTEMPT_MS));
    state = await broker.state(true);
  }
  const ended = state.connected - steady;
  // A steady client may be reconnecting after `maxConnectionAge`.
  const uncollected = Math.max(0, state.alive - steady);
  await broker.control("forget");
  let heap = Infinity;
  for (let reading = 0; reading < READINGS; reading++) {
    state = await broker.state(true);
    heap = Math.min(heap, state.heapUsed ?? (await inspector?.heapUsed()) ?? Number.NaN);
  }
  const { timers, resources } = state;
  return {
    connects,
    heap,
    resident: server.memory(),
    files: filesOf(server),
    timers,
    resources,
    ended,
    uncollected,
    state,
  };
}

const filesOf = ({ process }: Server): number => readdirSync(`/proc/${process.pid}/fd`).length;

/**
 * Returns the growth of a figure from the first to the last measurement: the median of the slopes between all pairs (Theil and Sen), times
 * the connections in between. A single outlier does not change it.
 */
export function growth(measurements: readonly Measurement[], of: (measurement: Measurement) => number): number {
  const slopes = measurements.flatMap((later, index) =>
    measurements.slice(0, index).map((earlier) => (of(later) - of(earlier)) / (later.connects - earlier.connects)),
  );
  slopes.sort((a, b) => a - b);
  const middle = slopes.length / 2;
  const median = ((slopes[Math.floor(middle)] ?? 0) + (slopes[Math.ceil(middle) - 1] ?? 0)) / 2;
  const connects = (measurements.at(-1)?.connects ?? 0) - (measurements[0]?.connects ?? 0);
  return median * connects;
}
