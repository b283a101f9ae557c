import { expect, test } from "vitest";
import type { ClientInfo, DisconnectReason } from "../../../src/index.ts";
import { Clock } from "../../support/clock.ts";
import { scene, Witness } from "../../support/test-broker.ts";

interface Left {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

// `timeout`, `tolerance` and `heartbeat`: who is taken to be gone, and what is left of it.

test(
  "timeout: the stream is errored, the state is freed, onDisconnect says why",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ timeout: 20, tolerance: 2, onDisconnect: left.see });
    const stuck = await stage.join(broker, { id: "stuck", channel: ["a", "b"] });
    await broker.broadcast("one");
    expect(await left.next()).toMatchObject({ client: { clientId: "stuck", channels: ["a", "b"] }, reason: "timeout" });
    expect(await stuck.ended()).toBe("errored");
    expect(stuck.data).toEqual([]);
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
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ timeout: 20, tolerance: 1, onDisconnect: left.see });
    const first = await stage.join(broker);
    for (let event = 0; event < 200; event++) await broker.broadcast("x".repeat(1_024));
    await first.leave();
    expect((await left.next()).reason).toBe("client-left");
    const back = await stage.join(broker, { id: "slow", lastEventId: first.lastEventId ?? "" });
    await back.nextData();
    expect(await left.next()).toMatchObject({ client: { clientId: "slow" }, reason: "timeout" });
  }),
);

test(
  "timeout: a client that never reads its backlog is disconnected, also if nothing new is published",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ timeout: 20, tolerance: 1, onDisconnect: left.see });
    const first = await stage.join(broker);
    const start = first.lastEventId ?? "";
    const flushed = first.nextData();
    await broker.broadcast("one");
    await flushed;
    await first.leave();
    await left.next();
    await stage.connect(broker, { id: "dead", lastEventId: start });
    expect(await left.next()).toMatchObject({ client: { clientId: "dead" }, reason: "timeout" });
  }),
);

test(
  "timeout: a blocked client with nothing to receive is not disconnected",
  scene(async (stage) => {
    const passed = new Witness<Left>();
    const broker = stage.broker({ timeout: 20, tolerance: 1, onDisconnect: passed.see });
    await stage.connect(broker, { id: "quiet", channel: "quiet" });
    for (let round = 0; round < 3; round++) {
      await stage.connect(broker, { id: `stuck ${round}` });
      await broker.broadcastTo(`stuck ${round}`, "x");
      expect((await passed.next()).client.clientId).toBe(`stuck ${round}`);
    }
    expect(broker.clients().map(({ clientId }) => clientId)).toEqual(["quiet"]);
  }),
);

test.each([
  [0, 1],
  [1, 1],
  [3, 3],
])(
  "tolerance %i: who is stuck goes at the end of timeout number %i, not before, and all it reads begins the count anew",
  (tolerance, times) =>
    scene(async (stage) => {
      const clock = new Clock();
      await clock.run(async () => {
        const broker = stage.broker({ timeout: 1_000, tolerance });
        const slow = await stage.join(broker, { id: "slow" });
        for (let round = 0; round < 3; round++) {
          await broker.broadcast("x");
          await clock.pass(times * 1_000 - 1);
          expect(broker.stats()).toMatchObject({ clients: 1, blocked: 1 });
          await slow.nextData();
        }
        await broker.broadcast("x");
        await clock.pass(times * 1_000 - 1);
        expect(broker.stats().clients).toBe(1);
        await clock.pass(2);
        expect(broker.stats()).toMatchObject({ clients: 0, disconnects: { timeout: 1 } });
      });
    })(),
);

test(
  "timeout: runs from when a client got stuck, whatever is published meanwhile",
  scene(async (stage) => {
    const clock = new Clock();
    await clock.run(async () => {
      const broker = stage.broker({ timeout: 1_000, tolerance: 1 });
      await stage.join(broker);
      for (let ms = 0; ms < 1_000; ms += 250) {
        await broker.broadcast("x");
        expect(broker.stats().clients).toBe(1);
        await clock.pass(250);
      }
      await clock.pass(2);
      expect(broker.stats()).toMatchObject({ clients: 0, disconnects: { timeout: 1 } });
    });
  }),
);

