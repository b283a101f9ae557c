// Runs random histories of clients by their seeds, in virtual time.
import { expect, inject, test } from "vitest";
import { Clock } from "../clock.ts";
import { runtime } from "../runtime.ts";
import { type TestSetup, withBroker } from "../test-broker.ts";

/** Plays the history of a seed. Returns its faults. */
type Play = (setup: TestSetup, clock: Clock, seed: number) => Promise<readonly string[]>;

/**
 * Creates tests that play histories, and returns how many these are: `HISTORIES`, or `counts` of the runtime. A history takes seconds on workerd,
 * where a turn of the event loop takes a millisecond.
 */
export function testHistories(title: string, counts: Readonly<Record<typeof runtime, number>>, play: Play): number {
  const histories = Number(inject("histories") || counts[runtime]);
  const perTest = Math.min(histories, runtime === "workerd" ? 1 : 20);
  const begin = Number(inject("seed") || 1);
  for (let first = begin; first < begin + histories; first += perTest) {
    test(
      `${title} (seeds ${first} to ${first + perTest - 1})`,
      withBroker(async (setup) => {
        for (let seed = first; seed < first + perTest; seed++) {
          const clock = new Clock();
          await clock.run(async () => expect([seed, await play(setup, clock, seed)]).toEqual([seed, []]));
        }
      }),
      120_000,
    );
  }
  return histories;
}
