import { expect, test } from "vitest";
import type { Connection } from "../support/clients/connection.ts";
import { codeOf } from "../support/test-broker.ts";
import { interceptFrames, withPingInterval } from "./support/sockets.ts";
import { numbers, pause, type TestObject, waitUntil, withObject } from "./support/test-object.ts";
import { publish, transcriptUntil } from "./support/transcript.ts";

// The end of a stream: its reason, the last event the client receives, and the object's counts.

const HEARTBEAT = 300;

/** Reads to the end of a stream. Returns how it ended, and the data of its last `fanwire-end`. */
async function readEnd(client: Connection): Promise<unknown> {
  const how = await client.ended();
  const end = client.control("end").at(-1);
  return [how, end ? JSON.parse(end.data) : undefined];
}
const reasons = async (object: TestObject): Promise<unknown> => (await object.stub.stats()).disconnects;

const WAYS_TO_LEAVE: readonly (readonly [string, (client: Connection) => unknown])[] = [
  ["its stream is cancelled", (client) => client.leave()],
  ["its request is aborted", (client) => client.abort()],
];
for (const [how, leave] of WAYS_TO_LEAVE) {
  test(
    `client-left: an idle client that leaves is removed at the next heartbeat (${how})`,
    withObject({ heartbeat: HEARTBEAT }, async (object) => {
      const clients = [await object.join({ id: "ada" }), await object.join({ id: "bob" })];
      await object.evict();
      for (const client of clients) await leave(client);
      await waitUntil("both are removed", async () => (await object.stub.stats()).clients === 0);
      expect(await object.stub.stats()).toMatchObject({ clients: 0, channels: 0 });
      expect(await object.inside((_, ctx) => ctx.getWebSockets().length)).toBe(0);
    }),
  );

  test(
    `client-left: a client that leaves while events arrive is removed, and the others receive every event (${how})`,
    withObject({}, async (object) => {
      const [leaving, staying] = [await object.join(), await object.join()];
      await publish(object, numbers(1, 20));
      await leaving.untilData("3");
      await leave(leaving);
      await publish(object, numbers(21, 40));
      expect(await transcriptUntil(staying, "40")).toEqual(numbers(1, 40));
      await waitUntil("it is removed", async () => (await object.stub.stats()).clients === 1);
      expect(await reasons(object)).toEqual({ "client-left": 1 });
    }),
  );

  test(
    `client-left: a client that leaves with many unread events is removed (${how})`,
    withObject({}, async (object) => {
      const [leaving, staying] = [await object.join(), await object.join()];
      const data = numbers(1, 60).map((number) => number.padEnd(10_000));
      const all = transcriptUntil(staying, data.at(-1) ?? "");
      await publish(object, data);
      await waitUntil("it is blocked", async () => (await object.stub.stats()).blocked === 1);
      await leave(leaving);
      expect(await all).toEqual(data);
      await waitUntil("it is removed", async () => (await object.stub.stats()).clients === 1);
      expect(await object.stub.stats()).toMatchObject({ blocked: 0, disconnects: { "client-left": 1 } });
    }),
  );
}

test(
  "client-left: a client that leaves before it is authorized is not registered",
  withObject({}, async (object) => {
    const abort = new AbortController();
    const answer = object.requestStream({ id: "hasty" }, abort.signal);
    abort.abort();
    expect((await answer).status).not.toBe(200);
    await waitUntil("no client is connected", async () => (await object.stub.stats()).clients === 0);
    await pause(100);
    expect(await object.stub.stats()).toMatchObject({ clients: 0, channels: 0 });
  }),
);

test(
  "heartbeat: the Worker sends it to an idle stream without waking the object",
  withObject({ heartbeat: 100 }, async (object) => {
    const client = await object.join();
    const { instances } = object;
    await object.evict();
    while (client.comments < 3) await client.read();
    expect(object.instances).toBe(instances);
    await publish(object, ["awake"]);
    expect(await transcriptUntil(client, "awake")).toEqual(["awake"]);
    expect(object.instances).toBe(instances + 1);
  }),
);

