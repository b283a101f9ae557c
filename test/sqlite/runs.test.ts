// Runs in a file: what a restart leaves of them, files of the version before, disks that refuse, and the clean-up.
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, type TestContext, test } from "vitest";
import { formatRunEvent, type RunStart, type RunStore } from "../../src/engine/run-store.ts";
import { decode } from "../../src/event/sse-format.ts";
import { createBroker } from "../../src/index.ts";
import { type SqliteDatabase, sqliteEngine } from "../../src/sqlite/index.ts";
import { openRunsOf } from "../support/runs/sessions.ts";
import { codeOf } from "../support/test-broker.ts";
import { failingDatabase } from "./support/failing-database.ts";

type Context = Pick<TestContext, "onTestFinished">;

function newPath({ onTestFinished }: Context): string {
  const folder = mkdtempSync(join(tmpdir(), "fanwire-runs-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, "log.db");
}

function open({ onTestFinished }: Context, options: Parameters<typeof sqliteEngine>[0], errors: string[] = []) {
  const engine = sqliteEngine(options);
  const session = openRunsOf(engine, errors);
  let isOpen = true;
  const close = (): void => {
    if (isOpen) session.close();
    isOpen = false;
  };
  onTestFinished(close);
  return { engine, runs: session.runs, close };
}

const start = (changes: Partial<RunStart> = {}): RunStart => ({
  ...{ generation: "one", leaseMs: 60_000, retainMs: 600_000, readers: undefined },
  ...changes,
});
const texts = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, index) => `event: tick\ndata: ${from + index} é\n\n`);
const wire = (from: number, to: number): string =>
  texts(from, to)
    .map((text, index) => formatRunEvent(text, "one", from + index))
    .join("");

/** Returns what is there of a run: its end, and its events. */
async function stateOf(runs: RunStore, id: string): Promise<[end: string | undefined, text: string] | undefined> {
  const page = await runs.read(id, 0, 1e6);
  return page && [page.end, decode(page.bytes)];
}

test.each(["power", "process"] as const)(
  "durability %s, a restart: a run that ended is there byte for byte, and a live one is lost with its events",
  async (durability) => {
    const tasks: (() => unknown)[] = [];
    const context = { onTestFinished: (task: () => unknown) => void tasks.push(task) } as Context;
    const path = newPath(context);
    const first = open(context, { path, durability });
    for (const id of ["ended", "live"]) {
      await first.runs.start(id, start({ readers: "ada" }));
      await first.runs.append(id, "one", { after: 0, texts: texts(1, 3) });
    }
    await first.runs.append("ended", "one", { after: 3, texts: texts(4, 4), end: "ended" });
    first.close();
    const second = open(context, { path, durability });
    expect(await stateOf(second.runs, "ended")).toEqual(["ended", wire(1, 4)]);
    expect(await second.runs.read("ended", 0, 1)).toMatchObject({ readers: "ada", events: 4 });
    expect(await stateOf(second.runs, "live")).toEqual(["lost", wire(1, 3)]);
    expect(await second.runs.append("live", "one", { after: 3, texts: texts(4, 4) })).toBe(false);
    // A run that is begun again counts from one.
    expect(await second.runs.start("live", start())).toBe(true);
    for (const task of tasks.reverse()) await task();
  },
);

test("a live run of a process that ended is dropped in its time, although nobody asks for it", async (context) => {
  const path = newPath(context);
  const first = open(context, { path });
  await first.runs.start("a", start({ retainMs: 100 }));
  await first.runs.append("a", "one", { after: 0, texts: texts(1, 3) });
  first.close();
  const database = new DatabaseSync(path);
  const { close } = open(context, { database });
  const left = (): unknown => database.prepare("SELECT count(*) AS rows FROM fanwire_run_events").get();
  expect(left()).toEqual({ rows: 1 });
  await expect.poll(left, { timeout: 5_000 }).toEqual({ rows: 0 });
  close();
  database.close();
});

