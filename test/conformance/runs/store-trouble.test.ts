// Producers and readers whose store is away, is late, or loses answers. Found by the simulation.
import { describe, expect, test } from "vitest";
import type { RunStore } from "../../../src/engine/run-store.ts";
import { BrokerError } from "../../../src/index.ts";
import { createRuns, type RunEvent, type Runs } from "../../../src/runs/index.ts";
import { MemoryRuns } from "../../../src/runs/memory-runs.ts";
import { RunFollower, SharedReads } from "../../../src/runs/run-follower.ts";
import { Clock } from "../../support/clock.ts";
import { ScriptedStore } from "../../support/runs/scripted-store.ts";
import { codeOf, withBroker } from "../../support/test-broker.ts";

const LEASE = 1_000;

/** Runs a test with a scripted store, in virtual time. */
const withStore = (body: (store: ScriptedStore, clock: Clock) => Promise<void>): (() => Promise<void>) =>
  withBroker(async (setup) => {
    const clock = new Clock(() => undefined, true);
    await clock.run(async () => {
      try {
        await body(new ScriptedStore(setup), clock);
      } finally {
        await clock.advanceUntil(setup.close());
      }
    });
  });

/** Reads the data of all events. Rejects as the iterator does. */
async function readAll(runs: Runs, id: string, into: string[] = []): Promise<string[]> {
  for await (const { data } of runs.read(id)) into.push(data);
  return into;
}

