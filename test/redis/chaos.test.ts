import { expect, test } from "vitest";
import { needsRedis } from "../support/servers/redis.ts";
import { type Order, runChaos, summary } from "./chaos/chaos.ts";

// Brokers on Bun, Deno and Node share one Redis, and all that can happen to it, to them and to their clients happens. Each run waits
// for everything to be quiet, so that a client which is stuck is found as one that lost something is. `chaos/run.ts` lives through more.

// Between them these have every fault there is.
const orders: readonly Order[] = [
  ...[3, 24].map((seed) => ({ seed, family: "same-epoch" as const })),
  { seed: 4, family: "lossy" as const },
  ...[1, 2].map((seed) => ({ seed, family: "any" as const })),
];

test.for(orders)(
  "chaos, $family, seed $seed: nobody loses anything in silence",
  { ...needsRedis, timeout: 110_000 },
  async (order) => {
    const outcome = await runChaos(order);
    console.log(summary(order, outcome));
    // An instance that finds a hole behind what it has sent on cannot know that a client got it at another one.
    const isKnown = (fault: string): boolean => order.family === "lossy" && fault.endsWith("it is a false alarm");
    expect(outcome.faults.filter((fault) => !isKnown(fault)).slice(0, 20)).toEqual([]);
    // A run in which nobody was struck, or nothing came, proves nothing.
    expect(outcome.connections).toBeGreaterThan(300);
    expect(outcome.events).toBeGreaterThan(outcome.acknowledged);
    if (order.family === "same-epoch") expect(outcome.gaps).toBe(0);
  },
);
