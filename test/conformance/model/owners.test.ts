// Random histories of owners that share one log: floods of channels, large events, events of several tenants, subscribers, and restarts where
// the log outlives them. A failure prints the smallest history that shows the fault: SEED=… npm run test:node -- model/owners
import fc from "fast-check";
import { expect, inject, test } from "vitest";
import { engineLog, logOptionsOf, ownersHistories, playOwners } from "../../support/model/owners.ts";
import { withBroker } from "../../support/test-broker.ts";

const part = inject("part");
const seed = Number.parseInt(inject("seed") || "1", 10);
const numRuns = Math.ceil(Number(inject("histories") || { node: 10_000 }[part] || 1_000) / 10);

test(
  "owners: one that keeps within an equal part of the bounds never loses an event, and has no gap, because of others",
  { timeout: 600_000 },
  withBroker(async (setup) => {
    const total = { lost: 0, forgotten: 0, checks: 0, restarts: 0 };
    const property = fc.asyncProperty(ownersHistories, async (history) => {
      const log = engineLog(setup.engines(logOptionsOf(history)), part === "durable");
      const { faults, ...outcome } = await playOwners(history, log);
      for (const name of ["lost", "forgotten", "checks", "restarts"] as const) total[name] += outcome[name];
      if (faults.length > 0) throw new Error(faults.join("\n"));
    });
    await fc.assert(property, { seed, numRuns });
    // Owners lost events and channels, while others had something to lose.
    expect(total.lost).toBeGreaterThan(numRuns);
    expect(total.forgotten).toBeGreaterThan(numRuns);
    expect(total.checks).toBeGreaterThan(numRuns);
    if (part === "durable") expect(total.restarts).toBeGreaterThan(numRuns / 10);
  }),
);
