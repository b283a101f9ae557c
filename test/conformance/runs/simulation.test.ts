// Random histories of runs, in virtual time: processes with a common store, producers that close, fail, vanish or are stopped, readers that are cut
// at any byte, and a store that is late, refuses calls, loses answers and notifications, or forgets everything. An oracle that knows the contract
// alone says what each reader and each producer may see.
//
// A failure prints its seed, which runs alone by: SEED=… HISTORIES=1 npm run test:node -- runs/simulation. HISTORIES=10000 plays more.
import { expect, inject, test } from "vitest";
import { Clock } from "../../support/clock.ts";
import { simulateRuns } from "../../support/runs/run-simulation.ts";
import { runtime } from "../../support/runtime.ts";
import { skipIf } from "../../support/skip.ts";
import { withBroker } from "../../support/test-broker.ts";

const HISTORIES = Number(inject("histories") || 500);
const FIRST = Number(inject("seed") || 1);
const PER_TEST = runtime === "workerd" ? 25 : 100;

/** The number of histories in which each outcome occurred. */
const counts = new Map<string, number>();

for (let first = FIRST; first < FIRST + HISTORIES; first += PER_TEST) {
  const last = Math.min(first + PER_TEST, FIRST + HISTORIES) - 1;
  test(
    `every reader sees a run as it is (seeds ${first} to ${last})`,
    withBroker(async (setup) => {
      for (let seed = first; seed <= last; seed++) {
        const clock = new Clock(() => undefined, true);
        await clock.run(async () => {
          const { faults, seen } = await simulateRuns(setup, clock, seed);
          for (const name of seen) counts.set(name, (counts.get(name) ?? 0) + 1);
          expect({ seed, faults: faults.slice(0, 8) }).toEqual({ seed, faults: [] });
        });
      }
    }),
    120_000,
  );
}

test("each outcome occurs in some history", skipIf(HISTORIES < 300, "they are few histories"), () => {
  const expected = {
    start: ["repeated", "run-exists", "engine-down", "closed"],
    write: ["key-reused", "run-ended", "closed", "engine-down", "publish-outcome-unknown"],
    end: ["ended", "failed", "stopped", "lost", "lease", "repeated"],
    pipe: ["ended", "failed", "stopped", "lost"],
    read: ["end", "run-lost", "unknown-run", "bad-request", "engine-down", "closed", "left", "died"],
    response: ["end", "run-lost", "unknown-run", "bad-request", "nothing", "left", "resumed"],
  };
  const names = Object.entries(expected).flatMap(([kind, outcomes]) =>
    outcomes.map((outcome) => `${kind}: ${outcome}`),
  );
  expect(names.filter((name) => !counts.has(name))).toEqual([]);
});
