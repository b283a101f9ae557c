import { expect, test, vi } from "vitest";
import type { ClientInfo, DisconnectReason } from "../../../src/index.ts";
import { Connection } from "../../support/clients/connection.ts";
import { Clock } from "../../support/clock.ts";
import {
  clientRequest,
  codeOf,
  eventRequest,
  problemOf,
  type Scene,
  scene,
  turn,
  Witness,
} from "../../support/test-broker.ts";

// How long things last: streams, recipients that are away, ids that are turned away, and the last id of a quiet stream.

interface Left {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

/** A clock that stands still where the test puts it. */
async function withClock(
  at: typeof Date | Performance,
  body: (set: (ms: number) => void) => Promise<void>,
): Promise<void> {
  // Whole, so that sums are exact.
  const start = Math.ceil(at.now());
  const clock = vi.spyOn(at as { now: () => number }, "now").mockReturnValue(start);
  try {
    await body((ms) => clock.mockReturnValue(start + ms));
  } finally {
    clock.mockRestore();
  }
}

/** Something that lasts, whatever the clocks say: a few heartbeats of another broker. */
async function aWhile(stage: Scene): Promise<void> {
  const broker = stage.broker({ heartbeat: 32 });
  const idle = await stage.join(broker);
  while (idle.comments < 3) await idle.read();
  await idle.leave();
}

const endOf = (client: Connection): unknown => {
  const [end] = client.control("end");
  expect(end?.id).toBeUndefined();
  return JSON.parse(end?.data ?? "");
};

test(
  "maxConnectionAge: ends the stream with fanwire-end, which asks to come back, and a jittered retry",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ maxConnectionAge: 20, retry: 10_000, onDisconnect: left.see });
    const times: number[] = [];
    for (let client = 0; client < 40; client++) times.push(client);
    const clients = await Promise.all(times.map((index) => stage.connect(broker, { id: `${index}` })));
    for (const client of clients) {
      expect(await client.ended()).toBe("closed");
      expect(endOf(client)).toEqual({ reason: "max-age", reconnect: true });
    }
    const retries = clients.map((client) => client.retries.at(-1) ?? 0);
    expect(clients.map((client) => client.retries.length)).toEqual(times.map(() => 2));
    expect(Math.min(...retries)).toBeGreaterThanOrEqual(5_000);
    expect(Math.max(...retries)).toBeLessThanOrEqual(15_000);
    expect(new Set(retries).size).toBeGreaterThan(20);
    expect(new Set(left.all.map(({ reason }) => reason))).toEqual(new Set(["max-age"]));
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 0, channels: 0, disconnects: { "max-age": 40 } });
  }),
);

test(
  "maxConnectionAge: is spread over the last half of it",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ maxConnectionAge: 40, onDisconnect: left.see });
    const random = vi.spyOn(Math, "random");
    try {
      await withClock(Date, async (set) => {
        const ages: readonly (readonly [id: string, random: number, age: number])[] = [
          ["first", 0, 20],
          ["middle", 0.5, 30],
          ["last", 0.999_999, 40],
        ];
        for (const [id, value] of ages) {
          random.mockReturnValue(value);
          void (await stage.join(broker, { id })).ended();
        }
        for (const [id, , age] of ages) {
          set(age - 1);
          await aWhile(stage);
          const connected = broker.clients().map(({ clientId }) => clientId);
          expect([age, connected[0]]).toEqual([age, id]);
          set(age);
          expect(await left.next()).toMatchObject({ client: { clientId: id }, reason: "max-age" });
        }
        expect(broker.stats().clients).toBe(0);
      });
    } finally {
      random.mockRestore();
    }
  }),
);

test(
  "maxConnectionAge: what a client has outside of the broker goes with it: its timer, and its listener on the request",
  scene(async (stage) => {
    const clock = new Clock();
    await clock.run(async () => {
      const broker = stage.broker({ maxConnectionAge: 1_000_000 });
      const abort = new AbortController();
      const request = clientRequest({}, abort.signal);
      const { signal } = request;
      // Where each reading of `request.signal` gives another object, it is this one from here on.
      Object.defineProperty(request, "signal", { value: signal });
      const added = vi.spyOn(signal, "addEventListener");
      const removed = vi.spyOn(signal, "removeEventListener");
      const client = new Connection(await broker.clientHandler(request), abort);
      await client.untilControl("ready");
      const held = clock.pending.filter((ms) => ms > 100_000);
      await client.leave();
      expect([held.length, clock.pending]).toEqual([1, []]);
      const listeners = added.mock.calls.map(([, listener]) => listener);
      expect(listeners.length).toBeGreaterThan(0);
      expect(removed.mock.calls.map(([, listener]) => listener)).toEqual(listeners);
    });
  }),
);