describe("runs: a producer whose store has trouble", () => {
  test(
    "write: an answer that was lost is asked for again, and the event is stored once",
    withStore(async (store, clock) => {
      const runs = createRuns(store.broker(), { lease: LEASE });
      const run = await runs.start("a");
      store.next.append = ["unknown-done", "down", "unknown", "done"];
      const writes = [run.write("1"), run.write("2"), run.close("ended", "3")];
      expect(new Set((await clock.advanceUntil(Promise.all(writes))).map(({ id }) => id)).size).toBe(3);
      expect(await readAll(runs, "a")).toEqual(["1", "2", "3"]);
    }),
  );

  test(
    "write: while the store is away for longer than the lease, nothing is stored, and engine-down says so",
    withStore(async (store, clock) => {
      const runs = createRuns(store.broker(), { lease: LEASE });
      const run = await runs.start("a");
      store.always = { append: "down", renew: "down" };
      const codes = [codeOf(run.write("1")), codeOf(run.close())];
      expect(await clock.advanceUntil(Promise.all(codes))).toEqual(["engine-down", "engine-down"]);
      expect(clock.time).toBeGreaterThan(LEASE);
      expect(run.stopped.aborted).toBe(true);
      expect(await runs.inspect("a")).toMatchObject({ state: "lost", events: 0 });
      expect(await codeOf(run.write("2"))).toBe("engine-down");
    }),
  );

  test(
    "write: an event that may be stored is not said to be refused",
    withStore(async (store, clock) => {
      const runs = createRuns(store.broker(), { lease: LEASE });
      const run = await runs.start("a");
      store.next.append = ["unknown-done"];
      store.always = { append: "down", renew: "down" };
      const first = codeOf(run.write("1"));
      await clock.advance(100);
      // It was never sent.
      const second = codeOf(run.write("2"));
      expect(await clock.advanceUntil(first)).toBe("publish-outcome-unknown");
      expect(await second).toBe("engine-down");
      expect(await runs.inspect("a")).toMatchObject({ state: "lost", events: 1 });
    }),
  );

  test(
    "write: an event that may be stored is not said to be refused when its run was lost in between",
    withStore(async (store, clock) => {
      const runs = createRuns(store.broker(), { lease: LEASE });
      const run = await runs.start("a");
      store.next.append = ["unknown-done", new Promise((resolve) => setTimeout(resolve, 2 * LEASE))];
      store.always = { renew: "down" };
      expect(await clock.advanceUntil(codeOf(run.write("1")))).toBe("publish-outcome-unknown");
      expect(await runs.inspect("a")).toMatchObject({ state: "lost", events: 1 });
      // What has one attempt only is known.
      const second = await runs.start("b");
      store.next.append = [new Promise((resolve) => setTimeout(resolve, 2 * LEASE))];
      expect(await clock.advanceUntil(codeOf(second.write("1")))).toBe("run-ended");
      expect(await runs.inspect("b")).toMatchObject({ state: "lost", events: 0 });
    }),
  );

  test(
    "close: succeeds although its answer was lost, and the renewal has learned that the run is over",
    withStore(async (store, clock) => {
      const runs = createRuns(store.broker(), { lease: LEASE });
      const run = await runs.start("a");
      let lose: () => void = () => undefined;
      store.next.append = ["unknown-done", new Promise<void>((resolve) => (lose = resolve))];
      const closing = run.close("failed", "1");
      await clock.advance(LEASE);
      expect(run.stopped.aborted).toBe(true);
      lose();
      expect((await clock.advanceUntil(closing)).id).toMatch(/-1$/);
      expect(await runs.state("a")).toBe("failed");
    }),
  );

  test(
    "write and close: can be tried again, also with the same key, when the store was full",
    withStore(async (store, clock) => {
      const runs = createRuns(store.broker(), { lease: LEASE });
      const run = await runs.start("a");
      store.next.append = ["full"];
      expect(await codeOf(run.write("1", { idempotencyKey: "k" }))).toBe("at-capacity");
      await run.write("1", { idempotencyKey: "k" });
      store.next.append = ["full"];
      expect(await codeOf(run.close("ended", "2"))).toBe("at-capacity");
      expect(await runs.state("a")).toBe("active");
      store.next.append = ["down"];
      expect(await clock.advanceUntil(run.close("failed", "3"))).toEqual(await run.close("ended", "4"));
      expect(await readAll(runs, "a")).toEqual(["1", "3"]);
      expect(await runs.state("a")).toBe("failed");
    }),
  );

  test(
    "start: an answer that was lost is asked for again; while the store is away, the outcome stays unknown",
    withStore(async (store, clock) => {
      const runs = createRuns(store.broker(), { lease: LEASE });
      store.next.start = ["unknown-done", "done"];
      const run = await clock.advanceUntil(runs.start("a"));
      await run.close("ended", "1");
      store.next.start = ["unknown-done", "down", "done"];
      await clock.advanceUntil(runs.start("b"));
      store.next.start = ["unknown-done"];
      store.always = { start: "down" };
      expect(await clock.advanceUntil(codeOf(runs.start("c")))).toBe("publish-outcome-unknown");
      expect(await codeOf(runs.start("d"))).toBe("engine-down");
    }),
  );

  test(
    "start: a run that begins while the broker closes is lost at once, and nobody renews it",
    withStore(async (store, clock) => {
      const broker = store.broker();
      const runs = createRuns(broker, { lease: LEASE });
      const other = createRuns(store.broker(), { lease: LEASE });
      store.next.start = [new Promise((resolve) => setTimeout(resolve, 100))];
      const starting = codeOf(runs.start("a"));
      await clock.advanceUntil(broker.close());
      expect(await clock.advanceUntil(starting)).toBe("closed");
      expect(await other.state("a")).toBe("lost");
      await clock.advance(3 * LEASE);
      // A renewal would be due within a third of the lease. The engine has timers of its own.
      expect(clock.pending.filter((ms) => ms <= LEASE / 3)).toEqual([]);
    }),
  );

  test(
    "close() of the broker: an event that is under way is stored, and the run is lost right behind it",
    withStore(async (store, clock) => {
      const broker = store.broker();
      const runs = createRuns(broker);
      const other = createRuns(store.broker());
      const [first] = [await runs.start("a"), await runs.start("b")];
      store.next.append = [new Promise((resolve) => setTimeout(resolve, 100))];
      const written = first.write("1");
      await clock.advance(10);
      const unsent = codeOf(first.write("2"));
      const closing = broker.close();
      expect(await unsent).toBe("closed");
      await clock.advanceUntil(closing);
      expect((await written).id).toMatch(/-1$/);
      expect(await other.inspect("a")).toMatchObject({ state: "lost", events: 1 });
      expect(await other.inspect("b")).toMatchObject({ state: "lost", events: 0 });
    }),
  );

  test(
    "stop: the run stops its own producer, and never another run that has its id",
    withStore(async (store, clock) => {
      const [one, two] = [createRuns(store.broker(), { lease: LEASE }), createRuns(store.broker(), { lease: LEASE })];
      store.always = { renew: "down" };
      const lost = await one.start("a");
      await clock.advance(LEASE + 1);
      const run = await two.start("a");
      expect(await lost.stop()).toBe(true);
      await clock.advance(50);
      expect(lost.stopped.aborted).toBe(true);
      expect(run.stopped.aborted).toBe(false);
      expect(await store.inner.renew([{ id: "a", generation: "" }])).toEqual(["over"]);
    }),
  );

  test(
    "pipe: resolves with `lost` if the store was away for longer than the lease",
    withStore(async (store, clock) => {
      const errors: unknown[] = [];
      const runs = createRuns(
        store.broker((error) => errors.push(error)),
        { lease: LEASE },
      );
      const run = await runs.start("a");
      store.always = { append: "down", renew: "down" };
      async function* source(): AsyncGenerator<string> {
        yield "1";
      }
      expect(await clock.advanceUntil(run.pipe(source()))).toBe("lost");
      expect(errors).toMatchObject([{ code: "engine-down" }]);
      expect(await runs.state("a")).toBe("lost");
    }),
  );
});

