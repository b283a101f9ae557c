import { readdirSync } from "node:fs";
import type { Server, Stage, State } from "../support/servers/server.ts";
import type { Inspector } from "./inspector.ts";

/** What a server has when all guests have gone and garbage was collected. */
export interface Mark {
  /** Connections that there were until then. */
  readonly connects: number;
  /** Bytes. */
  readonly heap: number;
  readonly resident: number;
  /** Open files and sockets of the process. */
  readonly files: number;
  /** Timers that are set, and what else Node knows to be open. */
  readonly timers: number;
  readonly resources: number;
  /** Connections that ended since the mark before, and those of them whose object is still in memory. */
  readonly gone: number;
  readonly kept: number;
  readonly state: State;
}

/** Looks that may be taken until all that has gone is collected, and milliseconds between them. */
const LOOKS = 20;
const LOOK = 250;
/** Readings, of which the least counts. */
const READINGS = 3;

/** `steady` are the connections that stay. */
export async function mark(stage: Stage, connects: number, steady: number, inspector?: Inspector): Promise<Mark> {
  const { server } = stage;
  let state = await stage.state(true);
  for (let look = 0; look < LOOKS && state.alive > steady; look++) {
    await new Promise((resolve) => setTimeout(resolve, LOOK));
    state = await stage.state(true);
  }
  const gone = state.connected - steady;
  // One that stays may be on its way back from the end of its `maxAge`.
  const kept = Math.max(0, state.alive - steady);
  await stage.tell("forget");
  let heap = Infinity;
  for (let reading = 0; reading < READINGS; reading++) {
    state = await stage.state(true);
    heap = Math.min(heap, state.heapUsed ?? (await inspector?.heapUsed()) ?? Number.NaN);
  }
  const { timers, resources } = state;
  return { connects, heap, resident: server.memory(), files: filesOf(server), timers, resources, gone, kept, state };
}

const filesOf = ({ process }: Server): number => readdirSync(`/proc/${process.pid}/fd`).length;

/**
 * By how much a figure grew from the first mark to the last: the median of the slopes between all pairs (Theil and Sen), times the
 * connections between. One mark that stands out does not change it.
 */
export function growth(marks: readonly Mark[], of: (mark: Mark) => number): number {
  const slopes = marks.flatMap((later, index) =>
    marks.slice(0, index).map((earlier) => (of(later) - of(earlier)) / (later.connects - earlier.connects)),
  );
  slopes.sort((a, b) => a - b);
  const middle = slopes.length / 2;
  const median = ((slopes[Math.floor(middle)] ?? 0) + (slopes[Math.ceil(middle) - 1] ?? 0)) / 2;
  const all = (marks.at(-1)?.connects ?? 0) - (marks[0]?.connects ?? 0);
  return median * all;
}
