import { describe, expect, test } from "vitest";
import type { AccessRequest, Broker } from "../../../src/index.ts";
import { createRuns, type ResponseOptions, type Run, type Runs, type RunsOptions } from "../../../src/runs/index.ts";
import { codeOf, problemOf, type TestBrokerOptions, type TestSetup, withBroker } from "../../support/test-broker.ts";

/** Asks for a run. */
const ask = (
  runs: Runs,
  id: string,
  {
    headers,
    options,
    method = "GET",
    query = "",
  }: {
    readonly headers?: Record<string, string>;
    readonly options?: ResponseOptions;
    readonly method?: string;
    readonly query?: string;
  } = {},
): Promise<Response> =>
  runs.response(
    id,
    new Request(`https://fanwire.test/runs/${id}${query}`, { method, headers: headers ?? {} }),
    options,
  );

/** Reads a body to its end. Comments are left out. */
const textOf = async (response: Response): Promise<string> => (await response.text()).replaceAll(/^:.*\n/gm, "");

/** A run with the events 1, 2 and 3. */
async function start(
  setup: TestSetup,
  options?: TestBrokerOptions,
  runsOptions?: RunsOptions,
): Promise<{ readonly broker: Broker; readonly runs: Runs; readonly run: Run; readonly ids: readonly string[] }> {
  const broker = setup.broker(options);
  const runs = createRuns(broker, runsOptions);
  const run = await runs.start("a");
  const ids: string[] = [];
  for (const data of ["1", "2", "3"]) ids.push((await run.write(data)).id);
  return { broker, runs, run, ids };
}

