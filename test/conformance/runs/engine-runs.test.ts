// The contract of a store of runs, on the engine of the mode.
import { describe, expect, inject, test } from "vitest";
import { memoryEngine } from "../../../src/index.ts";
import { sqliteEngine } from "../../../src/sqlite/index.ts";
import { newDatabasePath } from "../../support/engines/database-path.ts";
import { openObjectRuns } from "../../support/runs/object-runs.ts";
import { openRunsOf } from "../../support/runs/sessions.ts";
import { type StoreUnderTest, testRunStore } from "../../support/runs/store-contract.ts";
import { withDurableObject } from "../../support/workerd.ts";

const part = inject("part");

/** Opens the runs of a new file. Others are those of further brokers in this process. */
function openFileRuns(): StoreUnderTest {
  const engine = sqliteEngine({ path: newDatabasePath(), durability: "process" });
  const opened = [openRunsOf(engine)];
  return {
    store: opened[0]?.runs as StoreUnderTest["store"],
    other() {
      const next = openRunsOf(engine);
      opened.push(next);
      return next.runs;
    },
    close: () => opened.forEach(({ close }) => void close()),
  };
}

if (part === "durable") describe("runs in a Durable Object", () => testRunStore(openObjectRuns));
else if (part.startsWith("sqlite")) describe("runs in a file", () => testRunStore(openFileRuns));
else
  test(
    "runs in memory: the engine has no store, because a broker has one",
    withDurableObject(async (durableObject) => {
      const engine = memoryEngine(durableObject ? { durableObject: durableObject as object } : {});
      expect(() => openRunsOf(engine)).toThrow("the engine has no store of runs");
    }),
  );
