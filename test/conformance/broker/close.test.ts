// `close()` and `disconnect()`: how streams end, and how later requests are answered.
import { expect, test } from "vitest";
import type { Broker, ClientInfo, DisconnectReason } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import {
  clientRequest,
  codeOf,
  eventRequest,
  problemOf,
  Recorder,
  turn,
  withBroker,
} from "../../support/test-broker.ts";

interface Disconnect {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

/** Reads a stream to its end event. Returns the data of that event. */
async function endOf(client: Connection): Promise<unknown> {
  const ended = await client.ended();
  const last = client.events.at(-1);
  expect([ended, last?.event, last?.id]).toEqual(["closed", "fanwire-end", undefined]);
  return JSON.parse(last?.data ?? "");
}

const nothingLeft = (broker: Broker): void =>
  expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, blocked: 0, closing: 0, channels: 0 });

test(
  "close(): sends pending events, ends each stream with fanwire-end and retry, and leaves nothing behind",
  withBroker(async (setup) => {
    const broker = setup.broker({ retry: 1_000 });
    const clients = [await setup.join(broker, { id: "a" }), await setup.join(broker, { id: "b", channel: "x" })];
    const ends = clients.map(endOf);
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
  "close(): a blocked client that reads again receives every event it missed, and then its end event",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 60_000 });
    const client = await setup.join(broker);
    for (let event = 0; event < 300; event++) await broker.broadcast(`${event} ${"x".repeat(1_000)}`);
    const closed = broker.close();
    expect(await endOf(client)).toEqual({ reason: "closing", reconnect: true });
    await closed;
    expect(client.data.map((data) => Number.parseInt(data, 10))).toEqual(
      Array.from({ length: 300 }, (_, event) => event),
    );
    nothingLeft(broker);
  }),
);

test(
  "close(): the stream of a client that never reads is aborted after timeout, and close() resolves",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 30, tolerance: 1_000 });
    const unread = await setup.connect(broker, { id: "never" });
    const reading = await setup.join(broker, { id: "reading" });
    const end = endOf(reading);
    await broker.broadcast("x");
    await broker.close();
    await end;
    expect(await unread.ended()).toBe("closed");
    expect([unread.data, unread.control("end")]).toEqual([[], []]);
    nothingLeft(broker);
  }),
);

test(
  "close(): aborts a stream whose end event from disconnect() is never read",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 30 });
    const unread = await setup.connect(broker, { id: "never" });
    await broker.disconnect("never");
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 1 });
    await broker.close();
    nothingLeft(broker);
    expect(await unread.ended()).toBe("closed");
    expect([unread.data, unread.control("end")]).toEqual([[], []]);
  }),
);

test(
  "close(): is idempotent, and every call returns the same promise",
  withBroker(async (setup) => {
    const { close, ...broker } = setup.broker({ timeout: 30 });
    await setup.join(broker as Broker);
    const [first, second] = [close(), close({ spreadOver: 5_000 })];
    expect(second).toBe(first);
    await first;
    expect(close()).toBe(first);
  }),
);

test(
  "close(): resolves for a broker that was never used",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await broker.close();
    nothingLeft(broker);
  }),
);

test(
  "close({ spreadOver }): spreads the ends of the streams",
  withBroker(async (setup) => {
    const disconnects = new Recorder<Disconnect>();
    const broker = setup.broker({ timeout: 5_000, onDisconnect: disconnects.record });
    const ends = [];
    for (let client = 0; client < 5; client++) ends.push(endOf(await setup.join(broker)));
    await turn();
    const closed = broker.close({ spreadOver: 200 });
    await disconnects.next();
    // The first stream has ended, and others have not.
    expect(broker.stats().clients).toBeGreaterThan(0);
    await Promise.all([closed, ...ends]);
    expect(disconnects.all.map(({ reason }) => reason)).toEqual(Array.from({ length: 5 }, () => "closing"));
    nothingLeft(broker);
  }),
);

