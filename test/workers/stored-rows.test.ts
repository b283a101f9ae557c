import { expect, test } from "vitest";
import { ExpiringMap } from "../../src/base/expiring-map.ts";
import type { EngineListener } from "../../src/engine/engine.ts";
import { durableEngine } from "../../src/workers/sqlite-engine.ts";
import { seqOf } from "../support/clients/connection.ts";
import { codeOf } from "../support/test-broker.ts";
import { numbers, pause, type TestObject, withClockAhead, withObject } from "./support/test-object.ts";
import { epochOf, publish, replay, transcript, transcriptUntil } from "./support/transcript.ts";

// The rows that an object writes, which it is billed for, and the rows it deletes.

const MINUTE = 60_000;

/** Publishes `count` events from inside the object, which is faster. */
const flood = (object: TestObject, count: number, data = "x", channel: (index: number) => string[] = () => []) =>
  object.inside(async (instance) => {
    for (let index = 0; index < count; index++) {
      const names = channel(index);
      await instance.broadcast(data, names.length > 0 ? { channels: names } : {});
    }
  });

/** Returns the number of rows that an object wrote or deleted while `body` ran. */
async function rowsWritten(object: TestObject, body: () => Promise<unknown>): Promise<number> {
  const count = () =>
    object.inside((_, { storage: { sql } }) => Number([...sql.exec("SELECT total_changes() AS n")][0]?.n));
  const before = await count();
  await body();
  return (await count()) - before;
}

test(
  "rows: an event is one row, whatever the number of its channels",
  withObject({}, async (object) => {
    await publish(object, ["1"], numbers(1, 100, "channel "));
    await publish(object, ["2"], "a");
    await publish(object, ["3"]);
    await object.join({ id: "ada" });
    await object.hub.broadcastTo("ada", "4");
    expect(await object.rowCount("events")).toBe(4);
    expect([
      await object.rowCount("channels"),
      await object.rowCount("names"),
      await object.rowCount("connections"),
    ]).toEqual([0, 0, 0]);
  }),
);

test(
  "rows: an event costs one row written and one deleted, and channel rows are written once for many events",
  withObject({ retention: { events: 10 } }, async (object) => {
    await flood(object, 10, "x", () => numbers(1, 50, "c"));
    const rows = await rowsWritten(object, () => flood(object, 640, "x", () => numbers(1, 50, "c")));
    // 640 inserted, 640 deleted, and 10 batches with 50 channel rows each.
    expect(rows).toBeLessThan(2 * 640 + 10 * 50 + 50);
    expect(rows).toBeGreaterThan(640 + 500);
  }),
);

test(
  "rows: rows of dropped events are deleted in batches, so fewer than 64 of them exist at a time",
  withObject({ retention: { events: 10 } }, async (object) => {
    const counts: number[] = [];
    for (let round = 0; round < 40; round++) {
      await flood(object, 7);
      counts.push(await object.rowCount("events"));
    }
    expect(Math.max(...counts)).toBeLessThan(10 + 64);
    expect(Math.max(...counts)).toBeGreaterThan(10 + 32);
    // The number falls rarely, and then by many rows.
    const falls = counts.flatMap((rows, index) =>
      rows < (counts[index - 1] ?? 0) ? [(counts[index - 1] ?? 0) - rows] : [],
    );
    expect(falls.length).toBeLessThanOrEqual(5);
    expect(Math.min(...falls)).toBeGreaterThan(32);
  }),
);

test(
  "rows: a large log has at most an eighth more rows than events",
  withObject({ retention: { events: 2_000 } }, async (object) => {
    await flood(object, 2_000);
    let most = 0;
    for (let round = 0; round < 20; round++) {
      await flood(object, 50);
      most = Math.max(most, await object.rowCount("events"));
    }
    expect(most).toBeLessThanOrEqual(2_000 + 250);
    expect(most).toBeGreaterThanOrEqual(2_000 + 200);
  }),
);

test(
  "rows: the next instance deletes the rows of dropped events that an instance left",
  withObject({ retention: { events: 10 } }, async (object) => {
    await flood(object, 60);
    expect(await object.rowCount("events")).toBe(60);
    await object.evict();
    await flood(object, 30);
    expect(await object.rowCount("events")).toBeLessThan(10 + 64);
    await object.evict();
    await object.runAlarm();
    expect(await object.rowCount("events")).toBe(10);
  }),
);

