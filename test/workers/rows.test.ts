import { expect, test } from "vitest";
import { ExpiringMap } from "../../src/base/expiring-map.ts";
import type { EngineListener } from "../../src/engine/engine.ts";
import { durableEngine } from "../../src/workers/sqlite-engine.ts";
import { seqOf } from "../support/clients/connection.ts";
import { codeOf } from "../support/test-broker.ts";
import { after, numbers, pause, type Room, room } from "./support/room.ts";
import { epochOf, publish, replay, story, told } from "./support/story.ts";

// What an object writes, which is what it costs, and what it deletes again.

const MINUTE = 60_000;

/** Publishes so many events from inside, which is faster. */
const flood = (room: Room, count: number, data = "x", channel: (index: number) => string[] = () => []) =>
  room.inside(async (object) => {
    for (let index = 0; index < count; index++) {
      const names = channel(index);
      await object.broadcast(data, names.length > 0 ? { channels: names } : {});
    }
  });

/** Rows that an object wrote, deletions included, while `body` ran. */
async function written(room: Room, body: () => Promise<unknown>): Promise<number> {
  const count = () =>
    room.inside((_, { storage: { sql } }) => Number([...sql.exec("SELECT total_changes() AS n")][0]?.n));
  const before = await count();
  await body();
  return (await count()) - before;
}

test(
  "an event is one row, whatever its channels",
  room({}, async (room) => {
    await publish(room, ["1"], numbers(1, 100, "channel "));
    await publish(room, ["2"], "a");
    await publish(room, ["3"]);
    await room.join({ id: "ada" });
    await room.hub.broadcastTo("ada", "4");
    expect(await room.rows("events")).toBe(4);
    expect([await room.rows("channels"), await room.rows("names"), await room.rows("connections")]).toEqual([0, 0, 0]);
  }),
);

test(
  "an event costs one row written and one deleted, and channels are written down once for many",
  room({ retention: { events: 10 } }, async (room) => {
    await flood(room, 10, "x", () => numbers(1, 50, "c"));
    const rows = await written(room, () => flood(room, 640, "x", () => numbers(1, 50, "c")));
    // 640 inserted, 640 deleted, and 10 times the 50 channels.
    expect(rows).toBeLessThan(2 * 640 + 10 * 50 + 50);
    expect(rows).toBeGreaterThan(640 + 500);
  }),
);

test(
  "the rows of dropped events go in batches: between 0 and 64 of them are there beside those that are kept",
  room({ retention: { events: 10 } }, async (room) => {
    const seen: number[] = [];
    for (let round = 0; round < 40; round++) {
      await flood(room, 7);
      seen.push(await room.rows("events"));
    }
    expect(Math.max(...seen)).toBeLessThan(10 + 64);
    expect(Math.max(...seen)).toBeGreaterThan(10 + 32);
    // It falls rarely, and then by many.
    const falls = seen.flatMap((rows, index) => (rows < (seen[index - 1] ?? 0) ? [(seen[index - 1] ?? 0) - rows] : []));
    expect(falls.length).toBeLessThanOrEqual(5);
    expect(Math.min(...falls)).toBeGreaterThan(32);
  }),
);

test(
  "a large log keeps no more dead rows than an eighth of it",
  room({ retention: { events: 2_000 } }, async (room) => {
    await flood(room, 2_000);
    let most = 0;
    for (let round = 0; round < 20; round++) {
      await flood(room, 50);
      most = Math.max(most, await room.rows("events"));
    }
    expect(most).toBeLessThanOrEqual(2_000 + 250);
    expect(most).toBeGreaterThanOrEqual(2_000 + 200);
  }),
);

test(
  "rows of dropped events that an instance left behind are deleted by the next one",
  room({ retention: { events: 10 } }, async (room) => {
    await flood(room, 60);
    expect(await room.rows("events")).toBe(60);
    await room.evict();
    await flood(room, 30);
    expect(await room.rows("events")).toBeLessThan(10 + 64);
    await room.evict();
    await room.alarm();
    expect(await room.rows("events")).toBe(10);
  }),
);

test(
  "rows of channels that were forgotten do not stay, also if that was while an instance began",
  room({ maxChannels: 100 }, async (room) => {
    await flood(room, 100, "x", (index) => [`channel ${index}`]);
    room.reconfigure({ maxChannels: 10 });
    await room.evict();
    await flood(room, 1);
    await room.alarm();
    const { log } = await room.stub.stats();
    expect(log.events).toBeLessThanOrEqual(11);
    expect(await room.rows("events")).toBe(log.events);
  }),
);

