import { expect, test, vi } from "vitest";
import { TimeoutQueue } from "../../../src/base/timeout-queue.ts";
import { FlushScheduler } from "../../../src/delivery/flush-scheduler.ts";
import { Heartbeat } from "../../../src/delivery/heartbeat.ts";
import { PublisherBackpressure } from "../../../src/delivery/publisher-backpressure.ts";
import type { EventOverrides } from "../../../src/index.ts";
import { clientRequest, codeOf, eventRequest, scene, turn } from "../../support/test-broker.ts";
import { inside } from "../../support/workerd.ts";

// Faults that were in the code once, one test for each.

test(
  "overrides: what a router passes beside the request is not taken for them",
  scene(async (stage) => {
    const broker = stage.broker();
    const eve = await stage.join(broker, { id: "eve" });
    // As Bun's server is: a class of its own, with an id that is empty.
    class Server {
      readonly clientId = "";
    }
    expect(await codeOf(broker.eventHandler(eventRequest("secret", "?id=alice"), new Server()))).toBe("TypeError");
    expect(await codeOf(broker.clientHandler(clientRequest({ id: "alice" }), new Server()))).toBe("TypeError");
    await broker.broadcast("end");
    expect((await eve.nextData()).data).toBe("end");
  }),
);

test(
  "overrides: an id or a list that is empty never means everybody",
  scene(async (stage) => {
    const broker = stage.broker();
    await stage.join(broker, { id: "eve" });
    const answers: (readonly [EventOverrides, string])[] = [
      [{ clientId: "" }, "bad-id"],
      [{ channels: [] }, "bad-channel"],
    ];
    for (const [overrides, code] of answers) {
      const response = await broker.eventHandler(eventRequest("secret", "?id=eve"), overrides);
      expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([400, code]);
    }
    expect(await codeOf(broker.broadcast("secret", { channels: [] }))).toBe("bad-channel");
    expect(broker.stats().published).toBe(0);
  }),
);

test(
  "close: a client that is still reading its backlog misses nothing that another broker of the engine publishes",
  scene(async (stage) => {
    const engine = stage.engine();
    const [closing, other] = [stage.broker({ engine }), stage.broker({ engine })];
    const client = await stage.join(closing, { channel: "x" });
    await closing.broadcast("common");
    const closed = closing.close();
    await turn();
    await other.broadcast("one", { channels: "x" });
    await other.broadcast("two", { channels: "x" });
    const seen = [(await client.nextData()).data];
    const id = client.lastEventId;
    await client.leave();
    await closed;
    const back = await stage.join(other, { channel: "x", ...(id === undefined ? {} : { lastEventId: id }) });
    await other.broadcast("end");
    while (seen.at(-1) !== "end") seen.push((await back.nextData()).data);
    expect(seen).toEqual(["common", "one", "two", "end"]);
  }),
);

test(
  "retention: what was published in one turn reaches those who read, however little of it is kept",
  scene(async (stage) => {
    const broker = stage.broker({ log: { retention: { events: 3 } } });
    const client = await stage.join(broker);
    for (let event = 0; event < 10; event++) void broker.broadcast(`${event}`);
    for (let event = 0; event < 10; event++) expect((await client.nextData()).data).toBe(`${event}`);
    expect(client.control("gap")).toEqual([]);
    await broker.broadcast("one more");
    expect(broker.stats().log.events).toBeLessThanOrEqual(4);
  }),
);

test(
  "maxChannels: channels that somebody only asks for do not push out the history of others",
  scene(async (stage) => {
    const broker = stage.broker({ log: { maxChannels: 10 } });
    await broker.broadcast("kept", { channels: "news" });
    const channel = Array.from({ length: 90 }, (_, index) => `asked ${index}`);
    await (await stage.join(broker, { channel })).leave();
    const late = await stage.join(broker, { channel: "news", query: { from: "earliest" } });
    expect((await late.nextData()).data).toBe("kept");
  }),
);

test(
  "maxChannels: a channel whose last reader leaves keeps its history, though others were forgotten since",
  scene(async (stage) => {
    const broker = stage.broker({ log: { maxChannels: 4 } });
    const reader = await stage.join(broker, { channel: "kept" });
    await broker.broadcast("still here", { channels: "kept" });
    await reader.nextData();
    for (let channel = 0; channel < 10; channel++) await broker.broadcast("x", { channels: `other ${channel}` });
    await reader.leave();
    const late = await stage.join(broker, { channel: "kept", query: { from: "earliest" } });
    expect((await late.nextData()).data).toBe("still here");
  }),
);

