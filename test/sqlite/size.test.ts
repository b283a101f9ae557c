// The size of a file: below twice what is retained while events come, and small again when they are gone.
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createBroker } from "../../src/index.ts";
import { sqliteEngine } from "../../src/sqlite/index.ts";
import { openRunsOf } from "../support/runs/sessions.ts";

const MIB = 1024 * 1024;
/** The journal of SQLite, which is emptied when it has so many bytes, and the pages that are kept free. */
const OVERHEAD = 6 * MIB;

const sizeOf = (path: string): number =>
  ["", "-wal"].reduce((sum, suffix) => sum + (statSync(path + suffix, { throwIfNoEntry: false })?.size ?? 0), 0);

test.each([
  ["logBytes", { logBytes: 8 * MIB }, 1, 8 * MIB],
  ["logBytes, many channels", { logBytes: 8 * MIB }, 500, 8 * MIB],
  ["retention.events", { retention: { events: 1_000 } }, 4, 4 * MIB],
  ["retention.bytes", { retention: { bytes: MIB } }, 8, 8 * MIB],
] as const)(
  "%s: a file stays below twice what is retained, while ten times as much is published",
  async (_, bounds, channels, retained) => {
    const folder = mkdtempSync(join(tmpdir(), "fanwire-size-"));
    const path = join(folder, "log.db");
    const broker = createBroker({ engine: sqliteEngine({ path, durability: "process", ...bounds }) });
    const text = "x".repeat(1_000);
    let largest = 0;
    try {
      for (let round = 0; round < 80; round++) {
        const batch = Array.from({ length: 1_000 }, (_, index) =>
          broker.broadcast(text, { channels: `c${index % channels}` }),
        );
        await Promise.all(batch);
        largest = Math.max(largest, sizeOf(path));
      }
      expect(largest).toBeLessThan(2 * retained + OVERHEAD);
      // It does hold what it should.
      const { events } = await broker.history({ channels: "c0", limit: 1_000 });
      expect(events.length).toBeGreaterThan(10);
    } finally {
      await broker.close();
      rmSync(folder, { recursive: true });
    }
  },
);

test("retention.age: a file shrinks when its events are too old, without a call", async () => {
  const folder = mkdtempSync(join(tmpdir(), "fanwire-size-"));
  const path = join(folder, "log.db");
  const broker = createBroker({ engine: sqliteEngine({ path, durability: "process", retention: { age: 1_500 } }) });
  try {
    const text = "x".repeat(10_000);
    await Promise.all(Array.from({ length: 2_000 }, () => broker.broadcast(text, { channels: "a" })));
    const before = sizeOf(path);
    expect(before).toBeGreaterThan(18 * MIB);
    while (sizeOf(path) > 8 * MIB) await new Promise((resolve) => setTimeout(resolve, 100));
    expect((await broker.history({ channels: "a" })).events).toEqual([]);
  } finally {
    await broker.close();
    rmSync(folder, { recursive: true });
  }
});

test("runs: a file shrinks when they are no longer kept, without a call", async () => {
  const folder = mkdtempSync(join(tmpdir(), "fanwire-size-"));
  const path = join(folder, "log.db");
  const { runs, close } = openRunsOf(sqliteEngine({ path, durability: "process" }));
  try {
    const texts = Array.from({ length: 20 }, () => `data: ${"x".repeat(1_000)}\n\n`);
    const start = { generation: "one", leaseMs: 60_000, retainMs: 1_500, readers: undefined };
    const work = async (id: string): Promise<unknown> => {
      await runs.start(id, start);
      for (let after = 0; after < 100; after += texts.length) await runs.append(id, "one", { after, texts });
      return runs.append(id, "one", { after: 100, texts: [], end: "ended" });
    };
    await Promise.all(Array.from({ length: 200 }, (_, index) => work(`run ${index}`)));
    const before = sizeOf(path);
    expect(before).toBeGreaterThan(18 * MIB);
    while (sizeOf(path) > 8 * MIB) await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await runs.read("run 0", 0, 1)).toBeUndefined();
  } finally {
    close();
    rmSync(folder, { recursive: true });
  }
});
