// Events that this process does not hold: the store is read page by page for the clients that wait.
import { expect, test } from "vitest";
import type { Connection } from "../../support/clients/connection.ts";
import { sharedLogTest, TINY } from "../../support/engines/shared-log-processes.ts";

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
  "resume: clients of different channels at different positions share the pages of each channel",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY });
      const ids: string[] = [];
      for (let n = 0; n < 60; n++) ids.push(await processes.publish(broker, [`${n}`], `c${n % 6}`));
      const join = (first: number, index: number): Promise<Connection> => {
        // Five of the six channels.
        const channels = [0, 1, 2, 3, 4, 5].filter((channel) => channel !== index % 6).map((channel) => `c${channel}`);
        return processes.join(broker, { channel: channels, lastEventId: ids[first] as string });
      };
      const clients = await Promise.all(Array.from({ length: 40 }, (_, index) => join((index * 7) % 30, index)));
      const before = processes.store.reads.length;
      const expected = (index: number): string[] =>
        ids.map((_, n) => `${n}`).filter((_, n) => n > (index * 7) % 30 && n % 6 !== index % 6);
      const reading = clients.map((client, index) => client.untilData(expected(index).at(-1) as string));
      await processes.clock.advanceUntil(Promise.all(reading));
      for (const [index, client] of clients.entries()) {
        expect(client.data).toEqual(expected(index));
        expect(client.control("gap")).toEqual([]);
      }
      // One client alone reads 8 to 15 pages.
      expect(processes.store.reads.length - before).toBeLessThan(60);
    },
    { pageSize: 4 },
  ),
);

test(
  "resume: a page is not used for longer than a few seconds, because retention may have ended",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY });
      const lastEventId = await processes.publish(broker, ["0"]);
      await processes.publish(broker, ["1", "2", "3", "4", "5", "6"]);
      const read = async (): Promise<number> => {
        const before = processes.store.reads.length;
        const client = await processes.join(broker, { lastEventId });
        expect(await processes.readThrough(client, "6")).toEqual(["1", "2", "3", "4", "5", "6"]);
        return processes.store.reads.length - before;
      };
      expect(await read()).toBeGreaterThan(0);
      expect(await read()).toBe(0);
      await processes.clock.advance(6_000);
      expect(await read()).toBeGreaterThan(0);
    },
    { pageSize: 3 },
  ),
);

test(
  "resume: clients of many channels have their pages read a few at a time, and all take turns",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY });
      let lastEventId = "";
      for (let n = 0; n < 20; n++) lastEventId ||= await processes.publish(broker, ["first"], `c${n}`);
      for (let round = 1; round <= 3; round++)
        for (let n = 0; n < 20; n++) await processes.publish(broker, [`${round}`], `c${n}`);
      const clients = await Promise.all(
        Array.from({ length: 20 }, (_, n) => processes.join(broker, { channel: `c${n}`, lastEventId })),
      );
      processes.session().delay({ replies: 10 });
      const before = processes.store.reads.length;
      const reading = Promise.all(clients.map((client) => client.untilData("3")));
      const counts: number[] = [];
      for (let isDone = false; !isDone; ) {
        counts.push(processes.store.reads.length - before);
        isDone =
          (await Promise.race([reading.then(() => true), processes.clock.advance(10).then(() => false)])) === true;
      }
      const steps = counts.map((count, index) => count - (counts[index - 1] ?? 0));
      expect([Math.max(...steps) > 1, Math.max(...steps) <= 4]).toEqual([true, true]);
      // Each of them has its first page before any of them has its last one.
      const order = processes.store.reads.slice(before).map(([key]) => key);
      expect(new Set(order.slice(0, 20)).size).toBe(20);
      for (const client of clients) expect(client.control("gap")).toEqual([]);
    },
    { pageSize: 1 },
  ),
);

test(
  "connect: of many clients that connect, a few at a time ask where their history begins",
  sharedLogTest(async (processes) => {
    const broker = processes.broker({ log: TINY });
    await processes.publish(broker, ["1", "2", "3"]);
    const session = processes.session();
    const historyBounds = session.historyBounds.bind(session);
    let [running, most, asked] = [0, 0, 0];
    session.historyBounds = async (...args) => {
      asked++;
      most = Math.max(most, ++running);
      try {
        return await historyBounds(...args);
      } finally {
        running--;
      }
    };
    session.delay({ replies: 10 });
    const joining = Array.from({ length: 30 }, () => processes.setup.join(broker, { query: { from: "earliest" } }));
    const clients = await processes.clock.advanceUntil(Promise.all(joining));
    for (const client of clients) expect(await processes.readThrough(client, "3")).toEqual(["1", "2", "3"]);
    expect([asked, most]).toEqual([30, 4]);
  }),
);
