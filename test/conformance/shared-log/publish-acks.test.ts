// An engine over a shared log: how long a publisher waits for its event to come back through the feed.
import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { type SharedLogProcesses, sharedLogTest } from "../../support/engines/shared-log-processes.ts";

/** Publishes. Resolves with the milliseconds of the test's clock until the answer. The caller lets the time pass. */
async function timed({ clock }: SharedLogProcesses, broker: Broker, data: string): Promise<number> {
  const start = clock.time;
  await broker.broadcast(data);
  return clock.time - start;
}

test(
  "append: a publisher is answered as soon as its event has come back, however long the feed takes",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    expect(await processes.clock.advanceUntil(timed(processes, broker, "1"))).toBe(0);
    expect(await processes.readThrough(client, "1")).toEqual(["1"]);
  }),
);

test(
  "append: a publisher is not answered before its own event has come back, although an earlier one has",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    const { clock } = processes;
    const answered: string[] = [];
    const publish = async (data: string): Promise<void> => {
      await broker.broadcast(data);
      answered.push(data);
    };
    processes.session().delay({ feed: 20 });
    const first = publish("1");
    await clock.turns(1);
    processes.session().delay({ feed: 40 });
    const second = publish("2");
    await clock.turns(10);
    expect(answered).toEqual([]);
    await clock.turns(16);
    expect(answered).toEqual(["1"]);
    await clock.advanceUntil(Promise.all([first, second]));
    expect(await processes.readThrough(client, "2")).toEqual(["1", "2"]);
  }),
);

test(
  "append: the publisher of an event that the feed has lost waits a second, and the event is read from the store at once",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    processes.session().messagesToSwallow = 1;
    expect(await processes.clock.advanceUntil(timed(processes, broker, "lost"))).toBe(1_000);
    const start = processes.clock.time;
    expect(await processes.readThrough(client, "lost")).toEqual(["lost"]);
    // The check of the feed every 5 seconds would have found it later.
    expect(processes.clock.time - start).toBeLessThan(1_000);
  }),
);

test(
  "append: the second of two events is lost, and its publisher waits a second as well",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    const { clock } = processes;
    processes.session().delay({ feed: 20 });
    const first = broker.broadcast("1");
    await clock.turns(1);
    processes.session().delay({ feed: 40 });
    const second = timed(processes, broker, "lost");
    await clock.turns(25);
    await first;
    processes.session().messagesToSwallow = 1;
    expect(await clock.advanceUntil(second)).toBe(1_000);
    expect(await processes.readThrough(client, "lost")).toEqual(["1", "lost"]);
  }),
);

test(
  "append: a publisher is answered at once when the feed is lost before its event has come back",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const client = await processes.join(broker);
    const { clock } = processes;
    processes.session().messagesToSwallow = 1;
    const published = timed(processes, broker, "1");
    await clock.turns(20);
    processes.session().setFeed(false);
    expect(await clock.advanceUntil(published)).toBe(0);
    processes.session().setFeed(true);
    expect(await processes.readThrough(client, "1")).toEqual(["1"]);
  }),
);

test(
  "feed: an event of another process that the feed has lost is found within 5 seconds",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const client = await processes.join(here);
    processes.session(0).messagesToSwallow = 1;
    const start = processes.clock.time;
    await processes.publish(there, ["lost"]);
    expect(await processes.readThrough(client, "lost")).toEqual(["lost"]);
    expect(processes.clock.time - start).toBeLessThanOrEqual(5_050);
  }),
);
