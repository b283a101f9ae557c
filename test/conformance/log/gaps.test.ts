import { expect, test, vi } from "vitest";
import type { LogOptions } from "../../../src/index.ts";
import { type Connection, type GapData, gapOf, seqOf } from "../../support/clients/connection.ts";
import { type TestSetup, withBroker } from "../../support/test-broker.ts";

// A client learns exactly which events are missing, and gaps have their place in the order.

/** Creates a broker, remembers its position 0, and returns a function that comes back from any sequence number. */
async function brokerFromZero(setup: TestSetup, log: LogOptions, channel: readonly string[] = []) {
  const broker = setup.broker({ log });
  const first = await setup.join(broker, { channel });
  const zero = first.lastEventId ?? "";
  await first.leave();
  const idOf = (seq: number): string => zero.replace(/0$/, String(seq));
  const resume = (seq: number): Promise<Connection> => setup.connect(broker, { channel, lastEventId: idOf(seq) });
  return { broker, idOf, resume };
}

/** Reads up to the common event "end". Returns events as their data, and gaps as `(after, through] of channels @ id`. */
async function received(client: Connection): Promise<string[]> {
  const lines: string[] = [];
  for (;;) {
    const event = await client.next();
    if (event.event === "fanwire-ready") continue;
    if (event.event !== "fanwire-gap") lines.push(event.data);
    else lines.push(`${describeGap(gapOf(event))} @ ${seqOf(event.id)}`);
    if (event.data === "end") return lines;
  }
}
const describeGap = ({ channels, after, through }: GapData): string =>
  `(${after === null ? "?" : seqOf(after)}, ${seqOf(through)}] of ${channels.join(", ")}`;

test(
  "retention.events: this many events of each channel are retained, and the gaps name exactly the others",
  withBroker(async (setup) => {
    const { broker, resume, idOf } = await brokerFromZero(setup, { retention: { events: 3 } }, ["a"]);
    for (let event = 1; event <= 5; event++) await broker.broadcast(`c${event}`);
    for (let event = 6; event <= 9; event++) await broker.broadcast(`a${event}`, { channels: "a" });
    const client = await resume(0);
    expect(await client.next()).toMatchObject({ event: "fanwire-ready", id: undefined });
    await client.untilData("a9");
    expect(client.data).toEqual(["c3", "c4", "c5", "a7", "a8", "a9"]);
    // Each gap stands where its missing range ends.
    const gaps = client.control("gap").map((event) => [event.id, gapOf(event)] as const);
    expect(gaps).toContainEqual([idOf(2), { channels: ["fanwire-common"], after: idOf(0), through: idOf(2) }]);
    expect(gaps).toContainEqual([idOf(6), { channels: ["a"], after: idOf(0), through: idOf(6) }]);
  }),
);

test(
  "retention.events: a client that missed only retained events receives no gap",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { retention: { events: 3 } });
    for (let event = 1; event <= 5; event++) await broker.broadcast(`c${event}`);
    const client = await resume(2);
    await client.untilData("c5");
    await broker.broadcast("end");
    await client.untilData("end");
    expect(client.data).toEqual(["c3", "c4", "c5", "end"]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "retention.bytes: as many events of a channel as fit are retained",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { retention: { bytes: 3_500 } });
    for (let event = 1; event <= 5; event++) await broker.broadcast("x".repeat(1_000));
    const client = await resume(0);
    const gap = await client.untilControl("gap");
    expect(describeGap(gapOf(gap))).toBe("(0, 2] of fanwire-common");
    const retained = [await client.next(), await client.next(), await client.next()];
    expect(retained.map(({ id }) => seqOf(id))).toEqual([3, 4, 5]);
  }),
);

test(
  "retention.age: older events are dropped even if nothing was published since, and fanwire-ready then has no id",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { retention: { age: 10_000 } });
    await broker.broadcast("old");
    const start = Date.now();
    const clock = vi.spyOn(Date, "now");
    try {
      clock.mockReturnValue(start + 9_000);
      await broker.broadcast("young");
      clock.mockReturnValue(start + 12_000);
      const client = await resume(0);
      expect(await client.next()).toMatchObject({ event: "fanwire-ready", id: undefined });
      const gap = await client.next();
      expect([describeGap(gapOf(gap)), seqOf(gap.id)]).toEqual(["(0, 1] of fanwire-common", 1]);
      expect((await client.next()).data).toBe("young");
    } finally {
      clock.mockRestore();
    }
  }),
);

