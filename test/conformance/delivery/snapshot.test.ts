// The option `snapshot`: who receives the application's state, when, and what happens to the ids meanwhile.
import { expect, test } from "vitest";
import { brokerOf } from "../../../src/broker/broker.ts";
import { BrokerCore } from "../../../src/broker/broker-core.ts";
import { resolveOptions } from "../../../src/broker/options.ts";
import type { ClientInfo, DisconnectReason, EventInput, SnapshotRequest } from "../../../src/index.ts";
import { type Connection, gapOf, isData } from "../../support/clients/connection.ts";
import { Clock } from "../../support/clock.ts";
import { Flushes } from "../../support/flushes.ts";
import { Recorder, turn, withBroker } from "../../support/test-broker.ts";

interface Failed {
  readonly error: unknown;
  readonly stage: string;
}

/** Returns the events that were taken so far, each as its type or data, and its id if it has one. */
const seen = (connection: Connection): string[] =>
  connection.events.map((event) => {
    const name = isData(event) ? event.data : (event.event?.slice("fanwire-".length) ?? "");
    return event.id === undefined ? name : `${name} +id`;
  });

const snapshotOf = (connection: Connection): unknown[] =>
  connection.control("snapshot").map(({ data }) => JSON.parse(data));

/** A promise that a test resolves. */
function gate<T = void>(): { readonly promise: Promise<T>; readonly open: (value: T) => void } {
  let open!: (value: T) => void;
  const promise = new Promise<T>((resolve) => {
    open = resolve;
  });
  return { promise, open };
}

test(
  "snapshot: a new client receives the state between fanwire-ready and the events after it, and its id only with fanwire-snapshot",
  withBroker(async (setup) => {
    const asked: SnapshotRequest[] = [];
    const broker = setup.broker({
      snapshot: async function* (request) {
        asked.push(request);
        yield "state 1";
        // Published in the middle of the snapshot.
        await broker.broadcast("live", { channels: "news" });
        yield { event: "state", data: "state 2" };
      },
    });
    const { id } = await broker.broadcast("before", { channels: "news" });
    const client = await setup.connect(broker, { id: "ann", channel: "news" });
    await client.untilData("live");
    expect(seen(client)).toEqual(["ready", "state 1", "state 2", "snapshot +id", "live +id"]);
    expect(client.events[2]?.event).toBe("state");
    expect(snapshotOf(client)).toEqual([{ channels: ["news"], reason: "new", end: true }]);
    expect(client.control("snapshot")[0]?.id).toBe(id);
    expect(asked).toHaveLength(1);
    expect(asked[0]).toMatchObject({ channels: ["news"], reason: "new", position: id });
    expect(asked[0]?.client).toEqual(broker.clients()[0]);
    expect(asked[0]?.request?.url).toContain("/connect");
    expect(asked[0]?.signal.aborted).toBe(false);
  }),
);

test(
  "snapshot: lists, generators and promises of them are taken, and undefined is no snapshot",
  withBroker(async (setup) => {
    const answers: (() => unknown)[] = [
      () => ["one", { data: { two: 2 } }],
      () => Promise.resolve(new Set(["one", { data: { two: 2 } }])),
      function* () {
        yield "one";
        yield { data: { two: 2 } };
      },
      () => undefined,
      async () => undefined,
      () => [],
    ];
    const received: string[][] = [];
    for (const answer of answers) {
      const broker = setup.broker({ snapshot: answer as () => EventInput[] });
      const client = await setup.connect(broker);
      await client.untilControl("snapshot");
      received.push(client.data);
      expect(seen(client).at(-1)).toBe("snapshot +id");
    }
    const both = ["one", '{"two":2}'];
    expect(received).toEqual([both, both, both, [], [], []]);
  }),
);

