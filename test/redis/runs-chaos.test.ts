// Producers, readers and those who ask to stop share the runs of one Redis, while Redis and their connections fail. An oracle judges every answer.
//
// More seeds: `SEED=1 HISTORIES=20 npm run test:redis -- runs-chaos`. Every fourth seed empties the store, and every fifth has a feed that is silent.
import { expect, inject, test } from "vitest";
import { needsRedis } from "../support/servers/redis.ts";
import { runRunsChaos } from "./chaos/runs.ts";

const first = Number(inject("seed") || 4);
const count = Number(inject("histories") || 2);

test.for(Array.from({ length: count }, (_, index) => first + index))(
  "chaos on runs, seed %i: every event once and in order, one end, and no live run is lost",
  { ...needsRedis, timeout: 110_000 },
  async (seed) => {
    const { faults, counts, seconds } = await runRunsChaos(seed);
    console.log(`seed ${seed}: ${seconds.toFixed(1)} s, ${JSON.stringify(counts)}`);
    expect(faults.slice(0, 20)).toEqual([]);
    // A run without events, ends or faults proves nothing.
    expect(counts.events).toBeGreaterThan(50);
    expect(counts["publish-outcome-unknown"]).toBeGreaterThan(0);
  },
);