test("brokers that share an engine: one that closes ends no run of the others, and a store without a file refuses", async (context) => {
  const { engine, runs, close } = open(context, { path: newPath(context) });
  const other = openRunsOf(engine);
  await other.runs.start("a", start());
  close();
  expect(await other.runs.append("a", "one", { after: 0, texts: texts(1, 2) })).toBe(true);
  expect(await stateOf(other.runs, "a")).toEqual([undefined, wire(1, 2)]);
  other.close();
  const calls = [runs.start("a", start()), runs.read("a", 0, 1), runs.renew([{ id: "a", generation: "one" }])];
  for (const call of calls) expect(await codeOf(Promise.resolve(call))).toBe("engine-down");
  const again = openRunsOf(engine);
  expect(await stateOf(again.runs, "a")).toEqual(["lost", wire(1, 2)]);
  again.close();
});

/** A file as the first version wrote it, with two events. */
const FIRST_VERSION = `
CREATE TABLE fanwire_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE fanwire_events (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, keys TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE fanwire_entries (
  channel INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL, shared INTEGER NOT NULL,
  PRIMARY KEY (channel, seq)
) WITHOUT ROWID;
CREATE TABLE fanwire_channels (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, owner TEXT, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
  released INTEGER NOT NULL, dropped INTEGER NOT NULL, last INTEGER NOT NULL, oldest_at INTEGER
);
CREATE TABLE fanwire_owners (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE fanwire_names (
  kind TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, until INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
INSERT INTO fanwire_meta VALUES ('bytes', 824), ('clean', 1), ('epoch', '5hpl3at7saal'), ('schema', 1);
INSERT INTO fanwire_events VALUES (1, 1796048814384, '["#a"]', 'data: 1\n\n'), (2, 1796048814516, '["#a","#b"]', 'data: 2\n\n');
INSERT INTO fanwire_entries VALUES (1, 1, 1796048814384, 28, 0), (1, 2, 1796048814516, 28, 1), (2, 2, 1796048814516, 28, 1);
INSERT INTO fanwire_channels VALUES (1, '#a', '@', 2, 56, 0, 0, 2, 1796048814384), (2, '#b', '@', 1, 28, 0, 0, 2, 1796048814516);
INSERT INTO fanwire_owners VALUES ('@', 824);`;

test.each([1, 0])(
  "a file of the first version, closed: %i: its events are there, it takes runs, and it has the new version",
  async (clean) => {
    const tasks: (() => unknown)[] = [];
    const context = { onTestFinished: (task: () => unknown) => void tasks.push(task) } as Context;
    const path = newPath(context);
    const old = new DatabaseSync(path);
    old.exec(FIRST_VERSION);
    old.exec(`UPDATE fanwire_meta SET value = ${clean} WHERE name = 'clean'`);
    old.close();
    const { engine, runs, close } = open(context, { path, retention: { age: Infinity } });
    const broker = createBroker({ engine });
    expect((await broker.history({ channels: ["a", "b"] })).events.map(({ id, data }) => [id, data])).toEqual([
      ["5hpl3at7saal-1", "1"],
      ["5hpl3at7saal-2", "2"],
    ]);
    expect((await broker.broadcast("3", { channels: "a" })).id).toBe("5hpl3at7saal-3");
    await runs.start("a", start());
    await runs.append("a", "one", { after: 0, texts: texts(1, 2), end: "ended" });
    await broker.close();
    close();
    const upgraded = new DatabaseSync(path);
    expect(upgraded.prepare("SELECT value FROM fanwire_meta WHERE name = 'schema'").get()).toEqual({ value: 2 });
    upgraded.close();
    expect(await stateOf(open(context, { path }).runs, "a")).toEqual(["ended", wire(1, 2)]);
    for (const task of tasks.reverse()) await task();
  },
);

