import { expect, test } from "vitest";
import { numbers, type Room, room } from "./support/room.ts";
import { publish, replay, story } from "./support/story.ts";

// An object knows only so many channels without a client. What it forgot is told as a gap that may be; what it did not forget is not.

/** Uses so many channels that most are forgotten, and that this is written down. */
async function forget(room: Room): Promise<void> {
  const before = await room.rows("events");
  await room.inside(async (object) => {
    for (const channel of numbers(1, 100)) await object.broadcast("x", { channels: channel });
  });
  expect(await room.rows("events")).toBeLessThan(before + 100);
}

/** What somebody who comes back to a is told of a. */
async function ofA(room: Room, lastEventId: string): Promise<string[]> {
  const parts = await replay(room, { channel: "a", lastEventId });
  // Of what is common nobody was there to read, so that is forgotten as well.
  return parts.filter((part) => !part.startsWith("fanwire-"));
}

const FEW = { maxChannels: 2, inboxLinger: 0 };

for (const restarts of [false, true]) {
  const when = restarts ? "after a restart" : "in one instance";
  const again = async (room: Room): Promise<void> => {
    if (restarts) await room.evict();
  };

  test(
    `${when} who comes back to a channel that was forgotten is told of a gap`,
    room(FEW, async (room) => {
      const [first = ""] = await publish(room, ["a1", "a2"], "a");
      await forget(room);
      await again(room);
      await publish(room, ["a3"], "a");
      const [gap, ...events] = await ofA(room, first);
      expect([gap?.slice(0, 6), events.at(-1)]).toEqual(["a: (1,", "a3"]);
    }),
  );

  test(
    `${when} what a channel lost is told, also if others were forgotten since`,
    room({ ...FEW, retention: { events: 1 } }, async (room) => {
      const client = await room.join({ channel: "a" });
      const [first = ""] = await publish(room, ["a1", "a2"], "a");
      await client.untilData("a2");
      await room.alarm();
      await forget(room);
      await publish(room, ["a3"], "a");
      await client.untilData("a3");
      await room.alarm();
      await again(room);
      const [gap, ...events] = await ofA(room, first);
      expect([gap?.slice(0, 6), events.at(-1)]).toEqual(["a: (1,", "a3"]);
    }),
  );

  test(
    `${when} there is no gap in a channel that lost nothing, also if others were forgotten`,
    room(FEW, async (room) => {
      await room.join({ channel: "a" });
      const [first = ""] = await publish(room, ["a1"], "a");
      await forget(room);
      await publish(room, ["a2"], "a");
      await again(room);
      expect(await ofA(room, first)).toEqual(["a2"]);
    }),
  );

  test(
    `${when} a client that is connected is told of no gap, also if channels were forgotten`,
    room(FEW, async (room) => {
      const client = await room.join({ channel: ["a", "quiet"] });
      await publish(room, ["a1"], "a");
      await client.untilData("a1");
      await forget(room);
      await again(room);
      await publish(room, ["a2"], "a");
      expect(await story(client, "a2")).toEqual(["a1", "a2"]);
    }),
  );
}

for (const restarts of [false, true])
  test(
    `${restarts ? "after a restart" : "in one instance"} a gap is told that is younger than an event which another channel keeps`,
    room({ retention: { events: 2 }, logBytes: 5_000 }, async (room) => {
      const [first = ""] = await publish(room, ["both"], ["a", "b"]);
      await publish(room, ["x".repeat(40_000)], "a");
      await room.alarm();
      if (restarts) await room.evict();
      expect(await replay(room, { channel: "a", lastEventId: first })).toEqual(["a: (1, 2]"]);
      await publish(room, ["a3"], "a");
      expect(await replay(room, { channel: "a", lastEventId: first })).toEqual(["a: (1, 2]", "a3"]);
    }),
  );
