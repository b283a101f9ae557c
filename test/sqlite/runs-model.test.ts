// Random calls on runs in a file and in memory: both give the same answers, also when the file is opened again in between.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, inject, test } from "vitest";
import type { RunEnd, RunPage, RunStore } from "../../src/engine/run-store.ts";
import { decode } from "../../src/event/sse-format.ts";
import { MemoryRuns } from "../../src/runs/memory-runs.ts";
import { sqliteEngine } from "../../src/sqlite/index.ts";
import { Random } from "../support/random.ts";
import { openRunsOf } from "../support/runs/sessions.ts";

const first = Number.parseInt(inject("seed") || "1", 10);
const HISTORIES = Number(inject("histories") || 40);
const CALLS = 60;
const IDS = ["a", "b", "c"];
const ENDS: readonly RunEnd[] = ["ended", "failed", "stopped"];
const LONG_MS = 600_000;

/** Reads a run from an event on, page by page. Checks that each page follows the one before. */
async function readAll(runs: RunStore, id: string, after: number, maxBytes: number): Promise<unknown> {
  let text = "";
  let page: RunPage | undefined;
  for (;;) {
    page = await runs.read(id, after, maxBytes);
    if (!page || page.bytes.length === 0) break;
    expect(page.through).toBeGreaterThan(after);
    text += decode(page.bytes);
    after = page.through;
  }
  const { generation, events, end, isStopping, readers } = page ?? {};
  return { generation, events, end, isStopping, readers, text };
}

/** Returns a call that can be made on either store. */
function randomCall(random: Random, counts: Map<string, number>): (runs: RunStore) => Promise<unknown> {
  const id = random.pick(IDS);
  const generation = random.pick(["one", "two"]);
  const events = counts.get(id) ?? 0;
  const kind = random.integer(0, 9);
  if (kind === 0)
    return async (runs) => runs.start(id, { generation, leaseMs: LONG_MS, retainMs: LONG_MS, readers: generation });
  if (kind === 1) return async (runs) => runs.requestStop(id);
  if (kind === 2) return async (runs) => runs.renew(IDS.map((each) => ({ id: each, generation })));
  if (kind <= 4) {
    const [after, maxBytes] = [random.integer(0, events + 1), random.pick([1, 300, 5_000, 100_000])];
    return (runs) => readAll(runs, id, after, maxBytes);
  }
  // Mostly what follows; sometimes a part of it once more.
  const after = random.integer(0, 3) === 0 ? random.integer(0, events) : events;
  const texts = Array.from({ length: random.integer(0, 5) }, (_, index) => {
    const data = `${id} ${generation} ${after + index + 1} ${"é".repeat(random.pick([0, 10, 700, 40_000]))}`;
    return random.integer(0, 1) === 0 ? `data: ${data}\n\n` : `event: x\ndata: ${data}\ndata: \n\n`;
  });
  const end = random.integer(0, 7) === 0 || texts.length === 0 ? random.pick(ENDS) : undefined;
  return async (runs) => runs.append(id, generation, { after, texts, end });
}

test(`${HISTORIES} histories: the file answers as the memory does`, { timeout: 600_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "fanwire-runs-model-"));
  const seen = { appended: 0, ended: 0, refused: 0 };
  try {
    for (let seed = first; seed < first + HISTORIES; seed++) {
      const random = new Random(seed);
      const memory = new MemoryRuns(1e9);
      const options = { path: join(folder, `${seed}.db`), durability: "process" } as const;
      let session = openRunsOf(sqliteEngine(options));
      const counts = new Map<string, number>();
      for (let call = 0; call < CALLS; call++) {
        if (random.integer(0, 39) === 0) {
          // A restart: what is live is lost, as by its lease.
          session.close();
          session = openRunsOf(sqliteEngine(options));
          for (const id of IDS) {
            const page = memory.read(id, 0, 1);
            const { generation = "", events = 0, end } = page ?? {};
            if (page && !end) await memory.append(id, generation, { after: events, texts: [], end: "lost" });
          }
        }
        const run = randomCall(random, counts);
        const [expected, answer] = [await run(memory), await run(session.runs)];
        expect(answer, `seed ${seed}, call ${call}`).toEqual(expected);
        if (expected === false) seen.refused++;
        for (const id of IDS) {
          const page = memory.read(id, 0, 1);
          if (page && page.events > (counts.get(id) ?? 0)) seen.appended++;
          if (page?.end) seen.ended++;
          counts.set(id, page?.events ?? 0);
        }
      }
      for (const id of IDS)
        expect(await readAll(session.runs, id, 0, 1_000), `seed ${seed}`).toEqual(await readAll(memory, id, 0, 1_000));
      session.close();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(HISTORIES);
});
