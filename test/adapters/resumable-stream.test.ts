// `fanwire/runs/resumable-stream` beside the package that it replaces: the cases that both pass, and those of ours alone.
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { createBroker } from "../../src/index.ts";
import type { NodeFetch } from "../../src/node/index.ts";
import { createRuns, type Runs } from "../../src/runs/index.ts";
import { createResumableStreamContext, type ResumableStreamContext } from "../../src/runs/resumable-stream.ts";
import { CHUNKS, cutsOf, gate, Network, serve, streamOf, textOf, words } from "./app.ts";
import { load, needsPackages } from "./installed.ts";

const theirs = await load(() => import("resumable-stream/generic"), "resumable-stream");

const TEXT = textOf(CHUNKS);

/** A publisher and a subscriber in memory, as the package asks for. */
function pubSub() {
  const values = new Map<string, string>();
  const listeners = new Map<string, (message: string) => void>();
  return {
    publisher: {
      connect: async () => undefined,
      publish: async (channel: string, message: string) => listeners.get(channel)?.(message),
      set: async (key: string, value: string) => void values.set(key, value),
      get: async (key: string) => values.get(key) ?? null,
      async incr(key: string) {
        const value = Number(values.get(key) ?? 0) + 1;
        if (Number.isNaN(value)) throw new Error("ERR value is not an integer or out of range");
        values.set(key, String(value));
        return value;
      },
    },
    subscriber: {
      connect: async () => undefined,
      subscribe: async (channel: string, listener: (message: string) => void) => void listeners.set(channel, listener),
      unsubscribe: async (channel: string) => listeners.delete(channel),
    },
  };
}

function newRuns(): Runs {
  const broker = createBroker({ onError: () => undefined });
  onTestFinished(() => broker.close({ force: true }));
  return createRuns(broker);
}

const contexts: Readonly<Record<string, () => ResumableStreamContext>> = {
  "fanwire/runs": () => createResumableStreamContext(newRuns(), { waitUntil: null }),
  "resumable-stream": () =>
    theirs.createResumableStreamContext({ waitUntil: () => undefined, keyPrefix: "test", ...pubSub() }),
};

/** A source that a test writes. */
function source() {
  const { readable, writable } = new TransformStream<string, string>(undefined, { highWaterMark: 100 });
  const writer = writable.getWriter();
  return {
    make: () => readable,
    write: (...texts: readonly string[]) => void texts.map((text) => writer.write(text)),
    close: () => void writer.close(),
    fail: (error: Error) => void writer.abort(error),
  };
}
const unused = (): never => {
  throw new Error("The source was made twice.");
};

/** Reads a stream: the next so many chunks, or to its end. */
async function read(stream: ReadableStream<string> | null | undefined, count = Infinity): Promise<string> {
  const reader = (stream as ReadableStream<string>).getReader();
  let text = "";
  for (let left = count; left > 0; left--) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
  }
  reader.releaseLock();
  return text;
}

