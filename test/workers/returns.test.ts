import { expect, test } from "vitest";
import { codeOf } from "../support/test-broker.ts";
import { after, numbers, room } from "./support/room.ts";
import { publish } from "./support/story.ts";

// Clients that were lost with an instance are expected back, nobody knows which; and not for ever.

const MINUTE = 60_000;

test(
  "nothing is left of an object to which nobody came back after a crash, however often its instance ended since",
  room({ retention: { age: MINUTE }, inboxLinger: MINUTE }, async (room) => {
    const client = await room.join();
    await publish(room, ["1"]);
    await room.abort();
    await client.leave();
    const alarms: boolean[] = [];
    for (const round of numbers(1, 5)) {
      await room.evict();
      await after(Number(round) * 2 * MINUTE, async () => void alarms.push(await room.alarm()));
    }
    expect(alarms.at(-1), "there is nothing left to wake it for").toBe(false);
    expect([await room.tables(), await room.nextAlarm()]).toEqual([[], null]);
  }),
);

test(
  "after a crash every client is taken to exist for inboxLinger and not for longer, however often its instance ended since",
  room({ inboxLinger: MINUTE }, async (room) => {
    const client = await room.join({ id: "ada" });
    await room.abort();
    await client.leave();
    const send = () => room.hub.broadcastTo("ada", "while away");
    expect(await send()).toMatchObject({ clients: 0 });
    await after(MINUTE / 2, async () => {
      await room.evict();
      expect(await send()).toMatchObject({ clients: 0 });
    });
    await after(MINUTE + 1_000, async () => {
      await room.evict();
      expect(await codeOf(send())).toBe("unknown-client");
    });
  }),
);