test(
  "snapshot: is not called for a client that resumes without a gap, or asks for the history with from=earliest",
  withBroker(async (setup) => {
    let calls = 0;
    const broker = setup.broker({
      snapshot: () => {
        calls++;
        return ["state"];
      },
    });
    const client = await setup.connect(broker, { id: "ann" });
    await client.untilControl("snapshot");
    await broker.broadcast("one");
    await client.untilData("one");
    await client.leave();
    await broker.broadcast("two");
    const back = await setup.connect(broker, { id: "ann", lastEventId: client.lastEventId ?? "" });
    await back.untilData("two");
    expect(seen(back)).toEqual(["ready +id", "two +id"]);
    const historian = await setup.connect(broker, { query: { from: "earliest" } });
    await historian.untilData("two");
    expect(seen(historian)).toEqual(["ready +id", "one +id", "two +id"]);
    expect(calls).toBe(1);
  }),
);

test(
  "snapshot: a client that drops in the middle comes back without the id, and receives it whole again",
  withBroker(async (setup) => {
    const signals: AbortSignal[] = [];
    let returned = 0;
    const broker = setup.broker({
      snapshot: async function* ({ signal }) {
        signals.push(signal);
        try {
          for (const part of ["one", "two", "three"]) yield part;
        } finally {
          returned++;
        }
      },
    });
    const client = await setup.connect(broker, { id: "ann" });
    await client.untilData("two");
    expect(client.lastEventId).toBeUndefined();
    await client.leave();
    while (!signals[0]?.aborted || returned < 1) await turn();
    await broker.broadcast("live");
    const back = await setup.connect(broker, { id: "ann" });
    await back.untilControl("snapshot");
    expect(back.data).toEqual(["one", "two", "three"]);
    expect([signals[1]?.aborted, returned]).toEqual([false, 2]);
  }),
);

test.each([
  ["nonsense", "nonsense"],
  ["of another log", "other-5"],
])("snapshot: an id that is %s is a gap, whose id is held back until fanwire-snapshot", (_, lastEventId) =>
  withBroker(async (setup) => {
    const asked: SnapshotRequest[] = [];
    const broker = setup.broker({
      snapshot: (request) => {
        asked.push(request);
        return ["state"];
      },
    });
    await broker.broadcast("kept", { channels: "a" });
    const client = await setup.connect(broker, { channel: ["a", "b"], lastEventId });
    await client.untilData("kept");
    expect(seen(client)).toEqual(["ready", "gap", "state", "snapshot +id", "kept +id"]);
    expect(gapOf(client.control("gap")[0] as never).after).toBeNull();
    expect(asked).toHaveLength(1);
    expect(asked[0]).toMatchObject({ channels: ["a", "b"], reason: "gap" });
    expect(asked[0]?.position).toBe(client.control("snapshot")[0]?.id);
  })(),
);

test(
  "snapshot: a resume with a gap asks for the channels of the gap, at the place of the gap, and events of other channels keep their order",
  withBroker(async (setup) => {
    const asked: SnapshotRequest[] = [];
    const broker = setup.broker({
      log: { retention: { events: 1 } },
      snapshot: (request) => {
        asked.push(request);
        return request.reason === "new" ? [] : [`state of ${request.channels}`];
      },
    });
    const client = await setup.connect(broker, { channel: ["a", "b", "c"] });
    await client.untilControl("snapshot");
    await client.leave();
    const lastEventId = client.lastEventId ?? "";
    for (const [text, channels] of [
      ["a1", "a"],
      ["a2", "a"],
      ["b3", "b"],
      ["a4", "a"],
      ["a5", "a"],
      ["a6", "a"],
    ] as const)
      await broker.broadcast(text, { channels });
    const back = await setup.connect(broker, { channel: ["a", "b", "c"], lastEventId });
    await back.untilData("a6");
    expect(seen(back)).toEqual(["ready", "gap +id", "b3 +id", "gap", "state of a", "snapshot +id", "a6 +id"]);
    expect(back.control("snapshot")[0]?.id).toBe(gapOf(back.control("gap")[1] as never).through);
    expect(asked.slice(1)).toMatchObject([{ channels: ["a"], reason: "gap" }]);
  }),
);

test(
  "snapshot: one of all channels covers the gaps that end before it was called, which then have their id",
  withBroker(async (setup) => {
    const asked: SnapshotRequest[] = [];
    const broker = setup.broker({
      log: { retention: { events: 1 } },
      snapshot: (request) => {
        asked.push(request);
        return ["state"];
      },
    });
    for (const channels of ["b", "a", "a", "a"]) await broker.broadcast(channels, { channels });
    const client = await setup.connect(broker, { channel: ["a", "b"], lastEventId: "unknown-1" });
    await client.untilData("a");
    expect(seen(client)).toEqual(["ready", "gap", "state", "snapshot +id", "gap +id", "b +id", "gap +id", "a +id"]);
    expect(asked).toHaveLength(1);
  }),
);

