// The adapters of runs without the libraries that they are for. `test/adapters` has these.
import { describe, expect, test } from "vitest";
import { agentResponse } from "../../../src/runs/ag-ui.ts";
import { consumeSseStream, uiMessageStreamResponse } from "../../../src/runs/ai-sdk.ts";
import { createRuns, type Runs } from "../../../src/runs/index.ts";
import { mcpEventBus, mcpEventStore } from "../../../src/runs/mcp.ts";
import { createResumableStreamContext } from "../../../src/runs/resumable-stream.ts";
import { streamDurability } from "../../../src/runs/tanstack.ts";
import { withBroker } from "../../support/test-broker.ts";

/** Returns a stream of chunks. */
const streamOf = <T>(...chunks: readonly T[]): ReadableStream<T> =>
  new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });

describe("ai-sdk", () => {
  const ask = (runs: Runs, query = "", id = "a"): Promise<Response> =>
    uiMessageStreamResponse(runs, id, new Request(`https://fanwire.test/chat/stream${query}`));
  const dataOf = async (response: Response): Promise<string[]> =>
    Array.from((await response.text()).matchAll(/^data: (.*)$/gm), ([, data = ""]) => data);

  test(
    "a stream of the SDK is kept, and replayed from the start, with its head and [DONE]",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      expect((await ask(runs)).status).toBe(204);
      const stream = streamOf(
        ': keep-alive\n\ndata: {"type":"st',
        'art"}\n\ndata: {"type":"finish"}\n\n',
        "data: [DONE]\n\n",
      );
      await consumeSseStream(await runs.start("a"))({ stream });
      const response = await ask(runs);
      expect(response.headers.get("x-vercel-ai-ui-message-stream")).toBe("v1");
      expect(response.headers.get("x-workflow-run-id")).toBe("a");
      expect(response.headers.get("x-workflow-stream-tail-index")).toBe(null);
      expect(await dataOf(response)).toEqual(['{"type":"start"}', '{"type":"finish"}', "[DONE]"]);
    }),
  );

  test(
    "a run that did not end well says so in the words of the SDK",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      await (await runs.start("é")).close("failed", "1");
      const failed = await ask(runs, "", "é");
      expect(failed.headers.get("x-workflow-run-id")).toBe(null);
      expect(await dataOf(failed)).toEqual(["1", '{"type":"error","errorText":"The answer broke off."}', "[DONE]"]);
      await (await runs.start("a")).close("stopped", "1");
      expect(await dataOf(await ask(runs))).toEqual(["1", '{"type":"abort"}', '{"type":"finish"}', "[DONE]"]);
    }),
  );

  test(
    "startIndex counts chunks, from the end if it is negative",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const run = await runs.start("a");
      for (const data of ["1", "2", "3"]) await run.write(data);
      await run.close();
      const from = async (index: string) => dataOf(await ask(runs, `?startIndex=${index}`));
      expect(await from("0")).toEqual(["1", "2", "3", "[DONE]"]);
      expect(await from("2")).toEqual(["3", "[DONE]"]);
      expect(await from("-2")).toEqual(["2", "3", "[DONE]"]);
      expect(await from("-9")).toEqual(["1", "2", "3", "[DONE]"]);
      const tail = await ask(runs, "?startIndex=-1");
      expect(tail.headers.get("x-workflow-stream-tail-index")).toBe("2");
      await tail.body?.cancel();
      expect((await ask(runs, "?startIndex=3")).status).toBe(204);
      for (const wrong of ["4", "1.5", "x"]) expect((await ask(runs, `?startIndex=${wrong}`)).status).toBe(400);
    }),
  );
});

