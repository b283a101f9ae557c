import { expect, test } from "vitest";
import { numbers, pause, withObject } from "./support/test-object.ts";
import { publish, replay, transcript, transcriptUntil } from "./support/transcript.ts";

// Gaps that other channels' retained events lie inside of, in both modes, and gaps after the object was lost.

for (const mode of ["bridge", "direct"] as const)
  test(
    `${mode}: a gap is announced at the reader's position, even if a large event of another channel comes before its end`,
    withObject({ retention: { events: 2 }, hub: { mode } }, async (object) => {
      const [first = ""] = await publish(object, ["0"], "z");
      await publish(object, ["a2", "a3"], "a");
      const large = "b".repeat(100_000);
      await publish(object, [large], "b");
      await publish(object, numbers(5, 10, "a"), "a");
      const parts = await replay(object, { channel: ["a", "b"], lastEventId: first });
      expect(parts).toEqual(["a: (1, 8]", large, "a: (1, 8]", "a9", "a10"]);
    }),
  );

test(
  "gap: a gap that was unread when the object was lost is sent by the next instance",
  withObject({ retention: { events: 4 }, timeout: Infinity }, async (object) => {
    const [first = ""] = await publish(object, ["0"], "z");
    await publish(object, ["a2", "a3"], "a");
    const large = numbers(4, 7, "b").map((data) => data.padEnd(100_000));
    await publish(object, large, "b");
    await publish(object, numbers(8, 14, "a"), "a");
    const client = await object.connect({ channel: ["a", "b"], lastEventId: first });
    await pause(50);
    await object.evict("close");
    await publish(object, ["end"]);
    const parts = await transcriptUntil(client, "end");
    expect(parts).toEqual(["a: (1, 10]", ...large, "a: (1, 10]", ...numbers(11, 14, "a"), "end"]);
  }),
);

test(
  "maxReplay: events beyond it become a gap when a stream continues after a loss",
  withObject({ maxReplay: { events: 0 } }, async (object) => {
    const client = await object.join();
    await publish(object, ["1"]);
    await client.untilData("1");
    await object.evict("close");
    await publish(object, ["2"]);
    await client.untilControl("gap");
    await publish(object, ["3"]);
    await client.untilData("3");
    expect(transcript(client)).toEqual(["1", "fanwire-common: (1, 2]", "3"]);
  }),
);
