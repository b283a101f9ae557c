import { expect, test } from "vitest";
import type { Connection } from "../support/clients/connection.ts";
import { codeOf } from "../support/test-broker.ts";
import { numbers, pause, type Room, room, until } from "./support/room.ts";
import { passing } from "./support/sockets.ts";
import { publish, story } from "./support/story.ts";

// How a bridged stream ends, and what the object knows of it.

const HEARTBEAT = 300;

/** What a stream that ended was told last. */
async function ending(client: Connection): Promise<unknown> {
  const how = await client.ended();
  const end = client.control("end").at(-1);
  return [how, end ? JSON.parse(end.data) : undefined];
}
const reasons = async (room: Room): Promise<unknown> => (await room.stub.stats()).disconnects;

const WAYS: readonly (readonly [string, (client: Connection) => unknown])[] = [
  ["its stream is cancelled", (client) => client.leave()],
  ["its request is aborted", (client) => client.abort()],
];
for (const [how, leave] of WAYS) {
  test(
    `a client that leaves while nothing happens is known to be gone at the next heartbeat: ${how}`,
    room({ heartbeat: HEARTBEAT }, async (room) => {
      const clients = [await room.join({ id: "ada" }), await room.join({ id: "bob" })];
      await room.evict();
      for (const client of clients) await leave(client);
      await until("they are gone", async () => (await room.stub.stats()).clients === 0, 2 * HEARTBEAT);
      expect(await room.stub.stats()).toMatchObject({ clients: 0, channels: 0 });
      expect(await room.inside((_, ctx) => ctx.getWebSockets().length)).toBe(0);
    }),
  );

  test(
    `a client that leaves while it is given events is gone, and the others have all: ${how}`,
    room({}, async (room) => {
      const [leaving, staying] = [await room.join(), await room.join()];
      await publish(room, numbers(1, 20));
      await leaving.untilData("3");
      await leave(leaving);
      await publish(room, numbers(21, 40));
      expect(await story(staying, "40")).toEqual(numbers(1, 40));
      await until("it is gone", async () => (await room.stub.stats()).clients === 1, 2_000);
      expect(await reasons(room)).toEqual({ "client-left": 1 });
    }),
  );

  test(
    `a client that leaves with much that it has not read is gone: ${how}`,
    room({}, async (room) => {
      const [leaving, staying] = [await room.join(), await room.join()];
      const data = numbers(1, 60).map((number) => number.padEnd(10_000));
      const all = story(staying, data.at(-1) ?? "");
      await publish(room, data);
      await until("it is behind", async () => (await room.stub.stats()).blocked === 1);
      await leave(leaving);
      expect(await all).toEqual(data);
      await until("it is gone", async () => (await room.stub.stats()).clients === 1, 2_000);
      expect(await room.stub.stats()).toMatchObject({ blocked: 0, disconnects: { "client-left": 1 } });
    }),
  );
}

test(
  "a client that left before it was let in is not registered",
  room({}, async (room) => {
    const abort = new AbortController();
    const answer = room.ask({ id: "hasty" }, abort.signal);
    abort.abort();
    expect((await answer).status).not.toBe(200);
    await until("nobody is there", async () => (await room.stub.stats()).clients === 0, 2_000);
    await pause(100);
    expect(await room.stub.stats()).toMatchObject({ clients: 0, channels: 0 });
  }),
);

test(
  "an idle stream is sent heartbeats by its Worker, and the object is not woken for them",
  room({ heartbeat: 100 }, async (room) => {
    const client = await room.join();
    const { instances } = room;
    await room.evict();
    while (client.comments < 3) await client.read();
    expect(room.instances).toBe(instances);
    await publish(room, ["awake"]);
    expect(await story(client, "awake")).toEqual(["awake"]);
    expect(room.instances).toBe(instances + 1);
  }),
);

test(
  "disconnect ends every stream of an id with its reason, and no other one",
  room({}, async (room) => {
    const [one, two, other] = [
      await room.join({ id: "ada" }),
      await room.join({ id: "ada" }),
      await room.join({ id: "bob" }),
    ];
    await room.evict();
    expect(await room.hub.disconnect("ada")).toEqual({ clients: 2 });
    const told = { reason: "disconnected", reconnect: true };
    expect([await ending(one), await ending(two)]).toEqual([
      ["closed", told],
      ["closed", told],
    ]);
    expect(await room.stub.stats()).toMatchObject({ clients: 1, disconnects: { disconnected: 2 } });
    await publish(room, ["end"]);
    expect(await story(other, "end")).toEqual(["end"]);
    await room.join({ id: "ada" });
  }),
);

