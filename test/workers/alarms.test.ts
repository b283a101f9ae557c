import { expect, test, vi } from "vitest";
import { BrokerObject } from "../../src/workers/index.ts";
import { kinds } from "../../src/workers/protocol.ts";
import { interceptFrames, kindOf } from "./support/sockets.ts";
import { keptIn, numbers, pause, waitUntil, withClockAhead, withObject } from "./support/test-object.ts";
import { publish, transcriptUntil } from "./support/transcript.ts";

// The alarm of an object. There is only one, setting it costs a row, running it wakes the object, and a subclass may use it as well.

test(
  "alarm: idempotency keys that expire one after another do not each wake the object",
  withObject({ idempotencyWindow: 200, inboxLinger: 0 }, async (object) => {
    await object.stub.stats();
    const alarm = vi.spyOn(BrokerObject.prototype, "alarm");
    try {
      for (const key of numbers(1, 60)) {
        await object.hub.broadcast("x", { idempotencyKey: key });
        await pause(5);
      }
      await pause(400);
      expect(alarm.mock.calls.length).toBeLessThan(3);
    } finally {
      alarm.mockRestore();
    }
    expect(await object.nextAlarm()).not.toBeNull();
  }),
);

test(
  "alarm: several alarms in a row send one fanwire-position to a quiet client",
  withObject({ retention: { age: 600_000 } }, async (object) => {
    const client = await object.join({ channel: "quiet" });
    let positions = 0;
    const countPositions = (frame: unknown): boolean => {
      if (kindOf(frame) === kinds.position) positions++;
      return true;
    };
    await interceptFrames(countPositions, async () => {
      for (const data of numbers(1, 20)) {
        await publish(object, [data], "busy");
        // The alarm only covers events that were already sent.
        await pause(20);
        await object.inside((instance) => instance.alarm());
      }
    });
    expect(positions).toBe(1);
    await publish(object, ["end"]);
    expect(await transcriptUntil(client, "end")).toEqual(["end"]);
  }),
);

const DAY = 86_400_000;

for (const [state, isUsed] of [
  ["an object that is no longer used", true],
  ["an object that was never used", false],
] as const)
  test(
    `alarm: ${state} keeps the tables and the next alarm of a subclass`,
    withObject({ inboxLinger: 0 }, async (object) => {
      if (isUsed) {
        await object.stub.stats();
        await waitUntil("the broker's alarm is set", async () => (await object.nextAlarm()) !== null);
      }
      const at = Date.now() + DAY;
      await object.inside(async (instance, { storage }) => {
        storage.sql.exec("CREATE TABLE mine (x)");
        await storage.setAlarm(at);
        await instance.alarm();
      });
      expect(await object.nextAlarm()).toBe(at);
      expect(await object.sql("SELECT name FROM sqlite_master WHERE name = 'mine' OR name LIKE 'fanwire%'")).toEqual([
        { name: "mine" },
      ]);
    }),
  );

test(
  "alarm: rows are deleted when the last channel of an event has released it, and each alarm comes for the channel that is next",
  withObject({ retention: { age: 600_000 }, channels: keptIn, inboxLinger: 0 }, async (object) => {
    const rows = (): Promise<number> => object.rowCount("events");
    await publish(object, ["both"], ["typing", "chat"]);
    await publish(object, ["passing"], "typing");
    await publish(object, ["young"], "other");
    await object.runAlarm();
    // Of the event that nothing keeps, nothing is left.
    expect(await rows()).toBe(2);
    // Half of the ten minutes of "other" decide, not the hour of "chat".
    const soon = ((await object.nextAlarm()) ?? 0) - Date.now();
    expect([soon > 200_000, soon <= 300_000]).toEqual([true, true]);
    await withClockAhead(601_000, async () => {
      await object.runAlarm();
      expect(await rows()).toBe(1);
      const later = ((await object.nextAlarm()) ?? 0) - Date.now();
      expect([later > 1_000_000, later <= 1_800_000]).toEqual([true, true]);
    });
    await withClockAhead(3_601_000, () => object.runAlarm());
    // Nothing is left, so the object has dropped its tables.
    expect(await rows()).toBe(-1);
  }),
);
