import { expect, test } from "vitest";
import { seqOf } from "../support/clients/connection.ts";
import { codeOf } from "../support/test-broker.ts";
import { after, numbers, type Room, room } from "./support/room.ts";
import { epochOf, publish, replay, story } from "./support/story.ts";

// What an object remembers when its instance is gone.

type Restart = readonly [how: string, restart: (room: Room) => Promise<void>];
const RESTARTS: readonly Restart[] = [
  ["an eviction", (room) => room.evict()],
  ["an eviction that closes the sockets", (room) => room.evict("close")],
  ["a crash", (room) => room.abort()],
];

for (const [how, restart] of RESTARTS) {
  test(
    `after ${how} the epoch is the same, positions go on, and who comes back has everything`,
    room({}, async (room) => {
      const [first = ""] = await publish(room, ["1", "2", "3"], "a");
      await restart(room);
      expect((await room.stub.stats()).published).toBe(0);
      const [fourth = ""] = await publish(room, ["4"], "a");
      expect([epochOf(fourth), seqOf(fourth)]).toEqual([epochOf(first), 4]);
      await restart(room);
      expect(await replay(room, { channel: "a", lastEventId: first })).toEqual(["2", "3", "4"]);
      await restart(room);
      const ready = await (await room.connect({ channel: "a", lastEventId: fourth })).next();
      expect(JSON.parse(ready.data)).toMatchObject({ resumed: true });
    }),
  );

  test(
    `after ${how} no position is given twice, also when all events were dropped`,
    room({ retention: { age: 1_000 } }, async (room) => {
      const client = await room.join();
      const [first = "", second = ""] = await publish(room, ["1", "2", "3"]);
      await client.untilData("3");
      await after(2_000, () => room.alarm());
      expect(await room.rows("events")).toBe(0);
      await restart(room);
      const [fourth = ""] = await publish(room, ["4"]);
      expect([epochOf(fourth), seqOf(fourth)]).toEqual([epochOf(first), 4]);
      expect(await story(client, "4")).toEqual(["1", "2", "3", "4"]);
      const late = await room.connect({ lastEventId: second });
      expect(await story(late, "4")).toEqual(["fanwire-common: (2, 3]", "4"]);
    }),
  );

  test(
    `after ${how} retention by count holds for each channel, and the gap of who comes back is exact`,
    room({ retention: { events: 3 } }, async (room) => {
      const [first = "", second = ""] = await publish(room, numbers(1, 5, "a"), "a");
      await publish(room, numbers(1, 2, "b"), "b");
      await restart(room);
      const back = (lastEventId: string) => replay(room, { channel: ["a", "b"], lastEventId });
      expect(await back(first)).toEqual(["a: (1, 2]", "a3", "a4", "a5", "b1", "b2"]);
      await restart(room);
      await publish(room, ["a6"], "a");
      await restart(room);
      expect(await back(first)).toEqual(["a: (1, 3]", "a4", "a5", "b1", "b2", "a6"]);
      expect(await back(second)).toEqual(["a: (2, 3]", "a4", "a5", "b1", "b2", "a6"]);
      expect(await replay(room, { channel: "b", lastEventId: first })).toEqual(["b1", "b2"]);
    }),
  );

  test(
    `after ${how} retention by bytes holds, and the gap is exact`,
    room({ retention: { bytes: 2_500 } }, async (room) => {
      const data = numbers(1, 4).map((digit) => digit.repeat(1_000));
      const [first = "", second = ""] = await publish(room, data);
      await restart(room);
      expect(await replay(room, { lastEventId: first })).toEqual(["fanwire-common: (1, 2]", ...data.slice(2)]);
      expect(await replay(room, { lastEventId: second })).toEqual(data.slice(2));
    }),
  );

  test(
    `after ${how} an event is as old as since it was published, and not since the instance began`,
    room({ retention: { age: 10_000 } }, async (room) => {
      const [first = ""] = await publish(room, ["old", "also old"]);
      await after(8_000, () => publish(room, ["young"]));
      await restart(room);
      await after(12_000, async () => {
        expect(await replay(room, { lastEventId: first })).toEqual(["fanwire-common: (1, 2]", "young"]);
      });
    }),
  );

  test(
    `after ${how} an event of several channels is there as long as one of them keeps it, and once`,
    room({ retention: { events: 2 } }, async (room) => {
      const [both = ""] = await publish(room, ["both"], ["a", "b", "c"]);
      await publish(room, ["a1", "a2", "a3"], "a");
      const lastEventId = `${epochOf(both)}-0`;
      const look = async () => [
        await replay(room, { channel: "a", lastEventId }),
        await replay(room, { channel: "b", lastEventId }),
        await replay(room, { channel: ["a", "b", "c"], lastEventId }),
      ];
      const before = await look();
      // The gap is told where the reader is, and again where it ends.
      const ofA = ["a: (0, 2]", "both", "a: (0, 2]", "a2", "a3"];
      expect(before).toEqual([ofA, ["both"], ofA]);
      await restart(room);
      expect(await look()).toEqual(before);
      // Now b keeps it no longer, and c still does.
      await publish(room, ["b1", "b2"], "b");
      await restart(room);
      expect(await replay(room, { channel: "b", lastEventId })).toEqual(["both", "b1", "b2"]);
      await publish(room, ["c1", "c2"], "c");
      await restart(room);
      expect(await replay(room, { channel: "b", lastEventId })).toEqual(["b: (0, 1]", "b1", "b2"]);
    }),
  );

  test(
    `after ${how} a key is known: the same event is not published twice, and another one is refused`,
    room({}, async (room) => {
      const { hub } = room;
      const { id } = await hub.broadcast("once", { channels: ["a", "b"], idempotencyKey: "k" });
      await restart(room);
      expect((await hub.broadcast("once", { channels: ["b", "a"], idempotencyKey: "k" })).id).toBe(id);
      expect(await codeOf(hub.broadcast("other", { channels: ["a", "b"], idempotencyKey: "k" }))).toBe("key-reused");
      expect(await codeOf(hub.broadcast("once", { idempotencyKey: "k" }))).toBe("key-reused");
      expect(await room.rows("events")).toBe(1);
      expect(seqOf((await hub.broadcast("another", { idempotencyKey: "l" })).id)).toBe(2);
      await restart(room);
      await after(300_001, async () =>
        expect(seqOf((await hub.broadcast("once", { idempotencyKey: "k" })).id)).toBe(3),
      );
    }),
  );

  test(
    `after ${how} text is what it was, also with what SQLite would keep as something else`,
    room({}, async (room) => {
      const client = await room.join({ channel: "a" });
      const { lastEventId = "" } = client;
      await publish(room, ["a\0b", "\uFEFFx"], "a");
      const half = () => room.hub.broadcast("\uD800y", { channels: "a", idempotencyKey: "k" });
      const { id } = await half();
      const texts = ["a\0b", "\uFEFFx", "\uFFFDy"];
      expect(await story(client, "\uFFFDy")).toEqual(texts);
      await restart(room);
      expect(await replay(room, { channel: "a", lastEventId })).toEqual(texts);
      expect((await half()).id).toBe(id);
    }),
  );

  test(
    `after ${how} who was disconnected for a while is still turned away, and only for as long`,
    room({}, async (room) => {
      expect(await room.hub.disconnect("eve", { blockFor: 60_000 })).toEqual({ clients: 0 });
      await restart(room);
      expect((await room.ask({ id: "eve" })).status).toBe(204);
      await room.join({ id: "adam" });
      await restart(room);
      await after(60_001, async () => {
        await room.join({ id: "eve" });
      });
    }),
  );

  test(
    `after ${how} an inbox lingers: events for a client that left are kept for it`,
    room({ inboxLinger: 60_000 }, async (room) => {
      const client = await room.join({ id: "ada" });
      const { lastEventId = "" } = client;
      await client.leave();
      await room.gone();
      await restart(room);
      expect(await room.hub.broadcastTo("ada", "while away")).toMatchObject({ clients: 0 });
      await restart(room);
      expect(await story(await room.connect({ id: "ada", lastEventId }), "while away")).toEqual(["while away"]);
      expect(await codeOf(room.hub.broadcastTo("bob", "to nobody"))).toBe("unknown-client");
    }),
  );

  test(
    `after ${how} an inbox does not linger for longer than inboxLinger`,
    room({ inboxLinger: 60_000 }, async (room) => {
      const client = await room.join({ id: "ada" });
      await client.leave();
      await room.gone();
      await restart(room);
      await after(60_001, async () => {
        expect(await codeOf(room.hub.broadcastTo("ada", "too late"))).toBe("unknown-client");
      });
    }),
  );
}