test(
  "the alarm drops by age in an object that nobody uses, and then there is nothing left to wake it for",
  room({ retention: { age: 10 * MINUTE } }, async (room) => {
    const { lastEventId = "" } = await room.join({ id: "ada", channel: "a" });
    await publish(room, ["1", "2"], "a");
    const due = Number(await room.nextAlarm()) - Date.now();
    expect(due).toBeGreaterThan(0);
    expect(due).toBeLessThanOrEqual(10 * MINUTE);
    await room.evict();
    await after(6 * MINUTE, () => room.alarm());
    expect(await room.rows("events")).toBe(2);
    expect(await room.nextAlarm()).not.toBeNull();
    await room.evict();
    await after(11 * MINUTE, () => room.alarm());
    expect([await room.rows("events"), (await room.stub.stats()).log.events]).toEqual([0, 0]);
    expect(await room.nextAlarm()).toBeNull();
    // There is somebody, so the epoch goes on, and who was away is told what is gone.
    expect(await replay(room, { channel: "a", lastEventId })).toEqual(["a: (0, 2]"]);
  }),
);

test(
  "an alarm for something late does not hold up one for something early",
  room({ retention: { age: MINUTE } }, async (room) => {
    await room.hub.disconnect("eve", { blockFor: 24 * 60 * MINUTE });
    await publish(room, ["1"]);
    expect(Number(await room.nextAlarm()) - Date.now()).toBeLessThanOrEqual(MINUTE);
  }),
);

test(
  "nothing is left of an object that nobody uses: no row, no table, no alarm; its next use is a new epoch",
  room({ retention: { age: 10 * MINUTE }, inboxLinger: MINUTE }, async (room) => {
    const client = await room.join({ id: "ada", channel: "a" });
    const [id = ""] = await publish(room, ["1"], "a");
    await client.leave();
    await room.gone();
    // What was not sent on is not dropped.
    await pause(100);
    await room.alarm();
    expect((await room.tables()).length, "something is kept").toBeGreaterThan(0);
    await after(11 * MINUTE, () => room.alarm());
    expect([await room.tables(), await room.nextAlarm()]).toEqual([[], null]);

    const [next = ""] = await publish(room, ["anew"], "a");
    expect([seqOf(next), epochOf(next) === epochOf(id)]).toEqual([1, false]);
    expect(await replay(room, { channel: "a", lastEventId: id })).toEqual([
      "fanwire-common fanwire-inbox a: (?, 0]",
      "anew",
    ]);
  }),
);

test(
  "nothing is left of an object that clients came to and where nothing was published",
  room({ inboxLinger: 0 }, async (room) => {
    const client = await room.join();
    await client.leave();
    await room.gone();
    expect(Number(await room.nextAlarm()) - Date.now()).toBeLessThanOrEqual(MINUTE);
    await room.alarm();
    expect([await room.tables(), await room.nextAlarm()]).toEqual([[], null]);
    await room.join();
  }),
);

test(
  "nothing is left of an object that was only asked",
  room({}, async (room) => {
    await room.hub.stats();
    expect(await codeOf(room.hub.broadcastTo("nobody", "x"))).toBe("unknown-client");
    await after(24 * 60 * MINUTE, () => room.alarm());
    expect(await room.tables()).toEqual([]);
  }),
);

test(
  "an object with a client, a kept event, a key or somebody who is barred is not emptied",
  room({ retention: { age: MINUTE }, idempotencyWindow: 10 * MINUTE, inboxLinger: 0 }, async (room) => {
    const client = await room.join();
    const { id } = await room.hub.broadcast("1", { idempotencyKey: "k" });
    await client.untilData("1");
    await after(2 * MINUTE, () => room.alarm());
    expect([await room.rows("events"), await room.rows("names")]).toEqual([0, 1]);
    await client.leave();
    await room.gone();
    await after(3 * MINUTE, () => room.alarm());
    expect((await room.hub.broadcast("1", { idempotencyKey: "k" })).id, "the key is kept").toBe(id);
    await after(11 * MINUTE, () => room.alarm());
    expect(await room.tables()).toEqual([]);

    await room.hub.disconnect("eve", { blockFor: 60 * MINUTE });
    await after(59 * MINUTE, () => room.alarm());
    expect((await room.ask({ id: "eve" })).status).toBe(204);
    await after(61 * MINUTE, () => room.alarm());
    expect(await room.tables()).toEqual([]);
  }),
);

