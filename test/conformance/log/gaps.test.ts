import { expect, test, vi } from "vitest";
import type { LogOptions } from "../../../src/index.ts";
import { type Connection, type GapData, gapOf, seqOf } from "../../support/clients/connection.ts";
import { type Scene, scene } from "../../support/test-broker.ts";

// What is lost is said, exactly, and where it stands in the order.

/** A broker of which somebody remembers position 0, and a way to come back from there or from a seq. */
async function remembered(stage: Scene, log: LogOptions, channel: readonly string[] = []) {
  const broker = stage.broker({ log });
  const first = await stage.join(broker, { channel });
  const zero = first.lastEventId ?? "";
  await first.leave();
  const idOf = (seq: number): string => zero.replace(/0$/, String(seq));
  const resume = (seq: number): Promise<Connection> => stage.connect(broker, { channel, lastEventId: idOf(seq) });
  return { broker, idOf, resume };
}

/** The rest of what a client is given, up to the common event "end", as `data` or `(after, through] of channels @ id`. */
async function story(client: Connection): Promise<string[]> {
  const told: string[] = [];
  for (;;) {
    const event = await client.next();
    if (event.event === "fanwire-ready") continue;
    if (event.event !== "fanwire-gap") told.push(event.data);
    else told.push(`${describeGap(gapOf(event))} @ ${seqOf(event.id)}`);
    if (event.data === "end") return told;
  }
}
const describeGap = ({ channels, after, through }: GapData): string =>
  `(${after === null ? "?" : seqOf(after)}, ${seqOf(through)}] of ${channels.join(", ")}`;

test(
  "retention.events: so many of each channel are kept, and the gap names exactly the others",
  scene(async (stage) => {
    const { broker, resume, idOf } = await remembered(stage, { retention: { events: 3 } }, ["a"]);
    for (let event = 1; event <= 5; event++) await broker.broadcast(`c${event}`);
    for (let event = 6; event <= 9; event++) await broker.broadcast(`a${event}`, { channels: "a" });
    const client = await resume(0);
    expect(await client.next()).toMatchObject({ event: "fanwire-ready", id: undefined });
    await client.untilData("a9");
    expect(client.data).toEqual(["c3", "c4", "c5", "a7", "a8", "a9"]);
    // Each hole stands where it ends.
    const standing = client.control("gap").map((event) => [event.id, gapOf(event)] as const);
    expect(standing).toContainEqual([idOf(2), { channels: ["fanwire-common"], after: idOf(0), through: idOf(2) }]);
    expect(standing).toContainEqual([idOf(6), { channels: ["a"], after: idOf(0), through: idOf(6) }]);
  }),
);

test(
  "retention.events: what it covers comes back without a gap",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { retention: { events: 3 } });
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
  "retention.bytes: as many of a channel as fit are kept",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { retention: { bytes: 3_500 } });
    for (let event = 1; event <= 5; event++) await broker.broadcast("x".repeat(1_000));
    const client = await resume(0);
    const gap = await client.untilControl("gap");
    expect(describeGap(gapOf(gap))).toBe("(0, 2] of fanwire-common");
    const kept = [await client.next(), await client.next(), await client.next()];
    expect(kept.map(({ id }) => seqOf(id))).toEqual([3, 4, 5]);
  }),
);

test(
  "retention.age: what is older is gone, also if nothing was published since; ready has no id then",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { retention: { age: 10_000 } });
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
  "retention.age: an event of two channels that goes while a client catches up takes no other one along",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 60_000, log: { retention: { age: 10_000 } } });
    const client = await stage.join(broker, { channel: ["a", "b"] });
    const reading = await stage.join(broker, { channel: "a" });
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
  "logBytes: beyond it the largest channel loses its oldest first, and small ones keep theirs",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { logBytes: 20_000 }, ["big", "small"]);
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
  "a hole with other channels' events inside: said at once without moving the id, and again where it ends",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { retention: { events: 1 } }, ["a", "b"]);
    for (const channel of ["a", "a", "b", "a", "a", "a"]) await broker.broadcast(channel, { channels: channel });
    const client = await resume(0);
    await broker.broadcast("end");
    // Of a: 1, 2, 4, 5 are gone and 6 is there; of b: 3 is there.
    expect(await story(client)).toEqual(["(0, 5] of a @ 0", "b", "(0, 5] of a @ 5", "a", "end"]);
  }),
);

