// The option `channels` of an engine: what single channels keep.
import { expect, test, vi } from "vitest";
import type { Broker, LogOptions } from "../../../src/index.ts";
import { gapOf } from "../../support/clients/connection.ts";
import {
  type ConnectOptions,
  clientRequest,
  codeOf,
  eventRequest,
  problemOf,
  type TestSetup,
  withBroker,
} from "../../support/test-broker.ts";

type Channels = NonNullable<LogOptions["channels"]>;
const EARLIEST = { query: { from: "earliest" } };

/** What the channels of these tests keep, by the beginning of their name. */
const channels: Channels = (name) => {
  if (name.startsWith("state")) return { retention: { events: 1 } };
  if (name.startsWith("chat")) return { retention: { age: 3_600_000 } };
  if (name.startsWith("typing")) return { retention: { events: 0 } };
  return name.startsWith("plain") ? {} : undefined;
};

async function publish(broker: Broker, channel: string, ...data: readonly string[]): Promise<void> {
  for (const each of data) await broker.broadcast(each, { channels: channel });
}

/** Returns the data that a new client receives, and the channels of its gaps, up to a last event for every client. */
async function received(setup: TestSetup, broker: Broker, options: ConnectOptions) {
  const client = await setup.join(broker, options);
  await broker.broadcast("end");
  await client.untilData("end");
  const gaps = client.control("gap").flatMap((event) => gapOf(event).channels);
  await client.leave();
  return { data: client.data.filter((data) => data !== "end"), gaps: [...new Set(gaps)] };
}

/** Runs `body` with a function that sets the time, in milliseconds from now. */
async function withTime(body: (pass: (ms: number) => void) => Promise<void>): Promise<void> {
  const [start, origin] = [Date.now(), performance.now()];
  const clocks = [vi.spyOn(Date, "now"), vi.spyOn(performance, "now")] as const;
  try {
    await body((ms) => {
      clocks[0].mockReturnValue(start + ms);
      clocks[1].mockReturnValue(origin + ms);
    });
  } finally {
    for (const clock of clocks) clock.mockRestore();
  }
}

test(
  "channels: one keeps the latest event only, beside others that keep all of them",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { channels } });
    const { id: lastEventId } = await broker.broadcast("start", { channels: "other" });
    await publish(broker, "state", "s1", "s2", "s3");
    await publish(broker, "other", "o1", "o2", "o3");
    const channel = ["state", "other"];
    const { data } = await received(setup, broker, { channel, ...EARLIEST });
    expect(data).toEqual(["start", "s3", "o1", "o2", "o3"]);
    expect(await received(setup, broker, { channel, lastEventId })).toEqual({
      data: ["s3", "o1", "o2", "o3"],
      gaps: ["state"],
    });
  }),
);

test(
  "channels: one keeps an hour, beside the engine's five minutes",
  withBroker(async (setup) => {
    await withTime(async (pass) => {
      pass(0);
      const broker = setup.broker({ log: { channels } });
      await publish(broker, "chat", "c1");
      await publish(broker, "other", "o1");
      await publish(broker, "plain", "p1");
      const channel = ["chat", "other", "plain"];
      pass(299_000);
      expect((await received(setup, broker, { channel, ...EARLIEST })).data).toEqual(["c1", "o1", "p1"]);
      pass(301_000);
      expect((await received(setup, broker, { channel, ...EARLIEST })).data).toEqual(["c1"]);
      pass(3_599_000);
      expect((await received(setup, broker, { channel, ...EARLIEST })).data).toEqual(["c1"]);
      pass(3_601_000);
      expect((await received(setup, broker, { channel, ...EARLIEST })).data).toEqual([]);
    });
  }),
);

test(
  "channels: what an answer does not set comes from the engine's retention",
  withBroker(async (setup) => {
    await withTime(async (pass) => {
      pass(0);
      const broker = setup.broker({ log: { retention: { age: 10_000, events: 2 }, channels } });
      await publish(broker, "state", "s1", "s2");
      await publish(broker, "chat", "c1", "c2", "c3");
      const channel = ["state", "chat"];
      expect((await received(setup, broker, { channel, ...EARLIEST })).data).toEqual(["s2", "c2", "c3"]);
      pass(11_000);
      expect((await received(setup, broker, { channel, ...EARLIEST })).data).toEqual(["c2", "c3"]);
    });
  }),
);