describe("resumable-stream", () => {
  const textOf = async (stream: ReadableStream<string> | null | undefined): Promise<string> => {
    const reader = (stream as ReadableStream<string>).getReader();
    let text = "";
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) text += value;
    return text;
  };

  test(
    "a stream is created once, joined, skipped into, and then done",
    withBroker(async (setup) => {
      const context = createResumableStreamContext(createRuns(setup.broker()));
      expect(await context.resumeExistingStream("a")).toBe(undefined);
      expect(await context.hasExistingStream("a")).toBe(null);
      const source = new TransformStream<string, string>(undefined, { highWaterMark: 10 });
      const writer = source.writable.getWriter();
      let made = 0;
      const make = (): ReadableStream<string> => {
        made++;
        return source.readable;
      };
      const streams = await Promise.all([1, 2, 3].map(() => context.resumableStream("a", make)));
      expect(await context.hasExistingStream("a")).toBe(true);
      streams.push(await context.resumableStream("a", make, 4));
      void ["12", "", "3\r\n4", "5"].map((text) => writer.write(text));
      void writer.close();
      const texts = await Promise.all(streams.map(textOf));
      expect(texts).toEqual(["123\r\n45", "123\r\n45", "123\r\n45", "\n45"]);
      expect(made).toBe(1);
      expect(await context.resumableStream("a", make)).toBe(null);
      expect(await context.resumeExistingStream("a")).toBe(null);
      expect(await context.hasExistingStream("a")).toBe("DONE");
    }),
  );

  test(
    "a source that fails ends its readers with an error",
    withBroker(async (setup) => {
      const context = createResumableStreamContext(createRuns(setup.broker({ onError: () => undefined })));
      const gone = new ReadableStream<string>({ pull: () => Promise.reject(new Error("gone")) });
      await expect(textOf(await context.resumableStream("a", () => gone))).rejects.toThrow("its source failed");
    }),
  );
});

describe("tanstack", () => {
  type Chunk = { readonly type: string; readonly message?: string };
  const durabilityOf = (runs: Runs, query = "?runId=a", abortController?: AbortController) => {
    const request = new Request(`https://fanwire.test/chat${query}`);
    return streamDurability<Chunk>(runs, request, abortController ? { abortController } : {});
  };
  const typesIn = async (items: AsyncIterable<{ readonly chunk: Chunk }>): Promise<string[]> => {
    const types: string[] = [];
    for await (const { chunk } of items) types.push(chunk.type);
    return types;
  };

  test(
    "offsets are the ids of events, reading follows them, and a snapshot never waits",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const producer = durabilityOf(runs);
      expect([producer.resumeFrom(), await producer.snapshot()]).toEqual([null, []]);
      const reader = durabilityOf(runs, "?runId=a&offset=-1");
      expect(reader.resumeFrom()).toBe("-1");
      // A page joins before the producer has begun.
      const early = typesIn(reader.read("-1"));
      const offsets = await producer.append([{ type: "RUN_STARTED" }, { type: "CUSTOM" }]);
      expect((await reader.snapshot()).map(({ offset }) => offset)).toEqual(offsets);
      const late = typesIn(reader.read(offsets[0] as string));
      await producer.append([{ type: "RUN_FINISHED" }]);
      await producer.close();
      expect(await early).toEqual(["RUN_STARTED", "CUSTOM", "RUN_FINISHED"]);
      expect(await late).toEqual(["CUSTOM", "RUN_FINISHED"]);
      expect(await runs.state("a")).toBe("ended");
      await expect(typesIn(durabilityOf(runs, "?runId=b").read("-1"))).rejects.toMatchObject({ code: "unknown-run" });
    }),
  );

  test(
    "a run that breaks off in a turn ends with RUN_ERROR, and the producer learns that somebody stops it",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const abort = new AbortController();
      const producer = durabilityOf(runs, "?runId=a", abort);
      await producer.append(["RUN_STARTED", "RUN_FINISHED", "RUN_STARTED", "CUSTOM"].map((type) => ({ type })));
      expect(await runs.stop("a")).toBe(true);
      await expect.poll(() => abort.signal.reason).toBe("tanstack-ai:cancel-requested");
      await producer.close();
      expect((await producer.snapshot()).at(-1)?.chunk).toEqual({ type: "RUN_ERROR", message: "The run broke off." });
      expect(await runs.state("a")).toBe("stopped");
      const failing = durabilityOf(runs, "?runId=b");
      await failing.append([{ type: "RUN_STARTED" }]);
      await failing.close();
      expect(await runs.state("b")).toBe("failed");
    }),
  );
});