test(
  "retention.age: an event of two channels that is dropped while a client catches up does not remove another event",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 60_000, log: { retention: { age: 10_000 } } });
    const client = await setup.join(broker, { channel: ["a", "b"] });
    const reading = await setup.join(broker, { channel: "a" });
    const start = Date.now();
    const clock = vi.spyOn(Date, "now");
    try {
      clock.mockReturnValue(start);
      await broker.broadcast("1", { channels: ["a", "b"] });
      await client.untilData("1");
      clock.mockReturnValue(start + 9_000);
      const flushed = reading.untilData("3");
      await broker.broadcast("2", { channels: "a" });
      await broker.broadcast("in b", { channels: "b" });
      await broker.broadcast("3", { channels: "a" });
      await flushed;
      clock.mockReturnValue(start + 12_000);
      await client.untilData("3");
      expect(client.data).toEqual(["1", "2", "in b", "3"]);
    } finally {
      clock.mockRestore();
    }
  }),
);

test(
  "logBytes: a full log drops the oldest events of the largest channel, and small channels keep theirs",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { logBytes: 20_000 }, ["big", "small"]);
    await broker.broadcast("small", { channels: "small" });
    for (let event = 0; event < 60; event++) await broker.broadcast("x".repeat(1_000), { channels: "big" });
    expect(broker.stats().log.bytes).toBeLessThanOrEqual(20_000);
    const client = await resume(0);
    await broker.broadcast("end");
    await client.untilData("end");
    expect(client.data).toContain("small");
    const gaps = client.control("gap").map(gapOf);
    expect(gaps.length).toBeGreaterThan(0);
    for (const { channels } of gaps) expect(channels).toEqual(["big"]);
  }),
);

test(
  "gap with other events inside: is announced at once without moving the id, and again where it ends",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { retention: { events: 1 } }, ["a", "b"]);
    for (const channel of ["a", "a", "b", "a", "a", "a"]) await broker.broadcast(channel, { channels: channel });
    const client = await resume(0);
    await broker.broadcast("end");
    // Of a, 1, 2, 4 and 5 are dropped and 6 is retained. Of b, 3 is retained.
    expect(await received(client)).toEqual(["(0, 5] of a @ 0", "b", "(0, 5] of a @ 5", "a", "end"]);
  }),
);

test(
  "gap with other events inside: a client that leaves in the middle and comes back receives a gap for the rest",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { retention: { events: 1 } }, ["a", "b"]);
    for (const channel of ["a", "a", "b", "a", "a", "a"]) await broker.broadcast(channel, { channels: channel });
    const client = await resume(0);
    await client.untilData("b");
    expect(client.control("gap").map((event) => describeGap(gapOf(event)))).toContain("(0, 5] of a");
    await client.leave();
    const back = await resume(seqOf(client.lastEventId));
    await broker.broadcast("end");
    expect(await received(back)).toEqual(["(3, 5] of a @ 5", "a", "end"]);
  }),
);

test(
  "two missing ranges with the same end: a client that leaves between their gaps still receives the second one",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { retention: { events: 1 } }, ["a", "b"]);
    await broker.broadcast("dropped in both", { channels: ["a", "b"] });
    await broker.broadcast("a", { channels: "a" });
    await broker.broadcast("b", { channels: "b" });
    const client = await resume(0);
    const first = await client.untilControl("gap");
    await client.leave();
    const before = gapOf(first).channels;
    const back = await resume(seqOf(client.lastEventId));
    await broker.broadcast("end");
    await back.untilData("end");
    const all = [...before, ...back.control("gap").flatMap((event) => gapOf(event).channels)];
    expect([...new Set(all)].sort()).toEqual(["a", "b"]);
  }),
);