test.each([
  ["a full disk", "PRAGMA max_page_count = 40", "PRAGMA max_page_count = 100000", "the disk is full", true],
  ["a file that became read-only", "PRAGMA query_only = 1", "PRAGMA query_only = 0", "it is read-only", false],
] as const)("%s: writes are engine-down, and the run goes on when it is mended", async (...values) => {
  const [, spoil, mend, reason, isReadable] = values;
  const tasks: (() => unknown)[] = [];
  const context = { onTestFinished: (task: () => unknown) => void tasks.push(task) } as Context;
  const database = new DatabaseSync(newPath(context));
  const errors: string[] = [];
  const { runs, close } = open(context, { database }, errors);
  await runs.start("a", start());
  await runs.append("a", "one", { after: 0, texts: texts(1, 2) });
  database.exec(spoil);
  let events = 2;
  const append = () => runs.append("a", "one", { after: events, texts: [`data: ${"x".repeat(4_000)}\n\n`] });
  let code = "none";
  while (code === "none") {
    code = await codeOf(append());
    if (code === "none") events++;
  }
  expect(code).toBe("engine-down");
  expect(errors).toEqual([expect.stringContaining(reason)]);
  for (const call of [append(), runs.start("b", start()), runs.requestStop("a")])
    expect(await codeOf(call)).toBe("engine-down");
  if (isReadable) {
    expect(await runs.read("a", 0, 1e6)).toMatchObject({ events, end: undefined, isStopping: false });
    expect(await runs.renew([{ id: "a", generation: "one" }])).toEqual(["live"]);
  } else {
    expect(await codeOf(Promise.resolve(runs.read("a", 0, 1e6)))).toBe("engine-down");
  }
  database.exec(mend);
  await expect.poll(() => codeOf(append()), { timeout: 5_000 }).toBe("none");
  expect(await runs.append("a", "one", { after: events + 1, texts: [], end: "ended" })).toBe(true);
  expect(await runs.read("a", 0, 1e6)).toMatchObject({ events: events + 1, end: "ended" });
  close();
  database.close();
  for (const task of tasks.reverse()) await task();
});

test.each(["before", "after"] as const)(
  "a commit that fails %s it took effect: its outcome is unknown, the same call succeeds later, and watchers are called",
  async (when) => {
    const tasks: (() => unknown)[] = [];
    const context = { onTestFinished: (task: () => unknown) => void tasks.push(task) } as Context;
    let fails: "before" | "after" | undefined;
    const { runs } = open(context, { database: failingDatabase(newPath(context), () => fails) });
    await runs.start("a", start());
    const first = { after: 0, texts: texts(1, 2) };
    const last = { after: 2, texts: texts(3, 3), end: "ended" } as const;
    let calls = 0;
    runs.watch("a", () => calls++);
    fails = when;
    expect(await codeOf(runs.append("a", "one", first))).toBe("publish-outcome-unknown");
    expect(calls).toBe(0);
    fails = undefined;
    await expect.poll(() => calls, { timeout: 5_000 }).toBeGreaterThan(0);
    // Its producer is alive.
    expect(await stateOf(runs, "a")).toEqual([undefined, when === "after" ? wire(1, 2) : ""]);
    expect(await runs.append("a", "one", first)).toBe(true);
    expect(await stateOf(runs, "a")).toEqual([undefined, wire(1, 2)]);
    fails = when;
    expect(await codeOf(runs.append("a", "one", last))).toBe("publish-outcome-unknown");
    fails = undefined;
    await expect.poll(() => runs.append("a", "one", last).catch(() => false), { timeout: 5_000 }).toBe(true);
    expect(await stateOf(runs, "a")).toEqual(["ended", wire(1, 3)]);
    for (const task of tasks.reverse()) await task();
  },
);

test("a file that lost events while it was used: the run ends as lost, and does not go on behind a hole", async (context) => {
  const path = newPath(context);
  let fails: "before" | undefined;
  let database = failingDatabase(path, () => fails);
  // Stands for a file that is replaced while the process has it.
  const current: SqliteDatabase = {
    exec: (sql) => database.exec(sql),
    prepare: (sql) => ({
      run: (...values) => database.prepare(sql).run(...values),
      all: (...values) => database.prepare(sql).all(...values),
    }),
    close: () => undefined,
  };
  const { runs } = open(context, { database: current });
  await runs.start("a", start());
  await runs.append("a", "one", { after: 0, texts: texts(1, 2) });
  database.exec(`VACUUM INTO '${path}.old'`);
  await runs.append("a", "one", { after: 2, texts: texts(3, 4) });
  await runs.start("b", start());
  let calls = 0;
  runs.watch("b", () => calls++);
  fails = "before";
  expect(await codeOf(runs.append("a", "one", { after: 4, texts: texts(5, 5) }))).toBe("publish-outcome-unknown");
  database.close();
  rmSync(`${path}-wal`, { force: true });
  copyFileSync(`${path}.old`, path);
  database = failingDatabase(path, () => undefined);
  context.onTestFinished(() => void database.close());
  const append = (): Promise<string> =>
    runs.append("a", "one", { after: 4, texts: texts(5, 5), end: "ended" }).then(String, ({ code }) => code);
  await expect.poll(append, { timeout: 5_000 }).toBe("false");
  expect(await stateOf(runs, "a")).toEqual(["lost", wire(1, 2)]);
  // A reader that waits for a run that is gone is woken.
  expect(calls).toBeGreaterThan(0);
  expect(await stateOf(runs, "b")).toBeUndefined();
});