test(
  "snapshot: a gap of events to every client asks for all channels",
  withBroker(async (setup) => {
    const asked: SnapshotRequest[] = [];
    const broker = setup.broker({
      log: { retention: { events: 1 } },
      snapshot: (request) => {
        asked.push(request);
        return [];
      },
    });
    const client = await setup.connect(broker, { channel: ["a", "b"] });
    await client.untilControl("snapshot");
    await client.leave();
    for (let event = 0; event < 3; event++) await broker.broadcast(`${event}`);
    const back = await setup.connect(broker, { channel: ["a", "b"], lastEventId: client.lastEventId ?? "" });
    await back.untilData("2");
    expect(seen(back)).toEqual(["ready", "gap", "snapshot +id", "2 +id"]);
    expect(asked[1]).toMatchObject({ channels: ["a", "b"], reason: "gap" });
  }),
);

test(
  "snapshot: a gap inside an open stream holds its id back, and the log goes on behind the snapshot",
  withBroker(async (setup) => {
    const asked: SnapshotRequest[] = [];
    const broker = setup.broker({
      log: { retention: { events: 2 } },
      snapshot: (request) => {
        asked.push(request);
        return request.reason === "new" ? [] : ["state"];
      },
    });
    const client = await setup.connect(broker, { channel: "a" });
    await client.untilControl("snapshot");
    const position = client.lastEventId;
    // The client takes the first one and does not read on. What follows is dropped.
    const flushes = new Flushes(broker, "a");
    for (let event = 0; event < 8; event++)
      await flushes.reach((await broker.broadcast(`${event}`, { channels: "a" })).id);
    await client.untilData("7");
    const [gap] = client.control("gap");
    expect(gap?.id).toBeUndefined();
    const order = seen(client).slice(2);
    expect(order.slice(order.indexOf("gap"))).toEqual(["gap", "state", "snapshot +id", "6 +id", "7 +id"]);
    expect(asked).toHaveLength(2);
    expect(asked[1]).toMatchObject({ reason: "gap", channels: ["a"], request: undefined });
    expect(asked[1]?.position).toBe(gapOf(gap as never).through);
    expect(position).not.toBe(asked[1]?.position);
  }),
);

test(
  "snapshot: three tabs of one client id each receive their own",
  withBroker(async (setup) => {
    const broker = setup.broker({
      snapshot: ({ client: { connectionId } }) => [connectionId, `${connectionId} again`],
    });
    const tabs = await Promise.all([1, 2, 3].map(() => setup.connect(broker, { id: "ann" })));
    for (const tab of tabs) await tab.untilControl("snapshot");
    const ids = broker.clients().map(({ connectionId }) => connectionId);
    expect(tabs.map(({ data }) => data)).toEqual(ids.map((id) => [id, `${id} again`]));
  }),
);

test(
  "snapshot: a client that does not read makes the application wait, one event ahead at most, and then counts as blocked",
  withBroker(async (setup) => {
    let yielded = 0;
    const broker = setup.broker({
      snapshot: function* () {
        for (; yielded < 1_000; yielded++) yield "x".repeat(1_000);
      },
    });
    const client = await setup.connect(broker);
    for (let read = 1; read <= 5; read++) {
      await client.nextData();
      for (let turns = 0; turns < 5; turns++) await turn();
      expect(yielded).toBeLessThanOrEqual(read + 2);
    }
    expect(broker.stats().blocked).toBe(1);
    expect(yielded).toBeGreaterThanOrEqual(4);
  }),
);

test(
  "snapshot: a generator that has everything at hand does not take the whole turn of the event loop",
  withBroker(async (setup) => {
    let yielded = 0;
    const broker = setup.broker({
      snapshot: function* () {
        for (; yielded < 5_000; yielded++) yield "x";
      },
    });
    const client = await setup.connect(broker);
    const reading = client.untilControl("snapshot");
    let most = 0;
    for (let before = yielded; yielded < 5_000; before = yielded) {
      await turn();
      most = Math.max(most, yielded - before);
    }
    await reading;
    expect(client.data).toHaveLength(5_000);
    expect(most).toBeLessThan(5_000);
  }),
);