test(
  "disconnect(): ends every stream of the client id with its reason, and no other stream",
  withObject({}, async (object) => {
    const [one, two, other] = [
      await object.join({ id: "ada" }),
      await object.join({ id: "ada" }),
      await object.join({ id: "bob" }),
    ];
    await object.evict();
    expect(await object.hub.disconnect("ada")).toEqual({ clients: 2 });
    const endData = { reason: "disconnected", reconnect: true };
    expect([await readEnd(one), await readEnd(two)]).toEqual([
      ["closed", endData],
      ["closed", endData],
    ]);
    expect(await object.stub.stats()).toMatchObject({ clients: 1, disconnects: { disconnected: 2 } });
    await publish(object, ["end"]);
    expect(await transcriptUntil(other, "end")).toEqual(["end"]);
    await object.join({ id: "ada" });
  }),
);

for (const mode of ["bridge", "direct"] as const) {
  test(
    `${mode}: disconnect() with blockFor ends the stream for good and answers 204 while the id is barred, after a restart as well`,
    withObject({ hub: { mode } }, async (object) => {
      const client = await object.join({ id: "eve" });
      expect(await object.hub.disconnect("eve", { blockFor: 60_000 })).toEqual({ clients: 1 });
      expect(await readEnd(client)).toEqual(["closed", { reason: "disconnected", reconnect: false }]);
      expect((await object.requestStream({ id: "eve" })).status).toBe(204);
      await object.crash();
      expect((await object.requestStream({ id: "eve" })).status).toBe(204);
      await object.join({ id: "adam" });
    }),
  );

  test(
    `${mode}: a grant's expiresAt ends the stream`,
    withObject(
      { hub: { mode, authorize: () => ({ clientId: "ada", expiresAt: Date.now() + 1_500 }) } },
      async (object) => {
        // What is retained comes with the first chunk, so that a slow machine cannot be later with it than the end.
        await publish(object, ["before"]);
        const client = await object.join({ query: { from: "earliest" } });
        await client.untilData("before");
        expect(await readEnd(client)).toEqual(["closed", { reason: "expired", reconnect: true }]);
        await waitUntil("it is removed", async () => (await object.stub.stats()).clients === 0);
        expect(await reasons(object)).toEqual({ expired: 1 });
      },
    ),
  );

  test(
    `${mode}: maxConnectionAge ends a stream after between half and all of it, and its client resumes`,
    withObject({ hub: { mode }, maxConnectionAge: 600 }, async (object) => {
      const start = Date.now();
      const client = await object.join();
      const { lastEventId = "" } = client;
      expect(await readEnd(client)).toEqual(["closed", { reason: "max-age", reconnect: true }]);
      expect(Date.now() - start).toBeGreaterThan(280);
      // Far less than any other time after which a stream ends.
      expect(Date.now() - start).toBeLessThan(6_000);
      await waitUntil("it is removed", async () => (await object.stub.stats()).clients === 0);
      expect(await reasons(object)).toEqual({ "max-age": 1 });
      await publish(object, ["while away"]);
      expect(await transcriptUntil(await object.connect({ lastEventId }), "while away")).toEqual(["while away"]);
    }),
  );
}

test(
  "expired: a grant's expiresAt ends the stream after hibernation and a crash of the object as well",
  withObject(
    { hub: { authorize: ({ clientId }) => ({ clientId, expiresAt: Date.now() + 3_000 }) } },
    async (object) => {
      const client = await object.join({ id: "ada" });
      await object.evict();
      await publish(object, ["1"]);
      await client.untilData("1");
      await object.crash();
      await publish(object, ["2"]);
      await client.untilData("2");
      expect(await readEnd(client)).toEqual(["closed", { reason: "expired", reconnect: true }]);
      await object.untilNoClients();
    },
  ),
);

