import { expect, test } from "vitest";
import type { ClientInfo, DisconnectReason } from "../../../src/index.ts";
import { Clock } from "../../support/clock.ts";
import { Recorder, withBroker } from "../../support/test-broker.ts";

interface Left {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

// `timeout`, `tolerance` and `heartbeat`: which clients count as gone, and what happens to their connections.

test(
  "timeout: the stream ends without fanwire-end, the state is freed, and onDisconnect says why",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ timeout: 20, tolerance: 2, onDisconnect: left.record });
    const blocked = await setup.join(broker, { id: "blocked", channel: ["a", "b"] });
    await broker.broadcast("one");
    expect(await left.next()).toMatchObject({
      client: { clientId: "blocked", channels: ["a", "b"] },
      reason: "timeout",
    });
    expect(await blocked.ended()).toBe("closed");
    expect([blocked.data, blocked.control("end")]).toEqual([[], []]);
    expect(broker.stats()).toMatchObject({
      clients: 0,
      ids: 0,
      blocked: 0,
      channels: 0,
      disconnects: { timeout: 1 },
    });
  }),
);

test(
  "timeout: a client that stalls in the middle of a backlog is disconnected",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ timeout: 20, tolerance: 1, onDisconnect: left.record });
    const first = await setup.join(broker);
    for (let event = 0; event < 200; event++) await broker.broadcast("x".repeat(1_024));
    await first.leave();
    expect((await left.next()).reason).toBe("client-left");
    const back = await setup.join(broker, { id: "slow", lastEventId: first.lastEventId ?? "" });
    await back.nextData();
    expect(await left.next()).toMatchObject({ client: { clientId: "slow" }, reason: "timeout" });
  }),
);

test(
  "timeout: a client that never reads its backlog is disconnected, also if nothing new is published",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ timeout: 20, tolerance: 1, onDisconnect: left.record });
    const first = await setup.join(broker);
    const start = first.lastEventId ?? "";
    const flushed = first.nextData();
    await broker.broadcast("one");
    await flushed;
    await first.leave();
    await left.next();
    await setup.connect(broker, { id: "dead", lastEventId: start });
    expect(await left.next()).toMatchObject({ client: { clientId: "dead" }, reason: "timeout" });
  }),
);

test(
  "timeout: a blocked client with nothing to receive is not disconnected",
  withBroker(async (setup) => {
    const passed = new Recorder<Left>();
    const broker = setup.broker({ timeout: 20, tolerance: 1, onDisconnect: passed.record });
    await setup.connect(broker, { id: "quiet", channel: "quiet" });
    for (let round = 0; round < 3; round++) {
      await setup.connect(broker, { id: `blocked ${round}` });
      await broker.broadcastTo(`blocked ${round}`, "x");
      expect((await passed.next()).client.clientId).toBe(`blocked ${round}`);
    }
    expect(broker.clients().map(({ clientId }) => clientId)).toEqual(["quiet"]);
  }),
);

test.each([
  [0, 1],
  [1, 1],
  [3, 3],
])(
  "tolerance %i: a blocked client is disconnected at the end of timeout number %i, not before, and any read resets the count",
  (tolerance, times) =>
    withBroker(async (setup) => {
      const clock = new Clock();
      await clock.run(async () => {
        const broker = setup.broker({ timeout: 1_000, tolerance });
        const slow = await setup.join(broker, { id: "slow" });
        for (let round = 0; round < 3; round++) {
          await broker.broadcast("x");
          await clock.advance(times * 1_000 - 1);
          expect(broker.stats()).toMatchObject({ clients: 1, blocked: 1 });
          await slow.nextData();
        }
        await broker.broadcast("x");
        await clock.advance(times * 1_000 - 1);
        expect(broker.stats().clients).toBe(1);
        await clock.advance(2);
        expect(broker.stats()).toMatchObject({ clients: 0, disconnects: { timeout: 1 } });
      });
    })(),
);

test(
  "timeout: runs from the moment a client was blocked, whatever else is published",
  withBroker(async (setup) => {
    const clock = new Clock();
    await clock.run(async () => {
      const broker = setup.broker({ timeout: 1_000, tolerance: 1 });
      await setup.join(broker);
      for (let ms = 0; ms < 1_000; ms += 250) {
        await broker.broadcast("x");
        expect(broker.stats().clients).toBe(1);
        await clock.advance(250);
      }
      await clock.advance(2);
      expect(broker.stats()).toMatchObject({ clients: 0, disconnects: { timeout: 1 } });
    });
  }),
);

test(
  "timeout: no timer runs while no client is blocked",
  withBroker(async (setup) => {
    const clock = new Clock();
    await clock.run(async () => {
      const broker = setup.broker({ timeout: 1_000, heartbeat: Number.POSITIVE_INFINITY });
      const client = await setup.join(broker);
      await broker.broadcast("the first event");
      await clock.turns();
      await client.nextData();
      for (let round = 0; round < 2; round++) {
        await broker.broadcast("x");
        await clock.turns();
        expect(clock.pending).toHaveLength(1);
        await client.nextData();
        expect(clock.pending).toEqual([]);
      }
    });
  }),
);

