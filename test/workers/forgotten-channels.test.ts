import { expect, test } from "vitest";
import { numbers, type TestObject, withObject } from "./support/test-object.ts";
import { publish, replay, transcriptUntil } from "./support/transcript.ts";

// An object knows at most maxChannels channels without a client. A client of a forgotten channel receives a possible gap; others receive none.

/** Uses enough channels that most are forgotten, and that the object stores this. */
async function forgetChannels(object: TestObject): Promise<void> {
  const before = await object.rowCount("events");
  await object.inside(async (instance) => {
    for (const channel of numbers(1, 100)) await instance.broadcast("x", { channels: channel });
  });
  expect(await object.rowCount("events")).toBeLessThan(before + 100);
}

/** Returns the transcript of a client that comes back to channel a. */
async function replayOfA(object: TestObject, lastEventId: string): Promise<string[]> {
  const parts = await replay(object, { channel: "a", lastEventId });
  // No client read the common channel, so it is forgotten as well, and its gap does not matter here.
  return parts.filter((part) => !part.startsWith("fanwire-"));
}

const FEW_CHANNELS = { maxChannels: 2, inboxLinger: 0 };

for (const restarts of [false, true]) {
  const where = restarts ? "after a restart" : "in one instance";
  const restart = async (object: TestObject): Promise<void> => {
    if (restarts) await object.evict();
  };

  test(
    `maxChannels: a client that comes back to a forgotten channel receives a gap (${where})`,
    withObject(FEW_CHANNELS, async (object) => {
      const [first = ""] = await publish(object, ["a1", "a2"], "a");
      await forgetChannels(object);
      await restart(object);
      await publish(object, ["a3"], "a");
      const [gap, ...events] = await replayOfA(object, first);
      expect([gap?.slice(0, 6), events.at(-1)]).toEqual(["a: (1,", "a3"]);
    }),
  );

  test(
    `maxChannels: a channel's dropped events are still reported as a gap if others were forgotten since (${where})`,
    withObject({ ...FEW_CHANNELS, retention: { events: 1 } }, async (object) => {
      const client = await object.join({ channel: "a" });
      const [first = ""] = await publish(object, ["a1", "a2"], "a");
      await client.untilData("a2");
      await object.runAlarm();
      await forgetChannels(object);
      await publish(object, ["a3"], "a");
      await client.untilData("a3");
      await object.runAlarm();
      await restart(object);
      const [gap, ...events] = await replayOfA(object, first);
      expect([gap?.slice(0, 6), events.at(-1)]).toEqual(["a: (1,", "a3"]);
    }),
  );

  test(
    `maxChannels: a channel that dropped nothing has no gap if others were forgotten (${where})`,
    withObject(FEW_CHANNELS, async (object) => {
      await object.join({ channel: "a" });
      const [first = ""] = await publish(object, ["a1"], "a");
      await forgetChannels(object);
      await publish(object, ["a2"], "a");
      await restart(object);
      expect(await replayOfA(object, first)).toEqual(["a2"]);
    }),
  );

  test(
    `maxChannels: a connected client receives no gap if channels were forgotten (${where})`,
    withObject(FEW_CHANNELS, async (object) => {
      const client = await object.join({ channel: ["a", "quiet"] });
      await publish(object, ["a1"], "a");
      await client.untilData("a1");
      await forgetChannels(object);
      await restart(object);
      await publish(object, ["a2"], "a");
      expect(await transcriptUntil(client, "a2")).toEqual(["a1", "a2"]);
    }),
  );
}

for (const restarts of [false, true])
  test(
    `gap: it may be newer than an event that another channel keeps (${restarts ? "after a restart" : "in one instance"})`,
    withObject({ retention: { events: 2 }, logBytes: 5_000 }, async (object) => {
      const [first = ""] = await publish(object, ["both"], ["a", "b"]);
      await publish(object, ["x".repeat(40_000)], "a");
      await object.runAlarm();
      if (restarts) await object.evict();
      expect(await replay(object, { channel: "a", lastEventId: first })).toEqual(["a: (1, 2]"]);
      await publish(object, ["a3"], "a");
      expect(await replay(object, { channel: "a", lastEventId: first })).toEqual(["a: (1, 2]", "a3"]);
    }),
  );
