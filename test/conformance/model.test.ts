import fc from "fast-check";
import { expect, test } from "vitest";
import { type Kinds, runModel, worldArbitrary } from "../support/model.ts";
import { scene } from "../support/scene.ts";

// Random worlds of readers that stall, leave and come back with the last id they saw, against an oracle that knows only what
// was published and what was seen. A failure prints its seed and the smallest world that shows it. The seeds are ones that
// found something once.

const RUNS = 150;

function check(title: string, kinds: Kinds, faults: "losses" | "alarms", seed: number): void {
  test(
    title,
    { timeout: 180_000 },
    scene(async (stage) => {
      await fc.assert(
        fc.asyncProperty(worldArbitrary(kinds), async (world) => {
          expect((await runModel(stage, world))[faults]).toEqual([]);
        }),
        { seed, numRuns: kinds.slow ? RUNS / 3 : RUNS },
      );
    }),
  );
}

check("stalls and resumes: nothing that retention covers is missing, and nothing is lost in silence", {}, "losses", 31);
check("stalls and resumes: an overrun log loses nothing in silence", { overruns: true }, "losses", 2);
check("stalls and resumes: a forgotten channel loses nothing in silence", { forgets: true }, "losses", 33);
check("stalls and resumes: an engine that answers late changes nothing", { slow: true, overruns: true }, "losses", 4);
check("stalls and resumes: events of many chunks", { large: true, overruns: true }, "losses", 5);
check("gap: it is only told where an event is missing", {}, "alarms", 26);
check(
  "gap: of an overrun log it is only told where an event is missing",
  { large: true, overruns: true },
  "alarms",
  447,
);
