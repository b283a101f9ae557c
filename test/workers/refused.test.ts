import { expect, test } from "vitest";
import { numbers, pause, type Room, room, until } from "./support/room.ts";
import { publish, story } from "./support/story.ts";

// The storage refuses what an object writes, as a full one does. Whoever waits for it is told; else onError is, and what was done stays done.

const FULL = "database or disk is full: SQLITE_FULL";

/** Has the storage of this instance refuse queries, until the answer is called. */
const refuse = (room: Room, queries: RegExp): Promise<() => void> =>
  room.inside((_, { storage }) => {
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

/** What was told to the hooks of an object. */
function heard() {
  const errors: string[] = [];
  const gone: string[] = [];
  return {
    errors,
    gone,
    onError: ({ error, stage }: { error: unknown; stage: string }): unknown =>
      errors.push(`${stage}: ${(error as Error).message}`),
    onDisconnect: ({ client, reason }: { client: { clientId: string }; reason: string }): unknown =>
      gone.push(`${client.clientId}: ${reason}`),
  };
}

for (const mode of ["bridge", "direct"] as const)
  test(`${mode}: with a storage that takes no names an event with a key is published, once, and who leaves is gone`, async () => {
    const { errors, gone, ...hooks } = heard();
    await room({ hub: { mode }, ...hooks }, async (room) => {
      const client = await room.join({ id: "ada" });
      await refuse(room, /INTO fanwire_names/);
      const { id } = await room.hub.broadcast("once", { idempotencyKey: "k" });
      expect((await room.hub.broadcast("once", { idempotencyKey: "k" })).id).toBe(id);
      await until("it is told", () => errors.length > 0);
      expect(errors).toEqual([`storage: ${FULL}`]);
      await publish(room, ["end"]);
      expect(await story(client, "end")).toEqual(["once", "end"]);
      await client.leave();
      await room.gone();
      expect(gone).toEqual(["ada: client-left"]);
      expect(await room.stub.stats()).toMatchObject({ clients: 0, channels: 0, disconnects: { "client-left": 1 } });
    })();
  });

test("with a storage that deletes nothing events are published, and rows go once it does", async () => {
  const { errors, gone, ...hooks } = heard();
  await room({ retention: { events: 1 }, ...hooks }, async (room) => {
    const client = await room.join();
    const again = await refuse(room, /DELETE|INTO fanwire_(channels|meta)/);
    // What was not sent on is not dropped.
    const data = numbers(1, 75);
    await publish(room, data);
    expect(await story(client, "75")).toEqual(data);
    await publish(room, ["76", "77"]);
    expect(await story(client, "77")).toEqual([...data, "76", "77"]);
    expect(new Set(errors)).toEqual(new Set([`storage: ${FULL}`]));
    again();
    await room.alarm();
    expect(await room.rows("events")).toBe(1);
    expect(gone).toEqual([]);
  })();
});

test("with a storage that takes no rows a client of many channels is let in, and its stream goes on over hibernation", async () => {
  const { errors, gone, ...hooks } = heard();
  await room(hooks, async (room) => {
    await room.stub.stats();
    await refuse(room, /INTO fanwire_connections/);
    const channel = numbers(1, 100).map((name) => name.padEnd(250, "…"));
    const client = await room.join({ id: "ada", channel });
    expect([errors, await room.rows("connections")]).toEqual([[`storage: ${FULL}`], 0]);
    await publish(room, ["1"], channel[42]);
    await client.untilData("1");
    // Nothing is known of it any more, so it dials again.
    await room.evict();
    await publish(room, ["2"], channel[42]);
    expect(await story(client, "2")).toEqual(["1", "2"]);
    expect([await room.rows("connections"), (await room.stub.stats()).clients, gone]).toEqual([1, 1, []]);
  })();
});

test("an alarm that the storage refuses is told to onError, and asked for again with the next event", async () => {
  const { errors, gone, ...hooks } = heard();
  await room(hooks, async (room) => {
    await room.inside(async (object, { storage }) => {
      const setAlarm = storage.setAlarm.bind(storage);
      let isFull = true;
      const value: typeof setAlarm = async (time) => {
        if (isFull) throw new Error(FULL);
        await setAlarm(time);
      };
      Object.defineProperty(storage, "setAlarm", { value });
      await object.stats();
      await until("it is told", () => errors.length > 0, 1_000);
      isFull = false;
    });
    expect([...errors, await room.nextAlarm()]).toEqual([`storage: ${FULL}`, null]);
    await publish(room, ["1"]);
    await pause(20);
    expect(await room.nextAlarm()).not.toBeNull();
    expect(gone).toEqual([]);
  })();
});
