// The option `snapshot` in an object: in both modes, over hibernation, and when a socket is lost in the middle of a snapshot.
import { expect, test } from "vitest";
import { type Connection, seen, seqOf } from "../support/clients/connection.ts";
import { recording } from "../support/snapshots.ts";
import { type TestObject, waitUntil, withObject } from "./support/test-object.ts";
import { publish } from "./support/transcript.ts";

const MODES = ["bridge", "direct"] as const;

const endOf = (connection: Connection): unknown => JSON.parse(connection.control("end")[0]?.data ?? "null");

/** A snapshot of some parts. It waits before one of them, until the test says so. */
function pausing(parts: readonly string[], before: number) {
  const { promise: opened, resolve: open } = Promise.withResolvers<void>();
  const { asked, snapshot } = recording(async function* () {
    for (const [index, part] of parts.entries()) {
      if (index === before) await opened;
      yield part;
    }
  });
  return { snapshot, asked, open };
}

for (const mode of MODES) {
  test(
    `mode ${mode}: a new client receives the state, its id, and what was published meanwhile`,
    withObject({}, async (object) => {
      const { snapshot, asked, open } = pausing(["one", "two"], 1);
      object.reconfigure({ snapshot });
      const hub = object.otherHub({ mode });
      const [before = ""] = await publish(object, ["before"], "a");
      const client = await object.connect({ id: "ann", channel: "a" }, hub);
      await client.untilData("one");
      await publish(object, ["live"], "a");
      open();
      await client.untilData("live");
      expect(seen(client)).toEqual(["ready", "one", "two", "snapshot +id", "live +id"]);
      expect(client.control("snapshot")[0]?.id).toBe(before);
      expect(asked).toHaveLength(1);
      expect(asked[0]).toMatchObject({ channels: ["a"], reason: "new", position: before });
      expect(asked[0]?.client.clientId).toBe("ann");
      // A client that comes back with that id needs no other one.
      await client.leave();
      const back = await object.connect({ id: "ann", channel: "a", lastEventId: before }, hub);
      await back.untilData("live");
      expect(seen(back)).toEqual(["ready +id", "live +id"]);
      expect(asked).toHaveLength(1);
    }),
  );

  test(
    `mode ${mode}: a gap holds its id back until the state of its channels was sent`,
    withObject({}, async (object) => {
      const { snapshot, asked, open } = pausing(["state"], 0);
      object.reconfigure({ snapshot, retention: { events: 1 } });
      const hub = object.otherHub({ mode });
      const [first = ""] = await publish(object, ["1", "2", "3"], "a");
      const client = await object.connect({ channel: ["a", "b"], lastEventId: first }, hub);
      const reading = client.untilData("3");
      await waitUntil("the state is asked for", () => asked.length === 1);
      // It waits for the application, and not the other way round.
      expect(await object.stub.stats()).toMatchObject({ clients: 1, blocked: 0 });
      open();
      await reading;
      expect(await object.stub.stats()).toMatchObject({ clients: 1, blocked: 0 });
      expect(seen(client)).toEqual(["ready", "gap", "state", "snapshot +id", "3 +id"]);
      expect(seqOf(client.control("snapshot")[0]?.id)).toBe(seqOf(first) + 1);
      expect(asked).toMatchObject([{ channels: ["a"], reason: "gap" }]);
    }),
  );

  test(
    `mode ${mode}: a snapshot that fails ends the stream with snapshot-failed, and the client comes back`,
    withObject({}, async (object) => {
      const stages: string[] = [];
      object.reconfigure({
        onError: ({ stage }) => void stages.push(stage),
        snapshot: function* () {
          yield "one";
          throw new Error("down");
        },
      });
      const client = await object.connect({}, object.otherHub({ mode }));
      expect(await client.ended()).toBe("closed");
      expect(seen(client)).toEqual(["ready", "one", "end"]);
      expect(endOf(client)).toEqual({ reason: "snapshot-failed", reconnect: true });
      expect(stages).toEqual(["snapshot"]);
      expect(await object.stub.stats()).toMatchObject({ clients: 0, disconnects: { "snapshot-failed": 1 } });
    }),
  );

  test(
    `mode ${mode}: a client that does not read makes the application wait`,
    withObject({}, async (object) => {
      let yielded = 0;
      let isFreed = false;
      object.reconfigure({
        snapshot: function* () {
          try {
            for (; yielded < 1_000; yielded++) yield "x".repeat(10_000);
          } finally {
            isFreed = true;
          }
        },
      });
      const client = await object.connect({}, object.otherHub({ mode }));
      await client.nextData();
      await waitUntil("a client is blocked", async () => (await object.stub.stats()).blocked === 1);
      // A bound of what may be on its way to a Worker, and some of it in the runtime.
      expect(yielded).toBeLessThan(200);
      await client.leave();
      await waitUntil("the generator was ended", () => isFreed);
    }),
  );
}

