import { expect, test } from "vitest";
import { formatRunEvent, type RunStart, type RunStore } from "../../src/engine/run-store.ts";
import { decode } from "../../src/event/sse-format.ts";
import { durableEngine, type ObjectEngine } from "../../src/workers/sqlite-engine.ts";
import { openRunsOf } from "../support/runs/sessions.ts";
import { codeOf } from "../support/test-broker.ts";
import { type Inside, type TestObject, withClockAhead, withObject } from "./support/test-object.ts";

// Runs of an object: what outlives its instance, what its alarm does while nobody is connected, and the rows that they cost.

const MINUTE = 60_000;
const LEASE_MS = 30_000;

const start = (changes: Partial<RunStart> = {}): RunStart => ({
  ...{ generation: "one", leaseMs: LEASE_MS, retainMs: 5 * MINUTE, readers: undefined },
  ...changes,
});
const texts = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, index) => `data: ${from + index}\n\n`);
const wire = (from: number, to: number): string =>
  texts(from, to)
    .map((text, index) => formatRunEvent(text, "one", from + index))
    .join("");

/** Runs `body` inside an object, with its runs as an instance that has just started has them. Their alarm is the object's. */
const withRuns = <T>(
  object: TestObject,
  body: (runs: RunStore, engine: ObjectEngine, inside: Inside) => Promise<T>,
): Promise<T> =>
  object.inside(async (_, inside) => {
    const engine = durableEngine(inside.storage);
    let alarmAt = (await inside.storage.getAlarm()) ?? Infinity;
    engine.requestWake = (time) => {
      if (time >= alarmAt) return;
      alarmAt = time;
      void inside.storage.setAlarm(time);
    };
    return body(openRunsOf(engine).runs, engine, inside);
  });

/** Returns what is there of a run: its end, and its events. */
async function stateOf(runs: RunStore, id: string): Promise<[end: string | undefined, text: string] | undefined> {
  const page = await runs.read(id, 0, 1e6);
  return page && [page.end, decode(page.bytes)];
}

for (const [how, restart] of [
  ["an eviction", (object: TestObject) => object.evict()],
  ["a crash", (object: TestObject) => object.crash()],
] as const)
  test(
    `restart by ${how}: a run goes on, one that ended is there, and a request to stop is not forgotten`,
    withObject({}, async (object) => {
      await withRuns(object, async (runs) => {
        for (const id of ["live", "ended"]) await runs.start(id, start({ readers: "ada" }));
        for (const id of ["live", "ended"]) await runs.append(id, "one", { after: 0, texts: texts(1, 3) });
        await runs.append("ended", "one", { after: 3, texts: texts(4, 4), end: "failed" });
        await runs.requestStop("live");
      });
      await restart(object);
      await withRuns(object, async (runs) => {
        expect(await stateOf(runs, "ended")).toEqual(["failed", wire(1, 4)]);
        expect(await stateOf(runs, "live")).toEqual([undefined, wire(1, 3)]);
        expect(await runs.read("live", 3, 1)).toMatchObject({ isStopping: true, readers: "ada", events: 3 });
        expect(await runs.renew([{ id: "live", generation: "one" }])).toEqual(["stopping"]);
        expect(await runs.append("live", "one", { after: 3, texts: texts(4, 5), end: "stopped" })).toBe(true);
        expect(await stateOf(runs, "live")).toEqual(["stopped", wire(1, 5)]);
      });
    }),
  );

test(
  "restart: the lease of a run holds, and is over in its time",
  withObject({}, async (object) => {
    await withRuns(object, (runs) => runs.start("a", start()));
    await withClockAhead(0.9 * LEASE_MS, async () => {
      // The producer is elsewhere, and renews.
      await withRuns(object, async (runs) => {
        const { leaseMs = 0 } = (await runs.read("a", 0, 1)) ?? {};
        expect([leaseMs > 0, leaseMs <= LEASE_MS]).toEqual([true, true]);
        await runs.renew([{ id: "a", generation: "one" }]);
      });
      await object.evict();
    });
    await withClockAhead(1.8 * LEASE_MS, () =>
      withRuns(object, async (runs) => expect((await stateOf(runs, "a"))?.[0]).toBeUndefined()),
    );
    await withClockAhead(2.5 * LEASE_MS, () =>
      withRuns(object, async (runs) => expect((await stateOf(runs, "a"))?.[0]).toBe("lost")),
    );
  }),
);

