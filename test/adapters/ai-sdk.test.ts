// `fanwire/runs/ai-sdk` with the AI SDK's own server functions, its chat, and both of its transports.
import type { ChatState, UIMessage, UIMessageChunk } from "ai";
import { describe, expect, test } from "vitest";
import type { NodeFetch } from "../../src/node/index.ts";
import { consumeSseStream, uiMessageStreamResponse } from "../../src/runs/ai-sdk.ts";
import type { Run, Runs } from "../../src/runs/index.ts";
import { CHUNKS, cutsOf, forEachCut, gate, hush, Network, serve, streamOf, textOf, words } from "./app.ts";
import { load, needsPackages } from "./installed.ts";

const ai = await load(() => import("ai"), "ai");
const workflow = await load(() => import("@ai-sdk/workflow/client"), "@ai-sdk/workflow");

/** The deltas of an answer of {@link CHUNKS} chunks: the others begin and end it. */
const DELTAS = CHUNKS - 5;
const TEXT = textOf(DELTAS);

/** An answer as a model gives it. `hold` is awaited in the middle. */
async function* answer(signal?: AbortSignal, hold?: () => Promise<void>): AsyncGenerator<UIMessageChunk> {
  yield { type: "start", messageId: "answer" };
  yield { type: "start-step" };
  yield { type: "text-start", id: "0" };
  let count = 0;
  for await (const delta of words(DELTAS, signal)) {
    if (++count === DELTAS / 5) await hold?.();
    yield { type: "text-delta", id: "0", delta };
  }
  if (signal?.aborted) return;
  yield { type: "text-end", id: "0" };
  yield { type: "finish", finishReason: "stop" };
}

interface AppOptions {
  readonly hold?: () => Promise<void>;
  /** Whether a POST is answered from the run, and not with the SDK's own stream. */
  readonly fromRun?: boolean;
  readonly ended?: 204;
}

/** The handlers of an application: POST starts an answer, GET resumes it, DELETE stops it. */
const appOf =
  ({ hold, fromRun, ended }: AppOptions = {}) =>
  (runs: Runs): NodeFetch =>
  async (request) => {
    const { pathname } = new URL(request.url);
    const id = decodeURIComponent(pathname.split("/")[3] ?? "");
    if (request.method === "DELETE") return Response.json(await runs.stop(id));
    if (request.method === "GET") return uiMessageStreamResponse(runs, id, request, { ended });
    const body = await request.json();
    const run = await runs.start(body.id ?? body.messages.at(-1).id);
    const stream = streamOf(answer(run.stopped, hold));
    if (!fromRun) return ai.createUIMessageStreamResponse({ stream, consumeSseStream: consumeSseStream(run) });
    void run.pipe(stream, { format: "json" });
    return uiMessageStreamResponse(runs, run.id, request);
  };

/** A chat as a page has it, without React. */
function chatOf(url: string, id: string, messages: UIMessage[] = []) {
  const state: ChatState<UIMessage> = {
    ...{ status: "ready", error: undefined, messages },
    pushMessage: (message) => void (state.messages = [...state.messages, message]),
    popMessage: () => void (state.messages = state.messages.slice(0, -1)),
    replaceMessage: (index, message) => void (state.messages = state.messages.with(index, message)),
    snapshot: structuredClone,
  };
  class PageChat extends ai.AbstractChat<UIMessage> {}
  const transport = new ai.DefaultChatTransport({ api: `${url}/api/chat` });
  return new PageChat({ id, state, transport, generateId: () => `page-${Math.random()}` });
}

/** The text of each answer in a chat. */
const answersOf = ({ messages }: { readonly messages: readonly UIMessage[] }): string[] =>
  messages.filter(({ role }) => role === "assistant").map(textIn);
const textIn = ({ parts }: UIMessage): string => parts.map((part) => (part.type === "text" ? part.text : "")).join("");

