import { expect, test } from "vitest";
import { codeOf } from "../support/test-broker.ts";
import { numbers, withClockAhead, withObject } from "./support/test-object.ts";
import { publish } from "./support/transcript.ts";

// After a crash the object expects its clients back without knowing their ids, for a limited time.

const MINUTE = 60_000;

test(
  "expected returns: an object to which no client came back is emptied, even if its instance ended several times since",
  withObject({ retention: { age: MINUTE }, inboxLinger: MINUTE }, async (object) => {
    const client = await object.join();
    await publish(object, ["1"]);
    await object.crash();
    await client.leave();
    const alarms: boolean[] = [];
    for (const round of numbers(1, 5)) {
      await object.evict();
      await withClockAhead(Number(round) * 2 * MINUTE, async () => void alarms.push(await object.runAlarm()));
    }
    expect(alarms.at(-1), "no alarm is left").toBe(false);
    expect([await object.tables(), await object.nextAlarm()]).toEqual([[], null]);
  }),
);

test(
  "expected returns: every id counts as known for inboxLinger after a crash and no longer, even if the instance ended several times since",
  withObject({ inboxLinger: MINUTE }, async (object) => {
    const client = await object.join({ id: "ada" });
    await object.crash();
    await client.leave();
    const send = () => object.hub.broadcastTo("ada", "while away");
    expect(await send()).toMatchObject({ clients: 0 });
    await withClockAhead(MINUTE / 2, async () => {
      await object.evict();
      expect(await send()).toMatchObject({ clients: 0 });
    });
    await withClockAhead(MINUTE + 1_000, async () => {
      await object.evict();
      expect(await codeOf(send())).toBe("unknown-client");
    });
  }),
);

test(
  "expected returns: in one instance as well, every id counts as known for inboxLinger after a crash and no longer",
  withObject({ inboxLinger: MINUTE }, async (object) => {
    const client = await object.join({ id: "ada" });
    await object.crash();
    await client.leave();
    const send = () => object.hub.broadcastTo("bob", "while away");
    expect(await send()).toMatchObject({ clients: 0 });
    const { instances } = object;
    await withClockAhead(MINUTE - 1_000, async () => expect(await send()).toMatchObject({ clients: 0 }));
    await withClockAhead(MINUTE + 1_000, async () => expect(await codeOf(send())).toBe("unknown-client"));
    expect(object.instances).toBe(instances);
  }),
);