test(
  "close({ spreadOver }): a client may leave before its turn",
  withBroker(async (setup) => {
    const disconnects = new Recorder<Disconnect>();
    const broker = setup.broker({ onDisconnect: disconnects.record });
    const clients = [];
    for (let client = 0; client < 4; client++) clients.push(await setup.join(broker));
    for (const client of clients.slice(0, 1)) void client.ended();
    const closed = broker.close({ spreadOver: 100 });
    await disconnects.next();
    for (const client of clients) await client.leave();
    await closed;
    nothingLeft(broker);
    expect(disconnects.all).toHaveLength(4);
  }),
);

test(
  "close(): publishing and listening are refused from the call on, before it resolves",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 30 });
    await setup.connect(broker, { id: "one" });
    const closed = broker.close();
    expect(await codeOf(broker.broadcast("x"))).toBe("closed");
    expect(await codeOf(broker.broadcastTo("one", "x"))).toBe("closed");
    expect(await codeOf((async () => broker.listen())())).toBe("closed");
    await closed;
    expect(await codeOf(broker.broadcast("x"))).toBe("closed");
  }),
);

test(
  "close(): afterwards an event with a valid token is answered 503 closed with retry-after",
  withBroker(async (setup) => {
    const broker = setup.broker({ publishToken: "secret", retry: 2_500 });
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
  "close(): afterwards a client that accepts text/event-stream receives 200, retry and fanwire-end, and no id",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await broker.broadcast("x");
    await broker.close();
    const client = await setup.connect(broker, { id: "late", lastEventId: "garbage" });
    expect(await endOf(client)).toEqual({ reason: "closing", reconnect: true });
    expect(client.events).toHaveLength(1);
    expect(client.retries).toHaveLength(1);
    nothingLeft(broker);
  }),
);

test(
  "close(): afterwards a client that does not accept text/event-stream is answered 503",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await broker.close();
    for (const accept of ["*/*", "application/json"]) {
      const answer = await broker.clientHandler(clientRequest({ headers: { accept } }));
      expect([answer.status, await problemOf(answer)]).toEqual([503, "closed"]);
    }
    nothingLeft(broker);
  }),
);

test(
  "close(): a closed broker no longer calls authorize",
  withBroker(async (setup) => {
    let calls = 0;
    const broker = setup.broker({
      authorize: () => {
        calls++;
        return true;
      },
    });
    await broker.close();
    const answer = await broker.fetch(eventRequest("x"));
    expect([answer.status, await problemOf(answer), calls]).toEqual([503, "closed", 0]);
    expect(await codeOf(broker.close({ spreadOver: -1 }))).toBe("RangeError");
  }),
);

