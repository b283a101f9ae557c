import fc from "fast-check";
import { expect, test } from "vitest";
import { replicaWorldArbitrary, runReplicaModel, type Troubles } from "../support/replica-model.ts";
import { runtime } from "../support/runtime.ts";
import { scene } from "../support/scene.ts";

// Random worlds of two processes over one store, whose connections fail in every way that they know, against the same oracle as the
// worlds of one process. A failure prints its seed and the smallest world that shows it.

// A turn takes a millisecond on workerd, and there are hundreds in a world.
const RUNS = runtime === "workerd" ? 10 : 150;
fc.configureGlobal({ baseSize: "medium" });

function check(title: string, troubles: Troubles, faults: "losses" | "alarms", seed: number): void {
  test(
    title,
    { timeout: 180_000 },
    scene(async (stage) => {
      await fc.assert(
        fc.asyncProperty(replicaWorldArbitrary(troubles), async (world) => {
          expect((await runReplicaModel(stage, world, !troubles.swallows))[faults]).toEqual([]);
        }),
        { seed, numRuns: RUNS },
      );
    }),
  );
}

check("a calm store: nothing that it keeps is missing", { calm: true, small: true }, "losses", 31);
check("a store that comes and goes: nothing that it keeps is missing", { small: true }, "losses", 51);
check("messages that vanish: nothing is lost in silence", { swallows: true, small: true }, "losses", 52);
check("a log that begins anew: nothing is lost in silence", { anew: true, small: true }, "losses", 41);
check("all of it together: nothing is lost in silence", { anew: true, swallows: true, small: true }, "losses", 4);
check("gap: none is told where the store keeps everything", { keeps: true, small: true }, "alarms", 5);
