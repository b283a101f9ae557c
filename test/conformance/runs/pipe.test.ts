import { describe, expect, test } from "vitest";
import { createRuns, type Run, type RunFormat, type Runs } from "../../../src/runs/index.ts";
import { codeOf, type TestSetup, withBroker } from "../../support/test-broker.ts";

/** The events of a run that has ended, as `type|data`. */
async function eventsOf(runs: Runs, id = "a"): Promise<string[]> {
  const events: string[] = [];
  for await (const { event, data } of runs.read(id)) events.push(event === undefined ? data : `${event}|${data}`);
  return events;
}

const streamOf = (chunks: readonly unknown[]): ReadableStream<unknown> =>
  new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
async function* generate(chunks: readonly unknown[]): AsyncGenerator<unknown> {
  for (const chunk of chunks) {
    await undefined;
    yield chunk;
  }
}
/** Yields one chunk, and then waits until it is left. `onEnd` is called at the end of a stream, not of a generator that waits. */
const hanging = (onEnd: () => void): ReadableStream<unknown> =>
  new ReadableStream({
    start: (controller) => controller.enqueue("1"),
    cancel: onEnd,
  });
async function* waiting(): AsyncGenerator<unknown> {
  yield "1";
  await new Promise(() => undefined);
}

const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);
/** Cuts bytes into pieces of one size, so that characters are cut as well. */
const cut = (whole: Uint8Array, size: number): Uint8Array[] =>
  Array.from({ length: Math.ceil(whole.length / size) }, (_, index) =>
    whole.subarray(index * size, (index + 1) * size),
  );

async function start(setup: TestSetup, errors: unknown[] = []): Promise<{ readonly runs: Runs; readonly run: Run }> {
  const runs = createRuns(setup.broker({ onError: ({ error, stage }) => void errors.push([stage, error]) }), {
    maxRunBytes: 100_000,
  });
  return { runs, run: await runs.start("a") };
}

