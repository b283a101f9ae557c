// Events that this process does not hold: the store is read page by page for the clients that wait.
import { expect, test } from "vitest";
import { numbers, sharedLogTest, TINY } from "../../support/engines/shared-log-processes.ts";
import { codeOf } from "../../support/test-broker.ts";

test(
  "history: a client that waits for a page while the store is away gets heartbeats, and does not count as blocked",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY, timeout: 2_000, tolerance: 2, heartbeat: 1_000 });
      const client = await processes.join(broker);
      await processes.publish(broker, ["1", "2", "3", "4", "5", "6"]);
      processes.session().setCommands(false);
      const reading = processes.readThrough(client, "6");
      await processes.clock.advance(20_000);
      expect([client.comments > 10, broker.stats().blocked, broker.stats().disconnects]).toEqual([true, 0, {}]);
      processes.session().setCommands(true);
      expect(await reading).toEqual(["1", "2", "3", "4", "5", "6"]);
      expect(client.control("gap")).toEqual([]);
    },
    { pageSize: 2 },
  ),
);

test(
  "fanwire-position: not sent to a client that waits for a page, because it would skip the events it waits for",
  sharedLogTest(
    async (processes) => {
      // So short that an idle client receives `fanwire-position` in place of a heartbeat.
      const broker = processes.broker({ log: { ...TINY, retention: { age: 1_000 } }, heartbeat: 1_000 });
      const client = await processes.join(broker);
      await processes.publish(broker, ["1", "2", "3", "4", "5", "6"]);
      processes.session().setCommands(false);
      const reading = processes.readThrough(client, "6");
      await processes.clock.advance(5_000);
      expect([client.comments > 0, client.control("position")]).toEqual([true, []]);
      processes.session().setCommands(true);
      expect(await reading).toEqual(["1", "2", "3", "4", "5", "6"]);
    },
    { pageSize: 2 },
  ),
);

test(
  "disconnect: a client that waits for a page receives its end at once",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY, timeout: 20_000 });
      const client = await processes.join(broker, { id: "one" });
      await processes.publish(broker, ["1", "2", "3", "4", "5", "6"]);
      processes.session().delay({ replies: 1_000 });
      const end = client.untilControl("end");
      await processes.clock.advance(100);
      const disconnected = broker.disconnect("one");
      await processes.clock.advance(100);
      expect(broker.stats()).toMatchObject({ closing: 0, disconnects: { disconnected: 1 } });
      expect(JSON.parse((await processes.clock.advanceUntil(end)).data)).toMatchObject({ reason: "disconnected" });
      await processes.clock.advanceUntil(disconnected);
    },
    { pageSize: 2 },
  ),
);

test(
  "expiresAt: a client whose grant expires while it waits for a page receives its end",
  sharedLogTest(
    async (processes) => {
      const expiresAt = Date.now() + 10_000;
      const broker = processes.broker({ log: TINY, authorize: ({ channels }) => ({ channels, expiresAt }) });
      const client = await processes.join(broker);
      await processes.publish(broker, ["1", "2", "3", "4", "5", "6"]);
      processes.session().setCommands(false);
      const end = client.untilControl("end");
      await processes.clock.advance(11_000);
      expect(JSON.parse((await processes.clock.advanceUntil(end)).data)).toMatchObject({ reason: "expired" });
      expect(await processes.clock.advanceUntil(client.ended())).toBe("closed");
    },
    { pageSize: 2 },
  ),
);

test(
  "timeout: a client that has received its page is not blocked by later events for others",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY, timeout: 400, tolerance: 2 });
      const other = await processes.join(broker, { id: "other" });
      const read = processes.readThrough(other, "4");
      const client = await processes.join(broker, { id: "one" });
      await processes.publish(broker, ["1", "2", "3", "4"]);
      await read;
      processes.session().delay({ replies: 5 });
      const first = client.nextData();
      // The page ends before this event, and arrives after it.
      await processes.clock.turns(1);
      await processes.clock.advanceUntil(broker.broadcastTo("other", "for the other"));
      expect((await processes.clock.advanceUntil(first)).data).toBe("1");
      await processes.readThrough(other, "for the other");
      await processes.clock.advance(2_000);
      expect(broker.stats()).toMatchObject({ clients: 2, blocked: 0, disconnects: {} });
    },
    { pageSize: 9 },
  ),
);

