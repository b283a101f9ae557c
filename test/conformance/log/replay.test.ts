import { expect, test } from "vitest";
import type { Broker, LogOptions, MaxReplay } from "../../../src/index.ts";
import { type Connection, gapOf, isData, seqOf } from "../../support/clients/connection.ts";
import { type Scene, scene } from "../../support/test-broker.ts";

// `maxReplay`: the newest of what was before is replayed, and what is before that is told by one gap.

/** A broker with ten events: 1 to 5 in a, 6 to 8 in b, 9 in both, 10 for everybody. Their data is their position. */
async function ten(stage: Scene, maxReplay: MaxReplay, log: LogOptions = {}) {
  const broker = stage.broker({ maxReplay, log });
  const first = await stage.join(broker);
  const zero = first.lastEventId ?? "";
  await first.leave();
  const channels = ["a", "a", "a", "a", "a", "b", "b", "b", ["a", "b"]];
  for (const [index, channel] of channels.entries()) await broker.broadcast(`${index + 1}`, { channels: channel });
  await broker.broadcast("10");
  const idOf = (seq: number): string => zero.replace(/0$/, String(seq));
  return { broker, idOf };
}

/** All that a client is told up to an event that is published now: each event's data, and gaps as the test says them. */
async function told(broker: Broker, client: Connection): Promise<string[]> {
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
  /** A position, one that is foreign, or the earliest. */
  readonly from: number | "foreign" | "earliest";
  readonly told: readonly string[];
}[] = [
  {
    what: "just so many events are no reason for a gap",
    maxReplay: { events: 7 },
    channel: ["a"],
    from: 0,
    told: ["ready resumed @ 0", "1", "2", "3", "4", "5", "9", "10"],
  },
  {
    what: "one too many is told by a gap up to it",
    maxReplay: { events: 6 },
    channel: ["a"],
    from: 0,
    told: ["ready", "(0, 1] of a @ 1", "2", "3", "4", "5", "9", "10"],
  },
  {
    what: "events that the client has are not told as lost",
    maxReplay: { events: 3 },
    channel: ["a"],
    from: 4,
    told: ["ready resumed @ 4", "5", "9", "10"],
  },
  {
    what: "the gap begins where the client is",
    maxReplay: { events: 2 },
    channel: ["a"],
    from: 3,
    told: ["ready", "(3, 5] of a @ 5", "9", "10"],
  },
  {
    what: "of several channels, an event in two of them counts once",
    maxReplay: { events: 4 },
    channel: ["a", "b"],
    from: 0,
    told: ["ready", "(0, 6] of a, b @ 6", "7", "8", "9", "10"],
  },
  {
    what: "a channel of which nothing was cut off is not told",
    maxReplay: { events: 5 },
    channel: ["a", "b"],
    from: 0,
    told: ["ready", "(0, 5] of a @ 5", "6", "7", "8", "9", "10"],
  },
  {
    what: "a channel of which only what the client has was cut off is not told",
    maxReplay: { events: 3 },
    channel: ["a", "b"],
    from: 5,
    told: ["ready", "(5, 7] of b @ 7", "8", "9", "10"],
  },
  {
    what: "events of other channels do not count",
    maxReplay: { events: 1 },
    channel: [],
    from: 0,
    told: ["ready resumed @ 0", "10"],
  },
  {
    what: "none at all",
    maxReplay: { events: 0 },
    channel: ["a"],
    from: 0,
    told: ["ready", "(0, 10] of fanwire-common, a @ 10"],
  },
  {
    what: "none at all, and none is missing",
    maxReplay: { events: 0 },
    channel: ["a"],
    from: 10,
    told: ["ready resumed @ 10"],
  },
  {
    what: "none at all, and only other channels had any",
    maxReplay: { events: 0 },
    channel: ["c"],
    from: 10,
    told: ["ready resumed @ 10"],
  },
  {
    what: "a foreign id: the gap reaches to the first that is replayed",
    maxReplay: { events: 2 },
    channel: ["b"],
    from: "foreign",
    told: ["ready", "(?, 8] of fanwire-common, fanwire-inbox, b @ 8", "9", "10"],
  },
  {
    what: "a foreign id, and none at all: the gap reaches to the last",
    maxReplay: { events: 0 },
    channel: ["b"],
    from: "foreign",
    told: ["ready", "(?, 10] of fanwire-common, fanwire-inbox, b @ 10"],
  },
  {
    what: "a foreign id, and none at all: the gap reaches to the last that was anybody's",
    maxReplay: { events: 0 },
    channel: ["c"],
    from: "foreign",
    told: ["ready", "(?, 10] of fanwire-common, fanwire-inbox, c @ 10"],
  },
  {
    what: "from=earliest: the newest, and no gap, because there is no claim",
    maxReplay: { events: 3 },
    channel: ["a", "b"],
    from: "earliest",
    told: ["ready @ 7", "8", "9", "10"],
  },
  {
    what: "from=earliest, and none at all",
    maxReplay: { events: 0 },
    channel: ["a", "b"],
    from: "earliest",
    told: ["ready @ 10"],
  },
];
for (const { what, maxReplay, channel, from, told: expected } of cases) {
  test(
    `maxReplay.events: ${what}`,
    scene(async (stage) => {
      const { broker, idOf } = await ten(stage, maxReplay);
      const wish =
        from === "earliest" ? { query: { from } } : { lastEventId: from === "foreign" ? "elsewhere-3" : idOf(from) };
      const client = await stage.connect(broker, { id: "one", channel, ...wish });
      expect(await told(broker, client)).toEqual(expected);
      expect(broker.stats()).toMatchObject({ gaps: expected.filter((line) => line.includes("]")).length });
    }),
  );
}

