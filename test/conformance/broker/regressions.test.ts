// Faults that the code once had, one test for each.
import { expect, test, vi } from "vitest";
import { TimeoutQueue } from "../../../src/base/timeout-queue.ts";
import { FlushScheduler } from "../../../src/delivery/flush-scheduler.ts";
import { Heartbeat } from "../../../src/delivery/heartbeat.ts";
import { PublisherBackpressure } from "../../../src/delivery/publisher-backpressure.ts";
import { Clock } from "../../support/clock.ts";
import { turn, withBroker } from "../../support/test-broker.ts";
import { withDurableObject } from "../../support/workerd.ts";

test(
  "close(): a client that is still reading misses no event that another broker of the engine publishes",
  withBroker(async (setup) => {
    const engine = setup.engine();
    const [closing, other] = [setup.broker({ engine }), setup.broker({ engine })];
    const client = await setup.join(closing, { channel: "x" });
    await closing.broadcast("common");
    const closed = closing.close();
    await turn();
    await other.broadcast("one", { channels: "x" });
    await other.broadcast("two", { channels: "x" });
    const received = [(await client.nextData()).data];
    const id = client.lastEventId;
    await client.leave();
    await closed;
    const resumed = await setup.join(other, { channel: "x", ...(id === undefined ? {} : { lastEventId: id }) });
    await other.broadcast("end");
    while (received.at(-1) !== "end") received.push((await resumed.nextData()).data);
    expect(received).toEqual(["common", "one", "two", "end"]);
  }),
);

test(
  "retention: events of one turn reach clients that read, even if retention keeps fewer",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 3 } } });
    const client = await setup.join(broker);
    for (let event = 0; event < 10; event++) void broker.broadcast(`${event}`);
    for (let event = 0; event < 10; event++) expect((await client.nextData()).data).toBe(`${event}`);
    expect(client.control("gap")).toEqual([]);
    await broker.broadcast("one more");
    expect(broker.stats().log.events).toBeLessThanOrEqual(4);
  }),
);

test(
  "maxChannels: channels that a client only requests do not replace the history of others",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { maxChannels: 10 } });
    await broker.broadcast("kept", { channels: "news" });
    const channel = Array.from({ length: 90 }, (_, index) => `requested ${index}`);
    await (await setup.join(broker, { channel })).leave();
    const late = await setup.join(broker, { channel: "news", query: { from: "earliest" } });
    expect((await late.nextData()).data).toBe("kept");
  }),
);

test(
  "maxChannels: a channel whose last subscriber leaves keeps its history, although others were forgotten since",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { maxChannels: 4 } });
    const reader = await setup.join(broker, { channel: "kept" });
    await broker.broadcast("still here", { channels: "kept" });
    await reader.nextData();
    for (let channel = 0; channel < 10; channel++) await broker.broadcast("x", { channels: `other ${channel}` });
    await reader.leave();
    const late = await setup.join(broker, { channel: "kept", query: { from: "earliest" } });
    expect((await late.nextData()).data).toBe("still here");
  }),
);

test(
  "listen(): a loop with a slow body receives every event",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    const listener = broker.listen({ channels: "y" });
    const publishing = (async () => {
      for (let event = 0; event < 100; event++) {
        await broker.broadcast(`${event}`, { channels: "y" });
        await broker.broadcast("for every client");
        await client.nextData();
      }
    })();
    for (let event = 0; event < 100; event++) {
      expect((await listener.next()).value).toMatchObject({ type: "event", data: `${event}` });
      await turn();
    }
    await publishing;
  }),
);

test(
  "report: many events at once are reported for many clients",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const clients = await Promise.all(Array.from({ length: 20 }, () => setup.join(broker)));
    const reported = Array.from({ length: 300 }, () => broker.broadcast("x", { report: true }));
    for (const client of clients) for (let event = 0; event < 300; event++) await client.nextData();
    for (const { report } of await Promise.all(reported)) expect(await report).toEqual({ sent: 20, failed: [] });
  }),
);

/** A hold that is far longer than a few turns of the event loop take, also on a machine that is busy. */
const HOLD_MS = 200;

/** Keeps the process busy for some 50 ms. Counts instead of reading the clock, which is frozen on workerd. */
function work(): void {
  let sum = 0;
  for (let count = 0; count < 40_000_000; count++) sum = (sum * 31 + count) | 0;
  expect(sum).toBeTypeOf("number");
}

/** Runs a test whose time passes only when it says so: a machine that is busy would be slower than a hold. */
const withClock = (run: (clock: Clock) => Promise<void>): (() => Promise<void>) =>
  withDurableObject(async () => {
    const clock = new Clock();
    await clock.run(() => run(clock));
  });

/** The scheduler and the backpressure of a fanout. `flush` sends to subscribers. */
function backpressureOf(
  flush: (backpressure: PublisherBackpressure<string>) => void,
  timing: { window?: number; hold?: number } = {},
): PublisherBackpressure<string> {
  const scheduler = new FlushScheduler(() => {
    backpressure.beforeFlush();
    flush(backpressure);
    backpressure.afterFlush();
  }, timing.window);
  const backpressure = new PublisherBackpressure<string>(() => scheduler.request(), timing.hold);
  return backpressure;
}