describe("run.pipe", () => {
  test(
    "start: pipes a stream or a generator; a stream that has a reader is refused before the run begins",
    withBroker(async (setup) => {
      const errors: unknown[] = [];
      const { runs } = await start(setup, errors);
      for (const [id, source] of [
        ["b", streamOf(["1", "2"])],
        ["c", generate(["1", "2"])],
      ] as const) {
        await runs.start(id, source);
        expect(await eventsOf(runs, id)).toEqual(["1", "2"]);
        expect(await runs.state(id)).toBe("ended");
      }
      const taken = streamOf(["1"]);
      taken.getReader();
      await expect(runs.start("d", taken)).rejects.toThrow("has a reader");
      expect(await runs.state("d")).toBe("unknown");
      // Taken while the run begins: it fails, and the error is reported.
      const late = streamOf(["1"]);
      const starting = runs.start("e", late);
      late.getReader();
      await starting;
      await expect.poll(() => runs.state("e")).toBe("failed");
      expect(errors).toMatchObject([["run", { name: "TypeError" }]]);
    }),
  );

  test(
    "text: a character whose two halves are in two pieces stays whole",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      await run.pipe(generate(["a\ud83c", "\udf89b", "\ud83c", "\udf89", "\udf89", "c"]));
      expect(await eventsOf(runs)).toEqual(["a", "🎉b", "🎉", "\ufffd", "c"]);
    }),
  );

  test(
    "text: each piece of text is an event, objects are events as `write` takes them, empty pieces are none",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      const chunks = ["a", "", "b\nc", { event: "tick", data: { n: 1 } }];
      expect(await run.pipe(streamOf(chunks))).toBe("ended");
      expect(await eventsOf(runs)).toEqual(["a", "b\nc", 'tick|{"n":1}']);
      const second = await runs.start("a");
      expect(await second.pipe(generate(chunks))).toBe("ended");
      expect(await eventsOf(runs)).toEqual(["a", "b\nc", 'tick|{"n":1}']);
    }),
  );

  test.each([1, 2, 3, 7, 1_000])("text: bytes in pieces of %i keep their characters", (size) =>
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      await run.pipe(streamOf(cut(bytes("aé☃🎉\ufeffz"), size)));
      expect((await eventsOf(runs)).join("")).toBe("aé☃🎉\ufeffz");
    })(),
  );

  test(
    "json: each chunk is serialized",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      await run.pipe(generate([{ a: 1 }, "text", null, [1]]), { format: "json" });
      expect(await eventsOf(runs)).toEqual(['{"a":1}', '"text"', "null", "[1]"]);
    }),
  );

  test.each([1, 2, 5, 1_000])("sse: frames in pieces of %i are read event by event", (size) =>
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      const text =
        "\ufeff: open\n\ndata: 1\n\nevent: tick\ndata: é\r\nid: 7\r\n\r\n: keep-alive\n\ndata: a\ndata: b\n\nid: 8\n\ndata: [DONE]\n\ndata: cut";
      await run.pipe(streamOf(cut(bytes(text), size)), { format: "sse" });
      expect(await eventsOf(runs)).toEqual(["1", "tick|é", "a\nb"]);
    })(),
  );

  test(
    "a source that throws: the events before it stay, the run has failed, and the error is reported",
    withBroker(async (setup) => {
      const errors: unknown[] = [];
      const { runs, run } = await start(setup, errors);
      const error = new Error("model");
      const source = (async function* () {
        yield "1";
        throw error;
      })();
      expect(await run.pipe(source)).toBe("failed");
      expect(await runs.state("a")).toBe("failed");
      expect(await eventsOf(runs)).toEqual(["1"]);
      await expect.poll(() => errors).toEqual([["run", error]]);
    }),
  );

  test.each<[string, RunFormat, unknown]>([
    ["a number in text", "text", 7],
    ["an object in sse", "sse", {}],
    ["a function in json", "json", () => undefined],
    ["an unknown member", "text", { data: "1", id: "x" }],
  ])("%s is refused: the run has failed", (_, format, chunk) =>
    withBroker(async (setup) => {
      const errors: unknown[] = [];
      const { runs, run } = await start(setup, errors);
      expect(await run.pipe(generate([chunk]), { format })).toBe("failed");
      expect(await eventsOf(runs)).toEqual([]);
      await expect.poll(() => errors).toHaveLength(1);
    })(),
  );

  test(
    "stop: ends the source and the run, also while the source waits",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      let isCancelled = false;
      const piped = run.pipe(hanging(() => (isCancelled = true)));
      await expect.poll(async () => (await runs.inspect("a")).events).toBe(1);
      await runs.stop("a");
      expect(await piped).toBe("stopped");
      expect(isCancelled).toBe(true);
      expect(await eventsOf(runs)).toEqual(["1"]);
      const second = await runs.start("a");
      const pipedAgain = second.pipe(waiting());
      await expect.poll(async () => (await runs.inspect("a")).events).toBe(1);
      await second.stop();
      expect(await pipedAgain).toBe("stopped");
      expect(await runs.state("a")).toBe("stopped");
    }),
  );

  test(
    "signal: stops the run, before and while it is read",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      const abort = new AbortController();
      const piped = run.pipe(waiting(), { signal: abort.signal });
      await expect.poll(async () => (await runs.inspect("a")).events).toBe(1);
      abort.abort();
      expect(await piped).toBe("stopped");
      const second = await runs.start("a");
      expect(await second.pipe(waiting(), { signal: abort.signal })).toBe("stopped");
      expect(await eventsOf(runs)).toEqual([]);
    }),
  );

  test(
    "waitUntil: receives the work, which never rejects",
    withBroker(async (setup) => {
      const { run } = await start(setup);
      const work: Promise<unknown>[] = [];
      const source = (async function* () {
        yield "1";
        throw new Error("model");
      })();
      const piped = run.pipe(source, { waitUntil: (promise) => work.push(promise) });
      expect(await piped).toBe("failed");
      expect(await Promise.all(work)).toEqual(["failed"]);
    }),
  );

  test(
    "a run has one source; what is not a source is refused, and the run goes on",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      for (const wrong of [undefined, null, "text", {}, []] as never[])
        expect(await codeOf(run.pipe(wrong))).toBe("TypeError");
      for (const options of [{ format: "xml" }, { waitUntil: 1 }, { batch: 1 }] as never[])
        expect(await codeOf(run.pipe(generate([]), options))).toBe("TypeError");
      await run.write("before");
      const piped = run.pipe(generate(["1"]));
      expect(await codeOf(run.pipe(generate(["2"])))).toBe("run-exists");
      expect(await piped).toBe("ended");
      expect(await eventsOf(runs)).toEqual(["before", "1"]);
    }),
  );

  test(
    "a source larger than maxRunBytes: the run has failed, with the events that it has room for",
    withBroker(async (setup) => {
      const errors: unknown[] = [];
      const { runs, run } = await start(setup, errors);
      const chunk = "x".repeat(9_000);
      expect(await run.pipe(generate(Array.from({ length: 20 }, () => chunk)))).toBe("failed");
      expect(await eventsOf(runs)).toEqual(Array.from({ length: 11 }, () => chunk));
      await expect.poll(() => errors).toMatchObject([["run", { code: "run-too-large" }]]);
    }),
  );

  test(
    "a source that is closed from outside ends as it was closed",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      const piped = run.pipe(waiting());
      await expect.poll(async () => (await runs.inspect("a")).events).toBe(1);
      await run.close("ended", "by hand");
      expect(await piped).toBe("ended");
      expect(await eventsOf(runs)).toEqual(["1", "by hand"]);
    }),
  );

  test(
    "start(id, source): a source that is not valid starts no run",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      expect(await codeOf(runs.start("a", {} as never))).toBe("TypeError");
      expect(await runs.state("a")).toBe("unknown");
      await runs.start("a", generate([{ n: 1 }]), { format: "json" });
      expect(await eventsOf(runs)).toEqual(['{"n":1}']);
    }),
  );
});
