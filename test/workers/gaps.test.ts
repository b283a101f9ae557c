import { expect, test } from "vitest";
import { numbers, pause, room } from "./support/room.ts";
import { publish, replay, story, told } from "./support/story.ts";

// A gap that comes before what is kept of other channels, and gaps over the loss of the object: the same in both modes.

for (const mode of ["bridge", "direct"] as const)
  test(
    `${mode}: a gap is told where the reader is, also if much of another channel comes before it ends`,
    room({ retention: { events: 2 }, hub: { mode } }, async (room) => {
      const [first = ""] = await publish(room, ["0"], "z");
      await publish(room, ["a2", "a3"], "a");
      const large = "b".repeat(100_000);
      await publish(room, [large], "b");
      await publish(room, numbers(5, 10, "a"), "a");
      const parts = await replay(room, { channel: ["a", "b"], lastEventId: first });
      expect(parts).toEqual(["a: (1, 8]", large, "a: (1, 8]", "a9", "a10"]);
    }),
  );

test(
  "a gap that a client did not read yet when the object was lost is told by the next instance",
  room({ retention: { events: 4 }, timeout: Infinity }, async (room) => {
    const [first = ""] = await publish(room, ["0"], "z");
    await publish(room, ["a2", "a3"], "a");
    const large = numbers(4, 7, "b").map((data) => data.padEnd(100_000));
    await publish(room, large, "b");
    await publish(room, numbers(8, 14, "a"), "a");
    const client = await room.connect({ channel: ["a", "b"], lastEventId: first });
    await pause(50);
    await room.evict("close");
    await publish(room, ["end"]);
    const parts = await story(client, "end");
    expect(parts).toEqual(["a: (1, 10]", ...large, "a: (1, 10]", ...numbers(11, 14, "a"), "end"]);
  }),
);

test(
  "what maxReplay keeps from a stream that goes on after a loss is told as a gap",
  room({ maxReplay: { events: 0 } }, async (room) => {
    const client = await room.join();
    await publish(room, ["1"]);
    await client.untilData("1");
    await room.evict("close");
    await publish(room, ["2"]);
    await client.untilControl("gap");
    await publish(room, ["3"]);
    await client.untilData("3");
    expect(told(client)).toEqual(["1", "fanwire-common: (1, 2]", "3"]);
  }),
);