describe.each(Object.entries(contexts))("%s", needsPackages, (_, contextOf) => {
  test("a stream is a stream", async () => {
    const { make, write, close } = source();
    const stream = await contextOf().resumableStream("a", make);
    write("1\n", "2\n", "3\n");
    close();
    expect(await read(stream)).toBe("1\n2\n3\n");
  });

  test.each([
    ["in the order of the calls", [0, 1]],
    ["in the other order", [1, 0]],
  ])("a stream that is done before anybody reads it, read %s", async (_order, order) => {
    const context = contextOf();
    const { make, write, close } = source();
    const streams = [await context.resumableStream("a", make), await context.resumableStream("a", unused)];
    write("1\n", "2\n");
    close();
    for (const index of order) expect(await read(streams[index])).toBe("1\n2\n");
  });

  test("hasExistingStream: null, true, DONE", async () => {
    const context = contextOf();
    expect(await context.hasExistingStream("a")).toBe(null);
    const { make, write, close } = source();
    const stream = await context.resumableStream("a", make);
    expect([await context.hasExistingStream("a"), await context.hasExistingStream("b")]).toEqual([true, null]);
    const second = await context.resumableStream("a", unused);
    expect(await context.hasExistingStream("a")).toBe(true);
    write("1\n");
    close();
    expect([await read(stream), await read(second)]).toEqual(["1\n", "1\n"]);
    expect(await context.hasExistingStream("a")).toBe("DONE");
  });

  test("a stream that goes on is joined", async () => {
    const context = contextOf();
    const { make, write, close } = source();
    const stream = await context.resumableStream("a", make);
    write("1\n");
    const second = await context.resumableStream("a", unused);
    write("2\n");
    close();
    expect([await read(stream), await read(second)]).toEqual(["1\n2\n", "1\n2\n"]);
  });

  test("chunks arrive as they are written", async () => {
    const context = contextOf();
    const { make, write, close } = source();
    const stream = await context.resumableStream("a", make);
    write("1\n");
    const second = await context.resumableStream("a", unused);
    expect([await read(stream, 1), await read(second, 1)]).toEqual(["1\n", "1\n"]);
    write("2\n");
    close();
    expect([await read(stream), await read(second)]).toEqual(["2\n", "2\n"]);
  });

  test.each([
    ["the one that created it", 0],
    ["the one that joined it", 1],
  ])("chunks arrive as they are written, and first at %s", async (_which, first) => {
    const context = contextOf();
    const { make, write, close } = source();
    const streams = [await context.resumableStream("a", make)];
    write("1\n");
    streams.push(await context.resumableStream("a", unused));
    expect(await read(streams[first], 1)).toBe("1\n");
    write("2\n");
    close();
    expect(await read(streams[first])).toBe("2\n");
    expect(await read(streams[1 - first])).toBe("1\n2\n");
  });

  test("a stream is joined several times", async () => {
    const context = contextOf();
    const { make, write, close } = source();
    const streams = [await context.resumableStream("a", make)];
    write("1\n");
    streams.push(await context.resumableStream("a", unused));
    write("2\n");
    streams.push(await context.resumableStream("a", unused));
    close();
    expect(await Promise.all(streams.map((stream) => read(stream)))).toEqual(["1\n2\n", "1\n2\n", "1\n2\n"]);
  });

  test("streams do not mix", async () => {
    const context = contextOf();
    const [a, b] = [source(), source()];
    const streams = [
      await context.resumableStream("a", a.make),
      await context.resumableStream("b", b.make),
      await context.resumableStream("a", unused),
      await context.resumableStream("b", unused),
    ];
    a.write("1\n", "2\n");
    a.close();
    b.write("other\n");
    b.close();
    const texts = await Promise.all(streams.map((stream) => read(stream)));
    expect(texts).toEqual(["1\n2\n", "other\n", "1\n2\n", "other\n"]);
  });

  test.each([
    [2, "2\n"],
    [4, ""],
    [0, "1\n2\n"],
  ])("skipCharacters: %i of 4", async (skip, expected) => {
    const context = contextOf();
    const { make, write, close } = source();
    const stream = await context.resumableStream("a", make);
    write("1\n", "2\n");
    // The package skips only chunks that it has read.
    await sleep(10);
    const second = await context.resumableStream("a", unused, skip);
    close();
    expect([await read(stream), await read(second)]).toEqual(["1\n2\n", expected]);
  });

  test("a stream that is done is null", async () => {
    const context = contextOf();
    const { make, write, close } = source();
    const stream = await context.resumableStream("a", make);
    write("1\n", "2\n");
    close();
    expect(await read(stream)).toBe("1\n2\n");
    expect(await context.resumableStream("a", unused)).toBe(null);
  });

  test("the methods that say whether a stream is new", async () => {
    const context = contextOf();
    expect(await context.resumeExistingStream("a")).toBe(undefined);
    const { make, write, close } = source();
    const stream = await context.createNewResumableStream("a", make);
    const second = await context.resumeExistingStream("a");
    write("1\n", "2\n");
    close();
    expect([await read(stream), await read(second)]).toEqual(["1\n2\n", "1\n2\n"]);
  });

  test("the methods that say whether a stream is new: a stream that is done is null", async () => {
    const context = contextOf();
    const { make, write, close } = source();
    const stream = await context.createNewResumableStream("a", make);
    write("1\n", "2\n");
    close();
    expect(await read(stream)).toBe("1\n2\n");
    expect(await context.resumeExistingStream("a")).toBe(null);
  });
});