test(
  "listen: a loop whose body takes its time gets every event",
  scene(async (stage) => {
    const broker = stage.broker();
    const client = await stage.join(broker);
    const listener = broker.listen({ channels: "y" });
    const publishing = (async () => {
      for (let event = 0; event < 100; event++) {
        await broker.broadcast(`${event}`, { channels: "y" });
        await broker.broadcast("for everybody");
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
  scene(async (stage) => {
    const broker = stage.broker();
    const clients = await Promise.all(Array.from({ length: 20 }, () => stage.join(broker)));
    const reported = Array.from({ length: 300 }, () => broker.broadcast("x", { report: true }));
    for (const client of clients) for (let event = 0; event < 300; event++) await client.nextData();
    for (const { report } of await Promise.all(reported)) expect(await report).toEqual({ sent: 20, failed: [] });
  }),
);

/** Keeps the process busy for some 50 ms; not by the clock, which stands still meanwhile on workerd. */
function toil(): void {
  let sum = 0;
  for (let count = 0; count < 40_000_000; count++) sum = (sum * 31 + count) | 0;
  expect(sum).toBeTypeOf("number");
}

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

/** Publishes too much at once, and tells whether the publisher may go on before `taken` is called. */
async function hold(backpressure: PublisherBackpressure<string>, taken: () => void): Promise<"went on" | "was held"> {
  backpressure.appended(2);
  let free = false;
  const ready = backpressure.ready()?.then(() => {
    free = true;
  });
  for (let turns = 0; turns < 3; turns++) await turn();
  const outcome = free ? "went on" : "was held";
  taken();
  await ready;
  return outcome;
}

test(
  "backpressure: a publisher waits for subscribers that take events, and once only for one that does not",
  inside(async () => {
    const alone = sendingTo([]);
    expect(await hold(alone, () => undefined)).toBe("went on");

    const healthy = sendingTo(["healthy"]);
    for (let round = 0; round < 3; round++)
      expect(await hold(healthy, () => healthy.caughtUp("healthy"))).toBe("was held");

    // It is sent one flush and never comes back.
    let first = true;
    const stuck = backpressureOf((backpressure) => {
      if (first) backpressure.sent("stuck");
      first = false;
    });
    expect(await hold(stuck, () => undefined)).toBe("was held");
    expect(await hold(stuck, () => undefined)).toBe("was held");
    expect(await hold(stuck, () => undefined)).toBe("went on");
  }),
);

test(
  "backpressure: where a busy process runs its timers late, a subscriber is judged after the sockets were read",
  inside(async () => {
    let flushes = 0;
    const backpressure = backpressureOf(
      (to) => {
        if (++flushes === 1) to.sent("subscriber");
        if (flushes !== 2) return;
        setTimeout(toil, 5);
        // Behind the timer of the hold, and due by then as well.
        queueMicrotask(() => setTimeout(() => to.progressed("subscriber"), 20));
      },
      { window: 0, hold: 20 },
    );
    for (let round = 0; round < 3; round++) expect(await hold(backpressure, () => undefined)).toBe("was held");
    expect(await hold(backpressure, () => undefined)).toBe("went on");
  }),
);

test(
  "backpressure: a subscriber that is always behind is not waited for endlessly",
  inside(async () => {
    let first = true;
    const slow = backpressureOf((backpressure) => {
      if (first) backpressure.sent("slow");
      first = false;
    });
    let held = 0;
    while ((await hold(slow, () => slow.progressed("slow"))) === "was held") held++;
    expect(held).toBeGreaterThan(1);
    expect(held).toBeLessThan(12);
  }),
);

test(
  "Stalls: each has its own time, also while others fail again and again",
  inside(async () => {
    const failed: string[] = [];
    const names = new Map<object, string>();
    let done: () => void = () => undefined;
    const over = new Promise<void>((resolve) => {
      done = resolve;
    });
    const stalls = new TimeoutQueue<{ due: number }>(60, (stuck) => {
      const name = names.get(stuck) ?? "";
      failed.push(name);
      if (name === "again") stalls.add(stuck);
      if (failed.length === 4) done();
    });
    const [again, once] = [{ due: 0 }, { due: 0 }];
    names.set(again, "again").set(once, "once");
    stalls.add(again);
    await new Promise((resolve) => setTimeout(resolve, 30));
    stalls.add(once);
    await over;
    stalls.clear();
    // A timer armed for the one that failed again made the other one wait for as long.
    expect(failed).toEqual(["again", "once", "again", "again"]);
  }),
);

test(
  "Heartbeat: one that is added during a turn is left for the next",
  inside(async () => {
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
  "maxConnectionAge: many clients make timers of few durations, of each of which Node and Deno keep something for as long",
  scene(async (stage) => {
    const timers = vi.spyOn(globalThis, "setTimeout");
    try {
      const broker = stage.broker({ maxConnectionAge: 600_000 });
      for (let count = 0; count < 100; count++) await stage.join(broker);
      const durations = timers.mock.calls.map(([, ms = 0]) => ms).filter((ms) => ms > 100_000);
      expect(durations).toHaveLength(100);
      expect(new Set(durations).size).toBeLessThan(25);
    } finally {
      timers.mockRestore();
    }
  }),
);
