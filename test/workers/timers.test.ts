import { expect, test } from "vitest";
import { activeTimers } from "../wire/servers/timers.ts";
import { numbers, pause, room, take, until } from "./support/room.ts";
import { publish } from "./support/story.ts";

// An object with a timer is not put to sleep. Tests, Workers and objects are in one isolate here, so their timers are counted together:
// a Worker has two for each stream, its heartbeat and its echo.

/** Waits until there are so many timers; the one of the wait itself is over when it looks. */
const settled = async (timers: number): Promise<void> => {
  await until("timers are set or cleared", () => activeTimers() === timers, 2_000).catch(() => undefined);
  expect(activeTimers()).toBe(timers);
};

test(
  "an object has no timer while nobody is behind, whoever is connected and whatever was published",
  room({}, async (room) => {
    const none = activeTimers();
    await publish(room, ["1"]);
    await settled(none);
    const clients = await Promise.all(numbers(1, 10).map((id) => room.join({ id })));
    for (const client of clients) void client.ended();
    await settled(none + 2 * 10);
    await publish(room, numbers(2, 50));
    await until("all have it", () => clients.every(({ data }) => data.length === 49));
    await settled(none + 2 * 10);
    const { report } = await room.hub.broadcast("reported", { report: true });
    expect((await report).sent).toBe(10);
    await settled(none + 2 * 10);
    for (const client of clients) await client.leave();
    await room.gone();
    await settled(none);
  }),
);

test(
  "an object has one timer while somebody is behind, and none any more once they have everything",
  room({}, async (room) => {
    const none = activeTimers();
    const client = await room.join();
    // Until it asks for more than the beginning, its Worker takes it for one that may never begin.
    await publish(room, ["first"]);
    await client.untilData("first");
    const data = numbers(1, 60).map((number) => number.padEnd(10_000));
    await publish(room, data);
    await pause(50);
    // It is behind at the object, and at its Worker.
    await settled(none + 2 + 2);
    expect(await take(client, 60)).toEqual(data);
    void client.ended();
    await settled(none + 2);
    await client.leave();
    await settled(none);
  }),
);

test(
  "a Worker has no timer left of a stream whose object was lost and whose client left",
  room({}, async (room) => {
    const none = activeTimers();
    const clients = await Promise.all(numbers(1, 5).map((id) => room.join({ id })));
    await room.abort();
    for (const client of clients) await client.leave();
    await pause(300);
    await settled(none);
    expect((await room.stub.stats()).clients).toBe(0);
  }),
);