test(
  "channels: with events: 0 an event reaches those who can take it now, and is not kept",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { channels } });
    const live = await setup.join(broker, { channel: "typing" });
    const listener = broker.listen({ channels: "typing" });
    for (const data of ["t1", "t2"]) {
      const reading = Promise.all([live.untilData(data), listener.next()]);
      const { id } = await broker.broadcast(data, { channels: "typing" });
      expect((await reading)[1].value).toMatchObject({ type: "event", id, data });
    }
    expect(broker.stats().log).toMatchObject({ events: 0, bytes: 0 });
    const late = await setup.connect(broker, { channel: "typing", ...EARLIEST });
    expect(JSON.parse((await late.next()).data)).toMatchObject({ complete: false, incomplete: ["typing"] });
    expect((await received(setup, broker, { channel: "typing", query: { last: "1" } })).data).toEqual([]);
    expect(live.control("gap")).toEqual([]);
    await listener.return?.();
  }),
);

test(
  "channels: with events: 0 nothing is kept where nobody reads",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { channels } });
    await setup.join(broker, { channel: "other" });
    await publish(broker, "typing", "t1", "t2");
    expect(broker.stats().log).toMatchObject({ events: 0, bytes: 0 });
  }),
);

test(
  "channels: with events: 0 a client that is behind, or away, receives a gap",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { channels } });
    const { id: lastEventId } = await broker.broadcast("start", { channels: "typing" });
    const behind = await setup.join(broker, { channel: "typing" });
    const live = await setup.join(broker, { channel: "typing" });
    const reading = live.untilData("t1");
    const { id } = await broker.broadcast("t1", { channels: "typing" });
    await reading;
    expect(broker.stats().log.events).toBe(0);
    const gap = await behind.next();
    expect([gap.event, gap.id]).toEqual(["fanwire-gap", id]);
    expect(gapOf(gap)).toEqual({ channels: ["typing"], after: lastEventId, through: id });
    expect(await received(setup, broker, { channel: "typing", lastEventId })).toEqual({ data: [], gaps: ["typing"] });
    expect(await received(setup, broker, { channel: "typing", lastEventId: id })).toEqual({ data: [], gaps: [] });
  }),
);

test(
  "channels: with events: 0 a report counts who received the event, and who did not",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { channels } });
    const live = await setup.join(broker, { id: "live", channel: "typing" });
    const behind = await setup.join(broker, { id: "behind", channel: "typing" });
    const reading = live.untilData("t1");
    const { clients, report } = await broker.broadcast("t1", { channels: "typing", report: true });
    await reading;
    expect((await behind.next()).event).toBe("fanwire-gap");
    const { sent, failed } = await report;
    expect([clients, sent]).toEqual([2, 1]);
    expect(failed).toMatchObject([{ clientId: "behind", reason: "lost" }]);
  }),
);

test(
  "channels: an event that another channel keeps stays readable through one that keeps nothing",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { channels } });
    await broker.broadcast("both", { channels: ["typing", "other"] });
    await publish(broker, "typing", "t1");
    expect((await received(setup, broker, { channel: "typing", ...EARLIEST })).data).toEqual(["both"]);
  }),
);

test(
  "channels: is asked about channels by their names, and never about inboxes and events for every client",
  withBroker(async (setup) => {
    const asked = new Set<string>();
    const none: Channels = (name) => {
      asked.add(name);
      return { retention: { events: 0 } };
    };
    const broker = setup.broker({ log: { channels: none } });
    const client = await setup.join(broker, { id: "ann", channel: ["#a", "b c"] });
    const { id: lastEventId } = await broker.broadcast("start");
    await client.untilData("start");
    await client.leave();
    await broker.broadcast("to all");
    await broker.broadcastTo("ann", "to ann");
    await publish(broker, "b c", "to b c");
    expect(await received(setup, broker, { id: "ann", channel: "b c", lastEventId })).toEqual({
      data: ["to all", "to ann"],
      gaps: ["b c"],
    });
    expect([...asked].sort()).toEqual(["#a", "b c"]);
  }),
);