test("a lease that is over while nobody calls: the run ends as lost, and its watchers are called", async (context) => {
  const { runs } = open(context, { path: newPath(context) });
  await runs.start("a", start({ leaseMs: 50 }));
  let calls = 0;
  runs.watch("a", () => calls++);
  await expect.poll(() => calls, { timeout: 5_000 }).toBeGreaterThan(0);
  expect((await stateOf(runs, "a"))?.[0]).toBe("lost");
});

/** Wraps a database. `onDelete` is called with the number of rows of runs that a statement has deleted, and `onCommit` after a commit. */
function watchedDatabase(
  database: DatabaseSync,
  onDelete: (rows: number) => void,
  onCommit: () => void,
): SqliteDatabase {
  return {
    exec: (sql) => database.exec(sql),
    prepare(sql) {
      const statement = database.prepare(sql);
      return {
        all: (...values) => statement.all(...values),
        run(...values) {
          const result = statement.run(...values);
          if (sql.startsWith("DELETE FROM fanwire_run")) onDelete(Number(result.changes));
          if (sql === "COMMIT") onCommit();
          return result;
        },
      };
    },
    close: () => database.close(),
  };
}

test("10,000 runs that are no longer kept: unknown at once, and deleted in many small steps, between which others are served", async (context) => {
  const database = new DatabaseSync(newPath(context));
  const steps: number[] = [];
  let deleted = 0;
  const watched = watchedDatabase(
    database,
    (rows) => {
      deleted += rows;
    },
    () => {
      if (deleted > 0) steps.push(deleted);
      deleted = 0;
    },
  );
  const { runs, close } = open(context, { database: watched, durability: "process" });
  // A step lasts a number of looks at the clock, and not some time of this machine.
  const { now } = performance;
  let looks = 0;
  performance.now = () => now.call(performance) + ++looks / 4;
  context.onTestFinished(() => {
    performance.now = now;
  });
  const ids = Array.from({ length: 10_000 }, (_, index) => `run ${index}`);
  await Promise.all(ids.map((id) => runs.start(id, start({ leaseMs: 1e9, retainMs: 300 }))));
  await Promise.all(ids.map((id) => runs.append(id, "one", { after: 0, texts: texts(1, 2), end: "ended" })));
  await runs.start("live", start({ leaseMs: 1e9 }));
  await runs.start("large", start({ leaseMs: 1e9, retainMs: 1 }));
  await Promise.all(
    Array.from({ length: 1_000 }, (_, index) => runs.append("large", "one", { after: index, texts: texts(1, 1) })),
  );
  await runs.append("large", "one", { after: 1_000, texts: [], end: "ended" });
  await expect.poll(() => runs.read("large", 0, 1), { timeout: 20_000 }).toBeUndefined();
  await new Promise((resolve) => setTimeout(resolve, 300));
  for (const id of ["run 0", "run 5000", "run 9999"]) expect(await runs.read(id, 0, 1)).toBeUndefined();
  const rowsLeft = (table: string): number =>
    Number(Object.values(database.prepare(`SELECT count(*) FROM ${table}`).get() ?? {})[0]);
  await expect.poll(() => rowsLeft("fanwire_runs"), { timeout: 25_000 }).toBe(1);
  expect(rowsLeft("fanwire_run_events")).toBe(0);
  expect(steps.reduce((sum, rows) => sum + rows, 0)).toBe(2 * 10_000 + 1_001);
  expect(Math.max(...steps)).toBeLessThanOrEqual(256);
  expect(steps.length).toBeGreaterThan(80);
  expect((await stateOf(runs, "live"))?.[0]).toBeUndefined();
  close();
  database.close();
});