describe("ag-ui", () => {
  test(
    "a run is read from its start, whatever the request says, and ends with RUN_ERROR if it did not end well",
    withBroker(async (setup) => {
      const runs = createRuns(setup.broker());
      const ask = (): Promise<Response> => {
        const headers = { "last-event-id": "x" };
        return agentResponse(runs, "a", new Request("https://fanwire.test/agent", { method: "POST", headers }));
      };
      expect((await ask()).status).toBe(404);
      const ends = { ended: [], failed: ["run-failed"], stopped: ["run-stopped"] } as const;
      for (const [reason, codes] of Object.entries(ends)) {
        const run = await runs.start("a");
        await run.pipe(streamOf({ type: "RUN_STARTED" }), { format: "json" });
        const text = await (await ask()).text();
        expect(text.match(/"type"/g)).toHaveLength(1);
        await (await runs.start("a")).close(reason as "ended", '{"type":"RUN_STARTED"}');
        const found = (await (await ask()).text()).matchAll(/"type":"RUN_ERROR".*"code":"([a-z-]+)"/g);
        expect(Array.from(found, ([, code]) => code)).toEqual(codes);
      }
    }),
  );
});

describe("mcp", () => {
  test(
    "an event store replays the events after one of its stream and its session",
    withBroker(async (setup) => {
      const b = setup.broker();
      const store = mcpEventStore(b, "s");
      const replay = async (id: string, from = store): Promise<unknown[]> => {
        const messages: unknown[] = [];
        await from.replayEventsAfter(id, { send: async (_id, message) => void messages.push(message) });
        return messages;
      };
      const [first = "", second = ""] = [await store.storeEvent("a.1", {}), await store.storeEvent("a.1", { n: 1 })];
      await store.storeEvent("b", { n: 2 });
      await store.storeEvent("a.1", {});
      await store.storeEvent("a.1", { n: 3 });
      expect(await replay(first)).toEqual([{ n: 1 }, { n: 3 }]);
      expect(await replay(second)).toEqual([{ n: 3 }]);
      expect(await replay(first, mcpEventStore(b, "t"))).toEqual([]);
      expect(await store.getStreamIdForEventId(second)).toBe("a.1");
      for (const id of ["", "a.1", "a.1.", `${second}9`, "%.x-1"]) {
        expect(await store.getStreamIdForEventId(id)).toBe(undefined);
        await expect(replay(id)).rejects.toThrow();
      }
    }),
  );

  test(
    "a bus calls its own listeners at once, and those of others once",
    withBroker(async (setup) => {
      const engine = setup.engine();
      const errors: unknown[] = [];
      const [one, two] = [1, 2].map(() =>
        mcpEventBus(setup.broker({ engine }), { onError: (error) => void errors.push(error) }),
      );
      const received: string[] = [];
      one?.subscribe(() => {
        throw new Error("broken");
      });
      const stop = one?.subscribe(({ kind }: { kind: string }) => void received.push(`one ${kind}`));
      two?.subscribe(({ kind }: { kind: string }) => void received.push(`two ${kind}`));
      await new Promise((resolve) => setTimeout(resolve, 50));
      one?.publish({ kind: "x" });
      expect([received, errors.map(String)]).toEqual([["one x"], ["Error: broken"]]);
      await expect.poll(() => received).toEqual(["one x", "two x"]);
      stop?.();
      stop?.();
      two?.publish({ kind: "y" });
      await expect.poll(() => errors.length).toBe(2);
      expect(received).toEqual(["one x", "two x", "two y"]);
    }),
  );
});