test(
  "heartbeat: goes on while the application has no event, and the client does not count as blocked by what is published meanwhile",
  withBroker(async (setup) => {
    const clock = new Clock();
    const ready = gate();
    await clock.run(async () => {
      const broker = setup.broker({
        heartbeat: 1_000,
        timeout: 2_000,
        tolerance: 1,
        snapshot: async () => {
          await ready.promise;
          return ["state"];
        },
      });
      const client = await setup.connect(broker);
      const reading = client.untilControl("snapshot");
      await clock.advance(100);
      await broker.broadcast("live");
      await clock.advance(10_000);
      expect(client.comments).toBeGreaterThanOrEqual(8);
      expect(broker.stats()).toMatchObject({ clients: 1, blocked: 0, disconnects: {} });
      ready.open();
      await clock.advanceUntil(reading);
      await clock.advanceUntil(client.untilData("live"));
      expect(seen(client)).toEqual(["ready", "state", "snapshot +id", "live +id"]);
    });
  }),
);

test(
  "snapshotTimeout: a snapshot that takes longer ends the stream with snapshot-failed, and the client comes back",
  withBroker(async (setup) => {
    const clock = new Clock();
    const failed = new Recorder<Failed>();
    const left = new Recorder<{ readonly client: ClientInfo; readonly reason: DisconnectReason }>();
    const signals: AbortSignal[] = [];
    await clock.run(async () => {
      const broker = setup.broker({
        heartbeat: Infinity,
        snapshotTimeout: 1_000,
        onError: failed.record,
        onDisconnect: left.record,
        snapshot: async function* ({ signal }) {
          signals.push(signal);
          yield "one";
          await new Promise(() => undefined);
        },
      });
      const client = await setup.connect(broker);
      const ended = client.ended();
      await clock.advance(990);
      expect(broker.stats().clients).toBe(1);
      await clock.advance(20);
      expect(await ended).toBe("closed");
      expect(seen(client)).toEqual(["ready", "one", "end"]);
      expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "snapshot-failed", reconnect: true });
      expect(client.retries).toHaveLength(2);
      expect(failed.all).toMatchObject([{ stage: "snapshot" }]);
      expect(left.all).toMatchObject([{ reason: "snapshot-failed" }]);
      expect(signals[0]?.aborted).toBe(true);
      expect(broker.stats()).toMatchObject({ clients: 0, disconnects: { "snapshot-failed": 1 } });
      expect(clock.pending).toEqual([]);
    });
  }),
);

test(
  "snapshot: one that throws, rejects, or yields what is not an event ends the stream with snapshot-failed, and onError says why",
  withBroker(async (setup) => {
    const faults: (() => unknown)[] = [
      () => {
        throw new Error("down");
      },
      () => Promise.reject(new Error("down")),
      async function* () {
        yield "one";
        throw new Error("down");
      },
      () => "a text is not a list",
      () => new Uint8Array(2),
      () => 5,
      () => null,
      () => ({ data: "one event is not a list" }),
      () => [5],
      () => [undefined],
      () => [null],
      () => [{ event: "x" }],
      () => [{ data: "x", id: "5" }],
      () => [{ data: "x", event: "fanwire-ready" }],
      () => [{ data: "x", event: "open" }],
      () => [{ data: "x", event: "a\nb" }],
      () => [{ data: "x", retry: -1 }],
      () => ["x".repeat(2_000)],
      () => [{ data: 1n }],
      () => ({ [Symbol.asyncIterator]: () => ({ next: () => 5 }) }),
      () => ({ [Symbol.asyncIterator]: () => ({ next: () => null }) }),
      () => ({ [Symbol.iterator]: 5 }),
    ];
    for (const fault of faults) {
      const failed = new Recorder<Failed>();
      const broker = setup.broker({
        maxEventBytes: 1_000,
        onError: failed.record,
        snapshot: fault as () => EventInput[],
      });
      const client = await setup.connect(broker);
      expect([await client.ended(), `${fault}`]).toEqual(["closed", `${fault}`]);
      expect([client.control("snapshot"), client.control("end").length, `${fault}`]).toEqual([[], 1, `${fault}`]);
      expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "snapshot-failed", reconnect: true });
      expect(client.events.every(({ id }) => id === undefined)).toBe(true);
      expect((await failed.next()).stage).toBe("snapshot");
      expect(broker.stats().clients).toBe(0);
    }
  }),
);

