import { expect, test } from "vitest";
import { gapOf } from "../../support/clients/connection.ts";
import { numbers, replicas, TINY } from "../../support/engines/shared-log-processes.ts";
import { codeOf, Witness } from "../../support/test-broker.ts";

test(
  "resume: from a position that this process never held",
  replicas(
    async (world) => {
      const [here, there] = [world.broker({ log: TINY }), world.broker({ log: TINY })];
      const first = await world.publish(here, ["1"]);
      await world.publish(here, numbers(2, 9));

      const client = await world.join(there, { lastEventId: first });

      expect(await world.readTo(client, "9")).toEqual(numbers(2, 9));
      expect(client.control("gap")).toEqual([]);
    },
    { page: 3 },
  ),
);

test(
  "resume: in a channel that this process did not follow before",
  replicas(async (world) => {
    const [here, there] = [world.broker(), world.broker()];
    await world.join(there);
    const lastEventId = await world.publish(here, ["1"], "a");
    await world.publish(here, ["2", "3"], "a");
    const client = await world.join(there, { channel: "a", lastEventId });
    expect(await world.readTo(client, "3")).toEqual(["2", "3"]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "resume: an event of two channels, of which this process holds one, comes once",
  replicas(async (world) => {
    const [here, there] = [world.broker(), world.broker()];
    await world.join(there, { channel: "a" });
    await world.clock.until(here.broadcast("1", { channels: ["a", "b"] }));
    await world.clock.until(here.broadcast("2", { channels: ["a", "b"] }));

    const client = await world.join(there, { channel: ["a", "b"], query: { from: "earliest" } });
    await world.publish(here, ["3"]);

    expect(await world.readTo(client, "3")).toEqual(["1", "2", "3"]);
  }),
);

test(
  "resume: from a position that another process has told, and this one has not come to yet",
  replicas(async (world) => {
    const [here, there] = [world.broker(), world.broker()];
    const reader = await world.join(here, { id: "one" });
    await world.join(there, { id: "one" });
    await world.publish(here, ["1"]);
    world.session(1).delay({ feed: 10_000 });
    await world.publish(here, ["2"]);
    await world.readTo(reader, "2");

    const client = await world.connect(there, { id: "one", lastEventId: reader.lastEventId as string });
    world.store.time += 10_000;
    world.session(1).delay();
    await world.publish(here, ["3"]);

    expect(await world.readTo(client, "3")).toEqual(["3"]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "resume: from a position that this one has not come to yet, and it missed more than it can hold",
  replicas(
    async (world) => {
      const [here, there] = [world.broker(), world.broker({ log: TINY })];
      await world.join(there, { id: "one", channel: "a" });
      await world.publish(here, ["1"]);
      world.session().swallows = Infinity;
      const lastEventId = await world.publish(here, ["x".repeat(300), "3"]);

      const client = await world.connect(there, { id: "one", channel: "a", lastEventId });
      await world.publish(here, ["4"], "a");
      await world.clock.pass(9_000);

      expect(await world.readTo(client, "4")).toEqual(["4"]);
      expect([client.control("gap"), world.session().renewals]).toEqual([[], 1]);
    },
    { page: 1 },
  ),
);

test(
  "from=earliest: everything that the store keeps",
  replicas(
    async (world) => {
      const [here, there] = [world.broker({ log: TINY }), world.broker({ log: TINY })];
      await world.publish(here, numbers(1, 9));
      const client = await world.join(there, { query: { from: "earliest" } });
      expect(await world.readTo(client, "9")).toEqual(numbers(5, 9));
      expect(client.control("gap")).toEqual([]);
    },
    { page: 2, retention: 5 },
  ),
);

test(
  "maxReplay: the newest of what the store keeps, and a gap before it",
  replicas(
    async (world) => {
      const here = world.broker();
      const there = world.broker({ maxReplay: { events: 3 } });
      const first = await world.publish(here, ["1"]);
      await world.publish(here, numbers(2, 9));
      const client = await world.join(there, { lastEventId: first });
      expect(await world.readTo(client, "9")).toEqual(numbers(7, 9));
      expect(client.control("gap").map(gapOf)).toEqual([
        { channels: ["fanwire-common"], after: "e1-1", through: "e1-6" },
      ]);
    },
    { page: 2 },
  ),
);

test(
  "resume: a foreign id is told of a gap, and given all that the store keeps",
  replicas(
    async (world) => {
      const [here, there] = [world.broker(), world.broker()];
      await world.publish(here, numbers(1, 4));
      const client = await world.join(there, { lastEventId: "elsewhere-2" });
      expect(await world.readTo(client, "4")).toEqual(numbers(1, 4));
      expect(client.control("gap").map(gapOf)).toEqual([
        { channels: ["fanwire-common", "fanwire-inbox"], after: null, through: "e1-0" },
      ]);
    },
    { page: 1 },
  ),
);

test(
  "a slow client that the local log overran reads on from the store, without a gap",
  replicas(
    async (world) => {
      const broker = world.broker({ log: TINY });
      const client = await world.join(broker);
      await world.publish(broker, numbers(1, 30));
      expect(broker.stats().log.events).toBeLessThan(4);
      expect(await world.readTo(client, "30")).toEqual(numbers(1, 30));
      expect([client.control("gap"), broker.stats().overruns]).toEqual([[], 0]);
    },
    { page: 3 },
  ),
);

test(
  "a slow client is told of what the store does not keep any more",
  replicas(
    async (world) => {
      const broker = world.broker({ log: TINY });
      const client = await world.join(broker, { channel: "a" });
      await world.publish(broker, numbers(1, 9), "a");
      await world.publish(broker, ["x"]);
      expect(await world.readTo(client, "x")).toEqual([...numbers(6, 9), "x"]);
      expect(client.control("gap").map(gapOf)).toEqual([{ channels: ["a"], after: "e1-0", through: "e1-5" }]);
    },
    { retention: 4, page: 2 },
  ),
);

test(
  "a lost feed is healed by one read for all: nothing is missing, nothing comes twice",
  replicas(async (world) => {
    const [here, there] = [world.broker(), world.broker()];
    const clients = [];
    for (const channel of ["a", "b", "a", "b", "a"]) clients.push(await world.join(here, { channel }));
    await world.publish(there, ["1"]);
    world.session().feed(false);
    await world.publish(there, numbers(2, 5));
    await world.publish(there, ["in a"], "a");
    await world.publish(there, ["in b"], "b");
    const reads = world.store.reads.length;
    world.session().feed(true);
    await world.clock.turns(20);
    expect(world.store.reads.length - reads).toBe(1);
    await world.publish(there, ["6"]);
    for (const [index, client] of clients.entries()) {
      const own = index % 2 === 0 ? "in a" : "in b";
      expect(await world.readTo(client, "6")).toEqual([...numbers(1, 5), own, "6"]);
      expect(client.control("gap")).toEqual([]);
    }
  }),
);

test(
  "a message that vanished and has nothing after it is found by the next mark",
  replicas(async (world) => {
    const [here, there] = [world.broker(), world.broker()];
    const client = await world.join(here);
    world.session().swallows = 1;
    await world.publish(there, ["1"]);
    await world.clock.turns(20);
    expect(here.stats().sent).toBe(0);
    await world.clock.pass(5_000);
    expect(await world.readTo(client, "1")).toEqual(["1"]);
    expect([client.control("gap"), world.session().renewals]).toEqual([[], 0]);
  }),
);

test(
  "a message that vanished in the middle is found by the next of its channel, and comes before it",
  replicas(async (world) => {
    const [here, there] = [world.broker(), world.broker()];
    const client = await world.join(here);
    await world.publish(there, ["1"]);
    world.session().swallows = 1;
    await world.publish(there, ["2", "3", "4"]);
    expect(await world.readTo(client, "4")).toEqual(numbers(1, 4));
    expect([client.control("gap"), world.clock.time < 1_000]).toEqual([[], true]);
  }),
);

test(
  "a message that vanished before others of another channel is told as a gap to who is past it, and given to who is not",
  replicas(async (world) => {
    const [here, there] = [world.broker(), world.broker()];
    const both = await world.join(here, { channel: ["a", "b"] });
    const one = await world.join(here, { channel: "a" });
    world.session().swallows = 1;
    await world.publish(there, ["1"], "a");
    await world.publish(there, ["2"], "b");
    expect(await world.readTo(both, "2")).toEqual(["2"]);
    await world.clock.pass(6_000);
    await world.publish(there, ["3"], "a");
    expect(await world.readTo(both, "3")).toEqual(["2", "3"]);
    expect(both.control("gap").map(gapOf)).toEqual([{ channels: ["a"], after: "e1-0", through: "e1-1" }]);
    expect(await world.readTo(one, "3")).toEqual(["1", "3"]);
    expect(one.control("gap")).toEqual([]);
  }),
);

test(
  "several that vanished, of which the store keeps the last, are all told to who is past them",
  replicas(
    async (world) => {
      const [here, there] = [world.broker(), world.broker()];
      const client = await world.join(here, { channel: ["a", "b"] });
      world.session().swallows = 3;
      await world.publish(there, ["1", "2", "3"], "a");
      await world.publish(there, ["4"], "b");
      expect(await world.readTo(client, "4")).toEqual(["4"]);
      await world.clock.pass(6_000);
      await world.publish(there, ["5"], "b");
      await world.readTo(client, "5");
      expect(client.control("gap").map(gapOf)).toEqual([{ channels: ["a"], after: "e1-0", through: "e1-3" }]);
    },
    { retention: 1 },
  ),
);

test(
  "what is read after the mark, and says that more was dropped than is behind it, is taken up to the mark",
  replicas(
    async (world) => {
      const errors = new Witness<unknown>();
      const [here, there] = [world.broker({ log: TINY, onError: errors.see }), world.broker()];
      const client = await world.join(here, { channel: "a" });
      const reading = client.untilData("6");
      world.session().feed(false);
      await world.publish(there, ["1", "2"], "a");
      world.session().delay({ requests: 40, feed: 200 });
      world.session().feed(true);
      while (world.store.reads.length === 0) await world.clock.turns(1);
      await world.publish(there, ["3", "4", "5"], "a");
      await world.clock.turns(250);
      world.session().delay();
      expect(errors.all).toEqual([]);
      await world.publish(there, ["6"]);
      await world.clock.until(reading);
      expect(client.data).toEqual(["3", "4", "5", "6"]);
      expect(client.control("gap").map(gapOf)).toEqual([{ channels: ["a"], after: "e1-0", through: "e1-4" }]);
    },
    { retention: 1 },
  ),
);

test(
  "a feed through which nothing comes is made anew, and healed",
  replicas(async (world) => {
    const [here, there] = [world.broker(), world.broker()];
    const client = await world.join(here);
    world.session().swallows = Infinity;
    await world.publish(there, numbers(1, 3));
    await world.clock.pass(9_000);
    expect(world.session().renewals).toBe(1);
    expect(await world.readTo(client, "3")).toEqual(numbers(1, 3));
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "append: what was published before anything could be asked keeps its order, with what is published as soon as it can",
  replicas(
    async (world) => {
      const broker = world.broker();
      const publishing = [broker.broadcast("1"), broker.broadcast("2")];
      world.session().commands(true);
      publishing.push(broker.broadcast("3"));
      world.session().feed(true);
      const ids = (await world.clock.until(Promise.all(publishing))).map(({ id }) => id);
      expect(ids).toEqual(["e1-1", "e1-2", "e1-3"]);
    },
    { isAway: true },
  ),
);

test(
  "append: the publisher is told when those who read here are sent the event, and not before",
  replicas(async (world) => {
    const broker = world.broker();
    const client = await world.join(broker);
    const reading = client.read();
    world.session().delay({ feed: 20 });
    await world.clock.until(broker.broadcast("1"));
    await Promise.race([reading, world.clock.turns(5)]);
    expect(client.data).toEqual(["1"]);
  }),
);

test(
  "append: refused while the store is away, unknown if its answer was lost, and never twice",
  replicas(async (world) => {
    const broker = world.broker();
    const client = await world.join(broker);
    world.session().losesAnswer = true;
    expect(await world.clock.until(codeOf(broker.broadcast("1")))).toBe("publish-outcome-unknown");
    world.session().commands(false);
    expect([await codeOf(broker.broadcast("2")), broker.stats().engine]).toEqual(["engine-down", "down"]);
    world.session().commands(true);
    await world.publish(broker, ["3"]);
    expect(await world.readTo(client, "3")).toEqual(["1", "3"]);
  }),
);
