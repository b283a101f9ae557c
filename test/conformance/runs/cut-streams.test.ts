// Streams of runs that break off: what a client has before the error, and how an EventSource is asked to come back.
import { expect, test } from "vitest";
import { createRuns, type Runs } from "../../../src/runs/index.ts";
import { problemOf, withBroker } from "../../support/test-broker.ts";

const EVENT_SOURCE = { accept: "text/event-stream" };

const ask = (runs: Runs, headers: Record<string, string> = {}, method = "GET"): Promise<Response> =>
  runs.response("a", new Request("https://fanwire.test/runs/a", { method, headers }));

/** Passes a body on as Node does: it sends what it is given at the end of the turn, and drops that for an error. Returns what was sent. */
async function passOn({ body }: Response): Promise<{ sent: string; end: "ended" | "error" }> {
  const reader = (body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let sent = "";
  let isCut = false;
  async function send(part: Uint8Array): Promise<void> {
    for (let step = 0; step < 50; step++) await undefined;
    if (!isCut) sent += decoder.decode(part, { stream: true });
  }
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) void send(part.value);
    return { sent, end: "ended" };
  } catch {
    isCut = true;
    return { sent, end: "error" };
  }
}

test(
  "a run that was lost: its events are sent before the error",
  withBroker(async (setup) => {
    const engine = setup.engine();
    const broker = setup.broker({ engine });
    const run = await createRuns(broker).start("a");
    await run.write("1");
    await run.write("2");
    const other = createRuns(setup.broker({ engine }));
    await broker.close();
    await expect.poll(() => other.state("a")).toBe("lost");
    for (let round = 0; round < 3; round++) {
      const { sent, end } = await passOn(await ask(other));
      expect([sent.match(/(?<=^data: ).*/gm), end]).toEqual([["1", "2"], "error"]);
    }
  }),
);

test(
  "maxClients, close: an EventSource is asked to come back by a stream that breaks off, and every other client gets 503",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxClients: 1, retry: 1_000 });
    const runs = createRuns(broker);
    await (await runs.start("a")).write("1");
    const first = await ask(runs);
    for (const code of ["at-capacity", "closed"]) {
      const { failures: before } = broker.stats();
      const response = await ask(runs, EVENT_SOURCE);
      expect([response.status, response.headers.get("content-type")]).toEqual([
        200,
        "text/event-stream; charset=utf-8",
      ]);
      const { sent, end } = await passOn(response);
      expect(end).toBe("error");
      const [, retry = ""] = /^retry: (\d+)\n\n$/.exec(sent) ?? [];
      expect([Number(retry) >= 500, Number(retry) <= 1_500]).toEqual([true, true]);
      for (const other of [await ask(runs), await ask(runs, EVENT_SOURCE, "HEAD")].slice(0, code === "closed" ? 2 : 1))
        expect([other.status, await problemOf(other)]).toEqual([503, code]);
      expect(broker.stats().failures[code as "closed"]).toBeGreaterThan(before[code as "closed"] ?? 0);
      if (code === "at-capacity") await Promise.all([first.body?.cancel(), broker.close()]);
    }
  }),
);

test(
  "an EventSource gets the status of a refusal that stays",
  withBroker(async (setup) => {
    const runs = createRuns(setup.broker());
    expect((await ask(runs, EVENT_SOURCE)).status).toBe(404);
    await (await runs.start("a", undefined, { authorize: () => false })).write("1");
    expect((await ask(runs, EVENT_SOURCE)).status).toBe(403);
  }),
);