test(
  "timeout: no timer runs while nobody is stuck",
  scene(async (stage) => {
    const clock = new Clock();
    await clock.run(async () => {
      const broker = stage.broker({ timeout: 1_000, heartbeat: Number.POSITIVE_INFINITY });
      const client = await stage.join(broker);
      await broker.broadcast("the first that it reads");
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
  "timeout: clients that are stuck are disconnected in the order in which they got stuck",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ timeout: 40, tolerance: 2, onDisconnect: left.see });
    const marker = await stage.join(broker, { id: "marker" });
    for (const id of ["one", "two", "three"]) {
      await stage.connect(broker, { id });
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
  "timeout: Infinity never disconnects, and stats() counts the blocked all the same",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: Number.POSITIVE_INFINITY, tolerance: 1 });
    await stage.connect(broker, { id: "blocked" });
    const reading = await stage.join(broker, { id: "reading" });
    const next = reading.nextData();
    await broker.broadcast("one");
    await next;
    expect(broker.stats()).toMatchObject({ clients: 2, blocked: 1 });
  }),
);

test(
  "a client that stalled and was disconnected comes back with its id and loses nothing that is retained",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ timeout: 20, tolerance: 1, onDisconnect: left.see });
    const client = await stage.join(broker, { id: "one" });
    await broker.broadcast("read");
    await client.untilData("read");
    for (const data of ["a", "b", "c"]) await broker.broadcast(data);
    await left.next();
    const back = await stage.join(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    for (const data of ["a", "b", "c"]) expect((await back.nextData()).data).toBe(data);
    expect(back.control("gap")).toEqual([]);
  }),
);

test(
  "heartbeat: an idle client that wants more is sent comments, without an id and without an event",
  scene(async (stage) => {
    const broker = stage.broker({ heartbeat: 16 });
    const client = await stage.join(broker);
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
  "heartbeat: a blocked client is sent none",
  scene(async (stage) => {
    const broker = stage.broker({ heartbeat: 16 });
    const blocked = await stage.join(broker, { id: "blocked" });
    const idle = await stage.join(broker, { id: "idle" });
    while (idle.comments < 5) await idle.read();
    await broker.broadcast("one");
    await blocked.nextData();
    expect(blocked.comments).toBe(0);
  }),
);

test(
  "heartbeat: Infinity sends none, and an option of 0 is refused",
  scene(async (stage) => {
    expect(() => stage.broker({ heartbeat: 0 })).toThrow(RangeError);
    expect(() => stage.broker({ timeout: 0 })).toThrow(RangeError);
    const silent = stage.broker({ heartbeat: Number.POSITIVE_INFINITY });
    const beating = stage.broker({ heartbeat: 16 });
    const [quiet, idle] = [await stage.join(silent), await stage.join(beating)];
    const next = quiet.nextData();
    while (idle.comments < 3) await idle.read();
    await silent.broadcast("one");
    await next;
    expect(quiet.comments).toBe(0);
  }),
);

test(
  "retry: the reconnection time told is spread over half to one and a half of it",
  scene(async (stage) => {
    const broker = stage.broker({ retry: 10_000 });
    const times: number[] = [];
    for (let client = 0; client < 100; client++) times.push(...(await stage.join(broker)).retries);
    expect(times).toHaveLength(100);
    expect(Math.min(...times)).toBeGreaterThanOrEqual(5_000);
    expect(Math.max(...times)).toBeLessThanOrEqual(15_000);
    expect(new Set(times).size).toBeGreaterThan(50);
  }),
);

test(
  "timeout: who connects after an event of the same turn does not wait for it, and is not given up for that",
  scene(async (stage) => {
    const clock = new Clock();
    await clock.run(async () => {
      const broker = stage.broker({ timeout: 400, tolerance: 1 });
      const before = await clock.until(stage.join(broker));
      const published = broker.broadcast("x");
      const [after] = await clock.until(Promise.all([stage.connect(broker), published]));
      expect((await clock.until(before.nextData())).data).toBe("x");
      await clock.pass(2_000);
      expect(broker.stats()).toMatchObject({ clients: 2, blocked: 0, disconnects: {} });
      await clock.until(Promise.all([before.leave(), after.leave()]));
    });
  }),
);