test(
  "timeout: blocked clients are disconnected in the order in which they were blocked",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ timeout: 40, tolerance: 2, onDisconnect: left.record });
    const marker = await setup.join(broker, { id: "marker" });
    for (const id of ["one", "two", "three"]) {
      await setup.connect(broker, { id });
      const flushed = marker.nextData();
      await broker.broadcastTo(id, "x");
      await broker.broadcastTo("marker", "flushed");
      await flushed;
    }
    const order = [await left.next(), await left.next(), await left.next()];
    expect(order.map(({ client }) => client.clientId)).toEqual(["one", "two", "three"]);
  }),
);

test(
  "timeout: Infinity never disconnects, and stats() still counts blocked clients",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: Number.POSITIVE_INFINITY, tolerance: 1 });
    await setup.connect(broker, { id: "blocked" });
    const reading = await setup.join(broker, { id: "reading" });
    const next = reading.nextData();
    await broker.broadcast("one");
    await next;
    expect(broker.stats()).toMatchObject({ clients: 2, blocked: 1 });
  }),
);

test(
  "timeout: a client that was disconnected comes back with its id and loses nothing that is retained",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ timeout: 20, tolerance: 1, onDisconnect: left.record });
    const client = await setup.join(broker, { id: "one" });
    await broker.broadcast("read");
    await client.untilData("read");
    for (const data of ["a", "b", "c"]) await broker.broadcast(data);
    await left.next();
    const back = await setup.join(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    for (const data of ["a", "b", "c"]) expect((await back.nextData()).data).toBe(data);
    expect(back.control("gap")).toEqual([]);
  }),
);

test(
  "heartbeat: an idle client that reads is sent comments, without an id and without an event",
  withBroker(async (setup) => {
    const broker = setup.broker({ heartbeat: 16 });
    const client = await setup.join(broker);
    const { lastEventId } = client;
    while (client.comments < 3) await client.read();
    expect(client.events).toHaveLength(1);
    expect(client.lastEventId).toBe(lastEventId);
    expect(new Set(client.chunks.slice(1)).size).toBe(1);
    await broker.broadcast("after");
    expect((await client.nextData()).data).toBe("after");
  }),
);

test(
  "heartbeat: a blocked client is not sent any",
  withBroker(async (setup) => {
    const broker = setup.broker({ heartbeat: 16 });
    const blocked = await setup.join(broker, { id: "blocked" });
    const idle = await setup.join(broker, { id: "idle" });
    while (idle.comments < 5) await idle.read();
    await broker.broadcast("one");
    await blocked.nextData();
    expect(blocked.comments).toBe(0);
  }),
);

test(
  "heartbeat: Infinity sends none, and 0 is refused",
  withBroker(async (setup) => {
    expect(() => setup.broker({ heartbeat: 0 })).toThrow(RangeError);
    expect(() => setup.broker({ timeout: 0 })).toThrow(RangeError);
    const silent = setup.broker({ heartbeat: Number.POSITIVE_INFINITY });
    const beating = setup.broker({ heartbeat: 16 });
    const [quiet, idle] = [await setup.join(silent), await setup.join(beating)];
    const next = quiet.nextData();
    while (idle.comments < 3) await idle.read();
    await silent.broadcast("one");
    await next;
    expect(quiet.comments).toBe(0);
  }),
);

test(
  "retry: reconnection times are spread from half of it to one and a half times it",
  withBroker(async (setup) => {
    const broker = setup.broker({ retry: 10_000 });
    const times: number[] = [];
    for (let client = 0; client < 100; client++) times.push(...(await setup.join(broker)).retries);
    expect(times).toHaveLength(100);
    expect(Math.min(...times)).toBeGreaterThanOrEqual(5_000);
    expect(Math.max(...times)).toBeLessThanOrEqual(15_000);
    expect(new Set(times).size).toBeGreaterThan(50);
  }),
);

test(
  "timeout: a client that connects after an event of the same turn does not wait for it, and is not disconnected for it",
  withBroker(async (setup) => {
    const clock = new Clock();
    await clock.run(async () => {
      const broker = setup.broker({ timeout: 400, tolerance: 1 });
      const before = await clock.advanceUntil(setup.join(broker));
      const published = broker.broadcast("x");
      const [after] = await clock.advanceUntil(Promise.all([setup.connect(broker), published]));
      expect((await clock.advanceUntil(before.nextData())).data).toBe("x");
      await clock.advance(2_000);
      expect(broker.stats()).toMatchObject({ clients: 2, blocked: 0, disconnects: {} });
      await clock.advanceUntil(Promise.all([before.leave(), after.leave()]));
    });
  }),
);