test(
  "a missing range that ends inside another: a client that leaves between their gaps learns all of the other",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { retention: { events: 1 } }, ["a", "b"]);
    // Of a, 1 and 3 are dropped and 5 is retained. Of b, 2 is dropped and 4 is retained.
    for (const channel of ["a", "b", "a", "b", "a"]) await broker.broadcast(channel, { channels: channel });
    for (let events = 1; events <= 3; events++) {
      const client = await resume(0);
      await client.untilControl("ready");
      const seen = [];
      for (let event = 0; event < events; event++) seen.push(await client.next());
      await client.leave();
      const back = await resume(seqOf(client.lastEventId));
      await broker.broadcast("end", { channels: "b" });
      await back.untilData("end");
      const gaps = [...seen, ...back.events].filter(({ event }) => event === "fanwire-gap").map(gapOf);
      const ofA = gaps.filter(({ channels }) => channels.includes("a"));
      expect(ofA.map(({ after }) => seqOf(after))).toContain(0);
    }
  }),
);

test(
  "an event that one channel released and another retains: is received, and the gap covers only missing events",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { retention: { events: 1 } }, ["a", "b"]);
    await broker.broadcast("in both", { channels: ["a", "b"] });
    await broker.broadcast("dropped", { channels: "a" });
    await broker.broadcast("retained", { channels: "a" });
    const client = await resume(0);
    await broker.broadcast("end");
    const lines = await received(client);
    expect(lines.filter((line) => !line.startsWith("("))).toEqual(["in both", "retained", "end"]);
    expect(lines).toContainEqual(expect.stringMatching(/^\(\d, 2\] of a @ 2$/));
  }),
);

test(
  "gap: there is none if every event is received through another channel",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { retention: { events: 1 } }, ["a", "b"]);
    await broker.broadcast("of another channel", { channels: "c" });
    await broker.broadcast("in both", { channels: ["a", "b"] });
    await broker.broadcast("of a", { channels: "a" });
    const client = await resume(0);
    await broker.broadcast("end");
    expect(await received(client)).toEqual(["in both", "of a", "end"]);
  }),
);

test(
  "maxChannels: a client that comes back to a forgotten channel receives a gap",
  withBroker(async (setup) => {
    const { broker, resume } = await brokerFromZero(setup, { maxChannels: 4 }, ["a"]);
    await broker.broadcast("forgotten", { channels: "a" });
    for (let channel = 0; channel < 10; channel++) await broker.broadcast("x", { channels: `other ${channel}` });
    expect(broker.stats().log.channels).toBeLessThanOrEqual(4);
    const client = await resume(0);
    await broker.broadcast("end");
    const lines = await received(client);
    expect(lines).toContainEqual(expect.stringMatching(/of .*\ba @ \d+$/));
    expect(lines).not.toContain("forgotten");
  }),
);

test(
  "maxChannels: every event that stats().log counts can still be read",
  withBroker(async (setup) => {
    const { broker } = await brokerFromZero(setup, { maxChannels: 3 });
    const client = await setup.join(broker, { id: "one", channel: "a" });
    await broker.broadcast("in a", { channels: "a" });
    await client.nextData();
    await broker.broadcast("in b", { channels: "b" });
    await broker.broadcast("in c", { channels: "c" });
    await client.leave();
    const { events } = broker.stats().log;
    let readable = 0;
    // Forgotten channels come last, because reading them may make the log forget others.
    for (const channels of ["c", "a", "b"]) readable += (await broker.history({ channels })).events.length;
    expect(events).toBe(readable);
  }),
);

test(
  "overrun: a blocked client receives a gap that begins where it stalled, and then the retained events",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { logBytes: 10_000 } });
    const client = await setup.join(broker);
    const { id } = await broker.broadcast("read");
    await client.untilData("read");
    for (let event = 0; event < 100; event++) await broker.broadcast(`${event} ${"x".repeat(500)}`);
    // One chunk may have been on its way before the stall.
    const gap = await client.untilControl("gap");
    const { after, through } = gapOf(gap);
    const before = client.events.slice(0, client.events.indexOf(gap)).findLast((event) => event.id !== undefined);
    expect(after).toBe(before?.id);
    expect(seqOf(after)).toBeGreaterThanOrEqual(seqOf(id));
    expect(gap.id).toBe(through);
    const next = await client.nextData();
    expect(seqOf(next.id)).toBe(seqOf(through) + 1);
    expect(broker.stats().gaps).toBe(1);
  }),
);