test(
  "resume: many clients that come back to the same position share one read",
  sharedLogTest(async (processes) => {
    const broker = processes.broker({ log: TINY });
    const lastEventId = await processes.publish(broker, ["1"]);
    const missed = ["2", "3", "4", "5", "6", "7", "8", "9"];
    await processes.publish(broker, missed);
    const clients = await Promise.all(Array.from({ length: 20 }, () => processes.join(broker, { lastEventId })));
    const before = processes.store.reads.length;
    for (const data of await Promise.all(clients.map((client) => processes.readThrough(client, "9"))))
      expect(data).toEqual(missed);
    expect(processes.store.reads.slice(before)).toEqual([[""]]);
  }),
);

test(
  "resume: clients that come back to many positions have their pages read a few at a time",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY });
      const reader = await processes.join(broker);
      const ids: string[] = [];
      for (let n = 0; n < 40; n++) ids.push(await processes.publish(broker, [`${n}`]));
      await processes.readThrough(reader, "39");
      const clients = await Promise.all(ids.slice(0, 20).map((lastEventId) => processes.join(broker, { lastEventId })));
      const before = processes.store.reads.length;
      const reading = clients.map((client) => client.untilData("39"));
      let mostAtOnce = 0;
      let previous = before;
      for (const all = Promise.all(reading); ; ) {
        const count = processes.store.reads.length;
        mostAtOnce = Math.max(mostAtOnce, count - previous);
        previous = count;
        if ((await Promise.race([all.then(() => true), processes.clock.advance(1).then(() => false)])) === true) break;
      }
      expect([mostAtOnce > 0, mostAtOnce <= 8]).toEqual([true, true]);
      for (const client of clients) expect(client.control("gap")).toEqual([]);
    },
    { pageSize: 3 },
  ),
);

test(
  "history(): reads what this process does not hold, page by page, for channels without a client, and a stream continues at its position",
  sharedLogTest(
    async (processes) => {
      const one = processes.broker();
      const other = processes.broker({ log: TINY });
      await processes.publish(one, numbers(1, 25), "a");
      await processes.publish(one, ["elsewhere"], "b");
      const all: string[] = [];
      for (let after: string | undefined; ; ) {
        const options = { channels: "a", limit: 10, ...(after ? { after } : {}) };
        const part = await processes.clock.advanceUntil(other.history(options));
        all.push(...part.events.map(({ data }) => data));
        expect(part.gaps).toEqual([]);
        after = part.position;
        if (part.more) continue;
        expect(part.position).toBe((await processes.clock.advanceUntil(one.history({ limit: 0 }))).position);
        break;
      }
      expect(all).toEqual(numbers(1, 25));
      const client = await processes.connect(other, {
        channel: "a",
        lastEventId: `${(await processes.clock.advanceUntil(other.history({ channels: "a", limit: 20 }))).position}`,
      });
      expect(await processes.readThrough(client, "25")).toEqual(numbers(21, 25));
    },
    { pageSize: 3 },
  ),
);

test(
  "history(): a gap for what the store dropped after a position, and engine-down while it is away",
  sharedLogTest(
    async (processes) => {
      const one = processes.broker();
      const first = await processes.publish(one, ["1"], "a");
      await processes.publish(one, ["2", "3", "4"], "a");
      const other = processes.broker();
      const part = await processes.clock.advanceUntil(other.history({ channels: "a", after: first }));
      expect([part.events.map(({ data }) => data), part.gaps]).toMatchObject([
        ["3", "4"],
        [{ channels: ["a"], after: first }],
      ]);
      processes.session(1).setCommands(false);
      expect(await processes.clock.advanceUntil(codeOf(other.history({ channels: "a" })))).toBe("engine-down");
      processes.session(1).setCommands(true);
    },
    { retention: 2 },
  ),
);
