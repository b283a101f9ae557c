import { expect, test } from "vitest";
import type { Broker, LogOptions, MaxReplay } from "../../../src/index.ts";
import { type Connection, gapOf, isData, seqOf } from "../../support/clients/connection.ts";
import { type TestSetup, withBroker } from "../../support/test-broker.ts";

// `maxReplay`: the newest events of the history are replayed, and one gap reports the older ones.

/** Creates a broker with ten events: 1 to 5 in a, 6 to 8 in b, 9 in both, 10 for every client. Their data is their position. */
async function tenEvents(setup: TestSetup, maxReplay: MaxReplay, log: LogOptions = {}) {
  const broker = setup.broker({ maxReplay, log });
  const first = await setup.join(broker);
  const zero = first.lastEventId ?? "";
  await first.leave();
  const channels = ["a", "a", "a", "a", "a", "b", "b", "b", ["a", "b"]];
  for (const [index, channel] of channels.entries()) await broker.broadcast(`${index + 1}`, { channels: channel });
  await broker.broadcast("10");
  const idOf = (seq: number): string => zero.replace(/0$/, String(seq));
  return { broker, idOf };
}

/** Returns what a client receives up to an event that is published now: the data of events, and gaps in short form. */
async function received(broker: Broker, client: Connection): Promise<string[]> {
  const { id } = await broker.broadcast("now");
  const end = await client.until((event) => event.id === id);
  return client.events.slice(0, client.events.indexOf(end)).map((event) => {
    if (isData(event)) return event.data;
    if (event.event !== "fanwire-gap") {
      const { resumed } = JSON.parse(event.data) as { resumed: boolean };
      return `ready${resumed ? " resumed" : ""}${event.id === undefined ? "" : ` @ ${seqOf(event.id)}`}`;
    }
    const { after, through, channels } = gapOf(event);
    return `(${after === null ? "?" : seqOf(after)}, ${seqOf(through)}] of ${channels.join(", ")} @ ${seqOf(event.id)}`;
  });
}