describe("runs: readers in trouble", () => {
  test(
    "read: ends with `closed` when the broker closes, and the run goes on elsewhere",
    withStore(async (store, clock) => {
      const broker = store.broker();
      const [runs, other] = [createRuns(broker), createRuns(store.broker())];
      const run = await other.start("a");
      await run.write("1");
      const waiting: string[] = [];
      const reading = codeOf(readAll(runs, "a", waiting));
      const paused = runs.read("a");
      expect((await paused.next()).value).toMatchObject({ data: "1" } satisfies Partial<RunEvent>);
      await clock.advance(10);
      await clock.advanceUntil(broker.close());
      expect(await reading).toBe("closed");
      expect(waiting).toEqual(["1"]);
      expect(await codeOf(paused.next())).toBe("closed");
      expect(await other.state("a")).toBe("active");
      await run.close();
    }),
  );

  test(
    "a read that ends the run, because its lease is over, gives each event once",
    withFollower({}, async ({ store, follower, seen, clock }) => {
      await store.append("a", "one", { after: 0, texts: ["data: 1\n\n"] });
      // No timer has fired yet.
      clock.time = LEASE + 1;
      follower.requestNext();
      expect(seen).toEqual(["id: one-1\ndata: 1\n\n"]);
      follower.requestNext();
      expect(seen.slice(1)).toEqual(["lost"]);
    }),
  );

  test(
    "an event that is stored during a read does not wait for the next one",
    withFollower({ readMs: 50 }, async ({ store, follower, seen, clock }) => {
      follower.requestNext();
      await store.append("a", "one", { after: 0, texts: ["data: 1\n\n"] });
      // One read that misses it, and one that does not.
      await clock.advance(100);
      expect(seen).toHaveLength(1);
    }),
  );

  test(
    "an event that was stored before a watch failed does not wait for the next one",
    withFollower({ isWatchBroken: true }, async ({ store, follower, seen, clock }) => {
      follower.requestNext();
      await store.append("a", "one", { after: 0, texts: ["data: 1\n\n"] });
      await clock.advance(LEASE / 2);
      expect(seen).toHaveLength(1);
    }),
  );
});

interface FollowerTest {
  readonly store: MemoryRuns;
  readonly follower: RunFollower;
  /** The text of events, or how the run has ended. */
  readonly seen: string[];
  readonly clock: Clock;
}

/** Runs a test with a run `a` of generation `one`, and a follower of it from its beginning on. Answers of reads take `readMs`. */
const withFollower =
  (
    { readMs, isWatchBroken }: { readonly readMs?: number; readonly isWatchBroken?: boolean },
    body: (test: FollowerTest) => Promise<void>,
  ): (() => Promise<void>) =>
  async () => {
    const clock = new Clock(() => undefined, true);
    await clock.run(async () => {
      const store = new MemoryRuns(1_000_000);
      await store.start("a", { generation: "one", leaseMs: LEASE, retainMs: LEASE, readers: undefined });
      const troubled: RunStore = Object.create(store, {
        read: {
          value: (...args: Parameters<MemoryRuns["read"]>) => {
            const page = store.read(...args);
            if (readMs === undefined) return page;
            return new Promise((resolve) => setTimeout(() => resolve(page), readMs));
          },
        },
        watch: {
          value: (...args: Parameters<MemoryRuns["watch"]>) =>
            isWatchBroken
              ? { ready: Promise.reject(new BrokerError("engine-down", "Not watched.")), stop: () => undefined }
              : store.watch(...args),
        },
      });
      const seen: string[] = [];
      const follower = new RunFollower(
        { id: "a", generation: "one", after: 0 },
        { store: troubled, reads: new SharedReads(troubled) },
        {
          onEvents: (bytes) => seen.push(new TextDecoder().decode(bytes)),
          onEnd: (end) => seen.push(end),
          onFailure: ({ code }) => seen.push(code),
        },
      );
      await body({ store, follower, seen, clock });
      follower.stop();
      await clock.advance(3 * LEASE);
      expect(clock.pending).toEqual([]);
    });
  };
