// Brokers on Bun, Deno and Node share one Redis, while faults happen to the Redis, to the brokers and to their clients. At its end each run waits
// until everything is quiet, so that it finds a client that is stuck as well as one that lost an event. `chaos/run.ts` runs more seeds.
import { expect, test } from "vitest";
import { needsRedis } from "../support/servers/redis.ts";
import { type RunOptions, runChaos, summary } from "./chaos/chaos.ts";

// Together these runs have every type of fault.
const runs: readonly RunOptions[] = [
  ...[3, 24].map((seed) => ({ seed, family: "same-epoch" as const })),
  { seed: 4, family: "lossy" as const },
  ...[1, 2].map((seed) => ({ seed, family: "any" as const })),
];

test.for(runs)(
  "chaos, $family, seed $seed: no client loses an event without a gap",
  { ...needsRedis, timeout: 110_000 },
  async (options) => {
    const outcome = await runChaos(options);
    console.log(summary(options, outcome));
    // An instance that finds a missing range before events that it has already sent cannot know which instance sent what to a client.
    const isKnown = (fault: string): boolean =>
      options.family === "lossy" && fault.endsWith("it covers no missing event");
    expect(outcome.faults.filter((fault) => !isKnown(fault)).slice(0, 20)).toEqual([]);
    // A run without faults or events proves nothing.
    expect(outcome.connections).toBeGreaterThan(300);
    expect(outcome.joins).toBeGreaterThan(50);
    expect(outcome.events).toBeGreaterThan(outcome.acknowledged);
    if (options.family === "same-epoch") expect(outcome.gaps).toBe(0);
  },
);
