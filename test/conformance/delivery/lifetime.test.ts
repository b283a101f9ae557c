import { expect, test, vi } from "vitest";
import type { ClientInfo, DisconnectReason } from "../../../src/index.ts";
import { Connection } from "../../support/clients/connection.ts";
import { Clock } from "../../support/clock.ts";
import {
  clientRequest,
  codeOf,
  eventRequest,
  problemOf,
  Recorder,
  type TestSetup,
  turn,
  withBroker,
} from "../../support/test-broker.ts";

// The lifetime of connections (`maxConnectionAge`), of inboxes without a connection (`inboxLinger`) and of barred ids (`blockFor`).

interface Left {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

/** Stops a clock while `body` runs. `set` moves it to a number of milliseconds after the start. */
async function withStoppedClock(
  at: typeof Date | Performance,
  body: (set: (ms: number) => void) => Promise<void>,
): Promise<void> {
  // A whole number, so that sums are exact.
  const start = Math.ceil(at.now());
  const clock = vi.spyOn(at as { now: () => number }, "now").mockReturnValue(start);
  try {
    await body((ms) => clock.mockReturnValue(start + ms));
  } finally {
    clock.mockRestore();
  }
}

/** Waits for a few heartbeats of another broker, which a stopped clock does not stop. */
async function waitABit(setup: TestSetup): Promise<void> {
  const broker = setup.broker({ heartbeat: 32 });
  const idle = await setup.join(broker);
  while (idle.comments < 3) await idle.read();
  await idle.leave();
}

const endOf = (client: Connection): unknown => {
  const [end] = client.control("end");
  expect(end?.id).toBeUndefined();
  return JSON.parse(end?.data ?? "");
};

test(
  "maxConnectionAge: ends the stream with fanwire-end, which asks to reconnect, and a jittered retry",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ maxConnectionAge: 20, retry: 10_000, onDisconnect: left.record });
    const times: number[] = [];
    for (let client = 0; client < 40; client++) times.push(client);
    const clients = await Promise.all(times.map((index) => setup.connect(broker, { id: `${index}` })));
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
  "maxConnectionAge: streams end spread over its last half",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ maxConnectionAge: 40, onDisconnect: left.record });
    const random = vi.spyOn(Math, "random");
    try {
      await withStoppedClock(Date, async (set) => {
        const ages: readonly (readonly [id: string, random: number, age: number])[] = [
          ["first", 0, 20],
          ["middle", 0.5, 30],
          ["last", 0.999_999, 40],
        ];
        for (const [id, value] of ages) {
          random.mockReturnValue(value);
          void (await setup.join(broker, { id })).ended();
        }
        for (const [id, , age] of ages) {
          set(age - 1);
          await waitABit(setup);
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
  "maxConnectionAge: a connection that ends removes its timer, and its listener on the request",
  withBroker(async (setup) => {
    const clock = new Clock();
    await clock.run(async () => {
      const broker = setup.broker({ maxConnectionAge: 1_000_000 });
      const abort = new AbortController();
      const request = clientRequest({}, abort.signal);
      const { signal } = request;
      // Some runtimes return another object at each read of `request.signal`. From here on it is always this one.
      Object.defineProperty(request, "signal", { value: signal });
      const added = vi.spyOn(signal, "addEventListener");
      const removed = vi.spyOn(signal, "removeEventListener");
      const client = new Connection(await broker.clientHandler(request), abort);
      await client.untilControl("ready");
      const timers = clock.pending.filter((ms) => ms > 100_000);
      await client.leave();
      expect([timers.length, clock.pending]).toEqual([1, []]);
      const listeners = added.mock.calls.map(([, listener]) => listener);
      expect(listeners.length).toBeGreaterThan(0);
      expect(removed.mock.calls.map(([, listener]) => listener)).toEqual(listeners);
    });
  }),
);

test(
  "maxConnectionAge: a client that comes back each time loses nothing and receives nothing twice",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxConnectionAge: 6 });
    const count = 300;
    const seen: string[] = [];
    let generations = 0;
    const reading = (async (): Promise<void> => {
      let lastEventId: string | undefined;
      while (seen.at(-1) !== `${count - 1}`) {
        const request = { id: "one", channel: "a", ...(lastEventId === undefined ? {} : { lastEventId }) };
        const client = await setup.connect(broker, request);
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
  "maxConnectionAge: a blocked client reads its end event first, and receives its unread events when it comes back",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ maxConnectionAge: 20, timeout: 60_000, onDisconnect: left.record });
    const client = await setup.join(broker, { id: "one" });
    for (const data of ["1", "2"]) await broker.broadcast(data);
    expect((await left.next()).reason).toBe("max-age");
    expect(broker.stats()).toMatchObject({ clients: 0, blocked: 0, closing: 1, channels: 0 });
    await broker.broadcastTo("one", "3");
    expect(await client.ended()).toBe("closed");
    expect([client.data, endOf(client)]).toEqual([[], { reason: "max-age", reconnect: true }]);
    expect(broker.stats().closing).toBe(0);
    const back = await setup.connect(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    await back.untilData("3");
    expect([back.data, back.control("gap")]).toEqual([["1", "2", "3"], []]);
  }),
);

test(
  "maxConnectionAge: a blocked client that never reads its end event is ended without it within timeout and leaves no state",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxConnectionAge: 20, timeout: 40, tolerance: 1_000 });
    const client = await setup.join(broker);
    await broker.broadcast("unread");
    while (broker.stats().clients > 0) await turn();
    expect(broker.stats()).toMatchObject({ closing: 1 });
    while (broker.stats().closing > 0) await turn();
    expect(await client.ended()).toBe("closed");
    expect(client.control("end")).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 0, disconnects: { "max-age": 1 } });
  }),
);

