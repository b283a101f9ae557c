import { expect, test } from "vitest";
import type { Broker, ClientInfo, DisconnectReason } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { clientRequest, codeOf, eventRequest, problemOf, scene, turn, Witness } from "../../support/test-broker.ts";

interface Left {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

/** What a farewell says, and that it ends the stream politely. */
async function farewell(client: Connection): Promise<unknown> {
  const ended = await client.ended();
  const last = client.events.at(-1);
  expect([ended, last?.event, last?.id]).toEqual(["closed", "fanwire-end", undefined]);
  return JSON.parse(last?.data ?? "");
}

const nothingLeft = (broker: Broker): void =>
  expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, blocked: 0, closing: 0, channels: 0 });

test(
  "close: hands on what is pending, ends each stream with fanwire-end and retry, and nothing is left",
  scene(async (stage) => {
    const broker = stage.broker({ retry: 1_000 });
    const clients = [await stage.join(broker, { id: "a" }), await stage.join(broker, { id: "b", channel: "x" })];
    const ends = clients.map(farewell);
    await turn();
    void broker.broadcast("pending 1");
    void broker.broadcast("pending 2");
    await broker.close();
    for (const end of ends) expect(await end).toEqual({ reason: "closing", reconnect: true });
    for (const client of clients) {
      expect(client.data).toEqual(["pending 1", "pending 2"]);
      expect(client.retries).toHaveLength(2);
      expect(client.retries[1]).toBeGreaterThanOrEqual(500);
      expect(client.retries[1]).toBeLessThanOrEqual(1_500);
    }
    nothingLeft(broker);
    expect(broker.stats().disconnects).toEqual({ closing: 2 });
    expect(broker.clients()).toEqual([]);
  }),
);

test(
  "close: a blocked client that reads on is given all that it missed, and then its end",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 60_000 });
    const client = await stage.join(broker);
    for (let event = 0; event < 300; event++) await broker.broadcast(`${event} ${"x".repeat(1_000)}`);
    const closed = broker.close();
    expect(await farewell(client)).toEqual({ reason: "closing", reconnect: true });
    await closed;
    expect(client.data.map((data) => Number.parseInt(data, 10))).toEqual(
      Array.from({ length: 300 }, (_, event) => event),
    );
    nothingLeft(broker);
  }),
);

test(
  "close: a client that never reads is errored after timeout, and close resolves",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 30, tolerance: 1_000 });
    const never = await stage.connect(broker, { id: "never" });
    const reading = await stage.join(broker, { id: "reading" });
    const end = farewell(reading);
    await broker.broadcast("x");
    await broker.close();
    await end;
    expect(await never.ended()).toBe("errored");
    nothingLeft(broker);
  }),
);

test(
  "close: of a stream that disconnect() told to end and that nobody reads, nothing is left open either",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 30 });
    const never = await stage.connect(broker, { id: "never" });
    await broker.disconnect("never");
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 1 });
    await broker.close();
    nothingLeft(broker);
    expect(await never.ended()).toBe("errored");
  }),
);

test(
  "close: is idempotent, every call gives the same promise",
  scene(async (stage) => {
    const { close, ...broker } = stage.broker({ timeout: 30 });
    await stage.join(broker as Broker);
    const [first, second] = [close(), close({ spreadOver: 5_000 })];
    expect(second).toBe(first);
    await first;
    expect(close()).toBe(first);
  }),
);

test(
  "close: of a broker that was never used resolves",
  scene(async (stage) => {
    const broker = stage.broker();
    await broker.close();
    nothingLeft(broker);
  }),
);

test(
  "close({ spreadOver }): spreads the ends",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ timeout: 5_000, onDisconnect: left.see });
    const ends = [];
    for (let client = 0; client < 5; client++) ends.push(farewell(await stage.join(broker)));
    await turn();
    const closed = broker.close({ spreadOver: 200 });
    await left.next();
    // The first has left, and others have not yet.
    expect(broker.stats().clients).toBeGreaterThan(0);
    await Promise.all([closed, ...ends]);
    expect(left.all.map(({ reason }) => reason)).toEqual(Array.from({ length: 5 }, () => "closing"));
    nothingLeft(broker);
  }),
);

test(
  "close({ spreadOver }): a client that leaves by itself before its turn is no obstacle",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ onDisconnect: left.see });
    const clients = [];
    for (let client = 0; client < 4; client++) clients.push(await stage.join(broker));
    for (const client of clients.slice(0, 1)) void client.ended();
    const closed = broker.close({ spreadOver: 100 });
    await left.next();
    for (const client of clients) await client.leave();
    await closed;
    nothingLeft(broker);
    expect(left.all).toHaveLength(4);
  }),
);

test(
  "closed: publishing and listening are refused from the call on, before close resolves",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 30 });
    await stage.connect(broker, { id: "one" });
    const closed = broker.close();
    expect(await codeOf(broker.broadcast("x"))).toBe("closed");
    expect(await codeOf(broker.broadcastTo("one", "x"))).toBe("closed");
    expect(await codeOf((async () => broker.listen())())).toBe("closed");
    await closed;
    expect(await codeOf(broker.broadcast("x"))).toBe("closed");
  }),
);

