// Streams that start with the newest events of each channel: `?last=50`, and `?from=latest`, which is `?last=1`.
import { expect, test } from "vitest";
import type { Broker, Listened } from "../../../src/index.ts";
import { gapOf, seqOf } from "../../support/clients/connection.ts";
import { withBroker } from "../../support/test-broker.ts";

/** Publishes events to channels: `"a1"` to channel `a`, `"ab1"` to `a` and `b`. */
async function publish(broker: Broker, ...data: readonly string[]): Promise<void> {
  for (const each of data) await broker.broadcast(each, { channels: each.replace(/\d+$/, "").split("") });
}

const LAST = (last: number): { query: { last: string } } => ({ query: { last: `${last}` } });
const ABC = { channel: ["a", "b", "c"] };

/** Returns what the iterator yields up to the event `data`. */
async function listenedThrough(listener: AsyncIterableIterator<Listened, undefined>, data: string): Promise<string[]> {
  const received: string[] = [];
  for await (const item of listener) {
    received.push(item.type === "event" ? item.data : "gap");
    if (received.at(-1) === data) break;
  }
  return received;
}

test(
  "last: each channel starts at its newest events, merged in order, and new events follow",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await broker.broadcast("common 1");
    await publish(broker, "b1", "a1", "a2", "b2", "a3", "c1", "a4");
    const client = await setup.connect(broker, { ...ABC, ...LAST(2) });
    const ready = JSON.parse((await client.untilControl("ready")).data);
    expect(ready).toMatchObject({ resumed: false, complete: false, incomplete: ["a"] });
    await publish(broker, "b3", "a5");
    await client.untilData("a5");
    expect(client.data).toEqual(["common 1", "b1", "b2", "a3", "c1", "a4", "b3", "a5"]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "from=latest: the newest event of each channel",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, "a1", "b1", "a2", "c1", "b2", "a3");
    const client = await setup.connect(broker, { ...ABC, query: { from: "latest" } });
    expect(JSON.parse((await client.untilControl("ready")).data)).toMatchObject({ incomplete: ["a", "b"] });
    await client.untilData("a3");
    expect(client.data).toEqual(["c1", "b2", "a3"]);
    const byOverride = await setup.join(broker, { ...ABC, overrides: { from: "latest" } });
    await byOverride.untilData("a3");
    expect(byOverride.data).toEqual(["c1", "b2", "a3"]);
  }),
);

test(
  "last: a channel with fewer events is complete, and so is one without any",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, "a1", "a2", "b1");
    const client = await setup.connect(broker, { ...ABC, ...LAST(2) });
    const ready = await client.untilControl("ready");
    expect(JSON.parse(ready.data)).toMatchObject({ complete: true, incomplete: [] });
    await client.untilData("b1");
    expect(client.data).toEqual(["a1", "a2", "b1"]);
  }),
);

test(
  "last: without any event the stream is live from the head",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, "x1");
    const client = await setup.connect(broker, { ...ABC, ...LAST(2) });
    expect(JSON.parse((await client.untilControl("ready")).data)).toMatchObject({ complete: true });
    await publish(broker, "a1");
    expect((await client.next()).data).toBe("a1");
  }),
);

test(
  "last: a beginning that is not retained is incomplete, and no gap",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 2 } } });
    await publish(broker, "a1", "a2", "a3", "b1", "b2");
    const client = await setup.connect(broker, { ...ABC, ...LAST(3) });
    expect(JSON.parse((await client.untilControl("ready")).data)).toMatchObject({ incomplete: ["a"] });
    await client.untilData("b2");
    expect(client.data).toEqual(["a2", "a3", "b1", "b2"]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "last: an event of several channels is sent if one of the reader's channels starts with it",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, "ab1", "a2", "a3");
    const both = await setup.join(broker, { channel: ["a", "b"], ...LAST(1) });
    await both.untilData("a3");
    expect(both.data).toEqual(["ab1", "a3"]);
    const one = await setup.join(broker, { channel: "a", ...LAST(1) });
    await one.untilData("a3");
    expect(one.data).toEqual(["a3"]);
  }),
);

test(
  "last: without an id in fanwire-ready while channels start at different positions, so that a retry asks for the same",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, "b1", "a1", "a2", "a3");
    const several = await setup.connect(broker, { ...ABC, ...LAST(1) });
    expect((await several.next()).id).toBeUndefined();
    const single = await setup.connect(broker, { channel: "a", ...LAST(1) });
    expect(seqOf((await single.next()).id)).toBe(3);
  }),
);

test(
  "last, from=latest: have no effect with an id, known or not",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, "a1", "a2", "a3");
    const { id } = await broker.broadcast("a4", { channels: "a" });
    await publish(broker, "a5", "a6");
    for (const query of [{ last: "1" }, { from: "latest" }]) {
      const resumed = await setup.connect(broker, { channel: "a", lastEventId: id, query });
      const ready = JSON.parse((await resumed.next()).data);
      expect(ready).toMatchObject({ resumed: true });
      expect(ready).not.toHaveProperty("complete");
      await resumed.untilData("a6");
      expect(resumed.data).toEqual(["a5", "a6"]);
      const foreign = await setup.join(broker, { channel: "a", lastEventId: "garbage", query });
      expect(gapOf(await foreign.next()).after).toBeNull();
      await foreign.untilData("a6");
      expect(foreign.data).toEqual(["a1", "a2", "a3", "a4", "a5", "a6"]);
    }
  }),
);