test(
  "alarm: ends a run whose lease is over while nobody is connected, drops it after its time, and empties the object",
  withObject({ inboxLinger: 0 }, async (object) => {
    await withRuns(object, async (runs) => {
      await runs.start("a", start());
      await runs.append("a", "one", { after: 0, texts: texts(1, 2) });
    });
    const first = Number(await object.nextAlarm()) - Date.now();
    expect([first > LEASE_MS - MINUTE / 6, first <= LEASE_MS + 1]).toEqual([true, true]);
    await object.evict();
    // The stored lease is longer than the real one, so that a renewal seldom writes.
    await withClockAhead(LEASE_MS, () => object.runAlarm());
    expect(await object.sql("SELECT ending FROM fanwire_runs")).toEqual([{ ending: null }]);
    expect(Number(await object.nextAlarm()) - Date.now()).toBeLessThanOrEqual(1.5 * LEASE_MS + 10);
    await object.evict();
    await withClockAhead(2 * LEASE_MS, async () => {
      await object.runAlarm();
      expect(await object.sql("SELECT ending FROM fanwire_runs")).toEqual([{ ending: "lost" }]);
      const next = Number(await object.nextAlarm()) - Date.now();
      expect([next > 4 * MINUTE, next <= 5 * MINUTE]).toEqual([true, true]);
      await withRuns(object, async (runs) => expect(await stateOf(runs, "a")).toEqual(["lost", wire(1, 2)]));
    });
    // A run is kept in an object that is otherwise empty.
    await withClockAhead(5 * MINUTE, () => object.runAlarm());
    expect(await object.sql("SELECT id FROM fanwire_runs")).toEqual([{ id: "a" }]);
    await withClockAhead(7 * MINUTE, () => object.runAlarm());
    expect([await object.tables(), await object.nextAlarm()]).toEqual([[], null]);
    await withRuns(object, async (runs) => expect(await runs.read("a", 0, 1)).toBeUndefined());
  }),
);

test(
  "alarm: watchers are called when a lease is over, and a run that is renewed in this instance goes on",
  withObject({}, async (object) => {
    await withRuns(object, async (runs, engine) => {
      for (const id of ["a", "b"]) await runs.start(id, start());
      const calls: string[] = [];
      for (const id of ["a", "b"]) runs.watch(id, () => calls.push(id));
      await withClockAhead(0.9 * LEASE_MS, () => runs.renew([{ id: "b", generation: "one" }]));
      await withClockAhead(LEASE_MS + 1, async () => {
        const next = engine.cleanUp();
        expect([next > 0.8 * LEASE_MS, next < 0.9 * LEASE_MS + 1]).toEqual([true, true]);
        expect(calls).toEqual(["a"]);
        expect((await stateOf(runs, "a"))?.[0]).toBe("lost");
        expect((await stateOf(runs, "b"))?.[0]).toBeUndefined();
      });
    });
  }),
);

test(
  "alarm: runs of many rows are deleted by several alarms, and unknown as a whole from the first on",
  withObject({}, async (object) => {
    await withRuns(object, async (runs, engine, { storage: { sql } }) => {
      await runs.start("a", start({ retainMs: MINUTE }));
      for (let after = 0; after < 12_000; after++) await runs.append("a", "one", { after, texts: texts(1, 1) });
      await runs.append("a", "one", { after: 12_000, texts: [], end: "ended" });
      const rows = () => Number([...sql.exec("SELECT count(*) AS n FROM fanwire_run_events")][0]?.n);
      expect(rows()).toBe(12_000);
      await withClockAhead(MINUTE + 1, async () => {
        expect(engine.cleanUp()).toBeLessThan(1_000);
        expect(rows()).toBe(2_000);
      });
      // Also if the clock goes back.
      expect(await runs.read("a", 0, 1)).toBeUndefined();
      engine.cleanUp();
      expect([rows(), [...sql.exec("SELECT id FROM fanwire_runs")]]).toEqual([0, []]);
    });
  }),
);

