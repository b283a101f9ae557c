import { expect, test } from "vitest";
import { numbers, type TestObject, waitUntil, withObject } from "./support/test-object.ts";
import { publish, transcriptUntil } from "./support/transcript.ts";

// The storage refuses writes, as a full one does. The caller that waits receives an error; without one, onError does, and finished work stays.

const FULL = "database or disk is full: SQLITE_FULL";

/** Lets the storage of this instance refuse matching queries. Returns a function that ends this. */
const refuseQueries = (object: TestObject, queries: RegExp): Promise<() => void> =>
  object.inside((_, { storage }) => {
    const { sql } = storage;
    let isFull = true;
    const exec: typeof sql.exec = (query, ...bindings) => {
      if (isFull && queries.test(query)) throw new Error(FULL);
      return sql.exec(query, ...bindings);
    };
    Object.defineProperty(storage, "sql", { value: { exec } });
    return () => {
      isFull = false;
    };
  });

/** Creates hooks for an object that record their calls. */
function recordingHooks() {
  const errors: string[] = [];
  const left: string[] = [];
  return {
    errors,
    left,
    onError: ({ error, stage }: { error: unknown; stage: string }): unknown =>
      errors.push(`${stage}: ${(error as Error).message}`),
    onDisconnect: ({ client, reason }: { client: { clientId: string }; reason: string }): unknown =>
      left.push(`${client.clientId}: ${reason}`),
  };
}

for (const mode of ["bridge", "direct"] as const)
  test(`${mode}: storage that refuses names: an event with an idempotency key is published once, and a client that leaves is removed`, async () => {
    const { errors, left, ...hooks } = recordingHooks();
    await withObject({ hub: { mode }, ...hooks }, async (object) => {
      const client = await object.join({ id: "ada" });
      await refuseQueries(object, /INTO fanwire_names/);
      const { id } = await object.hub.broadcast("once", { idempotencyKey: "k" });
      expect((await object.hub.broadcast("once", { idempotencyKey: "k" })).id).toBe(id);
      await waitUntil("onError is called", () => errors.length > 0);
      expect(errors).toEqual([`storage: ${FULL}`]);
      await publish(object, ["end"]);
      expect(await transcriptUntil(client, "end")).toEqual(["once", "end"]);
      await client.leave();
      await object.untilNoClients();
      expect(left).toEqual(["ada: client-left"]);
      expect(await object.stub.stats()).toMatchObject({ clients: 0, channels: 0, disconnects: { "client-left": 1 } });
    })();
  });

test("storage that refuses deletes: events are published, and rows are deleted once it accepts them", async () => {
  const { errors, left, ...hooks } = recordingHooks();
  await withObject({ retention: { events: 1 }, ...hooks }, async (object) => {
    const client = await object.join();
    const endRefusal = await refuseQueries(object, /DELETE|INTO fanwire_(channels|meta)/);
    // Events that were not sent yet are not dropped.
    const data = numbers(1, 75);
    await publish(object, data);
    expect(await transcriptUntil(client, "75")).toEqual(data);
    await publish(object, ["76", "77"]);
    expect(await transcriptUntil(client, "77")).toEqual([...data, "76", "77"]);
    expect(new Set(errors)).toEqual(new Set([`storage: ${FULL}`]));
    endRefusal();
    await object.runAlarm();
    expect(await object.rowCount("events")).toBe(1);
    expect(left).toEqual([]);
  })();
});

test("storage that refuses connections: a client with many channels is registered, and its stream continues after hibernation", async () => {
  const { errors, left, ...hooks } = recordingHooks();
  await withObject(hooks, async (object) => {
    await object.stub.stats();
    await refuseQueries(object, /INTO fanwire_connections/);
    const channel = numbers(1, 100).map((name) => name.padEnd(250, "…"));
    const client = await object.join({ id: "ada", channel });
    expect([errors, await object.rowCount("connections")]).toEqual([[`storage: ${FULL}`], 0]);
    await publish(object, ["1"], channel[42]);
    await client.untilData("1");
    // The object does not know the connection any more, so the Worker redials.
    await object.evict();
    await publish(object, ["2"], channel[42]);
    expect(await transcriptUntil(client, "2")).toEqual(["1", "2"]);
    expect([await object.rowCount("connections"), (await object.stub.stats()).clients, left]).toEqual([1, 1, []]);
  })();
});

test("storage that refuses the alarm: onError is called, and the next event sets the alarm again", async () => {
  const { errors, left, ...hooks } = recordingHooks();
  await withObject(hooks, async (object) => {
    await object.inside(async (instance, { storage }) => {
      const setAlarm = storage.setAlarm.bind(storage);
      let isFull = true;
      const value: typeof setAlarm = async (time) => {
        if (isFull) throw new Error(FULL);
        await setAlarm(time);
      };
      Object.defineProperty(storage, "setAlarm", { value });
      await instance.stats();
      await waitUntil("onError is called", () => errors.length > 0);
      isFull = false;
    });
    expect([...errors, await object.nextAlarm()]).toEqual([`storage: ${FULL}`, null]);
    await publish(object, ["1"]);
    await waitUntil("an alarm is set", async () => (await object.nextAlarm()) !== null);
    expect(left).toEqual([]);
  })();
});