test(
  "rows: rows of forgotten channels are deleted, even if they were forgotten while an instance started",
  withObject({ maxChannels: 100 }, async (object) => {
    await flood(object, 100, "x", (index) => [`channel ${index}`]);
    object.reconfigure({ maxChannels: 10 });
    await object.evict();
    await flood(object, 1);
    await object.runAlarm();
    const { log } = await object.stub.stats();
    expect(log.events).toBeLessThanOrEqual(11);
    expect(await object.rowCount("events")).toBe(log.events);
  }),
);

test(
  "alarm: drops events by age in an unused object, and then sets no further alarm",
  withObject({ retention: { age: 10 * MINUTE } }, async (object) => {
    const { lastEventId = "" } = await object.join({ id: "ada", channel: "a" });
    await publish(object, ["1", "2"], "a");
    const due = Number(await object.nextAlarm()) - Date.now();
    expect(due).toBeGreaterThan(0);
    expect(due).toBeLessThanOrEqual(10 * MINUTE);
    await object.evict();
    await withClockAhead(6 * MINUTE, () => object.runAlarm());
    expect(await object.rowCount("events")).toBe(2);
    expect(await object.nextAlarm()).not.toBeNull();
    await object.evict();
    await withClockAhead(11 * MINUTE, () => object.runAlarm());
    expect([await object.rowCount("events"), (await object.stub.stats()).log.events]).toEqual([0, 0]);
    expect(await object.nextAlarm()).toBeNull();
    // A client is connected, so the epoch continues, and a client that was away receives an exact gap.
    expect(await replay(object, { channel: "a", lastEventId })).toEqual(["a: (0, 2]"]);
  }),
);

test(
  "alarm: an alarm for a later time does not delay an earlier one",
  withObject({ retention: { age: MINUTE } }, async (object) => {
    await object.hub.disconnect("eve", { blockFor: 24 * 60 * MINUTE });
    await publish(object, ["1"]);
    expect(Number(await object.nextAlarm()) - Date.now()).toBeLessThanOrEqual(MINUTE);
  }),
);

test(
  "empty object: an unused object keeps no row, no table and no alarm; its next use begins a new epoch",
  withObject({ retention: { age: 10 * MINUTE }, inboxLinger: MINUTE }, async (object) => {
    const client = await object.join({ id: "ada", channel: "a" });
    const [id = ""] = await publish(object, ["1"], "a");
    await client.leave();
    await object.untilNoClients();
    // Events that were not sent yet are not dropped.
    await pause(100);
    await object.runAlarm();
    expect((await object.tables()).length, "the event is kept").toBeGreaterThan(0);
    await withClockAhead(11 * MINUTE, () => object.runAlarm());
    expect([await object.tables(), await object.nextAlarm()]).toEqual([[], null]);

    const [next = ""] = await publish(object, ["again"], "a");
    expect([seqOf(next), epochOf(next) === epochOf(id)]).toEqual([1, false]);
    expect(await replay(object, { channel: "a", lastEventId: id })).toEqual([
      "fanwire-common fanwire-inbox a: (?, 0]",
      "again",
    ]);
  }),
);

test(
  "empty object: an object with clients and no events is emptied after they left",
  withObject({ inboxLinger: 0 }, async (object) => {
    const client = await object.join();
    await client.leave();
    await object.untilNoClients();
    expect(Number(await object.nextAlarm()) - Date.now()).toBeLessThanOrEqual(MINUTE);
    await object.runAlarm();
    expect([await object.tables(), await object.nextAlarm()]).toEqual([[], null]);
    await object.join();
  }),
);

test(
  "empty object: an object that only answered calls is emptied",
  withObject({}, async (object) => {
    await object.hub.stats();
    expect(await codeOf(object.hub.broadcastTo("nobody", "x"))).toBe("unknown-client");
    await withClockAhead(24 * 60 * MINUTE, () => object.runAlarm());
    expect(await object.tables()).toEqual([]);
  }),
);