test(
  "snapshot: what it has in use is freed when an event of it is refused, and an error in that is reported",
  withBroker(async (setup) => {
    const failed = new Recorder<Failed>();
    let isFreed = false;
    const broker = setup.broker({
      onError: failed.record,
      snapshot: async function* () {
        try {
          yield "one";
          yield 5 as never;
        } finally {
          isFreed = true;
          await Promise.reject(new Error("while freeing"));
        }
      },
    });
    const client = await setup.connect(broker);
    await client.ended();
    await failed.next();
    expect(String((await failed.next()).error)).toContain("while freeing");
    expect(isFreed).toBe(true);
  }),
);

test(
  "maxSnapshots: no more run at a time, the others wait in order, also when one is over early",
  withBroker(async (setup) => {
    const running = new Map<string, () => void>();
    const order: string[] = [];
    const broker = setup.broker({
      maxSnapshots: 2,
      snapshot: async function* ({ client }) {
        order.push(client.clientId);
        try {
          const { promise, open } = gate();
          running.set(client.clientId, open);
          await promise;
          yield client.clientId;
        } finally {
          running.delete(client.clientId);
        }
      },
    });
    const clients: Connection[] = [];
    for (const id of ["a", "b", "c", "d"]) {
      const client = await setup.connect(broker, { id });
      clients.push(client);
      void client.ended();
      await turn();
    }
    expect(order).toEqual(["a", "b"]);
    // One is complete, and one leaves.
    running.get("b")?.();
    while (order.length < 3) await turn();
    expect([...running.keys()]).toEqual(["a", "c"]);
    clients[0]?.abort();
    while (order.length < 4) await turn();
    expect(order).toEqual(["a", "b", "c", "d"]);
    running.get("d")?.();
    running.get("c")?.();
    while (clients.slice(1).some((client) => client.control("snapshot").length < 1)) await turn();
    expect(clients.map(({ data }) => data)).toEqual([[], ["b"], ["c"], ["d"]]);
  }),
);

test(
  "maxSnapshots: a client that waits for its turn and leaves is not asked for",
  withBroker(async (setup) => {
    const order: string[] = [];
    const first = gate();
    const broker = setup.broker({
      maxSnapshots: 1,
      snapshot: async ({ client }) => {
        order.push(client.clientId);
        if (client.clientId === "a") await first.promise;
        return [client.clientId];
      },
    });
    const clients: Connection[] = [];
    for (const id of ["a", "b", "c"]) {
      const client = await setup.connect(broker, { id });
      clients.push(client);
      void client.ended();
      await turn();
    }
    clients[1]?.abort();
    while (broker.clients().length > 2) await turn();
    first.open();
    while ((clients[2]?.control("snapshot").length ?? 0) < 1) await turn();
    expect(order).toEqual(["a", "c"]);
  }),
);

test.each(["before", "after"])(
  "maxSnapshots: a client that does not read keeps its place for 5 seconds at most, if another one comes %s that",
  (time) =>
    withBroker(async (setup) => {
      const clock = new Clock();
      await clock.run(async () => {
        const failed = new Recorder<Failed>();
        const broker = setup.broker({
          heartbeat: Infinity,
          maxSnapshots: 1,
          onError: failed.record,
          snapshot: function* ({ client }) {
            for (let event = 0; event < 5; event++) yield client.clientId;
          },
        });
        const slow = await setup.connect(broker, { id: "slow" });
        await slow.nextData();
        await clock.turns();
        if (time === "after") await clock.advance(6_000);
        expect(broker.stats().clients).toBe(1);
        const other = await setup.connect(broker, { id: "other" });
        const reading = other.untilControl("snapshot");
        if (time === "before") {
          await clock.advance(4_900);
          expect(other.data).toEqual([]);
          await clock.advance(200);
        }
        await clock.advanceUntil(reading, 50);
        expect(other.data).toEqual(Array.from({ length: 5 }, () => "other"));
        expect(failed.all).toMatchObject([{ stage: "snapshot" }]);
        await clock.advanceUntil(slow.ended());
        expect(slow.control("end").map(({ data }) => JSON.parse(data).reason)).toEqual(["snapshot-failed"]);
      });
    })(),
);