const cases: readonly {
  readonly what: string;
  readonly maxReplay: MaxReplay;
  readonly channel: readonly string[];
  /** A position, a foreign id, or the earliest event. */
  readonly from: number | "foreign" | "earliest";
  readonly expected: readonly string[];
}[] = [
  {
    what: "exactly as many events as allowed cause no gap",
    maxReplay: { events: 7 },
    channel: ["a"],
    from: 0,
    expected: ["ready resumed @ 0", "1", "2", "3", "4", "5", "9", "10"],
  },
  {
    what: "one event too many is reported by a gap up to it",
    maxReplay: { events: 6 },
    channel: ["a"],
    from: 0,
    expected: ["ready", "(0, 1] of a @ 1", "2", "3", "4", "5", "9", "10"],
  },
  {
    what: "events that the client has are not reported as missing",
    maxReplay: { events: 3 },
    channel: ["a"],
    from: 4,
    expected: ["ready resumed @ 4", "5", "9", "10"],
  },
  {
    what: "the gap begins at the position of the client",
    maxReplay: { events: 2 },
    channel: ["a"],
    from: 3,
    expected: ["ready", "(3, 5] of a @ 5", "9", "10"],
  },
  {
    what: "an event in two of the channels counts once",
    maxReplay: { events: 4 },
    channel: ["a", "b"],
    from: 0,
    expected: ["ready", "(0, 6] of a, b @ 6", "7", "8", "9", "10"],
  },
  {
    what: "a channel without a missing event is not in the gap",
    maxReplay: { events: 5 },
    channel: ["a", "b"],
    from: 0,
    expected: ["ready", "(0, 5] of a @ 5", "6", "7", "8", "9", "10"],
  },
  {
    what: "a channel that lacks only events that the client has is not in the gap",
    maxReplay: { events: 3 },
    channel: ["a", "b"],
    from: 5,
    expected: ["ready", "(5, 7] of b @ 7", "8", "9", "10"],
  },
  {
    what: "events of other channels do not count",
    maxReplay: { events: 1 },
    channel: [],
    from: 0,
    expected: ["ready resumed @ 0", "10"],
  },
  {
    what: "0 replays nothing",
    maxReplay: { events: 0 },
    channel: ["a"],
    from: 0,
    expected: ["ready", "(0, 10] of fanwire-common, a @ 10"],
  },
  {
    what: "0 without a missing event causes no gap",
    maxReplay: { events: 0 },
    channel: ["a"],
    from: 10,
    expected: ["ready resumed @ 10"],
  },
  {
    what: "0 causes no gap if only other channels have events",
    maxReplay: { events: 0 },
    channel: ["c"],
    from: 10,
    expected: ["ready resumed @ 10"],
  },
  {
    what: "a foreign id: the gap ends where the replay begins",
    maxReplay: { events: 2 },
    channel: ["b"],
    from: "foreign",
    expected: ["ready", "(?, 8] of fanwire-common, fanwire-inbox, b @ 8", "9", "10"],
  },
  {
    what: "a foreign id and 0: the gap ends at the last event",
    maxReplay: { events: 0 },
    channel: ["b"],
    from: "foreign",
    expected: ["ready", "(?, 10] of fanwire-common, fanwire-inbox, b @ 10"],
  },
  {
    what: "a foreign id and 0: the gap ends at the last event of any channel",
    maxReplay: { events: 0 },
    channel: ["c"],
    from: "foreign",
    expected: ["ready", "(?, 10] of fanwire-common, fanwire-inbox, c @ 10"],
  },
  {
    what: "from=earliest: the newest events, without a gap, because the client has no claim to others",
    maxReplay: { events: 3 },
    channel: ["a", "b"],
    from: "earliest",
    expected: ["ready @ 7", "8", "9", "10"],
  },
  {
    what: "from=earliest and 0: nothing is replayed",
    maxReplay: { events: 0 },
    channel: ["a", "b"],
    from: "earliest",
    expected: ["ready @ 10"],
  },
];
for (const { what, maxReplay, channel, from, expected } of cases) {
  test(
    `maxReplay.events: ${what}`,
    withBroker(async (setup) => {
      const { broker, idOf } = await tenEvents(setup, maxReplay);
      const start =
        from === "earliest" ? { query: { from } } : { lastEventId: from === "foreign" ? "elsewhere-3" : idOf(from) };
      const client = await setup.connect(broker, { id: "one", channel, ...start });
      expect(await received(broker, client)).toEqual(expected);
      expect(broker.stats()).toMatchObject({ gaps: expected.filter((line) => line.includes("]")).length });
    }),
  );
}

test(
  "maxReplay.bytes: exactly this many bytes of events are replayed, and one byte less leaves out the oldest",
  withBroker(async (setup) => {
    const { broker, idOf } = await tenEvents(setup, {});
    const client = await setup.join(broker, { channel: "a", lastEventId: idOf(4) });
    await client.untilData("10");
    // The events 5, 9 and 10, in one chunk.
    const bytes = client.chunks.at(-1)?.length ?? 0;
    expect(client.data).toEqual(["5", "9", "10"]);
    for (const [maxBytes, expected] of [
      [bytes, ["ready", "(0, 4] of a @ 4", "5", "9", "10"]],
      [bytes - 1, ["ready", "(0, 5] of a @ 5", "9", "10"]],
      [0, ["ready", "(0, 10] of fanwire-common, a @ 10"]],
    ] as const) {
      const again = await tenEvents(setup, { bytes: maxBytes });
      const back = await setup.connect(again.broker, { channel: "a", lastEventId: again.idOf(0) });
      expect(await received(again.broker, back)).toEqual(expected);
    }
  }),
);

test(
  "maxReplay.bytes: an event that is too large is not left out in favour of older, smaller ones",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxReplay: { bytes: 200 } });
    const { id } = await broker.broadcast("start");
    await broker.broadcast("small");
    await broker.broadcast("x".repeat(500));
    await broker.broadcast("newest");
    const client = await setup.connect(broker, { lastEventId: id });
    expect(await received(broker, client)).toEqual(["ready", "(1, 3] of fanwire-common @ 3", "newest"]);
  }),
);

