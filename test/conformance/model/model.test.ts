import fc from "fast-check";
import { expect, inject, test } from "vitest";
import { account } from "../../support/model/account.ts";
import { type History, histories, type Kinds } from "../../support/model/history.ts";
import { outcomesOf, WANTED } from "../../support/model/outcomes.ts";
import { simulate } from "../../support/model/simulation.ts";
import { scene } from "../../support/test-broker.ts";

// Random histories of two processes and their clients, by a clock and over sockets of their own, against oracles that know only what was
// published and what was seen. Each is small enough to be lived through in a few milliseconds, so there are thousands.
//
// A failure prints the smallest history that shows it, and what to call to see it again: SEED=… npm run test:node -- model

const KINDS: readonly (readonly [title: string, share: number, kinds: Kinds])[] = [
  ["one log: all that was promised holds, to the millisecond", 0.35, {}],
  ["one log, overrun by many events", 0.1, { overruns: true }],
  ["one log, overrun by large events", 0.05, { large: true, overruns: true }],
  ["one log, whose channels are forgotten", 0.05, { forgets: true }],
  ["an engine that is late, refuses, and loses answers", 0.1, { late: true, overruns: true }],
  ["a store, and all is well", 0.05, { store: true, calm: true, overruns: true }],
  ["a store that comes and goes", 0.1, { store: true, overruns: true }],
  ["a store that keeps everything", 0.05, { store: true, keeps: true, overruns: true }],
  ["a store whose messages vanish", 0.05, { store: true, swallows: true, overruns: true }],
  ["a store that begins anew", 0.05, { store: true, anew: true, overruns: true }],
  ["a store, and all of it together", 0.05, { store: true, anew: true, swallows: true, overruns: true }],
];

const part = inject("part");
// A seed, and behind a colon the way from it to one history.
const [, seed, path] = /^(-?\d+)(?::(.+))?$/.exec(inject("seed") || "1") ?? [];
if (seed === undefined)
  throw new TypeError(`SEED is "${inject("seed")}", and should be a whole number, or what a failure printed.`);
const total = Number(inject("histories") || { node: 10_000 }[part] || 1_000);

let isCutShort = false;
/** Histories in which each of what may happen did. */
const counts = new Map<string, number>();

for (const [title, share, kinds] of KINDS) {
  // What is elsewhere is not in SQLite.
  if (part === "durable" && kinds.store) continue;
  test(
    title,
    { timeout: 600_000 },
    scene(async (stage) => {
      const property = fc.asyncProperty(histories(kinds), async (history) => {
        const { faults, happened } = await simulate(stage, kinds, history);
        for (const outcome of outcomesOf(history, happened)) counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
        if (faults.length > 0) throw new Error(faults.slice(0, 8).join("\n"));
      });
      const once = path === undefined ? {} : { path, endOnFailure: true };
      const result = await fc.check(property, { seed: Number(seed), numRuns: Math.ceil(total * share), ...once });
      const { failed, counterexample, counterexamplePath, errorInstance, numRuns } = result;
      if (!failed) return;
      isCutShort = true;
      const [{ steps, readers, ...rest }] = counterexample as [History];
      const { happened } = await simulate(stage, kinds, { steps, readers, ...rest });
      throw new Error(
        [
          `${(errorInstance as Error | undefined)?.message}`,
          `History ${numRuns} of seed ${seed}, made smaller, is ${fc.stringify(rest)}`,
          ...readers.map((reader, index) => `reader ${index}: ${fc.stringify(reader)}`),
          ...steps.map((step) => fc.stringify(step)),
          "What happens in it:",
          ...account(happened),
          `To see it again: SEED=${seed}:${counterexamplePath} npm run test:${part} -- model -t "${title}"`,
        ].join("\n"),
      );
    }),
  );
}

test("all of this has happened in them", ({ skip }) => {
  skip(total < 1_000, "fewer than 1,000 histories do not show every outcome");
  skip(part === "durable", "histories with a store, which some outcomes need, are left out with the log in SQLite");
  skip(isCutShort, "one of them has failed");
  expect(WANTED.filter((outcome) => !counts.has(outcome))).toEqual([]);
});
