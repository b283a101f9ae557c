// An engine over a shared log: resuming, replaying, and finding what the feed has lost.
import { expect, test } from "vitest";
import { gapOf } from "../../support/clients/connection.ts";
import { numbers, sharedLogTest, TINY } from "../../support/engines/shared-log-processes.ts";
import { codeOf, Recorder } from "../../support/test-broker.ts";

test(
  "resume: from a position that this process never held",
  sharedLogTest(
    async (processes) => {
      const [here, there] = [processes.broker({ log: TINY }), processes.broker({ log: TINY })];
      const first = await processes.publish(here, ["1"]);
      await processes.publish(here, numbers(2, 9));

      const client = await processes.join(there, { lastEventId: first });

      expect(await processes.readThrough(client, "9")).toEqual(numbers(2, 9));
      expect(client.control("gap")).toEqual([]);
    },
    { pageSize: 3 },
  ),
);

test(
  "resume: in a channel that this process had not subscribed to",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    await processes.join(there);
    const lastEventId = await processes.publish(here, ["1"], "a");
    await processes.publish(here, ["2", "3"], "a");
    const client = await processes.join(there, { channel: "a", lastEventId });
    expect(await processes.readThrough(client, "3")).toEqual(["2", "3"]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "resume: an event of two channels, of which this process holds one, arrives once",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    await processes.join(there, { channel: "a" });
    await processes.clock.advanceUntil(here.broadcast("1", { channels: ["a", "b"] }));
    await processes.clock.advanceUntil(here.broadcast("2", { channels: ["a", "b"] }));

    const client = await processes.join(there, { channel: ["a", "b"], query: { from: "earliest" } });
    await processes.publish(here, ["3"]);

    expect(await processes.readThrough(client, "3")).toEqual(["1", "2", "3"]);
  }),
);

test(
  "resume: from a position of another process that this one has not reached",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const reader = await processes.join(here, { id: "one" });
    await processes.join(there, { id: "one" });
    await processes.publish(here, ["1"]);
    processes.session(1).delay({ feed: 10_000 });
    await processes.publish(here, ["2"]);
    await processes.readThrough(reader, "2");

    const client = await processes.connect(there, { id: "one", lastEventId: reader.lastEventId as string });
    processes.store.time += 10_000;
    processes.session(1).delay();
    await processes.publish(here, ["3"]);

    expect(await processes.readThrough(client, "3")).toEqual(["3"]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "resume: from a position that this process has not reached, while it misses more than it can hold",
  sharedLogTest(
    async (processes) => {
      const [here, there] = [processes.broker(), processes.broker({ log: TINY })];
      await processes.join(there, { id: "one", channel: "a" });
      await processes.publish(here, ["1"]);
      processes.session().messagesToSwallow = Infinity;
      const lastEventId = await processes.publish(here, ["x".repeat(300), "3"]);

      const client = await processes.connect(there, { id: "one", channel: "a", lastEventId });
      await processes.publish(here, ["4"], "a");
      await processes.clock.advance(9_000);

      expect(await processes.readThrough(client, "4")).toEqual(["4"]);
      expect([client.control("gap"), processes.session().feedRenewals]).toEqual([[], 1]);
    },
    { pageSize: 1 },
  ),
);

test(
  "from=earliest: every event that the store retains",
  sharedLogTest(
    async (processes) => {
      const [here, there] = [processes.broker({ log: TINY }), processes.broker({ log: TINY })];
      await processes.publish(here, numbers(1, 9));
      const client = await processes.join(there, { query: { from: "earliest" } });
      expect(await processes.readThrough(client, "9")).toEqual(numbers(5, 9));
      expect(client.control("gap")).toEqual([]);
    },
    { pageSize: 2, retention: 5 },
  ),
);

test(
  "maxReplay: the newest events that the store retains, and a gap before them",
  sharedLogTest(
    async (processes) => {
      const here = processes.broker();
      const there = processes.broker({ maxReplay: { events: 3 } });
      const first = await processes.publish(here, ["1"]);
      await processes.publish(here, numbers(2, 9));
      const client = await processes.join(there, { lastEventId: first });
      expect(await processes.readThrough(client, "9")).toEqual(numbers(7, 9));
      expect(client.control("gap").map(gapOf)).toEqual([
        { channels: ["fanwire-common"], after: "e1-1", through: "e1-6" },
      ]);
    },
    { pageSize: 2 },
  ),
);

test(
  "resume: a foreign id gets a gap, and every event that the store retains",
  sharedLogTest(
    async (processes) => {
      const [here, there] = [processes.broker(), processes.broker()];
      await processes.publish(here, numbers(1, 4));
      const client = await processes.join(there, { lastEventId: "elsewhere-2" });
      expect(await processes.readThrough(client, "4")).toEqual(numbers(1, 4));
      expect(client.control("gap").map(gapOf)).toEqual([
        { channels: ["fanwire-common", "fanwire-inbox"], after: null, through: "e1-0" },
      ]);
    },
    { pageSize: 1 },
  ),
);

test(
  "overrun: a slow client that the local log has overrun continues from the store, without a gap",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY });
      const client = await processes.join(broker);
      await processes.publish(broker, numbers(1, 30));
      expect(broker.stats().log.events).toBeLessThan(4);
      expect(await processes.readThrough(client, "30")).toEqual(numbers(1, 30));
      expect([client.control("gap"), broker.stats().overruns]).toEqual([[], 0]);
    },
    { pageSize: 3 },
  ),
);

