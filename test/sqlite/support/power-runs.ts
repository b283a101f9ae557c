// Runs of a process whose power fails: the work on them, and the check of what is left of them.
import { formatRunEvent, type RunStore } from "../../../src/engine/run-store.ts";
import { decode } from "../../../src/event/sse-format.ts";
import type { Random } from "../../support/random.ts";

/** Number of events that a run has when it ends: each one has another, which its name says. */
const lengthOf = (name: string): number => 1 + ([...name].reduce((sum, digit) => sum * 31 + Number(digit), 7) % 20);
const textOf = (name: string, number: number): string =>
  `event: tick\ndata: ${name} ${number} ${"é".repeat((number * 37) % 200)}\n\n`;
const generationOf = (name: string): string => `g${name}`;

/** Works on runs without end, one after another. `note` is called with what was answered or read of one. */
export async function workOnRuns(
  runs: RunStore,
  random: Random,
  note: (name: string, events: number, end: string) => void,
): Promise<never> {
  for (let started = 1; ; started++) {
    const name = String(started);
    const generation = generationOf(name);
    await runs.start(name, { generation, leaseMs: 600_000, retainMs: 600_000, readers: name });
    const onChange = async (): Promise<void> => {
      const page = await runs.read(name, 0, 1);
      if (page) note(name, page.events, page.end ?? "");
    };
    const watch = runs.watch(name, () => void onChange());
    for (let after = 0; after < lengthOf(name); ) {
      const count = Math.min(random.integer(1, 4), lengthOf(name) - after);
      const texts = Array.from({ length: count }, (_, index) => textOf(name, after + index + 1));
      const isLast = after + count === lengthOf(name) && random.integer(0, 1) === 0;
      await runs.append(name, generation, { after, texts, ...(isLast ? { end: "ended" as const } : {}) });
      after += count;
      note(name, after, isLast ? "ended" : "");
    }
    await runs.append(name, generation, { after: lengthOf(name), texts: [], end: "ended" });
    note(name, lengthOf(name), "ended");
    watch.stop();
  }
}

/** A run that was answered or read before the power failed. */
export interface NotedRun {
  readonly name: string;
  readonly events: number;
  readonly end: string;
}

/** Returns everything that is wrong with the runs of a file. With `losesNothing` everything that was noted has to be there. */
export async function findRunFaults(
  runs: RunStore,
  noted: readonly NotedRun[],
  losesNothing: boolean,
): Promise<string[]> {
  const faults: string[] = [];
  const newest = new Map<string, NotedRun>();
  for (const run of noted) {
    const before = newest.get(run.name);
    if (!before || run.events > before.events || run.end) newest.set(run.name, run);
  }
  for (const [name, { events, end }] of newest) {
    const page = await runs.read(name, 0, 1e6);
    if (!page) {
      if (losesNothing) faults.push(`the run ${name} is unknown`);
      continue;
    }
    const all = Array.from({ length: page.events }, (_, index) =>
      formatRunEvent(textOf(name, index + 1), generationOf(name), index + 1),
    );
    if (decode(page.bytes) !== all.join("")) faults.push(`the run ${name} has other events`);
    if (page.end !== "lost" && page.end !== "ended") faults.push(`the run ${name} is ${page.end}`);
    if (page.end === "ended" && page.events !== lengthOf(name))
      faults.push(`the run ${name} ended without some events`);
    if (losesNothing && page.events < events) faults.push(`the run ${name} lost events after ${page.events}`);
    if (losesNothing && end && page.end !== end) faults.push(`the run ${name} had ended, and is ${page.end}`);
  }
  return faults;
}