/** Reads a stream of chunks, and returns its text. */
async function readText(stream: ReadableStream<UIMessageChunk>): Promise<string> {
  let text = "";
  for await (const chunk of stream) if (chunk.type === "text-delta") text += chunk.delta;
  return text;
}

/** Its types are those of the version of `ai` that it depends on. */
const workflowOf = (url: string, initialStartIndex = 0) =>
  new workflow.WorkflowChatTransport({ api: `${url}/api/chat`, initialStartIndex });
/** Sends a message whose id is that of the run. */
const sendTo = (transport: ReturnType<typeof workflowOf>, id: string): Promise<ReadableStream<UIMessageChunk>> =>
  transport.sendMessages({
    ...{ trigger: "submit-message", chatId: id, messages: [{ id, role: "user", parts: [] }] },
  }) as unknown as Promise<ReadableStream<UIMessageChunk>>;
const resumeWith = (transport: ReturnType<typeof workflowOf>, id: string): Promise<ReadableStream<UIMessageChunk>> =>
  transport.reconnectToStream({ chatId: id }) as unknown as Promise<ReadableStream<UIMessageChunk>>;

describe("useChat with DefaultChatTransport", needsPackages, () => {
  test("an answer arrives, and a page that is loaded later has it once", async () => {
    const { url, runs } = await serve(appOf());
    const chat = chatOf(url, "a");
    await chat.sendMessage({ text: "hi" });
    expect([chat.status, answersOf(chat)]).toEqual(["ready", [TEXT]]);
    await expect.poll(() => runs.inspect("a")).toMatchObject({ state: "ended", events: CHUNKS });
    // With the answer that the application has saved, and without.
    for (const messages of [chat.messages, chat.messages.slice(0, 1)]) {
      const late = chatOf(url, "a", messages);
      await late.resumeStream();
      expect([late.status, answersOf(late)]).toEqual(["ready", [TEXT]]);
    }
  });

  test("there is nothing to resume: 204, and the chat stays as it is", async () => {
    const { url, runs } = await serve(appOf({ ended: 204 }));
    const chat = chatOf(url, "a");
    await chat.resumeStream();
    expect([chat.status, chat.messages]).toEqual(["ready", []]);
    await (await runs.start("a")).close("ended", '{"type":"start"}');
    await chat.resumeStream();
    expect([chat.status, chat.messages]).toEqual(["ready", []]);
    const response = await fetch(`${url}/api/chat/a/stream`);
    expect([response.status, await response.text()]).toEqual([204, ""]);
  });

  test("the frames and the head are those of the SDK, with ids, and [DONE] at the end", async () => {
    const { url } = await serve(appOf());
    const own = await fetch(`${url}/api/chat`, { method: "POST", body: '{"id":"a"}' });
    const ownText = await own.text();
    const response = await fetch(`${url}/api/chat/a/stream`);
    expect(response.headers.get("x-vercel-ai-ui-message-stream")).toBe("v1");
    for (const [name, value] of Object.entries(ai.UI_MESSAGE_STREAM_HEADERS))
      if (name !== "connection") expect(response.headers.get(name)).toContain(value);
    const text = await response.text();
    expect(text.replaceAll(/^(id:|:).*\n/gm, "")).toBe(ownText);
    expect(text).toMatch(/\n\ndata: \[DONE\]\n\n$/);
  });

  test("a second page reads along, a reload continues, and a page that is closed stops nothing", async () => {
    const middle = gate();
    const { url, runs } = await serve(appOf({ hold: () => middle.opened }));
    const first = chatOf(url, "a");
    void first.sendMessage({ text: "hi" });
    await expect.poll(() => answersOf(first)[0]?.length ?? 0).toBeGreaterThan(100);
    const second = chatOf(url, "a");
    const reading = second.resumeStream();
    await expect.poll(() => answersOf(second)[0]?.length ?? 0).toBeGreaterThan(100);
    await first.stop();
    expect(await runs.state("a")).toBe("active");
    const reloaded = chatOf(url, "a");
    const resuming = reloaded.resumeStream();
    middle.open();
    await Promise.all([reading, resuming]);
    for (const chat of [second, reloaded]) expect([chat.status, answersOf(chat)]).toEqual(["ready", [TEXT]]);
  });

  test("wherever a connection breaks off, the page that resumes has the exact text, once", async () => {
    const { url } = await serve(appOf());
    await forEachCut(cutsOf(1, 36_000), async (cut, index) => {
      const network = new Network(url, cut);
      const chat = chatOf(await network.open(), `cut-${index}`);
      await chat.sendMessage({ text: "hi" });
      if (network.broken > 0) expect(chat.status).toBe("error");
      if (chat.status === "error") await chat.resumeStream();
      expect([chat.status, answersOf(chat)], JSON.stringify(cut)).toEqual(["ready", [TEXT]]);
      network.close();
    });
  });

  test("stop: the model learns of it, and every page has the text so far", async () => {
    const middle = gate();
    const { url, runs } = await serve(appOf({ hold: () => middle.opened }));
    const first = chatOf(url, "a");
    const sending = first.sendMessage({ text: "hi" });
    await expect.poll(() => answersOf(first)[0]?.length ?? 0).toBeGreaterThan(100);
    const second = chatOf(url, "a");
    const reading = second.resumeStream();
    expect(await (await fetch(`${url}/api/chat/a`, { method: "DELETE" })).json()).toBe(true);
    middle.open();
    await Promise.all([sending, reading]);
    expect(await runs.state("a")).toBe("stopped");
    for (const chat of [first, second]) {
      expect(chat.status).toBe("ready");
      expect(TEXT.startsWith(answersOf(chat)[0] ?? "?")).toBe(true);
    }
  });

  test("a producer that fails: no page takes the answer for a finished one", async () => {
    const hold = (): Promise<void> => Promise.reject(new Error("the model is gone"));
    const { url, runs } = await serve(appOf({ hold }));
    const first = chatOf(url, "a");
    await first.sendMessage({ text: "hi" });
    expect(first.status).toBe("error");
    const second = chatOf(url, "a");
    await second.resumeStream();
    expect([second.status, second.error?.message]).toEqual(["error", "The answer broke off."]);
    expect(answersOf(second)[0]).toBe(textOf(DELTAS / 5 - 1));
    expect(await runs.state("a")).toBe("failed");
  });

  test("a deploy: no page takes the answer for a finished one", async () => {
    const middle = gate();
    const { url, stop } = await serve(appOf({ hold: () => middle.opened, fromRun: true }));
    const first = chatOf(url, "a");
    const sending = first.sendMessage({ text: "hi" });
    await expect.poll(() => answersOf(first)[0]?.length ?? 0).toBeGreaterThan(100);
    const second = chatOf(url, "a");
    const reading = second.resumeStream();
    await expect.poll(() => answersOf(second)[0]?.length ?? 0).toBeGreaterThan(100);
    await stop();
    middle.open();
    await Promise.all([sending, reading]);
    expect([first.status, second.status]).toEqual(["error", "error"]);
  });
});