/** Backpressure with subscribers that receive every flush. */
const sendingTo = (subscribers: readonly string[]): PublisherBackpressure<string> =>
  backpressureOf((backpressure) => {
    for (const subscriber of subscribers) backpressure.sent(subscriber);
  });

/** Publishes too much at once. Returns whether the publisher may go on before `take` is called. With a clock no time passes until then. */
async function hold(
  backpressure: PublisherBackpressure<string>,
  take: () => void,
  clock?: Clock,
): Promise<"went on" | "was held"> {
  backpressure.appended(2);
  let free = false;
  const ready = backpressure.ready()?.then(() => {
    free = true;
  });
  if (clock) await clock.turns(3);
  else for (let turns = 0; turns < 3; turns++) await turn();
  const outcome = free ? "went on" : "was held";
  take();
  await (clock && ready !== undefined ? clock.advanceUntil(ready) : ready);
  return outcome;
}

test(
  "backpressure: a publisher waits for subscribers that take events, and not for long for one that does not",
  withClock(async (clock) => {
    const alone = sendingTo([]);
    expect(await hold(alone, () => undefined, clock)).toBe("went on");

    const healthy = sendingTo(["healthy"]);
    for (let round = 0; round < 3; round++)
      expect(await hold(healthy, () => healthy.caughtUp("healthy"), clock)).toBe("was held");

    // This subscriber receives one flush and never asks for more.
    let first = true;
    const stuck = backpressureOf((backpressure) => {
      if (first) backpressure.sent("stuck");
      first = false;
    });
    expect(await hold(stuck, () => undefined, clock)).toBe("was held");
    expect(await hold(stuck, () => undefined, clock)).toBe("was held");
    expect(await hold(stuck, () => undefined, clock)).toBe("went on");
  }),
);

test(
  "backpressure: in a busy process with late timers, a subscriber is judged only after the sockets were read",
  withDurableObject(async () => {
    let flushes = 0;
    const backpressure = backpressureOf(
      (to) => {
        if (++flushes === 1) to.sent("subscriber");
        if (flushes !== 2) return;
        setTimeout(work, HOLD_MS - 15);
        // This timer is after the one of the hold, and due at the same time.
        queueMicrotask(() => setTimeout(() => to.progressed("subscriber"), HOLD_MS));
      },
      { window: 0, hold: HOLD_MS },
    );
    for (let round = 0; round < 3; round++) expect(await hold(backpressure, () => undefined)).toBe("was held");
    expect(await hold(backpressure, () => undefined)).toBe("went on");
  }),
);

test(
  "backpressure: a publisher does not wait without end for a subscriber that is always behind",
  withClock(async (clock) => {
    let first = true;
    const slow = backpressureOf((backpressure) => {
      if (first) backpressure.sent("slow");
      first = false;
    });
    let held = 0;
    while ((await hold(slow, () => slow.progressed("slow"), clock)) === "was held") held++;
    expect(held).toBeGreaterThan(1);
    expect(held).toBeLessThan(12);
  }),
);

test(
  "TimeoutQueue: each item has its own time, also while others expire again and again",
  withDurableObject(async () => {
    const expired: string[] = [];
    const names = new Map<object, string>();
    let done: () => void = () => undefined;
    const allExpired = new Promise<void>((resolve) => {
      done = resolve;
    });
    const queue = new TimeoutQueue<{ due: number }>(60, (item) => {
      const name = names.get(item) ?? "";
      expired.push(name);
      if (name === "again") queue.add(item);
      if (expired.length === 4) done();
    });
    const [again, once] = [{ due: 0 }, { due: 0 }];
    names.set(again, "again").set(once, "once");
    queue.add(again);
    await new Promise((resolve) => setTimeout(resolve, 30));
    queue.add(once);
    await allExpired;
    queue.clear();
    // Once, a timer that was set for the item that expired again made the other one wait as well.
    expect(expired).toEqual(["again", "once", "again", "again"]);
  }),
);

test(
  "Heartbeat: a connection that is added during a turn waits for the next one",
  withDurableObject(async () => {
    const added = { lastSentTick: 0, slot: 0 };
    const sent: object[] = [];
    await new Promise<void>((resolve) => {
      const heartbeat = new Heartbeat<{ lastSentTick: number; slot: number }>(160, (idle) => {
        sent.push(idle);
        heartbeat.delete(idle);
        if (sent.length === 1) heartbeat.add(added);
        else resolve();
      });
      heartbeat.add({ lastSentTick: 0, slot: 0 });
    });
    expect(sent[1]).toBe(added);
  }),
);

test(
  "maxConnectionAge: many clients use few timer durations, because Node and Deno keep a list for each duration",
  withBroker(async (setup) => {
    const timers = vi.spyOn(globalThis, "setTimeout");
    try {
      const broker = setup.broker({ maxConnectionAge: 600_000 });
      for (let count = 0; count < 100; count++) await setup.join(broker);
      const durations = timers.mock.calls.map(([, ms = 0]) => ms).filter((ms) => ms > 100_000);
      expect(durations).toHaveLength(100);
      expect(new Set(durations).size).toBeLessThan(25);
    } finally {
      timers.mockRestore();
    }
  }),
);
