// Random histories of owners that share one file, with restarts. A failure prints the smallest history that shows the fault, and its seed.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { expect, inject, test } from "vitest";
import type { EngineSession } from "../../src/engine.ts";
import { sqliteEngine } from "../../src/sqlite/index.ts";
import {
  logOptionsOf,
  type OwnersHistory,
  type OwnersLog,
  ownersHistories,
  playOwners,
} from "../support/model/owners.ts";

const seed = Number.parseInt(inject("seed") || "1", 10);
const numRuns = Number(inject("histories") || 200);

/** The accounts of a file do not differ from what is in it. */
function audit(path: string): void {
  const database = new DatabaseSync(path, { readOnly: true });
  const all = (sql: string): unknown[] =>
    database
      .prepare(sql)
      .all()
      .map((row) => ({ ...row }));
  // A channel retains the entries after `released`; earlier ones are there because another channel retains the event.
  expect(
    all(`SELECT c.key FROM fanwire_channels c WHERE events <> (SELECT COUNT(*) FROM fanwire_entries e WHERE e.channel = c.id AND e.seq > c.released)
      OR bytes <> (SELECT COALESCE(SUM(size), 0) FROM fanwire_entries e WHERE e.channel = c.id AND e.seq > c.released)`),
  ).toEqual([]);
  expect(all("SELECT seq FROM fanwire_events WHERE seq NOT IN (SELECT seq FROM fanwire_entries)")).toEqual([]);
  expect(all("SELECT seq FROM fanwire_entries WHERE seq NOT IN (SELECT seq FROM fanwire_events)")).toEqual([]);
  expect(all("SELECT channel FROM fanwire_entries WHERE channel NOT IN (SELECT id FROM fanwire_channels)")).toEqual([]);
  const [{ bytes } = { bytes: 0 }] = all("SELECT value AS bytes FROM fanwire_meta WHERE name = 'bytes'") as {
    bytes: number;
  }[];
  const [{ counted }] = all(`SELECT 256 * (SELECT COALESCE(SUM(events), 0) FROM fanwire_channels) +
    (SELECT COALESCE(SUM(size), 0) FROM (SELECT MAX(size) AS size FROM fanwire_entries GROUP BY seq)) AS counted`) as [
    { counted: number },
  ];
  expect(bytes).toBe(counted);
  database.close();
}

function logOf(path: string, history: OwnersHistory): OwnersLog & { close(): void } {
  const engine = sqliteEngine({ path, durability: "process", ...logOptionsOf(history) });
  const listener = { position: Infinity, onAppended: () => undefined, onOverrun: () => undefined };
  const open = (): EngineSession => engine.open(listener);
  let session = open();
  const subscribed = new Set<string>();
  return {
    async append(keys, text, subject) {
      const { epoch, seq } = await session.append(keys, text, undefined, undefined, subject);
      return { seq, bytes: `id: ${epoch}-${seq}\n${text}`.length };
    },
    async states(keys) {
      const held = new Map<string, number[]>(keys.map((key) => [key, []]));
      let dropped: readonly number[] | undefined;
      for (let cursor = 0; cursor < session.log.head || !dropped; ) {
        const page = await session.read?.(keys, cursor);
        if (!page) break;
        for (const record of page.records) for (const key of record.keys) held.get(key)?.push(record.seq);
        dropped ??= page.droppedThrough;
        cursor = page.through;
      }
      return keys.map((key, index) => ({
        held: held.get(key) as number[],
        droppedThrough: dropped?.[index] ?? 0,
        isForgotten: (dropped?.[index] ?? 0) > 0 && held.get(key)?.length === 0,
      }));
    },
    setSubscribed(key, isSubscribed) {
      if (isSubscribed === subscribed.has(key)) return;
      if (isSubscribed) {
        subscribed.add(key);
        session.log.pin(key);
      } else {
        subscribed.delete(key);
        const channel = session.log.find(key);
        if (channel) session.log.unpin(channel);
      }
    },
    restart() {
      session.close();
      audit(path);
      session = open();
      for (const key of subscribed) session.log.pin(key);
    },
    close: () => session.close(),
  };
}

test("owners: one that keeps within an equal part of the bounds never loses an event, and has no gap, because of others", {
  timeout: 600_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), "fanwire-owners-"));
  const total = { lost: 0, forgotten: 0, checks: 0, restarts: 0 };
  let count = 0;
  try {
    const property = fc.asyncProperty(ownersHistories, async (history) => {
      const path = join(folder, `${count++}.db`);
      const log = logOf(path, history);
      const { faults, ...outcome } = await playOwners(history, log);
      log.close();
      audit(path);
      rmSync(path);
      for (const name of ["lost", "forgotten", "checks", "restarts"] as const) total[name] += outcome[name];
      if (faults.length > 0) throw new Error(faults.join("\n"));
    });
    await fc.assert(property, { seed, numRuns });
  } finally {
    rmSync(folder, { recursive: true });
  }
  // Owners lost events and channels, while others had something to lose.
  expect(total.lost).toBeGreaterThan(numRuns);
  expect(total.forgotten).toBeGreaterThan(numRuns);
  expect(total.checks).toBeGreaterThan(numRuns);
  expect(total.restarts).toBeGreaterThan(numRuns / 10);
});