test(
  "duplicateIds replace: the older stream ends with its reason, after hibernation as well",
  withObject({ duplicateIds: "replace" }, async (object) => {
    const older = await object.join({ id: "ada" });
    await object.evict();
    const newer = await object.join({ id: "ada" });
    expect(await readEnd(older)).toEqual(["closed", { reason: "replaced", reconnect: false }]);
    await publish(object, ["end"]);
    expect(await transcriptUntil(newer, "end")).toEqual(["end"]);
    expect(await object.stub.stats()).toMatchObject({ clients: 1, disconnects: { replaced: 1 } });
  }),
);

test(
  "duplicateIds replace: a redialed stream does not replace itself",
  withObject({ duplicateIds: "replace" }, async (object) => {
    const client = await object.join({ id: "ada" });
    for (const loss of ["1", "2", "3"]) {
      await object.evict("close");
      await publish(object, [loss]);
      await client.untilData(loss);
    }
    expect([client.data, client.control("end")]).toEqual([["1", "2", "3"], []]);
  }),
);

test(
  "close(): sends every client its unread events, then ends its stream",
  withObject({}, async (object) => {
    const clients = [await object.join(), await object.join()];
    const data = numbers(1, 40).map((number) => number.padEnd(10_000));
    await publish(object, data);
    const closing = object.inside((instance) => instance.close());
    const ends = await Promise.all(clients.map(readEnd));
    await closing;
    for (const client of clients) expect(client.data).toEqual(data);
    const endData = { reason: "closing", reconnect: true };
    expect(ends).toEqual([
      ["closed", endData],
      ["closed", endData],
    ]);
    expect(await codeOf(object.hub.broadcast("x"))).toBe("closed");
    await object.evict();
    await object.hub.broadcast("open again");
  }),
);

test(
  "close({ force }): ends the streams of clients that read, and aborts the others, in the object and in the Worker",
  withObject({ timeout: 3_600_000 }, async (object) => {
    const unread = [await object.connect(), await object.join()];
    const data = numbers(1, 40).map((number) => number.padEnd(10_000));
    await publish(object, data);
    await waitUntil("they are blocked", async () => (await object.stub.stats()).blocked === 2);
    const short = await object.join({ channel: "short" });
    await object.inside((instance) => void instance.broadcast("unread", { channels: "short" }));
    await pause(50);
    const reading = await object.join({ channel: "none" });
    const end = readEnd(reading);

    await object.inside(async (instance) => {
      const closing = instance.close();
      await Promise.all([closing, instance.close({ force: true })]);
    });

    expect(await end).toEqual(["closed", { reason: "closing", reconnect: true }]);
    await pause(50);
    for (const client of [...unread, short]) {
      expect(await client.ended()).toBe("closed");
      expect(client.control("end")).toEqual([]);
    }
    const { clients, closing } = await object.stub.stats();
    expect([clients, closing]).toEqual([0, 0]);
  }),
);

test(
  "duplicateIds replace: a redialed stream does not replace a newer one",
  withObject({ duplicateIds: "replace" }, async (object) => {
    const older = await object.join({ id: "ada" });
    await object.evict("close");
    const newer = await object.join({ id: "ada" });
    expect(await readEnd(older)).toEqual(["closed", { reason: "replaced", reconnect: false }]);
    await publish(object, ["end"]);
    expect(await transcriptUntil(newer, "end")).toEqual(["end"]);
    expect([newer.control("end"), (await object.stub.stats()).clients]).toEqual([[], 1]);
  }),
);

test(
  "close(): a stream whose end is not read yet does not redial",
  withObject({}, async (object) => {
    await withPingInterval(60, async () => {
      const client = await object.join();
      const data = numbers(1, 10).map((number) => number.padEnd(10_000));
      await publish(object, data);
      await pause(50);
      await object.inside((instance) => void instance.close());
      await object.untilNoClients();
      await object.evict();
      let hellos = 0;
      const countHellos = (frame: unknown): boolean => {
        if (String(frame).includes('"hello"')) hellos++;
        return true;
      };
      await interceptFrames(countHellos, () => pause(500));
      expect([hellos, (await object.stub.stats()).clients]).toEqual([0, 0]);
      expect(await readEnd(client)).toEqual(["closed", { reason: "closing", reconnect: true }]);
      expect(client.data).toEqual(data);
    });
  }),
);