test(
  "close(): afterwards the engine is not called",
  withBroker(async (setup) => {
    for (const used of [true, false]) {
      const engine = slowEngine(setup.engine(), turn);
      const broker = setup.broker({ engine });
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
  "close(): an EventSource whose subscription is pending has to come back later, and does not receive 503",
  withBroker(async (setup) => {
    const broker = setup.broker({ engine: slowEngine(setup.engine(), turn) });
    const connecting = setup.connect(broker, { id: "pending" });
    const closed = broker.close();
    expect(await endOf(await connecting)).toEqual({ reason: "closing", reconnect: true });
    await closed;
    nothingLeft(broker);
  }),
);

test(
  "close(): an event whose append is pending is either refused or sent",
  withBroker(async (setup) => {
    const broker = setup.broker({ engine: slowEngine(setup.engine(), turn), timeout: 1_000 });
    const client = await setup.join(broker);
    const ended = client.ended();
    await turn();
    const published = codeOf(broker.broadcast("pending"));
    await broker.close();
    await ended;
    expect(client.data).toEqual((await published) === "none" ? ["pending"] : []);
  }),
);

test(
  "disconnect(): ends all connections of the client id with fanwire-end, and no others",
  withBroker(async (setup) => {
    const disconnects = new Recorder<Disconnect>();
    const broker = setup.broker({ onDisconnect: disconnects.record });
    const tabs = [await setup.join(broker, { id: "one" }), await setup.join(broker, { id: "one" })];
    const other = await setup.join(broker, { id: "two" });
    expect(await broker.disconnect("one")).toEqual({ clients: 2 });
    for (const tab of tabs) expect(await endOf(tab)).toEqual({ reason: "disconnected", reconnect: true });
    expect(disconnects.all.map(({ reason }) => reason)).toEqual(["disconnected", "disconnected"]);
    expect(await broker.disconnect("nobody")).toEqual({ clients: 0 });
    await broker.broadcast("still here");
    expect((await other.nextData()).data).toBe("still here");
    expect(broker.stats()).toMatchObject({ clients: 1, disconnects: { disconnected: 2 } });
  }),
);

test(
  "disconnect({ blockFor }): answers this client id 204 for that time, and no other id",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "one" });
    await broker.disconnect("one", { blockFor: 60_000 });
    expect(await endOf(client)).toEqual({ reason: "disconnected", reconnect: false });
    for (const handle of [broker.fetch, broker.clientHandler]) {
      const answer = await handle(clientRequest({ id: "one" }));
      expect([answer.status, answer.body]).toEqual([204, null]);
    }
    expect((await setup.join(broker, { id: "two" })).response.status).toBe(200);
    expect(broker.stats().clients).toBe(1);
  }),
);

test(
  "disconnect({ blockFor }): the client may connect again afterwards",
  withBroker(async (setup) => {
    const broker = setup.broker({ heartbeat: 160 });
    const idle = await setup.join(broker, { id: "clock" });
    await broker.disconnect("one", { blockFor: 20 });
    expect((await broker.clientHandler(clientRequest({ id: "one" }))).status).toBe(204);
    // A heartbeat comes after 160 ms at the earliest.
    while (idle.comments < 1) await idle.read();
    expect((await setup.join(broker, { id: "one" })).response.status).toBe(200);
  }),
);

test(
  "disconnect: the application's reason reaches the page",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ann" });
    await broker.disconnect("ann", { blockFor: 1_000, reason: "spam\n\ud800" });
    expect(await endOf(client)).toEqual({ reason: "disconnected", reconnect: false, detail: "spam\n\ufffd" });
  }),
);

test(
  "disconnect(): an invalid id is refused",
  withBroker(async (setup) => {
    expect(await codeOf(setup.broker().disconnect(""))).toBe("bad-id");
  }),
);

test(
  "disconnect({ blockFor }): a shorter bar does not end a longer one, and neither do many expired ones",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await broker.disconnect("evil", { blockFor: 1_000_000 });
    await broker.disconnect("evil", { blockFor: 1 });
    await broker.disconnect("evil");
    for (let n = 0; n < 100_001; n++) await broker.disconnect(`other ${n}`, { blockFor: 0.000_1 });
    const answer = await broker.clientHandler(clientRequest({ id: "evil" }));
    expect([answer.status, answer.headers.get("cache-control")]).toEqual([204, "no-store"]);
  }),
);

test(
  "disconnect({ blockFor }): applies to a client whose subscription is pending",
  withBroker(async (setup) => {
    let subscribe = (): void => undefined;
    const engine = slowEngine(setup.engine(), () => new Promise<void>((resolve) => (subscribe = resolve)));
    const broker = setup.broker({ engine });
    const answer = broker.clientHandler(clientRequest({ id: "evil" }));
    await turn();
    await broker.disconnect("evil", { blockFor: 60_000 });
    subscribe();
    expect((await answer).status).toBe(204);
    expect(broker.stats()).toMatchObject({ clients: 0, channels: 0 });
    subscribe();
  }),
);
