import { expect, test } from "vitest";
import { gapOf } from "../../support/clients/connection.ts";
import { numbers, replicas, TINY } from "../../support/engines/shared-log-processes.ts";

// A log that begins anew under brokers that go on, and what is published before they know.

test(
  "a new epoch: each client is told of one gap, and gets everything of the new log",
  replicas(
    async (world) => {
      const [here, there] = [world.broker({ log: TINY }), world.broker({ log: TINY })];
      const clients = [];
      for (const broker of [here, there, here]) clients.push(await world.join(broker, { channel: "a" }));
      await world.publish(here, numbers(1, 3));
      for (const client of clients.slice(0, 2)) await world.readTo(client, "3");
      world.store.beginAnew();
      await world.publish(there, numbers(4, 9));
      for (const [index, client] of clients.entries()) {
        await world.readTo(client, "9");
        expect(client.data.slice(-6)).toEqual(numbers(4, 9));
        if (index < 2) expect(client.data).toEqual(numbers(1, 9));
        expect(client.control("gap").map((event) => [event.id, gapOf(event)])).toEqual([
          ["e2-0", { channels: ["fanwire-common", "fanwire-inbox", "a"], after: null, through: "e2-0" }],
        ]);
      }
    },
    { page: 2 },
  ),
);

test(
  "a new epoch: an event of it is not reported as sent to those whose log this process still has",
  replicas(async (world) => {
    const broker = world.broker();
    const client = await world.join(broker);
    await world.publish(broker, numbers(1, 3));
    await world.readTo(client, "3");
    world.store.beginAnew();
    const { report, clients } = await world.clock.until(broker.broadcast("4", { report: true }));
    expect(clients).toBe(1);
    expect(await world.clock.until(report)).toMatchObject({ sent: 0, failed: [{ reason: "late" }] });
    expect(await world.readTo(client, "4")).toEqual(numbers(1, 4));
  }),
);

test(
  "a report without a feed: who is connected waits for the event, and has it when the feed is back",
  replicas(async (world) => {
    const broker = world.broker({ timeout: 60_000 });
    const client = await world.join(broker);
    world.session().feed(false);
    await world.clock.turns(5);
    const { report } = await world.clock.until(broker.broadcast("1", { report: true }));
    world.session().feed(true);
    expect(await world.readTo(client, "1")).toEqual(["1"]);
    expect(await world.clock.until(report)).toEqual({ sent: 1, failed: [] });
  }),
);

test(
  "a new epoch: the log is empty at once, and is made by who notices it",
  replicas(async (world) => {
    const broker = world.broker();
    const client = await world.join(broker);
    await world.publish(broker, ["1"]);
    await world.readTo(client, "1");
    world.store.lose();
    await world.clock.pass(6_000);
    expect(world.store.epochs).toEqual(["e1", "e2"]);
    await world.publish(broker, ["2"]);
    expect(await world.readTo(client, "2")).toEqual(["1", "2"]);
    expect(client.control("gap")).toHaveLength(1);
  }),
);

test(
  "a new epoch: what comes late of the one before it changes nothing",
  replicas(async (world) => {
    const broker = world.broker();
    const client = await world.join(broker);
    await world.publish(broker, ["1"]);
    await world.readTo(client, "1");
    const epoch = world.store.log?.epoch ?? "";
    world.store.beginAnew();
    await world.publish(broker, ["2"]);
    await world.readTo(client, "2");
    world.session().delay({ feed: 5 });
    world.session().tell({ epoch, seq: 2, keys: [""], previous: [1], text: "data: late\n\n" });
    await world.clock.turns(7);
    expect(broker.stats().engine).toBe("up");
    await world.publish(broker, ["3"]);
    expect(await world.readTo(client, "3")).toEqual(["1", "2", "3"]);
  }),
);

test(
  "a log that went back begins anew, and is told as a gap",
  replicas(async (world) => {
    const broker = world.broker();
    const client = await world.join(broker);
    await world.publish(broker, numbers(1, 3));
    await world.readTo(client, "3");
    world.store.log?.rollBack(1);
    await world.publish(broker, ["4"]);
    expect(await world.readTo(client, "4")).toEqual(numbers(1, 4));
    expect(client.control("gap").map(({ id }) => id)).toEqual(["e2-0"]);
  }),
);