test(
  "maxReplay.bytes: just so many bytes of events are replayed, one less leaves out the oldest",
  scene(async (stage) => {
    const { broker, idOf } = await ten(stage, {});
    const client = await stage.join(broker, { channel: "a", lastEventId: idOf(4) });
    await client.untilData("10");
    // The events 5, 9 and 10, in one chunk.
    const bytes = client.chunks.at(-1)?.length ?? 0;
    expect(client.data).toEqual(["5", "9", "10"]);
    for (const [room, expected] of [
      [bytes, ["ready", "(0, 4] of a @ 4", "5", "9", "10"]],
      [bytes - 1, ["ready", "(0, 5] of a @ 5", "9", "10"]],
      [0, ["ready", "(0, 10] of fanwire-common, a @ 10"]],
    ] as const) {
      const again = await ten(stage, { bytes: room });
      const back = await stage.connect(again.broker, { channel: "a", lastEventId: again.idOf(0) });
      expect(await told(again.broker, back)).toEqual(expected);
    }
  }),
);

test(
  "maxReplay.bytes: an event that is too large for it is not left out for older ones that are smaller",
  scene(async (stage) => {
    const broker = stage.broker({ maxReplay: { bytes: 200 } });
    const { id } = await broker.broadcast("start");
    await broker.broadcast("small");
    await broker.broadcast("x".repeat(500));
    await broker.broadcast("newest");
    const client = await stage.connect(broker, { lastEventId: id });
    expect(await told(broker, client)).toEqual(["ready", "(1, 3] of fanwire-common @ 3", "newest"]);
  }),
);

test(
  "maxReplay: an inbox is replayed and cut off like a channel",
  scene(async (stage) => {
    const broker = stage.broker({ maxReplay: { events: 2 } });
    const client = await stage.join(broker, { id: "one" });
    await client.leave();
    for (const data of ["1", "2", "3"]) await broker.broadcastTo("one", data);
    const back = await stage.connect(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    expect(await told(broker, back)).toEqual(["ready", "(0, 1] of fanwire-inbox @ 1", "2", "3"]);
  }),
);

test(
  "maxReplay: who leaves after the gap comes back after it, and is told of it no more",
  scene(async (stage) => {
    const { broker, idOf } = await ten(stage, { events: 2 });
    const client = await stage.connect(broker, { channel: "a", lastEventId: idOf(0) });
    await client.untilControl("gap");
    await client.leave();
    expect(client.lastEventId).toBe(idOf(5));
    const back = await stage.connect(broker, { channel: "a", lastEventId: client.lastEventId ?? "" });
    expect(await told(broker, back)).toEqual(["ready resumed @ 5", "9", "10"]);
  }),
);

test(
  "maxReplay: what a blocked client has to catch up with is no replay",
  scene(async (stage) => {
    const broker = stage.broker({ maxReplay: { events: 2, bytes: 10 } });
    const client = await stage.join(broker);
    for (let event = 0; event < 50; event++) await broker.broadcast(`${event}`);
    for (let event = 0; event < 50; event++) expect((await client.nextData()).data).toBe(`${event}`);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "maxReplay: what is published after the client was answered is not counted, though it has read nothing yet",
  scene(async (stage) => {
    const { broker, idOf } = await ten(stage, { events: 2 });
    const client = await stage.connect(broker, { channel: "a", lastEventId: idOf(0) });
    for (const data of ["11", "12", "13"]) await broker.broadcast(data);
    expect(await told(broker, client)).toEqual(["ready", "(0, 5] of a @ 5", "9", "10", "11", "12", "13"]);
  }),
);

test(
  "maxReplay: what was published in the same turn is counted",
  scene(async (stage) => {
    const { broker, idOf } = await ten(stage, { events: 2 });
    await stage.join(broker, { channel: "a" });
    // The flush of these is still to come.
    for (const data of ["11", "12", "13"]) void broker.broadcast(data, { channels: "a" });
    const client = await stage.connect(broker, { channel: "a", lastEventId: idOf(9) });
    const expected = ["ready", "(9, 11] of fanwire-common, a @ 11", "12", "13"];
    expect(await told(broker, client)).toEqual(expected);
  }),
);

test(
  "maxReplay: no gap is told of a stretch in which a channel had nothing, though retention made a hole behind it",
  scene(async (stage) => {
    // Of a, 5 and 9 are kept and 5 is cut off; of b, 6 and 7 are gone, 8 and 9 are kept.
    const { broker, idOf } = await ten(stage, { events: 3 }, { retention: { events: 2 } });
    const client = await stage.connect(broker, { channel: ["a", "b"], lastEventId: idOf(0) });
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
  "maxReplay: a listener, which is no connection, is given all that is retained",
  scene(async (stage) => {
    const { broker, idOf } = await ten(stage, { events: 2, bytes: 10 });
    for (const start of [{ lastEventId: idOf(0) }, { from: "earliest" as const }]) {
      const listener = broker.listen({ channels: "a", ...start });
      for (const data of ["1", "2", "3", "4", "5", "9"])
        expect((await listener.next()).value).toMatchObject({ type: "event", data });
    }
  }),
);
