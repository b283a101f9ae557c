import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { gapOf, seqOf } from "../../support/clients/connection.ts";
import { withBroker } from "../../support/test-broker.ts";

// Where a stream starts, and what `fanwire-ready` and the first gap say about it.

/** Publishes 1, 2 and 3 to every client, and returns the ids. */
async function publishThree(broker: Broker): Promise<[string, string, string]> {
  const ids: string[] = [];
  for (const data of ["1", "2", "3"]) ids.push((await broker.broadcast(data)).id);
  return ids as [string, string, string];
}

test(
  "no Last-Event-ID: the stream starts at the head, and fanwire-ready has the id of the head",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [, , head] = await publishThree(broker);
    const client = await setup.connect(broker);
    const ready = await client.next();
    expect(ready).toMatchObject({ event: "fanwire-ready", id: head });
    expect(JSON.parse(ready.data)).toEqual({
      clientId: client.clientId,
      resumed: false,
      channels: [],
      secret: expect.any(String),
      heartbeat: expect.any(Number),
    });
    await broker.broadcast("4");
    expect(await client.next()).toMatchObject({ data: "4" });
  }),
);

test(
  "no Last-Event-ID: a client that drops right after fanwire-ready receives what it missed when it comes back",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    await client.leave();
    await broker.broadcast("missed");
    const back = await setup.join(broker, { lastEventId: client.lastEventId ?? "" });
    expect((await back.next()).data).toBe("missed");
  }),
);

test(
  "Last-Event-ID of this log: the stream starts after it, and fanwire-ready is resumed and has that id",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [first] = await publishThree(broker);
    const client = await setup.connect(broker, { lastEventId: first });
    const ready = await client.next();
    expect(ready).toMatchObject({ event: "fanwire-ready", id: first });
    expect(JSON.parse(ready.data)).toMatchObject({ resumed: true });
    expect([(await client.next()).data, (await client.next()).data]).toEqual(["2", "3"]);
  }),
);

test(
  "Last-Event-ID at the head: the stream is resumed and nothing is replayed",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [, , head] = await publishThree(broker);
    const client = await setup.connect(broker, { lastEventId: head });
    expect(await client.next()).toMatchObject({ event: "fanwire-ready", id: head });
    await broker.broadcast("4");
    expect((await client.next()).data).toBe("4");
  }),
);

test(
  "Last-Event-ID: an empty one counts as absent",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publishThree(broker);
    const client = await setup.connect(broker, { lastEventId: "", query: { lastEventId: "" } });
    expect(JSON.parse((await client.next()).data)).toMatchObject({ resumed: false });
    await broker.broadcast("4");
    expect((await client.next()).data).toBe("4");
  }),
);

const foreign: readonly (readonly [what: string, id: (head: string) => string])[] = [
  ["malformed", () => "garbage"],
  ["a bare number", () => "3"],
  ["of another epoch", (head) => head.replace(/^[^-]+/, "elsewhere")],
  ["beyond the head", (head) => head.replace(/\d+$/, "4")],
  ["far beyond the head", (head) => head.replace(/\d+$/, "9007199254740991")],
  ["beyond safe integers", (head) => head.replace(/\d+$/, "9999999999999999")],
  ["with a leading zero", (head) => head.replace(/-(\d+)$/, "-0$1")],
  ["negative", (head) => head.replace(/-(\d+)$/, "--$1")],
  ["with a character after it", (head) => `${head}x`],
  ["longer than any id", () => `${"x".repeat(100)}-1`],
  ["with markup", () => '"><script>'],
];

for (const [what, make] of foreign) {
  test(
    `Last-Event-ID ${what}: 200 and a gap at once, then everything that is retained; the foreign id is never sent back`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      const [first, , head] = await publishThree(broker);
      const id = make(head);
      const client = await setup.connect(broker, { id: "one", channel: "a", lastEventId: id });
      expect(client.response.status).toBe(200);
      const ready = await client.next();
      expect(ready).toMatchObject({ event: "fanwire-ready", id: undefined });
      expect(JSON.parse(ready.data)).toEqual({
        clientId: "one",
        resumed: false,
        channels: ["a"],
        secret: expect.any(String),
        heartbeat: expect.any(Number),
      });
      const gap = await client.next();
      const zero = first.replace(/1$/, "0");
      expect(gap).toMatchObject({ event: "fanwire-gap", id: zero });
      expect(gapOf(gap)).toEqual({ channels: ["fanwire-common", "fanwire-inbox", "a"], after: null, through: zero });
      const replayed = [await client.next(), await client.next(), await client.next()];
      expect(replayed.map(({ data }) => data)).toEqual(["1", "2", "3"]);
      const raw = client.chunks.map((chunk) => new TextDecoder().decode(chunk)).join("");
      if (what !== "a bare number") expect(raw).not.toContain(id);
    }),
  );
}

