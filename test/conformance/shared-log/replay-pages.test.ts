import { expect, test } from "vitest";
import { replicas, TINY } from "../../support/engines/shared-log-processes.ts";

// Pages: what this process does not hold is read from the store, for who waits for it.

test(
  "a client that waits for a page while the store is away gets heartbeats, and is not taken for stalled",
  replicas(
    async (world) => {
      const broker = world.broker({ log: TINY, timeout: 2_000, tolerance: 2, heartbeat: 1_000 });
      const client = await world.join(broker);
      await world.publish(broker, ["1", "2", "3", "4", "5", "6"]);
      world.session().commands(false);
      const reading = world.readTo(client, "6");
      await world.clock.pass(20_000);
      expect([client.comments > 10, broker.stats().blocked, broker.stats().disconnects]).toEqual([true, 0, {}]);
      world.session().commands(true);
      expect(await reading).toEqual(["1", "2", "3", "4", "5", "6"]);
      expect(client.control("gap")).toEqual([]);
    },
    { page: 2 },
  ),
);

test(
  "a client that waits for a page is told no position, or it would skip what it waits for",
  replicas(
    async (world) => {
      // So short that an idle client is told where the log is in place of a heartbeat.
      const broker = world.broker({ log: { ...TINY, retention: { age: 1_000 } }, heartbeat: 1_000 });
      const client = await world.join(broker);
      await world.publish(broker, ["1", "2", "3", "4", "5", "6"]);
      world.session().commands(false);
      const reading = world.readTo(client, "6");
      await world.clock.pass(5_000);
      expect([client.comments > 0, client.control("position")]).toEqual([true, []]);
      world.session().commands(true);
      expect(await reading).toEqual(["1", "2", "3", "4", "5", "6"]);
    },
    { page: 2 },
  ),
);

test(
  "a client that waits for a page can take its end instead, and is told it at once",
  replicas(
    async (world) => {
      const broker = world.broker({ log: TINY, timeout: 20_000 });
      const client = await world.join(broker, { id: "one" });
      await world.publish(broker, ["1", "2", "3", "4", "5", "6"]);
      world.session().delay({ answers: 1_000 });
      const end = client.untilControl("end");
      await world.clock.pass(100);
      const disconnected = broker.disconnect("one");
      await world.clock.pass(100);
      expect(broker.stats()).toMatchObject({ closing: 0, disconnects: { disconnected: 1 } });
      expect(JSON.parse((await world.clock.until(end)).data)).toMatchObject({ reason: "disconnected" });
      await world.clock.until(disconnected);
    },
    { page: 2 },
  ),
);

test(
  "a client whose grant expires while it waits for a page is told so",
  replicas(
    async (world) => {
      const expiresAt = Date.now() + 10_000;
      const broker = world.broker({ log: TINY, authorize: ({ channels }) => ({ channels, expiresAt }) });
      const client = await world.join(broker);
      await world.publish(broker, ["1", "2", "3", "4", "5", "6"]);
      world.session().commands(false);
      const end = client.untilControl("end");
      await world.clock.pass(11_000);
      expect(JSON.parse((await world.clock.until(end)).data)).toMatchObject({ reason: "expired" });
      expect(await world.clock.until(client.ended())).toBe("closed");
    },
    { page: 2 },
  ),
);

test(
  "a client that was given a page has nothing to take beyond it that is for others",
  replicas(
    async (world) => {
      const broker = world.broker({ log: TINY, timeout: 400, tolerance: 2 });
      const other = await world.join(broker, { id: "other" });
      const read = world.readTo(other, "4");
      const client = await world.join(broker, { id: "one" });
      await world.publish(broker, ["1", "2", "3", "4"]);
      await read;
      world.session().delay({ answers: 5 });
      const first = client.nextData();
      // The page ends before this, and is given after it.
      await world.clock.turns(1);
      await world.clock.until(broker.broadcastTo("other", "for the other"));
      expect((await world.clock.until(first)).data).toBe("1");
      await world.readTo(other, "for the other");
      await world.clock.pass(2_000);
      expect(broker.stats()).toMatchObject({ clients: 2, blocked: 0, disconnects: {} });
    },
    { page: 9 },
  ),
);

test(
  "many that come back to the same place have its page read once",
  replicas(async (world) => {
    const broker = world.broker({ log: TINY });
    const lastEventId = await world.publish(broker, ["1"]);
    const missed = ["2", "3", "4", "5", "6", "7", "8", "9"];
    await world.publish(broker, missed);
    const clients = await Promise.all(Array.from({ length: 20 }, () => world.join(broker, { lastEventId })));
    const before = world.store.reads.length;
    for (const data of await Promise.all(clients.map((client) => world.readTo(client, "9"))))
      expect(data).toEqual(missed);
    expect(world.store.reads.slice(before)).toEqual([[""]]);
  }),
);

test(
  "who comes back from a thousand places has its page read when others have theirs, a few at a time",
  replicas(
    async (world) => {
      const broker = world.broker({ log: TINY });
      const reader = await world.join(broker);
      const ids: string[] = [];
      for (let n = 0; n < 40; n++) ids.push(await world.publish(broker, [`${n}`]));
      await world.readTo(reader, "39");
      const clients = await Promise.all(ids.slice(0, 20).map((lastEventId) => world.join(broker, { lastEventId })));
      const before = world.store.reads.length;
      const reading = clients.map((client) => client.untilData("39"));
      let most = 0;
      let answered = before;
      for (const all = Promise.all(reading); ; ) {
        const now = world.store.reads.length;
        most = Math.max(most, now - answered);
        answered = now;
        if ((await Promise.race([all.then(() => true), world.clock.pass(1).then(() => false)])) === true) break;
      }
      expect([most > 0, most <= 8]).toEqual([true, true]);
      for (const client of clients) expect(client.control("gap")).toEqual([]);
    },
    { page: 3 },
  ),
);