const LOSSES: readonly (readonly [how: string, lose: (object: TestObject) => Promise<void>])[] = [
  ["an eviction that closes the sockets", (object) => object.evict("close")],
  ["a crash", (object) => object.crash()],
  ["a hibernation", (object) => object.evict("hibernate")],
];

test(
  "bridge: a crash in the middle of a snapshot ends the stream without the id, and the client receives the state whole again",
  withObject({}, async (object) => {
    const first = pausing(["one", "two"], 1);
    object.reconfigure({ snapshot: first.snapshot });
    await publish(object, ["before"], "a");
    const client = await object.connect({ id: "ann", channel: "a" });
    await client.untilData("one");
    const second = pausing(["three", "four"], -1);
    object.reconfigure({ snapshot: second.snapshot });
    await object.crash();
    // Wakes the object.
    await publish(object, ["live"], "a");
    expect(await client.ended()).toBe("closed");
    expect(seen(client)).toEqual(["ready", "one", "end"]);
    expect(endOf(client)).toMatchObject({ reconnect: true });
    const back = await object.connect({ id: "ann", channel: "a" });
    await back.untilControl("snapshot");
    expect(seen(back)).toEqual(["ready", "three", "four", "snapshot +id"]);
    expect(await object.stub.stats()).toMatchObject({ clients: 1 });
  }),
);

test(
  "bridge: an object that hibernates in the middle of a snapshot, because its client does not read, asks the client to come back",
  withObject({}, async (object) => {
    // Without these times nothing keeps the object in memory.
    object.reconfigure({
      snapshotTimeout: Infinity,
      timeout: Infinity,
      snapshot: () => Array.from({ length: 100 }, (_, index) => `${index} ${"x".repeat(10_000)}`),
    });
    const client = await object.connect({ id: "ann" });
    await client.nextData();
    await waitUntil("the socket is full", async () => (await object.stub.stats()).bytes > 200_000);
    await object.evict("hibernate");
    expect(object.instances).toBe(1);
    await client.ended();
    expect(object.instances).toBe(2);
    expect(client.control("snapshot")).toEqual([]);
    expect(client.events.every(({ id }) => id === undefined)).toBe(true);
    expect(endOf(client)).toMatchObject({ reconnect: true });
    expect(client.data.length).toBeLessThan(100);
    expect(await object.stub.stats()).toMatchObject({ clients: 0, disconnects: { "snapshot-failed": 1 } });
  }),
);

for (const [how, lose] of LOSSES) {
  test(
    `bridge: ${how} after a snapshot costs the client nothing, and it is not sent again`,
    withObject({}, async (object) => {
      const { snapshot, asked } = pausing(["state"], -1);
      object.reconfigure({ snapshot });
      const client = await object.connect({ channel: "a" });
      await client.untilControl("snapshot");
      await lose(object);
      await publish(object, ["live"], "a");
      await client.untilData("live");
      expect(seen(client)).toEqual(["ready", "state", "snapshot +id", "live +id"]);
      expect(asked).toHaveLength(1);
    }),
  );
}

test(
  "bridge: a gap after the object was lost is followed by a snapshot on the same stream",
  withObject({}, async (object) => {
    const { snapshot, asked } = pausing(["state"], -1);
    object.reconfigure({ snapshot, retention: { events: 1 } });
    const client = await object.connect({ channel: "a" });
    await client.untilControl("snapshot");
    await object.evict("close");
    await object.inside(async (instance) => {
      for (const data of ["1", "2", "3"]) await instance.broadcast(data, { channels: "a" });
    });
    await client.untilData("3");
    expect(seen(client).slice(3)).toEqual(["gap", "state", "snapshot +id", "3 +id"]);
    expect(asked.map(({ reason }) => reason)).toEqual(["new", "gap"]);
    expect(client.control("ready")).toHaveLength(1);
  }),
);