describe("runs.response", () => {
  test(
    "sends only the application's events, each with its id before its data, and ends with the run",
    withBroker(async (setup) => {
      const { runs, run, ids } = await start(setup);
      const response = await ask(runs, "a");
      expect(response.status).toBe(200);
      expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
      expect(response.headers.get("cache-control")).toBe("no-cache, no-transform");
      const text = textOf(response);
      const { id } = await run.close("ended", { event: "done", data: "a\nb" });
      expect(await text).toBe(
        `${["1", "2", "3"].map((data, index) => `id: ${ids[index]}\ndata: ${data}\n\n`).join("")}` +
          `event: done\nid: ${id}\ndata: a\ndata: b\n\n`,
      );
    }),
  );

  test(
    "starts after an id: of the header, of lastEventId, of offset, in this order",
    withBroker(async (setup) => {
      const { runs, run, ids } = await start(setup);
      await run.close();
      const dataOf = async (response: Promise<Response>): Promise<string> =>
        [...(await textOf(await response)).matchAll(/^data: (.*)$/gm)].map(([, data]) => data).join("");
      const [one = "", two = ""] = ids;
      expect(await dataOf(ask(runs, "a"))).toBe("123");
      expect(await dataOf(ask(runs, "a", { query: "?offset=-1" }))).toBe("123");
      expect(await dataOf(ask(runs, "a", { headers: { "last-event-id": one } }))).toBe("23");
      expect(await dataOf(ask(runs, "a", { query: `?lastEventId=${two}` }))).toBe("3");
      expect(await dataOf(ask(runs, "a", { query: `?offset=${two}` }))).toBe("3");
      expect(await dataOf(ask(runs, "a", { query: `?offset=${two}`, headers: { "last-event-id": one } }))).toBe("23");
      expect(await dataOf(ask(runs, "a", { query: `?lastEventId=${two}&offset=-1` }))).toBe("3");
      expect(await dataOf(ask(runs, "a", { query: "?offset=-1", options: { after: two } }))).toBe("3");
      expect(await dataOf(ask(runs, "a", { headers: { "last-event-id": "" } }))).toBe("123");
    }),
  );

  test(
    "offset=now: only what follows",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      const text = textOf(await ask(runs, "a", { query: "?offset=now" }));
      await run.close("ended", "4");
      expect(await text).toMatch(/^id: \S+-4\ndata: 4\n\n$/);
    }),
  );

  test(
    "refuses an id that is not of this run",
    withBroker(async (setup) => {
      const { runs, run, ids } = await start(setup);
      const future = `${ids[2]?.split("-")[0]}-4`;
      for (const id of ["x", "1", future, `${ids[0]}x`])
        expect(await problemOf(await ask(runs, "a", { headers: { "last-event-id": id } }))).toBe("bad-request");
      await run.close();
      await runs.start("a");
      const response = await ask(runs, "a", { headers: { "last-event-id": ids[0] as string } });
      expect([response.status, await problemOf(response)]).toEqual([400, "bad-request"]);
    }),
  );

  test(
    "a client that has everything of a run that has ended is answered 204",
    withBroker(async (setup) => {
      const { runs, run, ids } = await start(setup);
      await run.close();
      for (const request of [{ headers: { "last-event-id": ids[2] as string } }, { query: "?offset=now" }]) {
        const response = await ask(runs, "a", request);
        expect([response.status, response.body]).toEqual([204, null]);
      }
      // A run without an event is read to its end.
      await (await runs.start("empty")).close();
      const response = await ask(runs, "empty");
      expect([response.status, await textOf(response)]).toEqual([200, ""]);
    }),
  );

  test(
    "options: ended, unknown, trailer and headers",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      const unknown = await ask(runs, "b");
      expect([unknown.status, await problemOf(unknown)]).toEqual([404, "unknown-run"]);
      expect((await ask(runs, "b", { options: { unknown: 204 } })).status).toBe(204);
      const options: ResponseOptions = {
        ended: 204,
        trailer: "data: [DONE]\n\n",
        headers: { "x-mine": "1", "cache-control": "no-store" },
      };
      const response = await ask(runs, "a", { options });
      expect(response.headers.get("x-mine")).toBe("1");
      expect(response.headers.get("cache-control")).toBe("no-store");
      expect(response.headers.get("content-type")).toContain("text/event-stream");
      const text = textOf(response);
      await run.close("stopped");
      expect(await text).toMatch(/data: 3\n\ndata: \[DONE\]\n\n$/);
      expect((await ask(runs, "a", { options })).status).toBe(204);
      for (const wrong of [{ ended: 404 }, { unknown: 200 }, { trailer: 1 }, { status: 1 }])
        expect(await codeOf(ask(runs, "a", { options: wrong as never }))).toBe("TypeError");
    }),
  );

  test.each(["failed", "stopped", "ended"] as const)("a run that is %s ends cleanly", (reason) =>
    withBroker(async (setup) => {
      const { runs, run } = await start(setup);
      const text = textOf(await ask(runs, "a"));
      await run.close(reason);
      expect(await text).toMatch(/data: 3\n\n$/);
    })(),
  );

  test(
    "a broker that closes ends the response with an error, and a lost run is 410 behind its events",
    withBroker(async (setup) => {
      const engine = setup.engine();
      const { broker, runs, ids } = await start(setup, { engine });
      const response = await ask(runs, "a");
      const reader = (response.body as ReadableStream<Uint8Array>).getReader();
      let text = "";
      while (!text.includes("data: 3")) text += new TextDecoder().decode((await reader.read()).value);
      const failed = (async () => {
        // A comment may come first.
        while (!(await reader.read()).done);
        return "no error";
      })().catch(String);
      await broker.close();
      expect(await failed).toContain("the broker is closing");
      const other = createRuns(setup.broker({ engine }));
      await expect.poll(() => other.state("a")).toBe("lost");
      await expect(textOf(await ask(other, "a"))).rejects.toThrow("producer died");
      const late = await ask(other, "a", { headers: { "last-event-id": ids[2] as string } });
      expect([late.status, await problemOf(late)]).toEqual([410, "run-lost"]);
      expect((await ask(runs, "a")).status).toBe(503);
    }),
  );

  test(
    "HEAD, OPTIONS and other methods",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup, { cors: { origins: ["https://app.example"] } });
      const head = await ask(runs, "a", { method: "HEAD" });
      expect([head.status, head.body, head.headers.get("content-type")]).toEqual([
        200,
        null,
        "text/event-stream; charset=utf-8",
      ]);
      const options = await ask(runs, "a", { method: "OPTIONS", headers: { origin: "https://app.example" } });
      expect([options.status, options.headers.get("allow")]).toEqual([204, "GET, HEAD, POST, OPTIONS"]);
      expect(options.headers.get("access-control-allow-origin")).toBe("https://app.example");
      expect((await ask(runs, "a", { method: "DELETE" })).status).toBe(405);
      await run.close();
      const post = await ask(runs, "a", { method: "POST", headers: { origin: "https://app.example" } });
      expect(post.headers.get("access-control-allow-origin")).toBe("https://app.example");
      expect(await textOf(post)).toContain("data: 3");
    }),
  );

  test(
    "maxClients: a response takes a place until it ends",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup, { maxClients: 1 });
      const first = await ask(runs, "a");
      const refused = await ask(runs, "a");
      expect([refused.status, await problemOf(refused)]).toEqual([503, "at-capacity"]);
      expect(refused.headers.get("retry-after")).not.toBeNull();
      await first.body?.cancel();
      const second = await ask(runs, "a");
      expect(second.status).toBe(200);
      await run.close();
      await second.text();
      expect((await ask(runs, "a")).status).toBe(200);
    }),
  );

  test(
    "heartbeat: a quiet run sends comments",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup, { heartbeat: 50 });
      const reader = ((await ask(runs, "a")).body as ReadableStream<Uint8Array>).getReader();
      let text = "";
      while ((text.match(/^:\n/gm) ?? []).length < 3) text += new TextDecoder().decode((await reader.read()).value);
      await run.close();
      while (!(await reader.read()).done);
    }),
  );

  test(
    "a client that does not read is cut off, and costs the producer nothing",
    withBroker(async (setup) => {
      const { runs, run } = await start(setup, { timeout: 100, tolerance: 1, maxClients: 1 });
      const slow = await ask(runs, "a");
      for (let n = 0; n < 100; n++) await run.write("x".repeat(1_000));
      // Its place is free again.
      await expect.poll(async () => (await ask(runs, "a", { method: "GET" })).status, { timeout: 5_000 }).toBe(200);
      await expect(textOf(slow)).rejects.toThrow("does not read");
      await run.close();
    }),
  );
});