describe("WorkflowChatTransport", needsPackages, () => {
  test("wherever a connection breaks off, it continues at its chunk by itself", async () => {
    hush();
    const { url } = await serve(appOf({ fromRun: true }));
    await forEachCut(cutsOf(2, 48_000), async (cut, index) => {
      const network = new Network(url, cut);
      const stream = await sendTo(workflowOf(await network.open()), `cut-${index}`);
      expect(await readText(stream), JSON.stringify(cut)).toBe(TEXT);
      network.close();
    });
  });

  test("it continues from the run an answer that the SDK's own response began", async () => {
    hush();
    const { url } = await serve(appOf());
    // Here the answer of POST has no header with the id of the run, which the application adds.
    const transport = new workflow.WorkflowChatTransport({
      api: `${url}/api/chat`,
      fetch: (async (input, init) => {
        const response = await fetch(input, init);
        const headers = new Headers(response.headers);
        headers.set("x-workflow-run-id", "a");
        if (init?.method !== "POST" || !response.body) return response;
        return new Response(response.body.pipeThrough(firstBytes(9_000)), { headers });
      }) as typeof fetch,
    });
    expect(await readText(await sendTo(transport, "a"))).toBe(TEXT);
  });

  test("startIndex: from the beginning, from a chunk, and from the end, also of a live run", async () => {
    const middle = gate();
    const { url, runs } = await serve(appOf({ hold: () => middle.opened, fromRun: true }));
    const sent = sendTo(workflowOf(url), "a").then(readText);
    const stored = DELTAS / 5 + 2;
    await expect.poll(async () => (await runs.inspect("a")).events).toBe(stored);
    const tail = await fetch(`${url}/api/chat/a/stream?startIndex=-3`);
    expect(tail.headers.get("x-workflow-stream-tail-index")).toBe(String(stored - 1));
    expect(tail.headers.get("x-workflow-run-id")).toBe("a");
    const readings = [0, 10, -10_000].map(async (index) => readText(await resumeWith(workflowOf(url, index), "a")));
    middle.open();
    const [whole, after10, more] = await Promise.all(readings);
    expect([await sent, whole, more]).toEqual([TEXT, TEXT, TEXT]);
    expect(after10).toBe(TEXT.slice(textOf(7).length));
    // The transport itself drops deltas without the start of their part, so this is read without it.
    const deltas = (await tail.text()).match(/"delta":"\d+/g)?.map((delta) => Number(delta.slice(9)));
    expect(deltas).toEqual(Array.from({ length: DELTAS - stored + 6 }, (_, index) => stored - 6 + index));
    const rest = await (await fetch(`${url}/api/chat/a/stream?startIndex=${CHUNKS - 1}`)).text();
    expect(rest.match(/"type":"[a-z-]+"/g)).toEqual(['"type":"finish"']);
    for (const wrong of [CHUNKS + 1, "1.5", "x"])
      expect((await fetch(`${url}/api/chat/a/stream?startIndex=${wrong}`)).status).toBe(400);
    expect((await fetch(`${url}/api/chat/unknown/stream?startIndex=0`)).status).toBe(204);
    expect((await fetch(`${url}/api/chat/${"x".repeat(2_000)}/stream?startIndex=0`)).status).toBe(400);
  });

  test("a run that was stopped is over, and it asks for no more", async () => {
    const { url, runs } = await serve(appOf({ fromRun: true }));
    const run = await runs.start("a");
    await run.pipe(streamOf(answer(run.stopped, () => stopNow(run))), { format: "json" });
    const transport = workflowOf(url);
    const text = await readText(await resumeWith(transport, "a"));
    expect(TEXT.startsWith(text)).toBe(true);
    expect(text.length).toBeGreaterThan(100);
  });

  test("a producer that died: an error after three attempts", async () => {
    hush();
    const { url, stop } = await serve(appOf({ fromRun: true, hold: () => new Promise(() => undefined) }));
    const stream = await sendTo(workflowOf(url), "a");
    const reading = readText(stream);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await stop();
    await expect(reading).rejects.toThrow();
  });
});

/** Asks a run to stop, and waits until it knows. */
async function stopNow(run: Run): Promise<void> {
  await run.stop();
  while (!run.stopped.aborted) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** Lets so many bytes pass, and then breaks off. */
function firstBytes(count: number): TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
  let left = count;
  return new TransformStream({
    transform(bytes, controller) {
      controller.enqueue(bytes.slice(0, left));
      left -= bytes.length;
      if (left <= 0) controller.error(new TypeError("network error"));
    },
  });
}