test(
  "overrun: a slow client receives a gap for events that the store no longer retains",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY });
      const client = await processes.join(broker, { channel: "a" });
      await processes.publish(broker, numbers(1, 9), "a");
      await processes.publish(broker, ["x"]);
      expect(await processes.readThrough(client, "x")).toEqual([...numbers(6, 9), "x"]);
      expect(client.control("gap").map(gapOf)).toEqual([{ channels: ["a"], after: "e1-0", through: "e1-5" }]);
    },
    { retention: 4, pageSize: 2 },
  ),
);

test(
  "lost feed: one read catches up for all clients; no event is missing, none arrives twice",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const clients = [];
    for (const channel of ["a", "b", "a", "b", "a"]) clients.push(await processes.join(here, { channel }));
    await processes.publish(there, ["1"]);
    processes.session().setFeed(false);
    await processes.publish(there, numbers(2, 5));
    await processes.publish(there, ["in a"], "a");
    await processes.publish(there, ["in b"], "b");
    const reads = processes.store.reads.length;
    processes.session().setFeed(true);
    await processes.clock.turns(20);
    expect(processes.store.reads.length - reads).toBe(1);
    await processes.publish(there, ["6"]);
    for (const [index, client] of clients.entries()) {
      const own = index % 2 === 0 ? "in a" : "in b";
      expect(await processes.readThrough(client, "6")).toEqual([...numbers(1, 5), own, "6"]);
      expect(client.control("gap")).toEqual([]);
    }
  }),
);

test(
  "lost message: without a later one, the next checkpoint reveals it",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const client = await processes.join(here);
    processes.session().messagesToSwallow = 1;
    await processes.publish(there, ["1"]);
    await processes.clock.turns(20);
    expect(here.stats().sent).toBe(0);
    await processes.clock.advance(5_000);
    expect(await processes.readThrough(client, "1")).toEqual(["1"]);
    expect([client.control("gap"), processes.session().feedRenewals]).toEqual([[], 0]);
  }),
);

test(
  "lost message: the next one of its channel reveals it, and arrives after it",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const client = await processes.join(here);
    await processes.publish(there, ["1"]);
    processes.session().messagesToSwallow = 1;
    await processes.publish(there, ["2", "3", "4"]);
    expect(await processes.readThrough(client, "4")).toEqual(numbers(1, 4));
    expect([client.control("gap"), processes.clock.time < 1_000]).toEqual([[], true]);
  }),
);

test(
  "lost message before messages of another channel: a gap for a client that is past it, the event for one that is not",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const both = await processes.join(here, { channel: ["a", "b"] });
    const one = await processes.join(here, { channel: "a" });
    processes.session().messagesToSwallow = 1;
    await processes.publish(there, ["1"], "a");
    await processes.publish(there, ["2"], "b");
    expect(await processes.readThrough(both, "2")).toEqual(["2"]);
    await processes.clock.advance(6_000);
    await processes.publish(there, ["3"], "a");
    expect(await processes.readThrough(both, "3")).toEqual(["2", "3"]);
    expect(both.control("gap").map(gapOf)).toEqual([{ channels: ["a"], after: "e1-0", through: "e1-1" }]);
    expect(await processes.readThrough(one, "3")).toEqual(["1", "3"]);
    expect(one.control("gap")).toEqual([]);
  }),
);

