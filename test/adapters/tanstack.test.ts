// `fanwire/runs/tanstack` with TanStack AI's own server functions and the connection of its client.
import type { StreamChunk } from "@tanstack/ai";
import { describe, expect, test } from "vitest";
import type { NodeFetch } from "../../src/node/index.ts";
import type { Runs } from "../../src/runs/index.ts";
import { streamDurability } from "../../src/runs/tanstack.ts";
import { CHUNKS, cutsOf, forEachCut, gate, Network, serve, textOf, words } from "./app.ts";
import { load, needsPackages } from "./installed.ts";

const server = await load(() => import("@tanstack/ai"), "@tanstack/ai");
const client = await load(() => import("@tanstack/ai-client"), "@tanstack/ai-client");

const DELTAS = CHUNKS - 6;
const TEXT = textOf(DELTAS);

interface AnswerOptions {
  /** Awaited in the middle. */
  readonly hold?: () => Promise<void>;
  /** Whether it calls a tool in a first turn, so that there are two ends. */
  readonly hasTurns?: boolean;
}

/** An answer as a model gives it. */
async function* answer(
  runId: string,
  signal: AbortSignal,
  { hold, hasTurns = true }: AnswerOptions = {},
): AsyncGenerator<StreamChunk> {
  const ids = { threadId: "thread", runId };
  const chunk = (type: string, fields: object = {}): StreamChunk => ({ type, timestamp: 1, ...fields }) as StreamChunk;
  yield chunk("RUN_STARTED", ids);
  if (hasTurns) yield chunk("RUN_FINISHED", ids);
  if (hasTurns) yield chunk("RUN_STARTED", ids);
  yield chunk("TEXT_MESSAGE_START", { messageId: "m", role: "assistant" });
  let count = 0;
  for await (const delta of words(DELTAS, signal)) {
    if (++count === Math.floor(DELTAS / 5)) await hold?.();
    yield chunk("TEXT_MESSAGE_CONTENT", { messageId: "m", delta });
  }
  yield chunk("TEXT_MESSAGE_END", { messageId: "m" });
  yield chunk("RUN_FINISHED", ids);
}

const appOf =
  (options?: AnswerOptions) =>
  (runs: Runs): NodeFetch =>
  async (request) => {
    if (request.method === "GET")
      return server.resumeServerSentEventsResponse({ adapter: streamDurability(runs, request) });
    const { runId } = await request.clone().json();
    const abortController = new AbortController();
    return server.toServerSentEventsResponse(answer(runId, abortController.signal, options), {
      durability: { adapter: streamDurability(runs, request, { abortController }), batch: 8 },
      abortController,
      // It would print each failure of a producer.
      debug: false,
    });
  };

const connectionOf = (url: string) => client.fetchServerSentEvents(url, { reconnect: { delayMs: 1 } });
const send = (url: string, runId: string, signal?: AbortSignal) =>
  connectionOf(url).connect([], undefined, signal, { threadId: "thread", runId });
const join = (url: string, runId: string) => connectionOf(url).joinRun(runId);

/** Reads chunks to their end: the text, and the type of the last chunk. `onText` is called with the text so far. */
async function read(chunks: AsyncIterable<StreamChunk>, onText?: (text: string) => void): Promise<[string, string]> {
  let text = "";
  let last = "";
  for await (const chunk of chunks) {
    last = chunk.type;
    if (chunk.type !== "TEXT_MESSAGE_CONTENT") continue;
    text += chunk.delta;
    onText?.(text);
  }
  return [text, last];
}
const WHOLE = [TEXT, "RUN_FINISHED"];

