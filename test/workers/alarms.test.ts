import { expect, test, vi } from "vitest";
import { BrokerObject } from "../../src/workers/index.ts";
import { kinds } from "../../src/workers/protocol.ts";
import { numbers, pause, room, until } from "./support/room.ts";
import { kindOf, passing } from "./support/sockets.ts";
import { publish, story } from "./support/story.ts";

// An object has one alarm, each costs a row and wakes it; and a subclass may have one of its own.

test(
  "keys that are forgotten one after the other do not wake the object one after the other",
  room({ idempotencyWindow: 200, inboxLinger: 0 }, async (room) => {
    await room.stub.stats();
    const alarm = vi.spyOn(BrokerObject.prototype, "alarm");
    try {
      for (const key of numbers(1, 60)) {
        await room.hub.broadcast("x", { idempotencyKey: key });
        await pause(5);
      }
      await pause(400);
      expect(alarm.mock.calls.length).toBeLessThan(3);
    } finally {
      alarm.mockRestore();
    }
    expect(await room.nextAlarm()).not.toBeNull();
  }),
);

test(
  "alarms that come soon after each other tell a quiet client where the log is once, and not each time",
  room({ retention: { age: 600_000 } }, async (room) => {
    const client = await room.join({ channel: "quiet" });
    let pulses = 0;
    const count = (frame: unknown): boolean => {
      if (kindOf(frame) === kinds.position) pulses++;
      return true;
    };
    await passing(count, async () => {
      for (const data of numbers(1, 20)) {
        await publish(room, [data], "busy");
        // The alarm is for what was sent on already.
        await pause(20);
        await room.inside((object) => object.alarm());
      }
    });
    expect(pulses).toBe(1);
    await publish(room, ["end"]);
    expect(await story(client, "end")).toEqual(["end"]);
  }),
);

const DAY = 86_400_000;

for (const [what, isUsed] of [
  ["an object that is not used any more", true],
  ["an object that never was used", false],
] as const)
  test(
    `${what} leaves a subclass its tables and its next alarm`,
    room({ inboxLinger: 0 }, async (room) => {
      if (isUsed) {
        await room.stub.stats();
        await until("its own alarm is set", async () => (await room.nextAlarm()) !== null);
      }
      const at = Date.now() + DAY;
      await room.inside(async (object, { storage }) => {
        storage.sql.exec("CREATE TABLE mine (x)");
        await storage.setAlarm(at);
        await object.alarm();
      });
      expect(await room.nextAlarm()).toBe(at);
      expect(await room.sql("SELECT name FROM sqlite_master WHERE name = 'mine' OR name LIKE 'fanwire%'")).toEqual([
        { name: "mine" },
      ]);
    }),
  );