test(
  "lost messages of which the store retains only the last: one gap reports all of them",
  sharedLogTest(
    async (processes) => {
      const [here, there] = [processes.broker(), processes.broker()];
      const client = await processes.join(here, { channel: ["a", "b"] });
      processes.session().messagesToSwallow = 3;
      await processes.publish(there, ["1", "2", "3"], "a");
      await processes.publish(there, ["4"], "b");
      expect(await processes.readThrough(client, "4")).toEqual(["4"]);
      await processes.clock.advance(6_000);
      await processes.publish(there, ["5"], "b");
      await processes.readThrough(client, "5");
      expect(client.control("gap").map(gapOf)).toEqual([{ channels: ["a"], after: "e1-0", through: "e1-3" }]);
    },
    { retention: 1 },
  ),
);

test(
  "catching up: a page that was read after the checkpoint, with later events dropped, counts only up to the checkpoint",
  sharedLogTest(
    async (processes) => {
      const errors = new Recorder<unknown>();
      const [here, there] = [processes.broker({ log: TINY, onError: errors.record }), processes.broker()];
      const client = await processes.join(here, { channel: "a" });
      const reading = client.untilData("6");
      processes.session().setFeed(false);
      await processes.publish(there, ["1", "2"], "a");
      processes.session().delay({ requests: 40, feed: 200 });
      processes.session().setFeed(true);
      while (processes.store.reads.length === 0) await processes.clock.turns(1);
      await processes.publish(there, ["3", "4", "5"], "a");
      await processes.clock.turns(250);
      processes.session().delay();
      expect(errors.all).toEqual([]);
      await processes.publish(there, ["6"]);
      await processes.clock.advanceUntil(reading);
      expect(client.data).toEqual(["3", "4", "5", "6"]);
      expect(client.control("gap").map(gapOf)).toEqual([{ channels: ["a"], after: "e1-0", through: "e1-4" }]);
    },
    { retention: 1 },
  ),
);

test(
  "silent feed: it is replaced, and the session catches up",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const client = await processes.join(here);
    processes.session().messagesToSwallow = Infinity;
    await processes.publish(there, numbers(1, 3));
    await processes.clock.advance(9_000);
    expect(processes.session().feedRenewals).toBe(1);
    expect(await processes.readThrough(client, "3")).toEqual(numbers(1, 3));
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "append: events published before the store is reachable keep their order, also with those published right after",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker();
      const publishing = [broker.broadcast("1"), broker.broadcast("2")];
      processes.session().setCommands(true);
      publishing.push(broker.broadcast("3"));
      processes.session().setFeed(true);
      const ids = (await processes.clock.advanceUntil(Promise.all(publishing))).map(({ id }) => id);
      expect(ids).toEqual(["e1-1", "e1-2", "e1-3"]);
    },
    { isAway: true },
  ),
);

test(
  "append: the publisher is answered when connections of this process were sent the event, and not before",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    const reading = client.read();
    processes.session().delay({ feed: 20 });
    await processes.clock.advanceUntil(broker.broadcast("1"));
    await Promise.race([reading, processes.clock.turns(5)]);
    expect(client.data).toEqual(["1"]);
  }),
);

test(
  "append: refused while the store is away, of unknown outcome if its answer was lost, and never done twice",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    processes.session().losesNextReply = true;
    expect(await processes.clock.advanceUntil(codeOf(broker.broadcast("1")))).toBe("publish-outcome-unknown");
    processes.session().setCommands(false);
    expect([await codeOf(broker.broadcast("2")), broker.stats().engine]).toEqual(["engine-down", "down"]);
    processes.session().setCommands(true);
    await processes.publish(broker, ["3"]);
    expect(await processes.readThrough(client, "3")).toEqual(["1", "3"]);
  }),
);