test(
  "empty object: an object with a client, an event, an idempotency key or a barred id is not emptied",
  withObject({ retention: { age: MINUTE }, idempotencyWindow: 10 * MINUTE, inboxLinger: 0 }, async (object) => {
    const client = await object.join();
    const { id } = await object.hub.broadcast("1", { idempotencyKey: "k" });
    await client.untilData("1");
    await withClockAhead(2 * MINUTE, () => object.runAlarm());
    expect([await object.rowCount("events"), await object.rowCount("names")]).toEqual([0, 1]);
    await client.leave();
    await object.untilNoClients();
    await withClockAhead(3 * MINUTE, () => object.runAlarm());
    expect((await object.hub.broadcast("1", { idempotencyKey: "k" })).id, "the key is kept").toBe(id);
    await withClockAhead(11 * MINUTE, () => object.runAlarm());
    expect(await object.tables()).toEqual([]);

    await object.hub.disconnect("eve", { blockFor: 60 * MINUTE });
    await withClockAhead(59 * MINUTE, () => object.runAlarm());
    expect((await object.requestStream({ id: "eve" })).status).toBe(204);
    await withClockAhead(61 * MINUTE, () => object.runAlarm());
    expect(await object.tables()).toEqual([]);
  }),
);

test(
  "empty object: an object with an id barred forever is not emptied, and sets no alarm",
  withObject({ retention: { age: MINUTE }, inboxLinger: 0 }, async (object) => {
    const client = await object.join({ id: "eve" });
    await object.hub.disconnect("eve", { blockFor: Infinity });
    await client.ended();
    await object.untilNoClients();
    for (const round of [1, 2, 3]) await withClockAhead(round * 10 * MINUTE, () => object.runAlarm());
    expect(await object.nextAlarm()).toBeNull();
    await object.evict();
    await withClockAhead(1_000_000 * MINUTE, async () => {
      await object.runAlarm();
      expect((await object.requestStream({ id: "eve" })).status).toBe(204);
    });
  }),
);

test(
  "event-too-large: an event larger than a row may be reaches no client, and later events are not affected",
  withObject({ maxEventBytes: 30_000_000 }, async (object) => {
    const client = await object.join();
    expect(await codeOf(object.hub.broadcast("x".repeat(20_000_000), { idempotencyKey: "k" }))).toBe("event-too-large");
    expect(await object.rowCount("events")).toBe(0);
    expect(seqOf((await object.hub.broadcast("small", { idempotencyKey: "k" })).id)).toBe(1);
    expect(await transcriptUntil(client, "small")).toEqual(["small"]);
  }),
);

test(
  "logBytes: bounds the log, and evicted events are in a gap, after a restart as well",
  withObject({ logBytes: 100_000 }, async (object) => {
    const { lastEventId = "" } = await object.join({ channel: "a" });
    const all = numbers(1, 200).map((data) => data.padEnd(1_000));
    await publish(object, all, "a");
    const { log } = await object.stub.stats();
    expect(log.bytes).toBeLessThanOrEqual(100_000);
    expect(log.bytes).toBeGreaterThan(95_000);
    expect(await object.rowCount("events")).toBeLessThan(log.events + 64);
    for (let restart = 0; restart < 3; restart++) {
      const [gap, ...events] = await replay(object, { channel: "a", lastEventId });
      expect([gap, ...events]).toEqual([`a: (0, ${200 - events.length}]`, ...all.slice(200 - events.length)]);
      // The event that ends each replay takes space as well.
      expect(events.length).toBeGreaterThanOrEqual(log.events - 4);
      await object.evict();
    }
  }),
);

test(
  "overrun: a publisher that overruns the log causes one exact gap, and no duplicate",
  withObject({ logBytes: 50_000 }, async (object) => {
    const client = await object.join();
    await object.inside((instance) => {
      for (const data of numbers(1, 300)) void instance.broadcast(data.padEnd(1_000));
    });
    await object.hub.broadcast("the end");
    const parts = await transcriptUntil(client, "the end");
    const [gap = "", ...events] = parts;
    const evicted = Number(/\(0, (\d+)\]/.exec(gap)?.[1]);
    expect(evicted).toBeGreaterThan(200);
    expect(events.map((data) => data.trim())).toEqual([...numbers(evicted + 1, 300), "the end"]);
    await pause(0);
    expect(transcript(client)).toEqual(parts);
  }),
);

test(
  "names: a name that is forgotten because the map is full leaves no row, and the owner with the most names loses them after a restart as well",
  withObject({}, async (object) => {
    await object.inside((_, { storage }) => {
      const listener: EngineListener = { position: 0, onAppended: () => undefined, onOverrun: () => undefined };
      const instance = (): ExpiringMap => {
        const names = new ExpiringMap(20);
        durableEngine(storage).open(listener).persistNames?.("lingering", names);
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