const fails = (): never => {
  throw new Error("no such room");
};
const WRONG: readonly (readonly [what: string, answer: () => unknown])[] = [
  ["throws", fails],
  ["null", () => null],
  ["a string", () => "5m"],
  ["a promise", () => Promise.resolve({})],
  ["an unknown option", () => ({ retain: 5 })],
  ["an unknown retention option", () => ({ retention: { maxAge: 5 } })],
  ["a retention that is no object", () => ({ retention: 5 })],
  ["events below 0", () => ({ retention: { events: -1 } })],
  ["events that are no number", () => ({ retention: { events: "1" } })],
  ["bytes of 0", () => ({ retention: { bytes: 0 } })],
  ["an age of 0", () => ({ retention: { age: 0 } })],
  ["an age that is NaN", () => ({ retention: { age: Number.NaN } })],
];
for (const [what, answer] of WRONG) {
  test(
    `channels: ${what}: events, connections and calls of this channel are refused, and nothing is half done`,
    withBroker(async (setup) => {
      let isWrong = true;
      const wrong = ((name) => (isWrong && name === "bad" ? answer() : undefined)) as Channels;
      const errors: unknown[] = [];
      const broker = setup.broker({
        log: { channels: wrong },
        onError: ({ stage, error }) => void errors.push([stage, error]),
      });
      const client = await setup.join(broker, { channel: "good" });
      const before = broker.stats().log;
      for (const names of ["bad", ["good", "bad"], ["new", "bad"]])
        expect(await codeOf(broker.broadcast("x", { channels: names }))).toMatch(/Error$/);
      expect(await codeOf(broker.history({ channels: "bad" }))).toMatch(/Error$/);
      expect(() => broker.listen({ channels: "bad" })).toThrow();
      for (const response of [
        await broker.clientHandler(clientRequest({ channel: ["good", "bad"] })),
        await broker.eventHandler(eventRequest("x", "?channel=bad")),
      ])
        expect([response.status, await problemOf(response)]).toEqual([500, "internal"]);
      expect(errors).toHaveLength(2);
      expect(errors[0]).toMatchObject([
        "request",
        { message: expect.stringMatching(/no such room|channels\("bad"\)/) },
      ]);
      expect(broker.stats()).toMatchObject({ clients: 1, published: 0, log: before });
      isWrong = false;
      const { id } = await broker.broadcast("y", { channels: ["good", "bad"] });
      expect(await client.next()).toMatchObject({ id, data: "y" });
      expect((await received(setup, broker, { channel: "bad", ...EARLIEST })).data).toEqual(["y"]);
    }),
  );
}

test(
  "channels: anything but a function is a TypeError",
  withBroker(async (setup) => {
    for (const value of [{}, "5m", null, 5])
      expect(() => setup.engine({ channels: value as unknown as Channels })).toThrow(TypeError);
  }),
);

test(
  "channels: holds for the log of an engine that starts again, and what a channel has is kept while there is no answer",
  withBroker(async (setup) => {
    await withTime(async (pass) => {
      pass(0);
      let isFailing = false;
      const start = setup.engines({ channels: (name) => (isFailing ? fails() : channels(name)) });
      const before = setup.broker({ engine: start() });
      const { id: lastEventId } = await before.broadcast("start", { channels: "other" });
      await publish(before, "chat", "c1", "c2");
      await publish(before, "state", "s1", "s2");
      await publish(before, "typing", "t1");
      await publish(before, "other", "o1");
      pass(600_000);
      isFailing = true;
      await before.close();
      // In SQLite the second engine reads the log from the storage; in memory it is the same one.
      const broker = setup.broker({ engine: start() });
      // Opens the engine.
      await broker.history({ limit: 0 });
      isFailing = false;
      const channel = ["chat", "state", "typing", "other"];
      const { data, gaps } = await received(setup, broker, { channel, lastEventId });
      expect(data).toEqual(["c1", "c2"]);
      expect(gaps.sort()).toEqual(["other", "state", "typing"]);
    });
  }),
);