test(
  "maxConnectionAge, expiresAt: the earlier of the two ends the stream",
  withBroker(async (setup) => {
    for (const [maxAge, expires, reason] of [
      [20, 60_000, "max-age"],
      [60_000, 20, "expired"],
    ] as const) {
      const broker = setup.broker({ maxConnectionAge: maxAge, authorize: () => ({ expiresAt: Date.now() + expires }) });
      const client = await setup.connect(broker);
      expect(await client.ended()).toBe("closed");
      expect(endOf(client)).toEqual({ reason, reconnect: true });
    }
  }),
);

test(
  "maxConnectionAge: a value longer than any timer does not end the stream at once",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxConnectionAge: 2 ** 33 });
    const client = await setup.join(broker);
    await waitABit(setup);
    expect(broker.stats()).toMatchObject({ clients: 1, disconnects: {} });
    const next = client.nextData();
    await broker.broadcast("x");
    expect((await next).data).toBe("x");
  }),
);

test(
  "maxConnectionAge: a client that left earlier does not end a later connection",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ maxConnectionAge: 30, onDisconnect: left.record });
    await (await setup.join(broker, { id: "one" })).leave();
    await waitABit(setup);
    const client = await setup.join(broker, { id: "one" });
    await broker.broadcast("x");
    await client.untilData("x");
    await client.leave();
    await waitABit(setup);
    expect(left.all.map(({ reason }) => reason)).toEqual(["client-left", "client-left"]);
  }),
);

for (const [options, linger] of [
  [{}, 60_000],
  [{ inboxLinger: 1_000 }, 1_000],
] as const) {
  test(
    `inboxLinger: a client id is unknown ${linger} ms after its last connection ended, and not before`,
    withBroker(async (setup) => {
      const broker = setup.broker(options);
      await withStoppedClock(performance, async (set) => {
        const [first, last] = [await setup.join(broker, { id: "one" }), await setup.join(broker, { id: "one" })];
        await first.leave();
        // The last connection counts, not the first.
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
        // The time starts again with the next connection.
        await (await setup.join(broker, { id: "one" })).leave();
        set(3 * linger - 1);
        expect(await codeOf(broker.broadcastTo("one", "away again"))).toBe("none");
        expect(broker.stats().published).toBe(4);
      });
    }),
  );
}

test(
  "inboxLinger: a client that was disconnected or timed out still accepts events, like one that left",
  withBroker(async (setup) => {
    const left = new Recorder<Left>();
    const broker = setup.broker({ timeout: 20, tolerance: 1, onDisconnect: left.record });
    await setup.join(broker, { id: "disconnected" });
    await broker.disconnect("disconnected");
    await setup.join(broker, { id: "blocked" });
    await broker.broadcastTo("blocked", "unread");
    await left.next();
    await left.next();
    for (const id of ["disconnected", "blocked"]) expect(await codeOf(broker.broadcastTo(id, "x"))).toBe("none");
    // A client that was refused was never connected.
    const full = setup.broker({ maxClients: 0 });
    await full.clientHandler(clientRequest({ id: "away" }));
    expect(await codeOf(full.broadcastTo("away", "x"))).toBe("unknown-client");
  }),
);

test(
  "disconnect({ blockFor }): bars the id to the millisecond, whatever later calls without it do",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const statusOf = async (id: string): Promise<number> => {
      const { status, body } = await broker.clientHandler(clientRequest({ id }));
      await body?.cancel();
      return status;
    };
    await withStoppedClock(performance, async (set) => {
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
  "disconnect({ blockFor }): bars a client that was granted that id, and refuses a value that is not a duration",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorize: () => ({ clientId: "ann" }) });
    const client = await setup.join(broker);
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