test(
  "maxConnectionAge: a client that comes back each time loses nothing and gets nothing twice",
  scene(async (stage) => {
    const broker = stage.broker({ maxConnectionAge: 6 });
    const count = 300;
    const seen: string[] = [];
    let generations = 0;
    const reading = (async (): Promise<void> => {
      let lastEventId: string | undefined;
      while (seen.at(-1) !== `${count - 1}`) {
        const wish = { id: "one", channel: "a", ...(lastEventId === undefined ? {} : { lastEventId }) };
        const client = await stage.connect(broker, wish);
        generations++;
        for (;;) {
          const event = await client.next();
          if (event.event === "fanwire-end") break;
          lastEventId = client.lastEventId;
          if (event.event === undefined) seen.push(event.data);
          expect(event.event).not.toBe("fanwire-gap");
          if (seen.at(-1) === `${count - 1}`) break;
        }
      }
    })();
    await turn();
    for (let event = 0; event < count; event++) {
      if (event % 3 === 0) await broker.broadcastTo("one", `${event}`);
      else await broker.broadcast(`${event}`, event % 3 === 1 ? { channels: "a" } : {});
      if (event % 5 === 0) await turn();
    }
    await reading;
    expect(seen).toEqual(Array.from({ length: count }, (_, event) => `${event}`));
    expect(generations).toBeGreaterThan(2);
  }),
);

test(
  "maxConnectionAge: a blocked client reads its end and not what waits for it, which it gets when it comes back",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ maxConnectionAge: 20, timeout: 60_000, onDisconnect: left.see });
    const client = await stage.join(broker, { id: "one" });
    for (const data of ["1", "2"]) await broker.broadcast(data);
    expect((await left.next()).reason).toBe("max-age");
    expect(broker.stats()).toMatchObject({ clients: 0, blocked: 0, closing: 1, channels: 0 });
    await broker.broadcastTo("one", "3");
    expect(await client.ended()).toBe("closed");
    expect([client.data, endOf(client)]).toEqual([[], { reason: "max-age", reconnect: true }]);
    expect(broker.stats().closing).toBe(0);
    const back = await stage.connect(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    await back.untilData("3");
    expect([back.data, back.control("gap")]).toEqual([["1", "2", "3"], []]);
  }),
);

test(
  "maxConnectionAge: a blocked client that never reads its end is errored within timeout, and nothing of it is left",
  scene(async (stage) => {
    const broker = stage.broker({ maxConnectionAge: 20, timeout: 40, tolerance: 1_000 });
    const client = await stage.join(broker);
    await broker.broadcast("unread");
    while (broker.stats().clients > 0) await turn();
    expect(broker.stats()).toMatchObject({ closing: 1 });
    while (broker.stats().closing > 0) await turn();
    expect(await client.ended()).toBe("errored");
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 0, disconnects: { "max-age": 1 } });
  }),
);

test(
  "maxConnectionAge, expiresAt: the sooner of the two ends the stream",
  scene(async (stage) => {
    for (const [maxAge, expires, reason] of [
      [20, 60_000, "max-age"],
      [60_000, 20, "expired"],
    ] as const) {
      const broker = stage.broker({ maxConnectionAge: maxAge, authorize: () => ({ expiresAt: Date.now() + expires }) });
      const client = await stage.connect(broker);
      expect(await client.ended()).toBe("closed");
      expect(endOf(client)).toEqual({ reason, reconnect: true });
    }
  }),
);

test(
  "maxConnectionAge: one that is longer than a timer may be does not end the stream at once",
  scene(async (stage) => {
    const broker = stage.broker({ maxConnectionAge: 2 ** 33 });
    const client = await stage.join(broker);
    await aWhile(stage);
    expect(broker.stats()).toMatchObject({ clients: 1, disconnects: {} });
    const next = client.nextData();
    await broker.broadcast("x");
    expect((await next).data).toBe("x");
  }),
);

test(
  "maxConnectionAge: who left before leaves nothing behind that ends somebody else",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ maxConnectionAge: 30, onDisconnect: left.see });
    await (await stage.join(broker, { id: "one" })).leave();
    await aWhile(stage);
    const client = await stage.join(broker, { id: "one" });
    await broker.broadcast("x");
    await client.untilData("x");
    await client.leave();
    await aWhile(stage);
    expect(left.all.map(({ reason }) => reason)).toEqual(["client-left", "client-left"]);
  }),
);

