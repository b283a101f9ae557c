// Coming from davidsbond/sse: one test for each row of the table in src/broker/README.md, named after the row.
import { expect, test } from "vitest";
import { BrokerError, type ClientInfo, type DisconnectReason } from "../../../src/index.ts";
import { clientRequest, codeOf, eventRequest, problemOf, Recorder, withBroker } from "../../support/test-broker.ts";

interface Disconnect {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

test(
  "sse.NewBroker: createBroker() creates a broker, and its methods work detached",
  withBroker(async (setup) => {
    const { clientHandler, broadcast, broadcastTo, clients, stats, listen, disconnect, close } = setup.broker();
    const answer = await clientHandler(clientRequest({ id: "one" }));
    expect(answer.status).toBe(200);
    const next = listen().next();
    await broadcast("hello");
    await broadcastTo("one", "hello you");
    expect((await next).value).toMatchObject({ data: "hello" });
    expect(clients().map(({ clientId }) => clientId)).toEqual(["one"]);
    expect(stats().published).toBe(2);
    expect(await disconnect("one")).toEqual({ clients: 1 });
    await answer.body?.cancel();
    await close();
  }),
);

test(
  "Config.Timeout: a client that takes nothing for `timeout` has failed, and one that reads has not",
  withBroker(async (setup) => {
    const disconnects = new Recorder<Disconnect>();
    const broker = setup.broker({ timeout: 30, tolerance: 1, onDisconnect: disconnects.record });
    const stuck = await setup.connect(broker, { id: "stuck" });
    const reading = await setup.join(broker, { id: "reading" });
    const next = reading.nextData();
    await broker.broadcast("one");
    await next;
    const { client, reason } = await disconnects.next();
    expect([client.clientId, reason]).toEqual(["stuck", "timeout"]);
    expect(await stuck.ended()).toBe("closed");
    expect(broker.clients().map(({ clientId }) => clientId)).toEqual(["reading"]);
  }),
);

for (const tolerance of [0, 1]) {
  test(
    `Config.Tolerance: ${tolerance} means the first timeout`,
    withBroker(async (setup) => {
      const disconnects = new Recorder<string>();
      const patient = setup.broker({ timeout: 30, tolerance: 3, onDisconnect: () => disconnects.record("3") });
      const strict = setup.broker({
        timeout: 30,
        tolerance,
        onDisconnect: () => disconnects.record(String(tolerance)),
      });
      for (const broker of [patient, strict]) {
        await setup.connect(broker);
        await broker.broadcast("one");
      }
      expect([await disconnects.next(), await disconnects.next()]).toEqual([String(tolerance), "3"]);
    }),
  );
}

test(
  "Config.Tolerance: progress resets the count",
  withBroker(async (setup) => {
    // A client of another broker is stuck right after. Its end shows that one timeout has passed.
    const passed = new Recorder<Disconnect>();
    const clock = setup.broker({ timeout: 60, tolerance: 1, onDisconnect: passed.record });
    const broker = setup.broker({ timeout: 60, tolerance: 2 });
    const client = await setup.join(broker);
    for (let time = 0; time < 3; time++) {
      await broker.broadcast(`blocked ${time}`);
      await setup.connect(clock);
      await clock.broadcast("tick");
      await passed.next();
      expect(broker.stats().clients).toBe(1);
      // The client reads everything, which counts as progress.
      await client.untilData(`blocked ${time}`);
    }
    expect(client.data).toEqual(["blocked 0", "blocked 1", "blocked 2"]);
  }),
);

test(
  "Config.ErrorHandler: errorHandler writes HTTP errors in an own format, from code and status",
  withBroker(async (setup) => {
    const seen: unknown[] = [];
    const broker = setup.broker({
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
  "broker.ClientHandler: GET connects; ?id= names the client, or an id is generated",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const named = await setup.join(broker, { id: "näme" });
    const generated = await setup.join(broker);
    expect(named.clientId).toBe("näme");
    expect(generated.clientId).toMatch(/^[0-9a-v]{26}$/);
    expect(broker.clients().map(({ clientId }) => clientId)).toEqual(["näme", generated.clientId]);
    const post = await broker.clientHandler(
      new Request("https://fanwire.test/connect", { method: "DELETE", body: "x" }),
    );
    expect(post.status).toBe(405);
  }),
);

test(
  "broker.EventHandler: POST publishes its body to every client",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [one, two] = [await setup.join(broker), await setup.join(broker)];
    const answer = await broker.eventHandler(eventRequest("the body"));
    expect(answer.status).toBe(200);
    const { id, clients } = (await answer.json()) as { id: string; clients: number };
    expect(clients).toBe(2);
    expect(await one.nextData()).toMatchObject({ id, data: "the body", event: undefined });
    expect(await two.nextData()).toMatchObject({ id, data: "the body", event: undefined });
  }),
);

test(
  "broker.EventHandler: ?id= names one client, ?type= sets the event type, and an empty body is 400",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [one, two] = [await setup.join(broker, { id: "one" }), await setup.join(broker, { id: "two" })];
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
  "broker.Broadcast: broadcast() reaches every connected client, and { report: true } reports each that failed",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 50, tolerance: 1 });
    await setup.connect(broker, { id: "stuck" });
    const reading = await setup.join(broker, { id: "reading" });
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
  "broker.BroadcastTo: broadcastTo() reaches one client, and rejects if it is not connected",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [one, two] = [await setup.join(broker, { id: "one" }), await setup.join(broker, { id: "two" })];
    expect(await broker.broadcastTo("two", "only two")).toMatchObject({ clients: 1 });
    await broker.broadcast("all");
    expect((await one.nextData()).data).toBe("all");
    expect((await two.nextData()).data).toBe("only two");
    expect(await codeOf(broker.broadcastTo("three", "x"))).toBe("unknown-client");
  }),
);

test(
  "broker.Listen: listen() yields broadcast events, and ends cleanly",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const listening = broker.listen();
    await broker.broadcast("one");
    await broker.broadcast({ event: "news", data: "two" });
    const items: unknown[] = [];
    for await (const item of listening) {
      items.push(item);
      if (items.length === 2) break;
    }
    expect(items).toMatchObject([
      { type: "event", data: "one" },
      { type: "event", event: "news", data: "two" },
    ]);
    expect(await listening.next()).toEqual({ done: true, value: undefined });
  }),
);

test(
  "sse.NewEvent: an event is a string, bytes, or { event, data, retry }",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    await broker.broadcast("text");
    await broker.broadcast(new TextEncoder().encode("bytes"));
    await broker.broadcast({ event: "news", data: { a: 1 }, retry: 1234 });
    expect(await client.nextData()).toMatchObject({ data: "text" });
    expect(await client.nextData()).toMatchObject({ data: "bytes" });
    expect(await client.nextData()).toMatchObject({ event: "news", data: '{"a":1}' });
    expect(client.retries).toContain(1234);
  }),
);
