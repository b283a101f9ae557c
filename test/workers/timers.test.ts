import { expect, test } from "vitest";
import { activeTimers } from "../wire/servers/timers.ts";
import { numbers, pause, takeData, waitUntil, withObject } from "./support/test-object.ts";
import { publish } from "./support/transcript.ts";

// An object with a timer cannot hibernate. Tests, Workers and objects share one isolate here, so their timers are counted together: a Worker
// has two for each stream, its heartbeat and its ping.

/** Expects this number of timers in a while. The wait's own timer has ended when it counts. */
const expectTimers = async (timers: number): Promise<void> => {
  await waitUntil("the number of timers is right", () => activeTimers() === timers).catch(() => undefined);
  expect(activeTimers()).toBe(timers);
};

test(
  "timers: an object has none while no client is blocked, whatever was published",
  withObject({}, async (object) => {
    const before = activeTimers();
    await publish(object, ["1"]);
    await expectTimers(before);
    const clients = await Promise.all(numbers(1, 10).map((id) => object.join({ id })));
    for (const client of clients) void client.ended();
    await expectTimers(before + 2 * 10);
    await publish(object, numbers(2, 50));
    await waitUntil("all clients have it", () => clients.every(({ data }) => data.length === 49));
    await expectTimers(before + 2 * 10);
    const { report } = await object.hub.broadcast("reported", { report: true });
    expect((await report).sent).toBe(10);
    await expectTimers(before + 2 * 10);
    for (const client of clients) await client.leave();
    await object.untilNoClients();
    await expectTimers(before);
  }),
);

test(
  "timers: an object has one while a client is blocked, and none once it has everything",
  withObject({}, async (object) => {
    const before = activeTimers();
    const client = await object.join();
    // Until the client reads more than the opening, its Worker has a timer for a client that may never read.
    await publish(object, ["first"]);
    await client.untilData("first");
    const data = numbers(1, 60).map((number) => number.padEnd(10_000));
    await publish(object, data);
    await pause(50);
    // The client is blocked at the object, and at its Worker.
    await expectTimers(before + 2 + 2);
    expect(await takeData(client, 60)).toEqual(data);
    void client.ended();
    await expectTimers(before + 2);
    await client.leave();
    await expectTimers(before);
  }),
);

test(
  "timers: a Worker keeps none for a stream whose object was lost and whose client left",
  withObject({}, async (object) => {
    const before = activeTimers();
    const clients = await Promise.all(numbers(1, 5).map((id) => object.join({ id })));
    await object.crash();
    for (const client of clients) await client.leave();
    await pause(300);
    await expectTimers(before);
    expect((await object.stub.stats()).clients).toBe(0);
  }),
);