for (const [options, linger] of [
  [{}, 60_000],
  [{ inboxLinger: 1_000 }, 1_000],
] as const) {
  test(
    `inboxLinger: ${linger} ms after the last connection of an id ended it is unknown, and not before`,
    scene(async (stage) => {
      const broker = stage.broker(options);
      await withClock(performance, async (set) => {
        const [first, last] = [await stage.join(broker, { id: "one" }), await stage.join(broker, { id: "one" })];
        await first.leave();
        // The last one counts, not the first.
        set(linger);
        expect(await codeOf(broker.broadcastTo("one", "connected"))).toBe("none");
        await last.leave();
        set(2 * linger - 1);
        expect(await broker.broadcastTo("one", "away")).toMatchObject({ clients: 0 });
        expect((await broker.eventHandler(eventRequest("away", "?id=one"))).status).toBe(200);
        set(2 * linger);
        expect(await codeOf(broker.broadcastTo("one", "gone"))).toBe("unknown-client");
        const answer = await broker.eventHandler(eventRequest("gone", "?id=one"));
        expect([answer.status, await problemOf(answer)]).toEqual([404, "unknown-client"]);
        // It begins anew with the next connection.
        await (await stage.join(broker, { id: "one" })).leave();
        set(3 * linger - 1);
        expect(await codeOf(broker.broadcastTo("one", "away again"))).toBe("none");
        expect(broker.stats().published).toBe(4);
      });
    }),
  );
}

test(
  "inboxLinger: who was disconnected, evicted or had an end is a recipient meanwhile, as who left is",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ timeout: 20, tolerance: 1, onDisconnect: left.see });
    await stage.join(broker, { id: "disconnected" });
    await broker.disconnect("disconnected");
    await stage.join(broker, { id: "stuck" });
    await broker.broadcastTo("stuck", "unread");
    await left.next();
    await left.next();
    for (const id of ["disconnected", "stuck"]) expect(await codeOf(broker.broadcastTo(id, "x"))).toBe("none");
    // One that was turned away never was one.
    const full = stage.broker({ maxClients: 0 });
    await full.clientHandler(clientRequest({ id: "away" }));
    expect(await codeOf(full.broadcastTo("away", "x"))).toBe("unknown-client");
  }),
);

test(
  "disconnect({ blockFor }): to the millisecond, whatever is called meanwhile without it",
  scene(async (stage) => {
    const broker = stage.broker();
    const statusOf = async (id: string): Promise<number> => {
      const { status, body } = await broker.clientHandler(clientRequest({ id }));
      await body?.cancel();
      return status;
    };
    await withClock(performance, async (set) => {
      await broker.disconnect("one", { blockFor: 1_000 });
      await broker.disconnect("two", { blockFor: 500 });
      await broker.disconnect("for ever", { blockFor: Infinity });
      set(499);
      expect([await statusOf("one"), await statusOf("two")]).toEqual([204, 204]);
      set(500);
      expect([await statusOf("one"), await statusOf("two")]).toEqual([204, 200]);
      await broker.disconnect("one");
      await broker.disconnect("one", { blockFor: 0 });
      set(999);
      expect(await statusOf("one")).toBe(204);
      set(1_000);
      expect(await statusOf("one")).toBe(200);
      await broker.disconnect("one", { blockFor: 10 });
      set(1_010);
      expect([await statusOf("one"), await statusOf("for ever")]).toEqual([200, 204]);
    });
  }),
);

test(
  "disconnect({ blockFor }): turns away whoever was granted that id, and what is not a time is refused",
  scene(async (stage) => {
    const broker = stage.broker({ authorize: () => ({ clientId: "ann" }) });
    const client = await stage.join(broker);
    await broker.disconnect("ann", { blockFor: 60_000 });
    expect(await client.ended()).toBe("closed");
    for (const method of ["GET", "HEAD"]) {
      const answer = await broker.clientHandler(new Request("https://fanwire.test/connect", { method }));
      expect([answer.status, answer.body]).toEqual([204, null]);
    }
    for (const wrong of [-1, Number.NaN, "5", null])
      expect(await codeOf(broker.disconnect("ben", { blockFor: wrong as number }))).toBe("RangeError");
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 0 });
  }),
);