test(
  "?lastEventId=: counts if there is no header, and a header wins over it",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [first, second] = await publishThree(broker);
    const byQuery = await setup.join(broker, { query: { lastEventId: second } });
    expect((await byQuery.next()).data).toBe("3");
    const both = await setup.join(broker, { lastEventId: first, query: { lastEventId: second } });
    expect((await both.next()).data).toBe("2");
    const emptyHeader = await setup.join(broker, { lastEventId: "", query: { lastEventId: second } });
    expect((await emptyHeader.next()).data).toBe("3");
  }),
);

test(
  "overrides: lastEventId and from of trusted code win over those of the request",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [first, second] = await publishThree(broker);
    const client = await setup.join(broker, { lastEventId: first, overrides: { lastEventId: second } });
    expect((await client.next()).data).toBe("3");
    const earliest = await setup.join(broker, { overrides: { from: "earliest" } });
    expect((await earliest.next()).data).toBe("1");
  }),
);

test(
  "?from=earliest: everything that is retained, without a gap; an id wins over it",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 2 } } });
    const [, second, third] = await publishThree(broker);
    const client = await setup.join(broker, { query: { from: "earliest" } });
    expect([await client.next(), await client.next()]).toMatchObject([{ data: "2" }, { data: "3" }]);
    expect(client.control("gap")).toEqual([]);
    const resumed = await setup.join(broker, { lastEventId: second, query: { from: "earliest" } });
    expect(await resumed.next()).toMatchObject({ data: "3", id: third });
  }),
);

test(
  "?from=earliest: the retained events of several channels are merged, without a gap",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 1 } } });
    await broker.broadcast("a1", { channels: "a" });
    await broker.broadcast("b1", { channels: "b" });
    await broker.broadcast("b2", { channels: "b" });
    await broker.broadcast("b3", { channels: "b" });
    await broker.broadcast("common");
    const client = await setup.join(broker, { channel: ["a", "b"], query: { from: "earliest" } });
    await client.untilData("common");
    expect(client.data).toEqual(["a1", "b3", "common"]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "a foreign id: if nothing is retained, the gap is at the head, and the next event follows",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const { id: head } = await broker.broadcast("elsewhere", { channels: "b" });
    const client = await setup.join(broker, { lastEventId: "garbage", channel: "a" });
    const gap = await client.next();
    expect(gap).toMatchObject({ event: "fanwire-gap", id: head });
    await broker.broadcast("in a", { channels: "a" });
    expect((await client.next()).data).toBe("in a");
    const back = await setup.connect(broker, { lastEventId: head, channel: "a" });
    expect(JSON.parse((await back.next()).data)).toMatchObject({ resumed: true });
    expect((await back.next()).data).toBe("in a");
  }),
);

test(
  "announce: false sends no fanwire-ready, but still the gap",
  withBroker(async (setup) => {
    const broker = setup.broker({ announce: false });
    await publishThree(broker);
    const live = await setup.connect(broker);
    await broker.broadcast("4");
    expect((await live.next()).data).toBe("4");
    const foreignClient = await setup.connect(broker, { lastEventId: "garbage" });
    expect((await foreignClient.next()).event).toBe("fanwire-gap");
  }),
);

test(
  "resume: a backlog of many chunks arrives in order, and new events follow without a seam",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const { id } = await broker.broadcast("start");
    for (let event = 0; event < 400; event++) await broker.broadcast(`${event} ${"x".repeat(1_000)}`);
    const client = await setup.join(broker, { lastEventId: id });
    for (let event = 400; event < 500; event++) {
      expect(seqOf((await client.nextData()).id)).toBe(event - 400 + 2);
      await broker.broadcast(`${event}`);
    }
    for (let event = 100; event < 500; event++) expect(Number.parseInt((await client.nextData()).data, 10)).toBe(event);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "resume: an event that was published in the same turn, before the reconnect, is not skipped",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const other = await setup.join(broker, { id: "other" });
    const { id } = await broker.broadcast("seen", { channels: "c" });
    const flushed = other.nextData();
    await broker.broadcastTo("other", "flush");
    await flushed;
    // A flush is pending for another client, and nobody reads channel c.
    void broker.broadcastTo("other", "pending");
    void broker.broadcast("missed", { channels: "c" });
    const back = await setup.join(broker, { channel: "c", lastEventId: id });
    const next = back.nextData();
    await other.nextData();
    await broker.broadcast("later", { channels: "c" });
    expect((await next).data).toBe("missed");
  }),
);