describe("fetchServerSentEvents", needsPackages, () => {
  test("a run arrives, and is joined later, whole", async () => {
    const { url, runs } = await serve(appOf());
    expect(await read(send(url, "a"))).toEqual(WHOLE);
    expect(await read(join(url, "a"))).toEqual(WHOLE);
    expect(await runs.state("a")).toBe("ended");
    // An offset before each chunk, and TanStack AI's own first chunk.
    expect((await runs.inspect("a")).events).toBe(CHUNKS + 1);
    expect((await fetch(url)).status).toBe(400);
    const response = await fetch(`${url}?runId=a&offset=now`);
    expect(await response.text()).toBe("");
  });

  test("wherever a connection breaks off, it continues at its chunk by itself", async () => {
    const { url } = await serve(appOf());
    await forEachCut(cutsOf(4, 48_000), async (cut, index) => {
      const network = new Network(url, cut);
      const page = await network.open();
      const first = read(send(page, `cut-${index}`));
      expect(await first, JSON.stringify(cut)).toEqual(WHOLE);
      network.close();
    });
  });

  test("a reload and a second page read along, and a page that is closed stops nothing", async () => {
    const middle = gate();
    const { url, runs } = await serve(appOf({ hold: () => middle.opened }));
    const leave = new AbortController();
    const [text] = await read(send(url, "a", leave.signal), (so) => so.length > 100 && leave.abort());
    expect(TEXT.startsWith(text)).toBe(true);
    const pages = [read(join(url, "a")), read(join(url, "a"))];
    expect(await runs.state("a")).toBe("active");
    middle.open();
    expect(await Promise.all(pages)).toEqual([WHOLE, WHOLE]);
  });

  test("a page joins before the producer begins, and a run that never begins is an error", async () => {
    const { url } = await serve(appOf());
    const early = read(join(url, "a"));
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(await read(send(url, "a"))).toEqual(WHOLE);
    expect(await early).toEqual(WHOLE);
    expect(await read(join(url, "never"))).toEqual(["", "RUN_ERROR"]);
  });

  test.each([true, false])(
    "stop: every page gets the text so far, and an end (several turns: %s)",
    async (hasTurns) => {
      const middle = gate();
      const { url, runs } = await serve(appOf({ hold: () => middle.opened, hasTurns }));
      const first = read(send(url, "a"));
      await expect.poll(async () => (await runs.inspect("a")).events).toBeGreaterThan(50);
      const second = read(join(url, "a"));
      expect(await runs.stop("a")).toBe(true);
      middle.open();
      const [sent, joined] = await Promise.all([first, second]);
      expect(joined[1]).toBe("RUN_ERROR");
      expect(joined[0].length).toBeGreaterThan(100);
      expect(joined[0].startsWith(sent[0]) && TEXT.startsWith(joined[0])).toBe(true);
      expect(await read(join(url, "a"))).toEqual(joined);
    },
  );

  test.each([true, false])(
    "a producer that fails: RUN_ERROR for a page that joins (several turns: %s)",
    async (hasTurns) => {
      const hold = (): Promise<void> => Promise.reject(new Error("the model is gone"));
      const { url } = await serve(appOf({ hold, hasTurns }));
      const broken = [textOf(Math.floor(DELTAS / 5) - 1), "RUN_ERROR"];
      const sent = await read(send(url, "a"));
      // Behind the end of a first turn, TanStack AI itself ends the producer's own response as if it were complete.
      if (!hasTurns) expect(sent).toEqual(broken);
      expect(await read(join(url, "a"))).toEqual(broken);
    },
  );

  test("a producer that dies: no page takes the run for a finished one", async () => {
    const middle = gate();
    const { url, runs, stop } = await serve(appOf({ hold: () => middle.opened, hasTurns: false }));
    const first = read(send(url, "a"));
    await expect.poll(async () => (await runs.inspect("a")).events).toBeGreaterThan(50);
    const second = read(join(url, "a"));
    await stop();
    middle.open();
    expect((await first)[1]).toBe("RUN_ERROR");
    expect((await second)[1]).toBe("RUN_ERROR");
  });

  test("a second producer of a live run is refused, and the first goes on", async () => {
    const middle = gate();
    const { url, runs } = await serve(appOf({ hold: () => middle.opened }));
    const first = read(send(url, "a"));
    await expect.poll(() => runs.state("a")).toBe("active");
    expect(await read(send(url, "a"))).toEqual(["", "RUN_ERROR"]);
    middle.open();
    expect(await first).toEqual(WHOLE);
  });
});

describe("the contract of StreamDurability", needsPackages, () => {
  const requestOf = (query = "", headers: Record<string, string> = {}) =>
    new Request(`https://fanwire.test/chat${query}`, { headers });

  test("offsets, reading after them, snapshot and close", async () => {
    const { runs } = await serve(appOf());
    const [a, b] = [1, 2].map(() =>
      streamDurability<{ type: string; n: number }>(runs, requestOf("", { "x-run-id": "a" })),
    );
    if (!a || !b) throw new Error("unreachable");
    expect([a.resumeFrom(), await b.snapshot()]).toEqual([null, []]);
    const offsets = await a.append([
      { type: "CUSTOM", n: 1 },
      { type: "CUSTOM", n: 2 },
      { type: "CUSTOM", n: 3 },
    ]);
    expect(new Set(offsets).size).toBe(3);
    for (const offset of offsets) expect(offset).toMatch(/^[a-z0-9-]+$/);
    const items = [1, 2, 3].map((n, index) => ({ offset: offsets[index], chunk: { type: "CUSTOM", n } }));
    expect(await b.snapshot()).toEqual(items);
    const reading = Array.fromAsync(b.read(offsets[0] as string));
    const now = Array.fromAsync(b.read("now"));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const [last] = await a.append([{ type: "CUSTOM", n: 4 }]);
    await Promise.all([a.close(), a.close()]);
    expect(await reading).toEqual([...items.slice(1), { offset: last, chunk: { type: "CUSTOM", n: 4 } }]);
    expect(await now).toEqual([{ offset: last, chunk: { type: "CUSTOM", n: 4 } }]);
    expect(await Array.fromAsync(b.read("-1"))).toHaveLength(4);
    expect(await Array.fromAsync(b.read(last as string))).toEqual([]);
    await expect(Array.fromAsync(b.read("other-1"))).rejects.toMatchObject({ code: "bad-request" });
  });

  test("a reader whose signal aborts ends without an error", async () => {
    const { runs } = await serve(appOf());
    const durability = streamDurability<{ type: string }>(runs, requestOf("?runId=a&offset=-1"));
    expect(durability.resumeFrom()).toBe("-1");
    await durability.append([{ type: "CUSTOM" }]);
    const abort = new AbortController();
    const reading = Array.fromAsync(durability.read("-1", abort.signal));
    await new Promise((resolve) => setTimeout(resolve, 20));
    abort.abort();
    expect(await reading).toHaveLength(1);
    await durability.close();
  });

  test("a request without the id of a run has one of its own", async () => {
    const { runs } = await serve(appOf());
    const [a, b] = [1, 2].map(() => streamDurability<{ type: string }>(runs, requestOf()));
    await a?.append([{ type: "CUSTOM" }]);
    await b?.append([{ type: "CUSTOM" }]);
    expect([await a?.snapshot(), await b?.snapshot()].map((items) => items?.length)).toEqual([1, 1]);
    await Promise.all([a?.close(), b?.close()]);
  });
});