test(
  "last: of events that were published in the turn of the call, only the newest are sent",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const other = await setup.join(broker, { channel: ["a", "b"] });
    // The engine answers in the same turn, and the flush for the other client comes in the next one.
    for (const data of ["b1", "a1", "a2", "a3"]) void broker.broadcast(data, { channels: data.charAt(0) });
    const listener = broker.listen({ channels: ["a", "b"], last: 1 });
    const listened = listenedThrough(listener, "end");
    await other.untilData("a3");
    await broker.broadcast("end", { channels: "a" });
    expect(await listened).toEqual(["b1", "a3", "end"]);
  }),
);

test(
  "last: maxReplay bounds what is sent, and does not count what a channel leaves out",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxReplay: { events: 4 } });
    await publish(broker, "b1", "b2", "a1", "a2", "a3", "a4", "a5");
    const fits = await setup.join(broker, { ...ABC, ...LAST(2) });
    await fits.untilData("a5");
    expect(fits.data).toEqual(["b1", "b2", "a4", "a5"]);
    const exceeds = await setup.connect(broker, { ...ABC, ...LAST(3) });
    expect(JSON.parse((await exceeds.next()).data)).toMatchObject({ incomplete: ["a", "b"] });
    await exceeds.untilData("a5");
    expect(exceeds.data).toEqual(["b2", "a3", "a4", "a5"]);
    // With events of several channels the bound is found in another way.
    await publish(broker, "ab6");
    const shared = await setup.join(broker, { ...ABC, ...LAST(2) });
    await shared.untilData("ab6");
    expect(shared.data).toEqual(["b2", "a5", "ab6"]);
    const bounded = await setup.join(broker, { ...ABC, ...LAST(4) });
    await bounded.untilData("ab6");
    expect(bounded.data).toEqual(["a3", "a4", "a5", "ab6"]);
  }),
);

test(
  "last: what is dropped while the client reads is a gap if it was to be sent, and nothing else is",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 4 } } });
    const big = "x".repeat(70_000);
    for (const data of ["b1", "a1", "a2", "a3", "a4"])
      await broker.broadcast(data.startsWith("b") ? `${data} ${big}` : data, { channels: data.charAt(0) });
    // Each large event is a chunk of its own.
    await broker.broadcast(`b2 ${big}`, { channels: "b" });
    const client = await setup.connect(broker, { channel: ["a", "b"], ...LAST(2) });
    await client.next();
    expect((await client.next()).data).toMatch(/^b1 /);
    const other = await setup.join(broker, { channel: "a" });
    await publish(broker, "a5", "a6", "a7", "a8");
    // Nothing is dropped that was not offered to every subscriber.
    await other.untilData("a8");
    await publish(broker, "a9");
    await client.untilData("a9");
    expect(client.data.map((data) => data.slice(0, 2))).toEqual(["b1", "b2", "a6", "a7", "a8", "a9"]);
    const gaps = client.control("gap").map(gapOf);
    expect(gaps.map(({ channels }) => channels)).toEqual(gaps.map(() => ["a"]));
    // a3 (position 4), a4 and a5 were to be sent; a1 and a2 were not.
    expect(gaps.map(({ after, through }) => [seqOf(after ?? ""), seqOf(through)])).toContainEqual([3, 7]);
  }),
);

test(
  "last: a client that comes back receives what follows its id, of all channels",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, "b1", "a1", "a2", "a3");
    const client = await setup.join(broker, { channel: ["a", "b"], ...LAST(1) });
    expect((await client.next()).data).toBe("b1");
    await client.leave();
    const back = await setup.join(broker, {
      channel: ["a", "b"],
      lastEventId: client.lastEventId ?? "",
      ...LAST(1),
    });
    await back.untilData("a3");
    expect(back.data).toEqual(["a1", "a2", "a3"]);
    expect(back.control("gap")).toEqual([]);
  }),
);

test(
  "listen(): last and from: latest start where a client would start",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, "b1", "a1", "a2", "b2", "a3");
    const channels = ["a", "b"];
    expect(await listenedThrough(broker.listen({ channels, last: 2 }), "a3")).toEqual(["b1", "a2", "b2", "a3"]);
    expect(await listenedThrough(broker.listen({ channels, from: "latest" }), "a3")).toEqual(["b2", "a3"]);
  }),
);

test(
  "resumed: false if a gap follows, at once or later",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 2 } } });
    const { id } = await broker.broadcast("a0", { channels: "a" });
    await publish(broker, "a1", "b1", "a2");
    const whole = await setup.connect(broker, { channel: ["a", "b"], lastEventId: id });
    expect(JSON.parse((await whole.next()).data)).toMatchObject({ resumed: true });
    await publish(broker, "a3");
    const ready = await (await setup.connect(broker, { channel: ["a", "b"], lastEventId: id })).next();
    expect(JSON.parse(ready.data)).toMatchObject({ resumed: false });
    expect(ready.id).toBeUndefined();
  }),
);