describe("runs.response: who may read", () => {
  const asks: AccessRequest[] = [];
  const authorize = (access: AccessRequest): { subject: string; channels: string[] } | boolean => {
    asks.push(access);
    const user = access.request.headers.get("x-user");
    if (user === "root") return true;
    return user === null ? false : { subject: user, channels: [user, `fanwire-run:${user}`, "fanwire-run:shared"] };
  };
  const as = (user: string): { readonly headers: Record<string, string> } => ({ headers: { "x-user": user } });
  const statusOf = async (response: Promise<Response>): Promise<number> => {
    const { status, body } = await response;
    await body?.cancel();
    return status;
  };

  test(
    "the broker's authorize is asked about fanwire-run:<id>, and the grant has to list it",
    withBroker(async (setup) => {
      const broker = setup.broker({ authorize });
      const runs = createRuns(broker);
      for (const id of ["ada", "shared"]) await (await runs.start(id)).write("1");
      expect(await statusOf(ask(runs, "ada", as("ada")))).toBe(200);
      expect(asks.at(-1)).toMatchObject({ action: "connect", channels: ["fanwire-run:ada"], clientId: undefined });
      expect(await statusOf(ask(runs, "ada", as("bob")))).toBe(403);
      expect(await statusOf(ask(runs, "shared", as("bob")))).toBe(200);
      expect(await statusOf(ask(runs, "ada", as("root")))).toBe(200);
      expect(await statusOf(ask(runs, "ada"))).toBe(403);
      // Whether a run exists is not revealed either.
      expect(await statusOf(ask(runs, "none", as("bob")))).toBe(403);
      expect(await statusOf(ask(runs, "none", as("root")))).toBe(404);
    }),
  );

  test(
    "the grant of a run opens no channel, and the grant of a channel no run",
    withBroker(async (setup) => {
      const broker = setup.broker({ authorize });
      const runs = createRuns(broker);
      await (await runs.start("bob")).write("1");
      const connection = await setup.connect(broker, { headers: { "x-user": "bob" } });
      expect((await connection.untilControl("ready")).data).toContain('"channels":["bob"]');
      const refused = await broker.fetch(
        new Request("https://fanwire.test/connect?channel=fanwire-run:bob", { headers: { "x-user": "bob" } }),
      );
      expect(refused.status).toBe(400);
      const onlyChannel = createRuns(setup.broker({ authorize: () => ({ channels: ["a"] }) }));
      await onlyChannel.start("a");
      expect(await statusOf(ask(onlyChannel, "a"))).toBe(403);
    }),
  );

  test(
    "start({ authorize }): subjects, in every process",
    withBroker(async (setup) => {
      const engine = setup.engine();
      const options = {
        engine,
        authorize: ({ request }: AccessRequest) => ({ subject: request.headers.get("x-user") ?? "" }),
      };
      const [one, two] = [createRuns(setup.broker(options)), createRuns(setup.broker(options))];
      await one.start("a", undefined, { authorize: "ada" });
      await one.start("b", undefined, { authorize: ["ada", "bob"] });
      await one.start("c", undefined, { authorize: [] });
      for (const runs of [one, two]) {
        expect(await statusOf(ask(runs, "a", as("ada")))).toBe(200);
        expect(await statusOf(ask(runs, "a", as("bob")))).toBe(403);
        expect(await statusOf(ask(runs, "b", as("bob")))).toBe(200);
        expect(await statusOf(ask(runs, "c", as("ada")))).toBe(403);
      }
      // Without `authorize` of the broker nobody has a subject.
      const open = createRuns(setup.broker({ engine }));
      expect(await statusOf(ask(open, "a", as("ada")))).toBe(403);
      expect(await codeOf(one.start("d", undefined, { authorize: [7 as never] }))).toBe("TypeError");
    }),
  );

  test(
    "start({ authorize }): a function decides in this process, and no other lets anybody read",
    withBroker(async (setup) => {
      const engine = setup.engine();
      const [one, two] = [createRuns(setup.broker({ engine })), createRuns(setup.broker({ engine }))];
      const run = await one.start("a", undefined, {
        authorize: ({ request, channels }) => channels[0] === "fanwire-run:a" && request.headers.has("x-user"),
      });
      expect(await statusOf(ask(one, "a", as("ada")))).toBe(200);
      expect(await statusOf(ask(one, "a"))).toBe(403);
      expect(await statusOf(ask(two, "a", as("ada")))).toBe(403);
      await run.close();
      expect(await statusOf(ask(one, "a"))).toBe(403);
      expect(await statusOf(ask(one, "a", as("ada")))).toBe(200);
    }),
  );

  test(
    "a grant that expires ends the response with an error",
    withBroker(async (setup) => {
      const broker = setup.broker({
        authorize: () => ({ channels: ["fanwire-run:a"], expiresAt: Date.now() + 1_000 }),
      });
      const runs = createRuns(broker);
      await (await runs.start("a")).write("1");
      await expect(textOf(await ask(runs, "a"))).rejects.toThrow("its grant has expired");
    }),
  );
});