test(
  "rows: an append of several events is one row, and a renewal writes one every half of the lease at most",
  withObject({}, async (object) => {
    await withRuns(object, async (runs, engine, { storage: { sql } }) => {
      // The alarm is a row as well, which is written at some later time.
      engine.requestWake = undefined;
      const rowsOf = async (body: () => Promise<unknown>): Promise<number> => {
        const changes = () => Number([...sql.exec("SELECT total_changes() AS n")][0]?.n);
        const before = changes();
        await body();
        return changes() - before;
      };
      expect(await rowsOf(() => runs.start("a", start()))).toBe(1);
      expect(await rowsOf(() => runs.append("a", "one", { after: 0, texts: texts(1, 100) }))).toBe(1);
      const renewed = await rowsOf(async () => {
        for (let ms = 0; ms < 10 * LEASE_MS; ms += LEASE_MS / 10)
          await withClockAhead(ms, () => runs.renew([{ id: "a", generation: "one" }]));
      });
      expect([renewed > 10, renewed <= 20]).toEqual([true, true]);
      await withClockAhead(10 * LEASE_MS, async () => {
        expect(await rowsOf(() => runs.requestStop("a"))).toBe(1);
        expect(await rowsOf(() => runs.requestStop("a"))).toBe(0);
        expect(await rowsOf(() => runs.append("a", "one", { after: 100, texts: texts(1, 1), end: "ended" }))).toBe(2);
        expect(await rowsOf(async () => runs.read("a", 0, 1e6))).toBe(0);
      });
    });
  }),
);

test(
  "storage that refuses writes: engine-down, and nothing of the call is there",
  withObject({}, async (object) => {
    await object.inside(async (_, { storage }) => {
      const { sql } = storage;
      let refused = /^$/;
      const exec: typeof sql.exec = (query, ...bindings) => {
        if (refused.test(query)) throw new Error("database or disk is full: SQLITE_FULL");
        return sql.exec(query, ...bindings);
      };
      const transactionSync: typeof storage.transactionSync = (body) => storage.transactionSync(body);
      const { runs } = openRunsOf(durableEngine({ sql: { exec }, transactionSync }));
      await runs.start("a", start());
      await runs.append("a", "one", { after: 0, texts: texts(1, 1) });
      let calls = 0;
      runs.watch("a", () => calls++);
      const last = { after: 1, texts: texts(2, 3), end: "ended" } as const;
      for (refused of [/INTO fanwire_run_events/, /SET ending/]) {
        expect(await codeOf(runs.append("a", "one", last))).toBe("engine-down");
        expect(await stateOf(runs, "a")).toEqual([undefined, wire(1, 1)]);
      }
      refused = /fanwire_runs/;
      const all = [runs.start("b", start()), runs.requestStop("a"), runs.renew([{ id: "a", generation: "one" }])];
      for (const call of [...all, Promise.resolve(runs.read("a", 0, 1))])
        expect(await codeOf(call)).toBe("engine-down");
      refused = /^$/;
      expect(await runs.append("a", "one", last)).toBe(true);
      expect(await stateOf(runs, "a")).toEqual(["ended", wire(1, 3)]);
      expect(calls).toBeGreaterThan(0);
    });
  }),
);

test(
  "an event that is larger than a row may be: event-too-large, and the run goes on",
  withObject({}, async (object) => {
    await withRuns(object, async (runs) => {
      await runs.start("a", start());
      const large = [...texts(1, 2), `data: ${"x".repeat(20_000_000)}\n\n`];
      expect(await codeOf(runs.append("a", "one", { after: 0, texts: large }))).toBe("event-too-large");
      expect(await stateOf(runs, "a")).toEqual([undefined, ""]);
      const many = Array.from({ length: 40 }, () => `data: ${"x".repeat(100_000)}\n\n`);
      expect(await runs.append("a", "one", { after: 0, texts: many })).toBe(true);
      expect((await runs.read("a", 39, 1))?.bytes.length).toBeGreaterThan(100_000);
    });
  }),
);