test(
  "maxReplay: bounds an inbox like a channel",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxReplay: { events: 2 } });
    const client = await setup.join(broker, { id: "one" });
    await client.leave();
    for (const data of ["1", "2", "3"]) await broker.broadcastTo("one", data);
    const back = await setup.connect(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    expect(await received(broker, back)).toEqual(["ready", "(0, 1] of fanwire-inbox @ 1", "2", "3"]);
  }),
);

test(
  "maxReplay: a client that leaves after the gap comes back after it, and does not receive it again",
  withBroker(async (setup) => {
    const { broker, idOf } = await tenEvents(setup, { events: 2 });
    const client = await setup.connect(broker, { channel: "a", lastEventId: idOf(0) });
    await client.untilControl("gap");
    await client.leave();
    expect(client.lastEventId).toBe(idOf(5));
    const back = await setup.connect(broker, { channel: "a", lastEventId: client.lastEventId ?? "" });
    expect(await received(broker, back)).toEqual(["ready resumed @ 5", "9", "10"]);
  }),
);

test(
  "maxReplay: does not bound what a blocked client catches up with",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxReplay: { events: 2, bytes: 10 } });
    const client = await setup.join(broker);
    for (let event = 0; event < 50; event++) await broker.broadcast(`${event}`);
    for (let event = 0; event < 50; event++) expect((await client.nextData()).data).toBe(`${event}`);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "maxReplay: does not count events that are published after the response, even if the client has read nothing",
  withBroker(async (setup) => {
    const { broker, idOf } = await tenEvents(setup, { events: 2 });
    const client = await setup.connect(broker, { channel: "a", lastEventId: idOf(0) });
    for (const data of ["11", "12", "13"]) await broker.broadcast(data);
    expect(await received(broker, client)).toEqual(["ready", "(0, 5] of a @ 5", "9", "10", "11", "12", "13"]);
  }),
);

test(
  "maxReplay: counts events that were published in the same turn",
  withBroker(async (setup) => {
    const { broker, idOf } = await tenEvents(setup, { events: 2 });
    await setup.join(broker, { channel: "a" });
    // The flush of these events has not run yet.
    for (const data of ["11", "12", "13"]) void broker.broadcast(data, { channels: "a" });
    const client = await setup.connect(broker, { channel: "a", lastEventId: idOf(9) });
    const expected = ["ready", "(9, 11] of fanwire-common, a @ 11", "12", "13"];
    expect(await received(broker, client)).toEqual(expected);
  }),
);

test(
  "maxReplay: no gap covers a range without events of its channel, even if a missing range of retention follows",
  withBroker(async (setup) => {
    // Of a, 5 and 9 are retained, and 5 is left out. Of b, 6 and 7 are dropped, and 8 and 9 are retained.
    const { broker, idOf } = await tenEvents(setup, { events: 3 }, { retention: { events: 2 } });
    const client = await setup.connect(broker, { channel: ["a", "b"], lastEventId: idOf(0) });
    await client.untilData("10");
    expect(client.data).toEqual(["8", "9", "10"]);
    const ofB = client
      .control("gap")
      .map(gapOf)
      .filter(({ channels }) => channels.includes("b"));
    expect(new Set(ofB.map(({ through }) => seqOf(through)))).toEqual(new Set([7]));
  }),
);

test(
  "maxReplay: does not bound a listener, which receives everything that is retained",
  withBroker(async (setup) => {
    const { broker, idOf } = await tenEvents(setup, { events: 2, bytes: 10 });
    for (const start of [{ lastEventId: idOf(0) }, { from: "earliest" as const }]) {
      const listener = broker.listen({ channels: "a", ...start });
      for (const data of ["1", "2", "3", "4", "5", "9"])
        expect((await listener.next()).value).toMatchObject({ type: "event", data });
    }
  }),
);
