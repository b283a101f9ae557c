// Brokers that keep running while the shared log is replaced.
import { expect, test } from "vitest";
import { gapOf } from "../../support/clients/connection.ts";
import { numbers, sharedLogTest, TINY } from "../../support/engines/shared-log-processes.ts";

test(
  "new epoch: each client receives one gap, and every event of the new log",
  sharedLogTest(
    async (processes) => {
      const [here, there] = [processes.broker({ log: TINY }), processes.broker({ log: TINY })];
      const clients = [];
      for (const broker of [here, there, here]) clients.push(await processes.join(broker, { channel: "a" }));
      await processes.publish(here, numbers(1, 3));
      for (const client of clients.slice(0, 2)) await processes.readThrough(client, "3");
      processes.store.startNewEpoch();
      await processes.publish(there, numbers(4, 9));
      for (const [index, client] of clients.entries()) {
        await processes.readThrough(client, "9");
        expect(client.data.slice(-6)).toEqual(numbers(4, 9));
        if (index < 2) expect(client.data).toEqual(numbers(1, 9));
        expect(client.control("gap").map((event) => [event.id, gapOf(event)])).toEqual([
          ["e2-0", { channels: ["fanwire-common", "fanwire-inbox", "a"], after: null, through: "e2-0" }],
        ]);
      }
    },
    { pageSize: 2 },
  ),
);

test(
  "new epoch: its first event is not reported as sent to clients of the old log",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    await processes.publish(broker, numbers(1, 3));
    await processes.readThrough(client, "3");
    processes.store.startNewEpoch();
    const { report, clients } = await processes.clock.advanceUntil(broker.broadcast("4", { report: true }));
    expect(clients).toBe(1);
    expect(await processes.clock.advanceUntil(report)).toMatchObject({ sent: 0, failed: [{ reason: "late" }] });
    expect(await processes.readThrough(client, "4")).toEqual(numbers(1, 4));
  }),
);

test(
  "feed: a position that the log cannot have yet is not believed; no epoch begins, and no event is lost",
  sharedLogTest(async (processes) => {
    const errors: unknown[] = [];
    const onError = ({ error }: { error: unknown }): void => void errors.push(error);
    const [here, there] = [processes.broker({ onError }), processes.broker()];
    const client = await processes.join(here, { channel: "a" });
    await processes.publish(here, numbers(1, 3), "a");
    const lie = { epoch: "e1", keys: ["#a"], previous: [3], text: "data: lie\n" };
    processes.session().sendEvent({ ...lie, seq: Number.MAX_SAFE_INTEGER });
    processes.session().sendEvent({ ...lie, epoch: "other", seq: 4 });
    await processes.publish(there, numbers(4, 5), "a");
    await processes.publish(here, numbers(6, 8), "a");
    expect(await processes.readThrough(client, "8")).toEqual(numbers(1, 8));
    expect([client.control("gap"), processes.store.epochs]).toEqual([[], ["e1"]]);
    expect(errors.map(String).join()).toContain(`e1-${Number.MAX_SAFE_INTEGER}`);
  }),
);

test(
  "report: without a feed it waits; connected clients receive the event when the feed is back",
  sharedLogTest(async (processes) => {
    const broker = processes.broker({ timeout: 60_000 });
    const client = await processes.join(broker);
    processes.session().setFeed(false);
    await processes.clock.turns(5);
    const { report } = await processes.clock.advanceUntil(broker.broadcast("1", { report: true }));
    processes.session().setFeed(true);
    expect(await processes.readThrough(client, "1")).toEqual(["1"]);
    expect(await processes.clock.advanceUntil(report)).toEqual({ sent: 1, failed: [] });
  }),
);

test(
  "new epoch: a process that finds the log lost creates a new one",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    await processes.publish(broker, ["1"]);
    await processes.readThrough(client, "1");
    processes.store.loseLog();
    await processes.clock.advance(6_000);
    expect(processes.store.epochs).toEqual(["e1", "e2"]);
    await processes.publish(broker, ["2"]);
    expect(await processes.readThrough(client, "2")).toEqual(["1", "2"]);
    expect(client.control("gap")).toHaveLength(1);
  }),
);

test(
  "new epoch: a late event of the old epoch has no effect",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    await processes.publish(broker, ["1"]);
    await processes.readThrough(client, "1");
    const epoch = processes.store.log?.epoch ?? "";
    processes.store.startNewEpoch();
    await processes.publish(broker, ["2"]);
    await processes.readThrough(client, "2");
    processes.session().delay({ feed: 5 });
    processes.session().sendEvent({ epoch, seq: 2, keys: [""], previous: [1], text: "data: late\n\n" });
    await processes.clock.turns(7);
    expect(broker.stats().engine).toBe("up");
    await processes.publish(broker, ["3"]);
    expect(await processes.readThrough(client, "3")).toEqual(["1", "2", "3"]);
  }),
);

test(
  "new epoch: a log that went back is replaced, and clients receive a gap",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    await processes.publish(broker, numbers(1, 3));
    await processes.readThrough(client, "3");
    processes.store.log?.rollBack(1);
    await processes.publish(broker, ["4"]);
    expect(await processes.readThrough(client, "4")).toEqual(numbers(1, 4));
    expect(client.control("gap").map(({ id }) => id)).toEqual(["e2-0"]);
  }),
);
