import { expect, test } from "vitest";
import { BrokerError, type ClientInfo, type DisconnectReason } from "../../../src/index.ts";
import { clientRequest, codeOf, eventRequest, problemOf, scene, Witness } from "../../support/test-broker.ts";

// One test for each row of "coming from davidsbond/sse", named after the row.

interface Left {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

test(
  "sse.NewBroker: createBroker() makes a broker, and its methods work detached",
  scene(async (stage) => {
    const { clientHandler, broadcast, broadcastTo, clients, stats, listen, disconnect, close } = stage.broker();
    const answer = await clientHandler(clientRequest({ id: "one" }));
    expect(answer.status).toBe(200);
    const heard = listen().next();
    await broadcast("hello");
    await broadcastTo("one", "hello you");
    expect((await heard).value).toMatchObject({ data: "hello" });
    expect(clients().map(({ clientId }) => clientId)).toEqual(["one"]);
    expect(stats().published).toBe(2);
    expect(await disconnect("one")).toEqual({ clients: 1 });
    await answer.body?.cancel();
    await close();
  }),
);

test(
  "Config.Timeout: a client that takes nothing for `timeout` has failed, and one that reads has not",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ timeout: 30, tolerance: 1, onDisconnect: left.see });
    const stuck = await stage.connect(broker, { id: "stuck" });
    const reading = await stage.join(broker, { id: "reading" });
    const next = reading.nextData();
    await broker.broadcast("one");
    await next;
    const { client, reason } = await left.next();
    expect([client.clientId, reason]).toEqual(["stuck", "timeout"]);
    expect(await stuck.ended()).toBe("errored");
    expect(broker.clients().map(({ clientId }) => clientId)).toEqual(["reading"]);
  }),
);

for (const tolerance of [0, 1]) {
  test(
    `Config.Tolerance: ${tolerance} means the first timeout`,
    scene(async (stage) => {
      const left = new Witness<string>();
      const patient = stage.broker({ timeout: 30, tolerance: 3, onDisconnect: () => left.see("3") });
      const strict = stage.broker({ timeout: 30, tolerance, onDisconnect: () => left.see(String(tolerance)) });
      for (const broker of [patient, strict]) {
        await stage.connect(broker);
        await broker.broadcast("one");
      }
      expect([await left.next(), await left.next()]).toEqual([String(tolerance), "3"]);
    }),
  );
}

test(
  "Config.Tolerance: a success resets the count",
  scene(async (stage) => {
    // A client of another broker, stuck right after, tells by its end that one timeout has passed.
    const passed = new Witness<Left>();
    const clock = stage.broker({ timeout: 60, tolerance: 1, onDisconnect: passed.see });
    const broker = stage.broker({ timeout: 60, tolerance: 2 });
    const client = await stage.join(broker);
    for (let time = 0; time < 3; time++) {
      await broker.broadcast(`blocked ${time}`);
      await stage.connect(clock);
      await clock.broadcast("tick");
      await passed.next();
      expect(broker.stats().clients).toBe(1);
      // Reading up to date is the progress.
      await client.untilData(`blocked ${time}`);
    }
    expect(client.data).toEqual(["blocked 0", "blocked 1", "blocked 2"]);
  }),
);

test(
  "Config.ErrorHandler: errorHandler writes HTTP errors in one's own format, from code and status",
  scene(async (stage) => {
    const seen: unknown[] = [];
    const broker = stage.broker({
      errorHandler(error, request) {
        seen.push(error instanceof BrokerError, request.method);
        return new Response(`oops: ${error.code}`, { status: error.status, headers: { "x-mine": "yes" } });
      },
    });
    const answer = await broker.eventHandler(eventRequest(""));
    expect(answer.status).toBe(400);
    expect(answer.headers.get("x-mine")).toBe("yes");
    expect(await answer.text()).toBe("oops: no-event-data");
    expect(seen).toEqual([true, "POST"]);
  }),
);

test(
  "broker.ClientHandler: GET connects, ?id= names the client, else an id is made",
  scene(async (stage) => {
    const broker = stage.broker();
    const named = await stage.join(broker, { id: "näme" });
    const made = await stage.join(broker);
    expect(named.clientId).toBe("näme");
    expect(made.clientId).toMatch(/^[0-9a-v]{26}$/);
    expect(broker.clients().map(({ clientId }) => clientId)).toEqual(["näme", made.clientId]);
    const post = await broker.clientHandler(new Request("https://fanwire.test/connect", { method: "POST", body: "x" }));
    expect(post.status).toBe(405);
  }),
);