describe("fanwire/runs alone", needsPackages, () => {
  const newContext = contexts["fanwire/runs"] as () => ResumableStreamContext;

  test("of 50 calls at a time one makes the source, and all have the text", async () => {
    const context = newContext();
    let made = 0;
    const make = (): ReadableStream<string> => {
      made++;
      return streamOf(words(CHUNKS));
    };
    const streams = await Promise.all(Array.from({ length: 50 }, () => context.resumableStream("a", make)));
    const texts = await Promise.all(streams.map((stream) => read(stream)));
    expect([made, new Set(texts)]).toEqual([1, new Set([TEXT])]);
  });

  test("skipCharacters counts from the beginning of the text, also beyond its present end", async () => {
    const context = newContext();
    const { make, write, close } = source();
    await context.resumableStream("a", make);
    write("123");
    const stream = await context.resumableStream("a", unused, 5);
    write("456", "", "7\r\n\ud83c");
    close();
    expect(await read(stream)).toBe("67\r\n\ud83c");
  });

  test("a source that fails, that cannot be made, or dies with its process: an error, and no clean end", async () => {
    const broker = createBroker({ onError: () => undefined });
    const context = createResumableStreamContext(createRuns(broker));
    const { make, write, fail } = source();
    const stream = await context.resumableStream("a", make);
    write("1");
    expect(await read(stream, 1)).toBe("1");
    const second = await context.resumableStream("a", unused);
    fail(new Error("the model is gone"));
    await expect(read(stream)).rejects.toThrow("its source failed");
    await expect(read(second)).rejects.toThrow("its source failed");
    await expect(context.resumableStream("b", unused)).rejects.toThrow("made twice");
    expect(await context.hasExistingStream("b")).toBe("DONE");
    const third = await context.resumableStream("c", source().make);
    const reading = expect(read(third)).rejects.toThrow("its producer died");
    await broker.close();
    await reading;
  });

  test("a reader that leaves stops nothing, and `runs.stop` ends the stream", async () => {
    const runs = newRuns();
    const context = createResumableStreamContext(runs, { keyPrefix: "chat" });
    const { make, write } = source();
    const stream = await context.resumableStream("a", make);
    write("1");
    const second = await context.resumeExistingStream("a");
    expect(await read(second, 1)).toBe("1");
    await stream?.cancel();
    expect(await context.hasExistingStream("a")).toBe(true);
    await expect(context.createNewResumableStream("a", unused)).rejects.toMatchObject({ code: "run-exists" });
    expect(await runs.stop("chat:a")).toBe(true);
    expect(await read(second)).toBe("");
    expect(await context.hasExistingStream("a")).toBe("DONE");
  });

  test("waitUntil receives the work, which needs no reader", async () => {
    const work: Promise<unknown>[] = [];
    const context = createResumableStreamContext(newRuns(), { waitUntil: (promise) => work.push(promise) });
    await context.resumableStream("a", () => streamOf(words(CHUNKS)));
    expect(await Promise.all(work)).toEqual(["ended"]);
  });

  test("wherever a connection breaks off, the page that skips its text so far gets the exact text, once", async () => {
    const end = gate();
    let whole = 0;
    const appOf =
      (runs: Runs): NodeFetch =>
      async (request) => {
        const { pathname, searchParams } = new URL(request.url);
        const make = (): ReadableStream<string> => streamOf(held());
        const context = createResumableStreamContext(runs);
        const stream = await context.resumableStream(pathname, make, Number(searchParams.get("skip")));
        return new Response(stream?.pipeThrough(new TextEncoderStream()) ?? null, { status: stream ? 200 : 204 });
      };
    // Not done before everybody has come back.
    const held = async function* (): AsyncGenerator<string> {
      yield* words(CHUNKS);
      await end.opened;
    };
    const { url } = await serve(appOf);
    const cuts = cutsOf(3, 8_000).filter(({ unit }) => unit === "bytes");
    const readings = cuts.map(async (cut, index) => {
      const network = new Network(url, cut);
      const page = `${await network.open()}/${index}`;
      let text = "";
      for (let isOver = false; !isOver; ) {
        const response = await fetch(`${page}?skip=${text.length}`);
        const decoder = new TextDecoder();
        try {
          for await (const bytes of response.body ?? []) {
            text += decoder.decode(bytes, { stream: true });
            if (text.length === TEXT.length && ++whole === cuts.length) end.open();
          }
          isOver = true;
        } catch {
          // It comes back for the rest.
        }
      }
      network.close();
      expect(text, JSON.stringify(cut)).toBe(TEXT);
      return network.broken;
    });
    expect((await Promise.all(readings)).filter((broken) => broken > 0).length).toBeGreaterThan(cuts.length / 2);
  });
});