test(
  "close(): ends a snapshot with fanwire-end, without the id, and lets the application free what it has in use",
  withBroker(async (setup) => {
    let isFreed = false;
    const signals: AbortSignal[] = [];
    const broker = setup.broker({
      snapshot: async function* ({ signal }) {
        signals.push(signal);
        try {
          yield "one";
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          yield "two";
        } finally {
          isFreed = true;
        }
      },
    });
    const client = await setup.connect(broker);
    await client.untilData("one");
    const ended = client.ended();
    await turn();
    await broker.broadcast("live");
    await broker.close();
    expect(await ended).toBe("closed");
    expect(seen(client)).toEqual(["ready", "one", "end"]);
    while (!isFreed) await turn();
    expect(signals[0]?.aborted).toBe(true);
  }),
);

test(
  "close(): a client that has a gap to come ends before the id of the gap",
  withBroker(async (setup) => {
    let calls = 0;
    const broker = setup.broker({
      log: { retention: { events: 2 } },
      snapshot: () => {
        calls++;
        return [];
      },
    });
    const client = await setup.connect(broker, { channel: "a" });
    await client.untilControl("snapshot");
    const flushes = new Flushes(broker, "a");
    for (let event = 0; event < 8; event++)
      await flushes.reach((await broker.broadcast(`${event}`, { channels: "a" })).id);
    const closing = broker.close();
    while (broker.stats().closing === 0) await turn();
    await client.ended();
    await closing;
    const order = seen(client);
    expect(order.slice(-2)).toEqual(["gap", "end"]);
    expect(calls).toBe(1);
  }),
);

test.each(["live", "blocked", "in a snapshot"])(
  "snapshot: channels that are added to an open stream which is %s are asked for at the client's position, and the log goes on behind them",
  (state) =>
    withBroker(async (setup) => {
      const asked: SnapshotRequest[] = [];
      const first = gate();
      const core = new BrokerCore(
        resolveOptions({
          engine: setup.engine(),
          snapshot: async (request) => {
            asked.push(request);
            if (request.reason === "new") await first.promise;
            return [`${request.reason} ${request.channels}`];
          },
        }),
      );
      const broker = brokerOf(core);
      const client = await setup.connect(broker, { channel: "a" });
      const reading = client.untilControl("snapshot");
      while (asked.length === 0) await turn();
      if (state !== "in a snapshot") {
        first.open();
        await reading;
      }
      if (state === "live") void client.read();
      await turn();
      const [connection] = core.connections;
      connection?.snapshots?.join(["b", "c"]);
      connection?.snapshots?.join(["d"]);
      const { id } = await broker.broadcast("live", { channels: "a" });
      first.open();
      await reading;
      await client.untilData("live");
      const added = state === "in a snapshot" ? [["b", "c", "d"]] : [["b", "c"], ["d"]];
      const joined = added.flatMap((channels) => [`joined ${channels}`, "snapshot +id"]);
      expect(seen(client)).toEqual(["ready", "new a", "snapshot +id", ...joined, "live +id"]);
      expect(asked.slice(1)).toMatchObject(
        added.map((channels) => ({ channels, reason: "joined", request: undefined })),
      );
      const [position, ...others] = client.control("snapshot").map((event) => event.id);
      expect(new Set(others)).toEqual(new Set([position]));
      expect(position).not.toBe(id);
      await client.leave();
      await broker.close();
    })(),
);

test(
  "announce: false sends no fanwire-ready, and fanwire-snapshot still brings the id",
  withBroker(async (setup) => {
    const broker = setup.broker({ announce: false, snapshot: () => ["state"] });
    const client = await setup.connect(broker);
    await client.untilControl("snapshot");
    expect(seen(client)).toEqual(["state", "snapshot +id"]);
  }),
);