test(
  "an object where somebody is barred for ever is not emptied, and has nothing to wake it for",
  room({ retention: { age: MINUTE }, inboxLinger: 0 }, async (room) => {
    const client = await room.join({ id: "eve" });
    await room.hub.disconnect("eve", { blockFor: Infinity });
    await client.ended();
    await room.gone();
    for (const round of [1, 2, 3]) await after(round * 10 * MINUTE, () => room.alarm());
    expect(await room.nextAlarm()).toBeNull();
    await room.evict();
    await after(1_000_000 * MINUTE, async () => {
      await room.alarm();
      expect((await room.ask({ id: "eve" })).status).toBe(204);
    });
  }),
);

test(
  "an event that is larger than a row may be is refused, reaches nobody, and is not in anybody's way",
  room({ maxEventBytes: 30_000_000 }, async (room) => {
    const client = await room.join();
    expect(await codeOf(room.hub.broadcast("x".repeat(20_000_000), { idempotencyKey: "k" }))).toBe("event-too-large");
    expect(await room.rows("events")).toBe(0);
    expect(seqOf((await room.hub.broadcast("small", { idempotencyKey: "k" })).id)).toBe(1);
    expect(await story(client, "small")).toEqual(["small"]);
  }),
);

test(
  "logBytes bounds the log, dead rows aside, and what it drops is told, also after a restart",
  room({ logBytes: 100_000 }, async (room) => {
    const { lastEventId = "" } = await room.join({ channel: "a" });
    const all = numbers(1, 200).map((data) => data.padEnd(1_000));
    await publish(room, all, "a");
    const { log } = await room.stub.stats();
    expect(log.bytes).toBeLessThanOrEqual(100_000);
    expect(log.bytes).toBeGreaterThan(95_000);
    expect(await room.rows("events")).toBeLessThan(log.events + 64);
    for (let restart = 0; restart < 3; restart++) {
      const [gap, ...events] = await replay(room, { channel: "a", lastEventId });
      expect([gap, ...events]).toEqual([`a: (0, ${200 - events.length}]`, ...all.slice(200 - events.length)]);
      // What is sent at the end of a replay takes of the room as well.
      expect(events.length).toBeGreaterThanOrEqual(log.events - 4);
      await room.evict();
    }
  }),
);

test(
  "a publisher that overruns the log reaches who reads with a gap that is told, and nothing is doubled",
  room({ logBytes: 50_000 }, async (room) => {
    const client = await room.join();
    await room.inside((object) => {
      for (const data of numbers(1, 300)) void object.broadcast(data.padEnd(1_000));
    });
    await room.hub.broadcast("the end");
    const parts = await story(client, "the end");
    const [gap = "", ...events] = parts;
    const lost = Number(/\(0, (\d+)\]/.exec(gap)?.[1]);
    expect(lost).toBeGreaterThan(200);
    expect(events.map((data) => data.trim())).toEqual([...numbers(lost + 1, 300), "the end"]);
    await pause(0);
    expect(told(client)).toEqual(parts);
  }),
);

test(
  "what is forgotten for want of room leaves no row, and after a restart it is still the one with the most who loses names",
  room({}, async (room) => {
    await room.inside((_, { storage }) => {
      const follower: EngineListener = { position: 0, onAppended: () => undefined, onOverrun: () => undefined };
      const instance = (): ExpiringMap => {
        const names = new ExpiringMap(20);
        durableEngine(storage).open(follower).persistNames?.("lingering", names);
        return names;
      };
      const rows = (): number =>
        [...storage.sql.exec("SELECT name FROM fanwire_names WHERE kind = 'lingering'")].length;
      const first = instance();
      first.set("ada's", 60_000, true, "ada");
      for (let index = 0; index < 100; index++) first.set(`${index}`, 60_000, true, "eve");
      expect(rows()).toBe(20);
      const second = instance();
      expect([second.has("ada's"), second.has("99"), second.has("80")]).toEqual([true, true, false]);
      for (let index = 100; index < 200; index++) second.set(`${index}`, 60_000, true, "eve");
      expect([second.has("ada's"), second.has("199"), rows()]).toEqual([true, true, 20]);
    });
  }),
);
