import { describe, expect, test } from "vitest";
import { BrokerError } from "../../../src/index.ts";
import { createRuns, type RunEvent, type Runs } from "../../../src/runs/index.ts";

import { withBroker } from "../../support/test-broker.ts";

/** Reads a run to its end. */
async function readAll(runs: Runs, id: string, after?: string): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of runs.read(id, { after })) events.push(event);
  return events;
}
const dataOf = async (runs: Runs, id: string): Promise<string[]> => (await readAll(runs, id)).map(({ data }) => data);
const code = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => "resolved",
    (error: unknown) => (error instanceof BrokerError ? error.code : error),
  );

describe("runs: a producer", () => {
  test(
    "start, write and close: a reader gets every event once, in order, and the end",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const run = await runs.start("a");
      expect(await runs.state("a")).toBe("active");
      const reading = readAll(runs, "a");
      const ids: string[] = [];
      for (const data of ["1", "2", "3"]) ids.push((await run.write(data)).id);
      await run.write({ event: "tick", data: { n: 4 } });
      const { id } = await run.close("ended", "last");
      const events = await reading;
      expect(events.map(({ data }) => data)).toEqual(["1", "2", "3", '{"n":4}', "last"]);
      expect(events.map((event) => event.event)).toEqual([undefined, undefined, undefined, "tick", undefined]);
      expect(events.slice(0, 3).map((event) => event.id)).toEqual(ids);
      expect(events.at(-1)?.id).toBe(id);
      expect(new Set(events.map((event) => event.id)).size).toBe(5);
      expect(await runs.state("a")).toBe("ended");
      expect(await runs.inspect("a")).toEqual({ state: "ended", events: 5, lastEventId: id });
    }),
  );

  test(
    "write: calls that are not awaited keep their order",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const run = await runs.start("a");
      const all = Array.from({ length: 3_000 }, (_, index) => String(index));
      const written = all.map((data) => run.write(data));
      const closed = run.close();
      expect(new Set((await Promise.all(written)).map(({ id }) => id)).size).toBe(3_000);
      await closed;
      expect(await dataOf(runs, "a")).toEqual(all);
    }),
  );

  test(
    "read: begins after an event, and refuses an id of another run",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const run = await runs.start("a");
      const { id } = await run.write("1");
      await run.write("2");
      await run.close();
      expect((await readAll(runs, "a", id)).map(({ data }) => data)).toEqual(["2"]);
      const other = await runs.start("b");
      await other.close("ended", "x");
      for (const wrong of ["x", `${id}0`, (await runs.inspect("b")).lastEventId as string])
        expect(await code(readAll(runs, "a", wrong))).toBe("bad-request");
      expect(await code(readAll(runs, "c"))).toBe("unknown-run");
    }),
  );

  test(
    "start: a live run is not replaced; one that has ended is",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const first = await runs.start("a");
      await first.write("old");
      expect(await code(runs.start("a"))).toBe("run-exists");
      await first.close("failed");
      expect(await runs.state("a")).toBe("failed");
      const second = await runs.start("a");
      await second.close("ended", "new");
      expect(await dataOf(runs, "a")).toEqual(["new"]);
      expect(await code(first.write("late"))).toBe("run-ended");
    }),
  );

  test(
    "a reader of a run that is replaced gets an error, and no event of the new one",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const first = await runs.start("a");
      const events = runs.read("a");
      await first.write("1");
      expect((await events.next()).value?.data).toBe("1");
      await first.close();
      await (await runs.start("a")).write("2");
      expect(await code(events.next())).toBe("unknown-run");
    }),
  );

  test(
    "close: is idempotent, ends everything, and nothing follows",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const run = await runs.start("a");
      await run.write("1");
      const [first, second] = await Promise.all([run.close("stopped", "2"), run.close("ended", "3")]);
      expect(second).toEqual(first);
      expect(await run.close()).toEqual(first);
      expect(await code(run.write("4"))).toBe("run-ended");
      expect(await runs.state("a")).toBe("stopped");
      expect(await dataOf(runs, "a")).toEqual(["1", "2"]);
      expect(run.stopped.aborted).toBe(true);
    }),
  );

  test(
    "write: is refused as soon as close() was called",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const run = await runs.start("a");
      const calls = [run.write("1"), run.close("failed", "2"), run.write("3")];
      expect(await Promise.all(calls.map(code))).toEqual(["resolved", "resolved", "run-ended"]);
      expect(await runs.state("a")).toBe("failed");
      expect(await dataOf(runs, "a")).toEqual(["1", "2"]);
    }),
  );

  test(
    "write: the same idempotency key is one event, another event with it is refused",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const run = await runs.start("a");
      const [first, second] = await Promise.all([
        run.write("1", { idempotencyKey: "k" }),
        run.write("1", { idempotencyKey: "k" }),
      ]);
      expect(second).toEqual(first);
      expect(await code(run.write("2", { idempotencyKey: "k" }))).toBe("key-reused");
      expect(await run.write("1", { idempotencyKey: "k" })).toEqual(first);
      await run.write("2");
      await run.close();
      expect(await dataOf(runs, "a")).toEqual(["1", "2"]);
    }),
  );

  test(
    "maxRunBytes: the producer is refused, and nothing is dropped",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker(), { maxRunBytes: 100 });
      const run = await runs.start("a");
      // `data: `, the text, and an empty line.
      await run.write("é".repeat(46));
      expect(await code(run.write("x"))).toBe("run-too-large");
      expect(await code(run.close("ended", "x"))).toBe("run-too-large");
      await run.close();
      expect(await dataOf(runs, "a")).toEqual(["é".repeat(46)]);
    }),
  );

  test(
    "write: an event that cannot be sent is refused, and the run goes on",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker({ maxEventBytes: 50 }));
      const run = await runs.start("a");
      expect(await code(run.write("x".repeat(60)))).toBe("event-too-large");
      expect(await code(run.write({ event: "fanwire-x", data: "" }))).toBe("bad-event-type");
      await expect(run.write(7 as never)).rejects.toThrow(TypeError);
      await expect(run.write("x", { key: "k" } as never)).rejects.toThrow(TypeError);
      await expect(run.close("lost" as never)).rejects.toThrow(TypeError);
      await run.close("ended", "x");
      expect(await dataOf(runs, "a")).toEqual(["x"]);
    }),
  );

  test(
    "stop: the producer's signal aborts, and the run ends as it says",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      expect(await runs.stop("a")).toBe(false);
      const run = await runs.start("a");
      await run.write("1");
      expect(run.stopped.aborted).toBe(false);
      expect(await runs.stop("a")).toBe(true);
      await expect.poll(() => run.stopped.aborted).toBe(true);
      expect(await runs.state("a")).toBe("active");
      await run.close(undefined, "stopped here");
      expect(await runs.state("a")).toBe("stopped");
      expect(await runs.stop("a")).toBe(false);
      expect(await run.stop()).toBe(false);
      expect(await dataOf(runs, "a")).toEqual(["1", "stopped here"]);
    }),
  );

  test(
    "a run that has ended is kept for `retain`",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker(), { retain: 1_500 });
      const run = await runs.start("a");
      await run.close("ended", "1");
      expect(await dataOf(runs, "a")).toEqual(["1"]);
      await expect.poll(() => runs.state("a"), { timeout: 5_000 }).toBe("unknown");
      expect(await code(run.write("2"))).toBe("run-ended");
    }),
  );

  test(
    "the retention of channels does not concern a run",
    withBroker(async (setup) => {
      const b = setup.broker({ log: { retention: { events: 1, bytes: 100, age: 50 }, logBytes: 1_000 } });
      const runs = createRuns(b);
      const run = await runs.start("a");
      for (let n = 0; n < 50; n++) {
        await run.write(`${n} ${"x".repeat(100)}`);
        await b.broadcast("x".repeat(200), { channels: "a" });
      }
      await run.close();
      expect(await dataOf(runs, "a")).toHaveLength(50);
    }),
  );

  test(
    "a run and a channel of one name have nothing in common",
    withBroker(async (setup) => {
      const b = setup.broker();
      const runs = createRuns(b);
      const run = await runs.start("news");
      await run.write("run");
      await b.broadcast("channel", { channels: "news" });
      await run.close();
      expect(await dataOf(runs, "news")).toEqual(["run"]);
      const { events } = await b.history({ channels: "news" });
      expect(events.map(({ data }) => data)).toEqual(["channel"]);
      expect(await code(b.broadcast("x", { channels: "fanwire-run:news" }))).toBe("bad-channel");
    }),
  );

  test(
    "close() of the broker: the runs of this process are lost, and nothing is written any more",
    withBroker(async (setup) => {
      const engine = setup.engine();
      const b = setup.broker({ engine });
      const runs = createRuns(b);
      const run = await runs.start("a");
      await run.write("1");
      const done = await runs.start("b");
      await done.close("ended", "x");
      const reading = code(readAll(runs, "a"));
      const other = createRuns(setup.broker({ engine }));
      expect(await other.state("a")).toBe("active");
      await b.close();
      expect(await reading).toBe("run-lost");
      expect(run.stopped.aborted).toBe(true);
      expect(await code(run.write("2"))).toBe("closed");
      expect(await code(runs.state("a"))).toBe("closed");
      expect(await other.state("a")).toBe("lost");
      expect(await dataOf(other, "b")).toEqual(["x"]);
      expect(await code(readAll(other, "a"))).toBe("run-lost");
    }),
  );

  test(
    "runs of brokers that share an engine are the same",
    withBroker(async (setup) => {
      const engine = setup.engine();
      const [one, two] = [createRuns(setup.broker({ engine })), createRuns(setup.broker({ engine }))];
      const run = await one.start("a");
      const reading = readAll(two, "a");
      await run.write("1");
      expect(await code(two.start("a"))).toBe("run-exists");
      expect(await two.stop("a")).toBe(true);
      await expect.poll(() => run.stopped.aborted).toBe(true);
      await run.close();
      expect((await reading).map(({ data }) => data)).toEqual(["1"]);
    }),
  );

  test(
    "arguments and options are checked before anything happens",
    withBroker(async (setup) => {
      const b = setup.broker({ maxNameLength: 10 });
      for (const options of [
        { retain: -1 },
        { lease: 999 },
        { lease: 86_400_001 },
        { maxRunBytes: 0 },
        { memoryBytes: 0 },
      ])
        expect(() => createRuns(b, options)).toThrow(RangeError);
      expect(() => createRuns(b, { ttl: 1 } as never)).toThrow(TypeError);
      expect(() => createRuns({})).toThrow("must be a broker");
      const runs = createRuns(b, { lease: 1_000 });
      for (const id of ["", "x".repeat(11), "a\n", "\ud800"]) {
        expect(await code(runs.start(id))).toBe("bad-id");
        expect(await code(runs.stop(id))).toBe("bad-id");
        expect(await code(runs.state(id))).toBe("bad-id");
        expect(await code(readAll(runs, id))).toBe("bad-id");
      }
      await expect(runs.start(1 as never)).rejects.toThrow(TypeError);
      await expect(runs.start("a", 5 as never)).rejects.toThrow("ReadableStream");
      await expect(runs.start("a", undefined, { format: "xml" as never, authorize: 5 as never })).rejects.toThrow(
        TypeError,
      );
      expect(await runs.state("a")).toBe("unknown");
    }),
  );

  test(
    "read: without `live` it ends with what is stored, whatever becomes of the run",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const run = await runs.start("a");
      const stored = async (after?: string): Promise<string[]> => {
        const events: RunEvent[] = [];
        for await (const event of runs.read("a", { after, live: false })) events.push(event);
        return events.map(({ data }) => data);
      };
      expect(await stored()).toEqual([]);
      const { id } = await run.write("1");
      await run.write("2");
      expect([await stored(), await stored(id), await stored("now")]).toEqual([["1", "2"], ["2"], []]);
      const reading = runs.read("a", { live: false });
      await reading.next();
      await run.write("3");
      expect((await reading.next()).value?.data).toBe("2");
      expect((await reading.next()).done).toBe(true);
      await run.close("failed", "4");
      expect(await stored()).toEqual(["1", "2", "3", "4"]);
    }),
  );

  test(
    "response: the trailer says how the run has ended",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      for (const reason of ["ended", "failed", "stopped"] as const) {
        const run = await runs.start("a");
        await run.close(reason, "1");
        const request = new Request("http://localhost/a");
        const response = await runs.response("a", request, { trailer: (end) => `data: ${end}\n\n` });
        expect(await response.text()).toMatch(new RegExp(`data: 1\n\ndata: ${reason}\n\n$`));
        const plain = await runs.response("a", request, { trailer: "data: over\n\n" });
        expect(await plain.text()).toMatch(/data: 1\n\ndata: over\n\n$/);
      }
      const refused = runs.response("a", new Request("http://localhost/a"), { trailer: 1 as never });
      await expect(refused).rejects.toThrow("trailer must be");
    }),
  );

  test(
    "read: ends with its signal, and holds no run",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const run = await runs.start("a");
      await run.write("1");
      const abort = new AbortController();
      const events = runs.read("a", { signal: abort.signal });
      expect((await events.next()).value?.data).toBe("1");
      const next = code(events.next());
      await new Promise((resolve) => setTimeout(resolve, 10));
      abort.abort(new Error("enough"));
      expect(await next).toMatchObject({ message: "enough" });
      const rest = runs.read("a");
      await rest.next();
      await rest.return?.();
      await run.close();
    }),
  );
});