test(
  "broker.EventHandler: POST, the body is the data, for every client",
  scene(async (stage) => {
    const broker = stage.broker();
    const [one, two] = [await stage.join(broker), await stage.join(broker)];
    const answer = await broker.eventHandler(eventRequest("the body"));
    expect(answer.status).toBe(200);
    const { id, clients } = (await answer.json()) as { id: string; clients: number };
    expect(clients).toBe(2);
    expect(await one.nextData()).toMatchObject({ id, data: "the body", event: undefined });
    expect(await two.nextData()).toMatchObject({ id, data: "the body", event: undefined });
  }),
);

test(
  "broker.EventHandler: ?id= targets one client, ?type= sets the event type, an empty body is 400",
  scene(async (stage) => {
    const broker = stage.broker();
    const [one, two] = [await stage.join(broker, { id: "one" }), await stage.join(broker, { id: "two" })];
    await broker.eventHandler(eventRequest("for one", "?id=one&type=news"));
    await broker.eventHandler(eventRequest("for all", "?type=other"));
    expect(await one.nextData()).toMatchObject({ event: "news", data: "for one" });
    expect(await two.nextData()).toMatchObject({ event: "other", data: "for all" });
    const empty = await broker.eventHandler(eventRequest(""));
    expect([empty.status, await problemOf(empty)]).toEqual([400, "no-event-data"]);
    const unknown = await broker.eventHandler(eventRequest("x", "?id=nobody"));
    expect([unknown.status, await problemOf(unknown)]).toEqual([404, "unknown-client"]);
  }),
);

test(
  "broker.Broadcast: it reaches every connected client, and with { report: true } tells of every one that failed",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 50, tolerance: 1 });
    await stage.connect(broker, { id: "stuck" });
    const reading = await stage.join(broker, { id: "reading" });
    const next = reading.nextData();
    const { clients, report } = await broker.broadcast("one", { report: true });
    expect(clients).toBe(2);
    expect((await next).data).toBe("one");
    const { sent, failed } = await report;
    expect(sent).toBe(1);
    expect(failed.map(({ clientId }) => clientId)).toEqual(["stuck"]);
    expect(failed[0]?.connectionId).toBeTypeOf("string");
  }),
);

test(
  "broker.BroadcastTo: it reaches one client, and is an error if that is not connected",
  scene(async (stage) => {
    const broker = stage.broker();
    const [one, two] = [await stage.join(broker, { id: "one" }), await stage.join(broker, { id: "two" })];
    expect(await broker.broadcastTo("two", "only two")).toMatchObject({ clients: 1 });
    await broker.broadcast("all");
    expect((await one.nextData()).data).toBe("all");
    expect((await two.nextData()).data).toBe("only two");
    expect(await codeOf(broker.broadcastTo("three", "x"))).toBe("unknown-client");
  }),
);

test(
  "broker.Listen: listen() gives what is broadcast, and ends cleanly",
  scene(async (stage) => {
    const broker = stage.broker();
    const listening = broker.listen();
    await broker.broadcast("one");
    await broker.broadcast({ event: "news", data: "two" });
    const heard: unknown[] = [];
    for await (const item of listening) {
      heard.push(item);
      if (heard.length === 2) break;
    }
    expect(heard).toMatchObject([
      { type: "event", data: "one" },
      { type: "event", event: "news", data: "two" },
    ]);
    expect(await listening.next()).toEqual({ done: true, value: undefined });
  }),
);

test(
  "sse.NewEvent: an event is a string, bytes, or { event, data, retry }",
  scene(async (stage) => {
    const broker = stage.broker();
    const client = await stage.join(broker);
    await broker.broadcast("text");
    await broker.broadcast(new TextEncoder().encode("bytes"));
    await broker.broadcast({ event: "news", data: { a: 1 }, retry: 1234 });
    expect(await client.nextData()).toMatchObject({ data: "text" });
    expect(await client.nextData()).toMatchObject({ data: "bytes" });
    expect(await client.nextData()).toMatchObject({ event: "news", data: '{"a":1}' });
    expect(client.retries).toContain(1234);
  }),
);
