// `fanwire/runs/ag-ui` with AG-UI's own client.
import type { BaseEvent } from "@ag-ui/client";
import { describe, expect, test } from "vitest";
import type { NodeFetch } from "../../src/node/index.ts";
import { agentResponse } from "../../src/runs/ag-ui.ts";
import type { Runs } from "../../src/runs/index.ts";
import { CHUNKS, cutsOf, forEachCut, gate, hush, Network, serve, textOf, words } from "./app.ts";
import { load, needsPackages } from "./installed.ts";

const agUi = await load(() => import("@ag-ui/client"), "@ag-ui/client");

const DELTAS = CHUNKS - 4;
const TEXT = textOf(DELTAS);

/** The events of an agent. `hold` is awaited in the middle. */
async function* events(
  ids: { readonly threadId: string; readonly runId: string },
  signal: AbortSignal,
  hold?: () => Promise<void>,
): AsyncGenerator<BaseEvent & object> {
  const { EventType } = agUi;
  const event = (type: BaseEvent["type"], fields: object): BaseEvent & object => ({ type, ...fields });
  yield event(EventType.RUN_STARTED, ids);
  yield event(EventType.TEXT_MESSAGE_START, { messageId: ids.runId, role: "assistant" });
  let count = 0;
  for await (const delta of words(DELTAS, signal)) {
    if (++count === DELTAS / 4) await hold?.();
    yield event(EventType.TEXT_MESSAGE_CONTENT, { messageId: ids.runId, delta });
  }
  yield event(EventType.TEXT_MESSAGE_END, { messageId: ids.runId });
  yield event(EventType.RUN_FINISHED, ids);
}

/** An application: a POST starts an agent, and one to `/connect` joins the run of the thread. */
const appOf =
  (hold?: () => Promise<void>) =>
  (runs: Runs): NodeFetch =>
  async (request) => {
    const { threadId, runId } = await request.json();
    if (!new URL(request.url).pathname.endsWith("/connect")) {
      const run = await runs.start(threadId);
      void run.pipe(events({ threadId, runId }, run.stopped, hold), { format: "json" });
    }
    return agentResponse(runs, threadId, request);
  };

type Input = Parameters<InstanceType<typeof agUi.HttpAgent>["run"]>[0];

/** As `fetch`. A body that broke off rejects when the client cancels it, which the client does not expect: Node would end the process. */
async function fetchSafely(url: string, init: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  const { body } = response;
  if (!response.ok || !body) return response;
  const getReader = body.getReader.bind(body) as () => ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  const getSafeReader = (): typeof reader => {
    const cancel = reader.cancel.bind(reader);
    reader.cancel = (reason) => cancel(reason).catch(() => undefined);
    return reader;
  };
  const reader = getReader();
  body.getReader = getSafeReader as typeof body.getReader;
  return response;
}

/** An agent that joins a run, as an application writes it. */
function agentOf(url: string, threadId: string) {
  class JoiningAgent extends agUi.HttpAgent {
    protected override connect(input: Input) {
      return new agUi.HttpAgent({ url: `${this.url}/connect`, fetch: fetchSafely }).run(input);
    }
  }
  return new JoiningAgent({ url, threadId, fetch: fetchSafely });
}
type Agent = ReturnType<typeof agentOf>;
const textIn = ({ messages }: Agent): string => messages.map(({ content }) => String(content)).join();

/** Runs an agent, or joins its run. Returns its text at the end of the run, or else the message of an error. */
async function outcomeOf(agent: Agent, how: "runAgent" | "connectAgent"): Promise<string> {
  let failure: string | undefined;
  try {
    await agent[how](undefined, { onRunErrorEvent: ({ event }) => void (failure = event.message) });
  } catch (error) {
    failure ??= (error as Error).message;
  }
  return failure ?? textIn(agent);
}

describe("HttpAgent", needsPackages, () => {
  test("a run arrives, and is joined later, whole", async () => {
    const { url, runs } = await serve(appOf());
    const agent = agentOf(url, "a");
    expect(await outcomeOf(agent, "runAgent")).toBe(TEXT);
    expect(await runs.inspect("a")).toMatchObject({ state: "ended", events: CHUNKS });
    const late = agentOf(url, "a");
    expect(await outcomeOf(late, "connectAgent")).toBe(TEXT);
    expect(late.messages).toEqual(agent.messages);
    const response = await fetch(`${url}/connect`, { method: "POST", body: '{"threadId":"a"}' });
    const frames = (await response.text()).replaceAll(/^(id:|:).*\n/gm, "").split("\n\n");
    expect(frames.pop()).toBe("");
    for (const frame of frames) expect(JSON.parse(frame.replace("data: ", ""))).toHaveProperty("type");
  });

  test("there is nothing to join", async () => {
    hush();
    const { url } = await serve(appOf());
    const agent = agentOf(url, "a");
    expect(await outcomeOf(agent, "connectAgent")).toContain("HTTP 404");
  });

  test("a second agent reads along, and an agent that leaves stops nothing", async () => {
    const middle = gate();
    const { url, runs } = await serve(appOf(() => middle.opened));
    const first = agentOf(url, "a");
    const running = outcomeOf(first, "runAgent");
    await expect.poll(async () => (await runs.inspect("a")).events).toBeGreaterThan(50);
    const others = [agentOf(url, "a"), agentOf(url, "a")];
    const joining = others.map((agent) => outcomeOf(agent, "connectAgent"));
    await expect.poll(() => textIn(first).length).toBeGreaterThan(50);
    first.abortRun();
    await running;
    expect(await runs.state("a")).toBe("active");
    middle.open();
    expect(await Promise.all(joining)).toEqual([TEXT, TEXT]);
  });

  test("wherever a connection breaks off, the agent reports it, and joins for the exact text, once", async () => {
    hush();
    const { url } = await serve(appOf());
    await forEachCut(cutsOf(5, 48_000), async (cut, index) => {
      const network = new Network(url, cut);
      const agent = agentOf(await network.open(), `cut-${index}`);
      let outcome = await outcomeOf(agent, "runAgent");
      if (network.broken > 0 && outcome !== TEXT) {
        expect(TEXT.startsWith(outcome), JSON.stringify(cut)).toBe(false);
        const again = agentOf(await network.open(), `cut-${index}`);
        outcome = await outcomeOf(again, "connectAgent");
      }
      expect(outcome, JSON.stringify(cut)).toBe(TEXT);
      network.close();
    });
  });

  test("a run that is stopped, fails, or dies with its process: an error for each agent, and no end", async () => {
    hush();
    const middle = gate();
    const { url, runs, stop } = await serve(
      appOf(() => middle.opened.then(() => Promise.reject(new Error("the model is gone")))),
    );
    const outcomes = ["stopped", "failed", "lost"].map((id) => {
      const agent = agentOf(url, id);
      return outcomeOf(agent, "runAgent");
    });
    for (const id of ["stopped", "failed", "lost"])
      await expect.poll(async () => (await runs.inspect(id)).events).toBeGreaterThan(50);
    await runs.stop("stopped");
    expect(await outcomes[0]).toBe("The run was stopped.");
    const late = agentOf(url, "stopped");
    expect(await outcomeOf(late, "connectAgent")).toBe("The run was stopped.");
    await stop();
    middle.open();
    for (const outcome of await Promise.all(outcomes.slice(1))) expect(TEXT.startsWith(outcome)).toBe(false);
  });
});