test(
  "a hole with other channels' events inside: who leaves in the middle and comes back is told of the rest",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { retention: { events: 1 } }, ["a", "b"]);
    for (const channel of ["a", "a", "b", "a", "a", "a"]) await broker.broadcast(channel, { channels: channel });
    const client = await resume(0);
    await client.untilData("b");
    expect(client.control("gap").map((event) => describeGap(gapOf(event)))).toContain("(0, 5] of a");
    await client.leave();
    const back = await resume(seqOf(client.lastEventId));
    await broker.broadcast("end");
    expect(await story(back)).toEqual(["(3, 5] of a @ 5", "a", "end"]);
  }),
);

test(
  "two holes that end at one place: who leaves between their gaps is told of the second one",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { retention: { events: 1 } }, ["a", "b"]);
    await broker.broadcast("lost in both", { channels: ["a", "b"] });
    await broker.broadcast("a", { channels: "a" });
    await broker.broadcast("b", { channels: "b" });
    const client = await resume(0);
    const first = await client.untilControl("gap");
    await client.leave();
    const told = gapOf(first).channels;
    const back = await resume(seqOf(client.lastEventId));
    await broker.broadcast("end");
    await back.untilData("end");
    const all = [...told, ...back.control("gap").flatMap((event) => gapOf(event).channels)];
    expect([...new Set(all)].sort()).toEqual(["a", "b"]);
  }),
);

test(
  "a hole that ends inside of another: who leaves between their gaps is told of all of the other",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { retention: { events: 1 } }, ["a", "b"]);
    // Of a: 1, 3 are gone and 5 is there; of b: 2 is gone and 4 is there.
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
  "an event that one channel dropped and another still has is received, and the gap covers only what is missing",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { retention: { events: 1 } }, ["a", "b"]);
    await broker.broadcast("in both", { channels: ["a", "b"] });
    await broker.broadcast("lost", { channels: "a" });
    await broker.broadcast("kept", { channels: "a" });
    const client = await resume(0);
    await broker.broadcast("end");
    const told = await story(client);
    expect(told.filter((line) => !line.startsWith("("))).toEqual(["in both", "kept", "end"]);
    expect(told).toContainEqual(expect.stringMatching(/^\(\d, 2\] of a @ 2$/));
  }),
);

test(
  "no gap where every event is received through another channel",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { retention: { events: 1 } }, ["a", "b"]);
    await broker.broadcast("of others", { channels: "c" });
    await broker.broadcast("in both", { channels: ["a", "b"] });
    await broker.broadcast("of a", { channels: "a" });
    const client = await resume(0);
    await broker.broadcast("end");
    expect(await story(client)).toEqual(["in both", "of a", "end"]);
  }),
);

test(
  "maxChannels: a client that comes back to a forgotten channel is told of a gap",
  scene(async (stage) => {
    const { broker, resume } = await remembered(stage, { maxChannels: 4 }, ["a"]);
    await broker.broadcast("lost", { channels: "a" });
    for (let channel = 0; channel < 10; channel++) await broker.broadcast("x", { channels: `other ${channel}` });
    expect(broker.stats().log.channels).toBeLessThanOrEqual(4);
    const client = await resume(0);
    await broker.broadcast("end");
    const told = await story(client);
    expect(told).toContainEqual(expect.stringMatching(/of .*\ba @ \d+$/));
    expect(told).not.toContain("lost");
  }),
);

test(
  "maxChannels: what stats().log counts can still be read",
  scene(async (stage) => {
    const { broker } = await remembered(stage, { maxChannels: 3 });
    const client = await stage.join(broker, { id: "one", channel: "a" });
    await broker.broadcast("in a", { channels: "a" });
    await client.nextData();
    await broker.broadcast("in b", { channels: "b" });
    await broker.broadcast("in c", { channels: "c" });
    await client.leave();
    const { events } = broker.stats().log;
    let readable = 0;
    // What is there comes in the same turn. The forgotten ones last, because a look at them may forget others.
    for (const channel of ["c", "a", "b"]) {
      const listener = broker.listen({ channels: channel, from: "earliest" });
      const next = listener.next();
      await listener.return?.();
      if (!(await next).done) readable++;
    }
    expect(events).toBe(readable);
  }),
);

test(
  "a blocked client that the log overran reads a gap from its stall, and then what is retained",
  scene(async (stage) => {
    const broker = stage.broker({ log: { logBytes: 10_000 } });
    const client = await stage.join(broker);
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
