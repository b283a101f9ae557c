// The contract of a store of runs as tests: each store runs all of them. Texts are wire forms of events without ids.
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  formatRunEvent,
  type RunEnd,
  type RunPage,
  type RunStart,
  type RunStore,
} from "../../../src/engine/run-store.ts";
import { decode } from "../../../src/event/sse-format.ts";

/** A store of its own for one test, and others for the same runs, as other processes have them. */
export interface StoreUnderTest {
  readonly store: RunStore;
  /** Opens a further store for the same runs. */
  other(): RunStore | Promise<RunStore>;
  close(): void | Promise<void>;
}

/** The shortest lease and the shortest time that the tests can wait for. */
const SHORT_MS = 150;
const LONG_MS = 60_000;
const PAGE_BYTES = 64 * 1024;

const eventOf = (data: string): string => `data: ${data}\n\n`;
const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, index) => eventOf(String(from + index)));
const startOf = (generation: string, changes: Partial<RunStart> = {}): RunStart => ({
  generation,
  leaseMs: LONG_MS,
  retainMs: LONG_MS,
  readers: undefined,
  ...changes,
});

/** Defines the tests. */
export function testRunStore(open: () => StoreUnderTest | Promise<StoreUnderTest>): void {
  let underTest: StoreUnderTest;
  let store: RunStore;
  beforeEach(async () => {
    underTest = await open();
    ({ store } = underTest);
  });
  afterEach(() => underTest.close());

  const begin = async (id: string, changes: Partial<RunStart> = {}): Promise<void> => {
    expect(await store.start(id, startOf("one", changes))).toBe(true);
  };
  const read = async (id: string, after = 0, bytes = PAGE_BYTES, from = store): Promise<RunPage> => {
    const page = await from.read(id, after, bytes);
    if (!page) throw new Error(`The run ${id} is unknown.`);
    return page;
  };
  /** Reads all events of a run, page by page. */
  const readAll = async (id: string, after = 0, bytes = PAGE_BYTES, from = store): Promise<string> => {
    let text = "";
    for (;;) {
      const page = await read(id, after, bytes, from);
      if (page.bytes.length === 0) return text;
      expect(page.through).toBeGreaterThan(after);
      text += decode(page.bytes);
      after = page.through;
    }
  };
  const wire = (texts: readonly string[], generation = "one", first = 1): string =>
    texts.map((text, index) => formatRunEvent(text, generation, first + index)).join("");

  test("start: a run begins without events, and is live", async () => {
    await begin("a", { readers: "ada" });
    expect(await read("a")).toMatchObject({
      generation: "one",
      events: 0,
      through: 0,
      isStopping: false,
      readers: "ada",
    });
    const page = await read("a");
    expect(page.end).toBeUndefined();
    expect(page.bytes.length).toBe(0);
    expect(page.leaseMs).toBeGreaterThan(LONG_MS / 2);
    expect(page.leaseMs).toBeLessThanOrEqual(LONG_MS);
  });

  test("start: a live run is not replaced, and its own generation may ask again", async () => {
    await begin("a");
    await store.append("a", "one", { after: 0, texts: numbers(1, 2) });
    expect(await store.start("a", startOf("two"))).toBe(false);
    expect(await store.start("a", startOf("one"))).toBe(true);
    expect(await readAll("a")).toBe(wire(numbers(1, 2)));
  });

  test.each<RunEnd>(["ended", "failed", "stopped", "lost"])(
    "start: a run that has ended (%s) is replaced, with all of its events",
    async (end) => {
      await begin("a", { readers: "ada" });
      await store.append("a", "one", { after: 0, texts: numbers(1, 3), end });
      expect(await store.start("a", startOf("two"))).toBe(true);
      const page = await read("a");
      expect(page).toMatchObject({ generation: "two", events: 0, isStopping: false });
      expect([page.end, page.readers]).toEqual([undefined, undefined]);
      expect(await store.append("a", "one", { after: 3, texts: numbers(4, 4) })).toBe(false);
      expect(await store.append("a", "two", { after: 0, texts: numbers(9, 9) })).toBe(true);
      expect(await readAll("a")).toBe(wire(numbers(9, 9), "two"));
    },
  );

  test("start: of two at a time one wins", async () => {
    const other = await underTest.other();
    const answers = await Promise.all([
      store.start("a", startOf("one")),
      other.start("a", startOf("two")),
      store.start("a", startOf("three")),
    ]);
    expect(answers.filter(Boolean)).toHaveLength(1);
    const winner = ["one", "two", "three"][answers.indexOf(true)];
    expect((await read("a")).generation).toBe(winner);
  });

  test("append: events have numbers in order, and any text comes back", async () => {
    await begin("a");
    const texts = [
      eventOf("é ☃ 🎉 \u0000 \ufeff"),
      "event: tick\ndata: 1\n\n",
      "event: tick\nretry: 5\ndata: a\ndata: \ndata: b\n\n",
      "data: \n\n",
      eventOf("x".repeat(200_000)),
      eventOf("last"),
    ];
    expect(await store.append("a", "one", { after: 0, texts: texts.slice(0, 2) })).toBe(true);
    expect(await store.append("a", "one", { after: 2, texts: texts.slice(2) })).toBe(true);
    expect(await readAll("a")).toBe(wire(texts));
    expect((await read("a")).events).toBe(texts.length);
    expect(decode((await read("a")).bytes)).toMatch(/^id: one-1\ndata: é.*\n\nevent: tick\nid: one-2\ndata: 1\n\n/);
  });

  test("append: the same events again are not appended twice, also in part", async () => {
    await begin("a");
    await store.append("a", "one", { after: 0, texts: numbers(1, 3) });
    expect(await store.append("a", "one", { after: 0, texts: numbers(1, 3) })).toBe(true);
    expect(await store.append("a", "one", { after: 1, texts: numbers(2, 5) })).toBe(true);
    expect(await readAll("a")).toBe(wire(numbers(1, 5)));
  });

  test("append: the last events and the end are one, and may be repeated", async () => {
    await begin("a");
    await store.append("a", "one", { after: 0, texts: numbers(1, 1) });
    const last = { after: 1, texts: numbers(2, 3), end: "ended" as const };
    expect(await store.append("a", "one", last)).toBe(true);
    expect(await store.append("a", "one", last)).toBe(true);
    expect(await readAll("a")).toBe(wire(numbers(1, 3)));
    expect(await read("a", 3)).toMatchObject({ end: "ended", events: 3, through: 3, leaseMs: Infinity });
  });

  test("append: nothing follows an end, and it stays what it was", async () => {
    await begin("a");
    await store.append("a", "one", { after: 0, texts: numbers(1, 1), end: "failed" });
    expect(await store.append("a", "one", { after: 1, texts: numbers(2, 2) })).toBe(false);
    expect(await store.append("a", "one", { after: 1, texts: [], end: "ended" })).toBe(false);
    expect(await store.append("a", "one", { after: 1, texts: numbers(2, 2), end: "failed" })).toBe(false);
    expect(await store.append("a", "one", { after: 1, texts: [], end: "failed" })).toBe(true);
    expect(await read("a")).toMatchObject({ end: "failed", events: 1 });
  });

  test("append: numbers that the run cannot have are refused", async () => {
    await begin("a");
    await begin("b");
    await store.append("a", "one", { after: 0, texts: numbers(1, 3) });
    expect(await store.append("b", "one", { after: 1, texts: numbers(2, 3) })).toBe(false);
    expect(await store.append("b", "one", { after: 1, texts: [], end: "ended" })).toBe(false);
    expect([undefined, "lost"]).toContain((await read("b")).end);
    expect((await read("b")).events).toBe(0);
    expect(await store.append("a", "one", { after: 0, texts: numbers(1, 2), end: "ended" })).toBe(false);
    expect(await readAll("a")).toBe(wire(numbers(1, 3)));
    expect((await read("a")).end).toBeUndefined();
    expect(await store.append("a", "one", { after: 2, texts: numbers(3, 4), end: "ended" })).toBe(true);
    expect(await readAll("a")).toBe(wire(numbers(1, 4)));
  });

  test("append: an unknown run and another generation are refused", async () => {
    expect(await store.append("a", "one", { after: 0, texts: numbers(1, 1) })).toBe(false);
    expect(await store.read("a", 0, PAGE_BYTES)).toBeUndefined();
    await begin("a");
    expect(await store.append("a", "two", { after: 0, texts: numbers(1, 1) })).toBe(false);
    expect(await store.append("a", "two", { after: 0, texts: [], end: "ended" })).toBe(false);
    expect(await read("a")).toMatchObject({ generation: "one", events: 0 });
  });

  test("read: pages follow each other without a gap, whatever their size and their beginning", async () => {
    await begin("a");
    const texts = Array.from({ length: 900 }, (_, index) => eventOf(`${index} ${"é".repeat(index % 400)}`));
    for (let index = 0; index < texts.length; index += 90)
      await store.append("a", "one", { after: index, texts: texts.slice(index, index + 90) });
    for (const bytes of [1, 1_000, 10_000, PAGE_BYTES]) {
      const after = bytes === 1 ? 800 : 0;
      expect(await readAll("a", after, bytes)).toBe(wire(texts.slice(after), "one", after + 1));
    }
    for (const after of [1, 2, 449, 450, 451, 898, 899, 900])
      expect(await readAll("a", after)).toBe(wire(texts.slice(after), "one", after + 1));
    await store.append("a", "one", { after: 900, texts: [], end: "ended" });
    expect(await readAll("a", 0, 5_000)).toBe(wire(texts));
  });

  test("read: a page is about as large as it may be", async () => {
    await begin("a");
    await store.append("a", "one", { after: 0, texts: Array.from({ length: 500 }, () => eventOf("x".repeat(500))) });
    const { bytes, through } = await read("a", 0, 20_000);
    expect(bytes.length).toBeGreaterThan(500);
    expect(bytes.length).toBeLessThan(40_000);
    expect(through).toBeLessThan(80);
  });

  test("read: an event that was read does not change when others follow", async () => {
    await begin("a");
    await store.append("a", "one", { after: 0, texts: numbers(1, 1) });
    const first = await read("a");
    const before = decode(first.bytes);
    await store.append("a", "one", { after: 1, texts: Array.from({ length: 2_000 }, () => eventOf("x".repeat(50))) });
    await store.append("a", "one", { after: 2_001, texts: [], end: "ended" });
    expect(decode(first.bytes)).toBe(before);
  });

  test("runs do not see each other, whatever their ids are", async () => {
    const ids = ["a", "A", "a:events", "a b", "é", "e\u0301", "a-1", "x".repeat(200), "{a}", "*", "%", "__proto__"];
    for (const [index, id] of ids.entries()) {
      expect(await store.start(id, startOf(`g${index}`))).toBe(true);
      expect(await store.append(id, `g${index}`, { after: 0, texts: [eventOf(id)] })).toBe(true);
    }
    for (const [index, id] of ids.entries()) expect(await readAll(id)).toBe(wire([eventOf(id)], `g${index}`));
  });

  test("requestStop: the producer sees it, the run stays live, and a new run is not stopped", async () => {
    expect(await store.requestStop("a")).toBe(false);
    await begin("a");
    expect(await store.renew([{ id: "a", generation: "one" }])).toEqual(["live"]);
    expect(await store.requestStop("a")).toBe(true);
    expect(await store.requestStop("a")).toBe(true);
    expect(await read("a")).toMatchObject({ isStopping: true });
    expect(await store.renew([{ id: "a", generation: "one" }])).toEqual(["stopping"]);
    expect(await store.append("a", "one", { after: 0, texts: numbers(1, 1), end: "stopped" })).toBe(true);
    expect(await store.requestStop("a")).toBe(false);
    expect(await store.start("a", startOf("two"))).toBe(true);
    expect(await read("a")).toMatchObject({ isStopping: false, generation: "two" });
  });

  test("renew: tells for each run whether it is live", async () => {
    await begin("a");
    await begin("b");
    await store.append("b", "one", { after: 0, texts: [], end: "ended" });
    const runs = [
      { id: "a", generation: "one" },
      { id: "b", generation: "one" },
      { id: "a", generation: "two" },
      { id: "c", generation: "one" },
    ];
    expect(await store.renew(runs)).toEqual(["live", "over", "over", "over"]);
    expect(await store.renew([])).toEqual([]);
  });

  test("lease: a run that nobody renews ends as lost, once, and its events stay", async () => {
    await begin("a", { leaseMs: SHORT_MS });
    await store.append("a", "one", { after: 0, texts: numbers(1, 2) });
    await expect.poll(async () => (await read("a")).end, { timeout: 5_000 }).toBe("lost");
    expect(await readAll("a")).toBe(wire(numbers(1, 2)));
    expect(await store.renew([{ id: "a", generation: "one" }])).toEqual(["over"]);
    expect(await store.append("a", "one", { after: 2, texts: numbers(3, 3) })).toBe(false);
    expect(await store.append("a", "one", { after: 2, texts: [], end: "ended" })).toBe(false);
    expect(await read("a")).toMatchObject({ end: "lost", events: 2, leaseMs: Infinity });
  });

  test("lease: is over for `start` and `requestStop` too", async () => {
    await begin("a", { leaseMs: SHORT_MS });
    await begin("b", { leaseMs: SHORT_MS });
    await new Promise((resolve) => setTimeout(resolve, SHORT_MS + 50));
    expect(await store.requestStop("b")).toBe(false);
    expect(await store.start("a", startOf("two"))).toBe(true);
  });

  test("lease: renewed by `renew`, and by `append`", async () => {
    await begin("a", { leaseMs: 10 * SHORT_MS });
    await begin("b", { leaseMs: 10 * SHORT_MS });
    for (let round = 0; round < 12; round++) {
      await new Promise((resolve) => setTimeout(resolve, SHORT_MS));
      expect(await store.renew([{ id: "a", generation: "one" }])).toEqual(["live"]);
      expect(await store.append("b", "one", { after: round, texts: [eventOf(String(round))] })).toBe(true);
    }
    expect((await read("a")).end).toBeUndefined();
    expect((await read("b")).events).toBe(12);
  });

  test("lease: begins again with a repeated start", async () => {
    await begin("a", { leaseMs: 10 * SHORT_MS });
    for (let round = 0; round < 12; round++) {
      await new Promise((resolve) => setTimeout(resolve, SHORT_MS));
      await begin("a", { leaseMs: 10 * SHORT_MS });
    }
    expect((await read("a")).end).toBeUndefined();
  });

  test("retain: a run that has ended is kept for so long, and then unknown", async () => {
    await begin("a", { retainMs: 10 * SHORT_MS });
    await begin("b", { retainMs: LONG_MS });
    await begin("c", { retainMs: SHORT_MS });
    for (const id of ["a", "b"]) await store.append(id, "one", { after: 0, texts: numbers(1, 1), end: "ended" });
    expect(await readAll("a")).toBe(wire(numbers(1, 1)));
    await expect.poll(async () => await store.read("a", 0, PAGE_BYTES), { timeout: 5_000 }).toBeUndefined();
    expect(await readAll("b")).toBe(wire(numbers(1, 1)));
    // A live run is kept.
    expect((await read("c")).end).toBeUndefined();
  });

  test("watch: is called for events, an end and a request to stop, by any process", async () => {
    const other = await underTest.other();
    await begin("a");
    let calls = 0;
    let stops = 0;
    const watch = other.watch("a", (isStop) => {
      calls++;
      if (isStop) stops++;
    });
    await watch.ready;
    const changes = [
      () => store.append("a", "one", { after: 0, texts: numbers(1, 1) }),
      () => store.requestStop("a"),
      () => store.append("a", "one", { after: 1, texts: [], end: "ended" }),
      () => store.start("a", startOf("two")),
    ];
    for (const change of changes) {
      const before = calls;
      await change();
      await expect.poll(() => calls, { timeout: 5_000 }).toBeGreaterThan(before);
    }
    expect(stops).toBeGreaterThan(0);
    watch.stop();
    watch.stop();
    const before = calls;
    await store.append("a", "two", { after: 0, texts: numbers(1, 1) });
    await expect.poll(async () => (await read("a", 0, PAGE_BYTES, other)).events).toBe(1);
    expect(calls).toBe(before);
  });

  test("watch: several watchers of a run, and of others, do not disturb each other", async () => {
    await begin("a");
    await begin("b");
    const calls = { first: 0, second: 0, b: 0 };
    const watches = [
      store.watch("a", () => calls.first++),
      store.watch("a", () => calls.second++),
      store.watch("b", () => calls.b++),
    ];
    await Promise.all(watches.map(({ ready }) => ready));
    watches[0]?.stop();
    const before = calls.first;
    await store.append("a", "one", { after: 0, texts: numbers(1, 1) });
    await expect.poll(() => calls.second, { timeout: 5_000 }).toBeGreaterThan(0);
    expect(calls.first).toBe(before);
    for (const { stop } of watches) stop();
  });

  test("another process reads, stops and replaces the same runs", async () => {
    const other = await underTest.other();
    await begin("a", { readers: "ada" });
    await store.append("a", "one", { after: 0, texts: numbers(1, 3) });
    expect(await readAll("a", 1, PAGE_BYTES, other)).toBe(wire(numbers(2, 3), "one", 2));
    expect((await read("a", 0, PAGE_BYTES, other)).readers).toBe("ada");
    expect(await other.requestStop("a")).toBe(true);
    expect(await other.start("a", startOf("two"))).toBe(false);
    await store.append("a", "one", { after: 3, texts: [], end: "stopped" });
    expect(await other.start("a", startOf("two"))).toBe(true);
    expect(await store.append("a", "one", { after: 3, texts: numbers(4, 4) })).toBe(false);
  });
}