test(
  "closed: an event is answered 503 closed with retry-after, after the token was checked",
  scene(async (stage) => {
    const broker = stage.broker({ publishToken: "secret", retry: 2_500 });
    await broker.close();
    const headers = { authorization: "Bearer secret" };
    for (const answer of [
      await broker.fetch(eventRequest("x", "/broadcast", { headers })),
      await broker.eventHandler(eventRequest("x")),
      await broker.eventHandler(eventRequest("x", "?id=nobody")),
    ]) {
      expect([answer.status, answer.headers.get("retry-after"), await problemOf(answer)]).toEqual([503, "3", "closed"]);
    }
    expect((await broker.fetch(eventRequest("x", "/broadcast"))).status).toBe(401);
  }),
);

test(
  "closed: a new client that accepts text/event-stream is told to come back: 200, retry and fanwire-end, without an id",
  scene(async (stage) => {
    const broker = stage.broker();
    await broker.broadcast("x");
    await broker.close();
    const client = await stage.connect(broker, { id: "late", lastEventId: "garbage" });
    expect(await farewell(client)).toEqual({ reason: "closing", reconnect: true });
    expect(client.events).toHaveLength(1);
    expect(client.retries).toHaveLength(1);
    nothingLeft(broker);
  }),
);

test(
  "closed: a new client that does not accept text/event-stream is answered 503",
  scene(async (stage) => {
    const broker = stage.broker();
    await broker.close();
    for (const accept of ["*/*", "application/json"]) {
      const answer = await broker.clientHandler(clientRequest({ headers: { accept } }));
      expect([answer.status, await problemOf(answer)]).toEqual([503, "closed"]);
    }
    nothingLeft(broker);
  }),
);

test(
  "closed: the engine is asked for nothing more",
  scene(async (stage) => {
    for (const used of [true, false]) {
      const engine = slowEngine(stage.engine(), turn);
      const broker = stage.broker({ engine });
      if (used) await broker.broadcast("x");
      await broker.close();
      const { length } = engine.calls;
      await codeOf(broker.broadcast("x"));
      await broker.clientHandler(clientRequest({ headers: { accept: "*/*" } }));
      await broker.clientHandler(new Request("https://fanwire.test/connect", { method: "HEAD" }));
      await broker.eventHandler(eventRequest("x"));
      expect(engine.calls.slice(length)).toEqual([]);
    }
  }),
);

test(
  "close: a client whose subscription is pending is told to come back, not 503",
  scene(async (stage) => {
    const broker = stage.broker({ engine: slowEngine(stage.engine(), turn) });
    const connecting = stage.connect(broker, { id: "pending" });
    const closed = broker.close();
    expect(await farewell(await connecting)).toEqual({ reason: "closing", reconnect: true });
    await closed;
    nothingLeft(broker);
  }),
);

test(
  "close: an event whose append is pending is either refused or sent on",
  scene(async (stage) => {
    const broker = stage.broker({ engine: slowEngine(stage.engine(), turn), timeout: 1_000 });
    const client = await stage.join(broker);
    const ended = client.ended();
    await turn();
    const published = codeOf(broker.broadcast("pending"));
    await broker.close();
    await ended;
    expect(client.data).toEqual((await published) === "none" ? ["pending"] : []);
  }),
);

test(
  "disconnect: ends all connections of the id with fanwire-end, and no other",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ onDisconnect: left.see });
    const tabs = [await stage.join(broker, { id: "one" }), await stage.join(broker, { id: "one" })];
    const other = await stage.join(broker, { id: "two" });
    expect(await broker.disconnect("one")).toEqual({ clients: 2 });
    for (const tab of tabs) expect(await farewell(tab)).toEqual({ reason: "disconnected", reconnect: true });
    expect(left.all.map(({ reason }) => reason)).toEqual(["disconnected", "disconnected"]);
    expect(await broker.disconnect("nobody")).toEqual({ clients: 0 });
    await broker.broadcast("still here");
    expect((await other.nextData()).data).toBe("still here");
    expect(broker.stats()).toMatchObject({ clients: 1, disconnects: { disconnected: 2 } });
  }),
);

test(
  "disconnect({ blockFor }): that id is answered 204 for so long, and no other",
  scene(async (stage) => {
    const broker = stage.broker();
    const client = await stage.join(broker, { id: "one" });
    await broker.disconnect("one", { blockFor: 60_000 });
    expect(await farewell(client)).toEqual({ reason: "disconnected", reconnect: false });
    for (const handle of [broker.fetch, broker.clientHandler]) {
      const answer = await handle(clientRequest({ id: "one" }));
      expect([answer.status, answer.body]).toEqual([204, null]);
    }
    expect((await stage.join(broker, { id: "two" })).response.status).toBe(200);
    expect(broker.stats().clients).toBe(1);
  }),
);

test(
  "disconnect({ blockFor }): its time ends",
  scene(async (stage) => {
    const broker = stage.broker({ heartbeat: 160 });
    const idle = await stage.join(broker, { id: "clock" });
    await broker.disconnect("one", { blockFor: 20 });
    expect((await broker.clientHandler(clientRequest({ id: "one" }))).status).toBe(204);
    // A heartbeat comes after 160 ms at the earliest.
    while (idle.comments < 1) await idle.read();
    expect((await stage.join(broker, { id: "one" })).response.status).toBe(200);
  }),
);

test(
  "disconnect: a bad id is refused",
  scene(async (stage) => {
    expect(await codeOf(stage.broker().disconnect(""))).toBe("bad-id");
  }),
);