for (const mode of ["bridge", "direct"] as const) {
  test(
    `${mode}: disconnect with a time ends the stream for good, and answers 204 meanwhile, also after a restart`,
    room({ hub: { mode } }, async (room) => {
      const client = await room.join({ id: "eve" });
      expect(await room.hub.disconnect("eve", { blockFor: 60_000 })).toEqual({ clients: 1 });
      expect(await ending(client)).toEqual(["closed", { reason: "disconnected", reconnect: false }]);
      expect((await room.ask({ id: "eve" })).status).toBe(204);
      await room.abort();
      expect((await room.ask({ id: "eve" })).status).toBe(204);
      await room.join({ id: "adam" });
    }),
  );

  test(
    `${mode}: what was granted for a while ends then`,
    room({ hub: { mode, authorize: () => ({ clientId: "ada", expiresAt: Date.now() + 400 }) } }, async (room) => {
      const client = await room.join();
      await publish(room, ["before"]);
      await client.untilData("before");
      expect(await ending(client)).toEqual(["closed", { reason: "expired", reconnect: true }]);
      await until("it is gone", async () => (await room.stub.stats()).clients === 0, 2_000);
      expect(await reasons(room)).toEqual({ expired: 1 });
    }),
  );

  test(
    `${mode}: maxAge ends a stream between half of it and all of it, and its client goes on where it was`,
    room({ hub: { mode }, maxConnectionAge: 600 }, async (room) => {
      const start = Date.now();
      const client = await room.join();
      const { lastEventId = "" } = client;
      expect(await ending(client)).toEqual(["closed", { reason: "max-age", reconnect: true }]);
      expect(Date.now() - start).toBeGreaterThan(280);
      expect(Date.now() - start).toBeLessThan(1_500);
      await until("it is gone", async () => (await room.stub.stats()).clients === 0, 2_000);
      expect(await reasons(room)).toEqual({ "max-age": 1 });
      await publish(room, ["meanwhile"]);
      expect(await story(await room.connect({ lastEventId }), "meanwhile")).toEqual(["meanwhile"]);
    }),
  );
}

test(
  "what was granted for a while ends then, also if the object is asleep or was lost meanwhile",
  room({ hub: { authorize: ({ clientId }) => ({ clientId, expiresAt: Date.now() + 600 }) } }, async (room) => {
    const client = await room.join({ id: "ada" });
    await room.evict();
    await publish(room, ["1"]);
    await client.untilData("1");
    await room.abort();
    await publish(room, ["2"]);
    await client.untilData("2");
    expect(await ending(client)).toEqual(["closed", { reason: "expired", reconnect: true }]);
    await room.gone();
  }),
);

test(
  "with duplicateIds: replace the older stream ends with its reason, also over hibernation",
  room({ duplicateIds: "replace" }, async (room) => {
    const older = await room.join({ id: "ada" });
    await room.evict();
    const newer = await room.join({ id: "ada" });
    expect(await ending(older)).toEqual(["closed", { reason: "replaced", reconnect: false }]);
    await publish(room, ["end"]);
    expect(await story(newer, "end")).toEqual(["end"]);
    expect(await room.stub.stats()).toMatchObject({ clients: 1, disconnects: { replaced: 1 } });
  }),
);

test(
  "with duplicateIds: replace nobody takes its own place when the object was lost",
  room({ duplicateIds: "replace" }, async (room) => {
    const client = await room.join({ id: "ada" });
    for (const loss of ["1", "2", "3"]) {
      await room.evict("close");
      await publish(room, [loss]);
      await client.untilData(loss);
    }
    expect([client.data, client.control("end")]).toEqual([["1", "2", "3"], []]);
  }),
);

test(
  "close inside of the object gives every client what it has not read, and ends its stream",
  room({}, async (room) => {
    const clients = [await room.join(), await room.join()];
    const data = numbers(1, 40).map((number) => number.padEnd(10_000));
    await publish(room, data);
    const closing = room.inside((object) => object.close());
    const ends = await Promise.all(clients.map(ending));
    await closing;
    for (const client of clients) expect(client.data).toEqual(data);
    const told = { reason: "closing", reconnect: true };
    expect(ends).toEqual([
      ["closed", told],
      ["closed", told],
    ]);
    expect(await codeOf(room.hub.broadcast("x"))).toBe("closed");
    await room.evict();
    await room.hub.broadcast("open again");
  }),
);

test(
  "with duplicateIds: replace a stream that comes back after a loss does not take the place of one that came meanwhile",
  room({ duplicateIds: "replace" }, async (room) => {
    const older = await room.join({ id: "ada" });
    await room.evict("close");
    const newer = await room.join({ id: "ada" });
    expect(await ending(older)).toEqual(["closed", { reason: "replaced", reconnect: false }]);
    await publish(room, ["end"]);
    expect(await story(newer, "end")).toEqual(["end"]);
    expect([newer.control("end"), (await room.stub.stats()).clients]).toEqual([[], 1]);
  }),
);

/** Runs `body` with so many milliseconds between two questions of a Worker's whether its object is there, instead of 10,000. */
async function echoing(ms: number, body: () => Promise<void>): Promise<void> {
  const { setInterval } = globalThis;
  globalThis.setInterval = ((task: () => void, interval: number) =>
    setInterval(task, interval === 10_000 ? ms : interval)) as typeof setInterval;
  try {
    await body();
  } finally {
    globalThis.setInterval = setInterval;
  }
}

test(
  "a stream that was told to end and is not read yet does not dial again",
  room({}, async (room) => {
    await echoing(60, async () => {
      const client = await room.join();
      const data = numbers(1, 10).map((number) => number.padEnd(10_000));
      await publish(room, data);
      await pause(50);
      await room.inside((object) => void object.close());
      await room.gone();
      await room.evict();
      let hellos = 0;
      const count = (frame: unknown): boolean => {
        if (String(frame).includes('"hello"')) hellos++;
        return true;
      };
      await passing(count, () => pause(500));
      expect([hellos, (await room.stub.stats()).clients]).toEqual([0, 0]);
      expect(await ending(client)).toEqual(["closed", { reason: "closing", reconnect: true }]);
      expect(client.data).toEqual(data);
    });
  }),
);
