import type { EventSourceMessage } from "eventsource-parser";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Connection, gapOf, isData, seqOf } from "../../support/clients/connection.ts";
import { findFalseGaps, findFaults, type PublishedEvent, type ReceivedItem } from "../../support/oracle/oracle.ts";
import { type TestSetup, turn, withBroker } from "../../support/test-broker.ts";

// `maxReplay` for random histories. The expected result comes from a plain list of what was published, without a log.

const NAMES = ["a", "b", "c"];
interface History {
  /** The channels of each event. An empty list is for every client; "@" is the inbox of the client. */
  readonly events: readonly { readonly channels: readonly string[]; readonly size: number }[];
  readonly channels: readonly string[];
  readonly from: number | "foreign" | "earliest";
  readonly max: { readonly events: number; readonly bytes: number };
  readonly retention: number;
  /** How many events the client takes on each connection except the last. */
  readonly visits: readonly number[];
}
const histories = (retention: fc.Arbitrary<number>, visits: fc.Arbitrary<readonly number[]>): fc.Arbitrary<History> =>
  fc.record({
    events: fc.array(
      fc.record({
        channels: fc.oneof({ weight: 4, arbitrary: fc.subarray(NAMES) }, { weight: 1, arbitrary: fc.constant(["@"]) }),
        size: fc.integer({ min: 1, max: 60 }),
      }),
      { maxLength: 25 },
    ),
    channels: fc.subarray(NAMES),
    from: fc.oneof(
      { weight: 4, arbitrary: fc.nat({ max: 25 }) },
      { weight: 1, arbitrary: fc.constantFrom("foreign" as const, "earliest" as const) },
    ),
    max: fc.record({
      events: fc.oneof(fc.nat({ max: 12 }), fc.constant(Infinity)),
      bytes: fc.oneof(fc.nat({ max: 1_200 }), fc.constant(Infinity)),
    }),
    retention,
    visits,
  });

/** Publishes a history, connects a client from its start position, and returns what the client receives. */
async function replay(setup: TestSetup, { events, channels, from, max, retention, visits }: History) {
  const broker = setup.broker({ maxReplay: max, heartbeat: Infinity, log: { retention: { events: retention } } });
  const first = await setup.join(broker, { id: "one" });
  const zero = first.lastEventId ?? "";
  await first.leave();
  const published: (PublishedEvent & { readonly bytes: number })[] = [];
  const rest = [...events];
  const publish = async (count: number): Promise<void> => {
    for (const { channels: channel, size } of rest.splice(0, count)) {
      const data = "x".repeat(size);
      const { id } = channel.includes("@")
        ? await broker.broadcastTo("one", data)
        : await broker.broadcast(data, channel.length > 0 ? { channels: channel } : {});
      const names = channel.includes("@") ? ["fanwire-inbox"] : channel.length > 0 ? channel : ["fanwire-common"];
      const bytes = `data: ${data}\nid: ${id}\n\n`.length;
      published.push({ seq: seqOf(id), channels: names, data, cost: 0, bytes });
    }
  };
  // Everything at once, or half of it now and the rest between the visits.
  await publish(visits.length === 0 ? Infinity : events.length / 2);
  const idOf = (seq: number): string => zero.replace(/0$/, String(seq));
  const start = typeof from === "number" ? Math.min(from, published.length) : from;
  const firstRequest =
    start === "earliest" ? { query: { from: start } } : { lastEventId: start === "foreign" ? "x-1" : idOf(start) };
  const received: EventSourceMessage[] = [];
  let lastEventId: string | undefined;
  const connect = async (): Promise<Connection> => {
    const again = lastEventId === undefined ? firstRequest : { lastEventId };
    return setup.connect(broker, { id: "one", channel: channels, ...again });
  };
  const take = (event: EventSourceMessage): void => {
    received.push(event);
    lastEventId = event.id ?? lastEventId;
  };
  for (const count of visits) {
    const client = await connect();
    // Reads the opening and the first chunk of the history, at most. A further read could wait for ever.
    await client.read();
    void client.read();
    await turn();
    for (const event of client.events.slice(0, count)) take(event);
    await client.leave();
    await publish(count);
  }
  const client = await connect();
  const { id } = await broker.broadcast("end");
  for (let event = await client.next(); event.id !== id; event = await client.next()) take(event);
  await client.leave();
  await broker.close();
  const names = ["fanwire-common", "fanwire-inbox", ...channels];
  return { published, start, names, idOf, received };
}

/** Returns the newest events that a bound allows, and the newest event that it does not allow. */
function newest<T extends { readonly bytes: number }>(
  events: readonly T[],
  max: History["max"],
): { kept: T[]; cut: T | undefined } {
  const kept: T[] = [];
  let bytes = 0;
  for (const event of events.toReversed()) {
    bytes += event.bytes;
    if (kept.length === max.events || bytes > max.bytes) return { kept, cut: event };
    kept.unshift(event);
  }
  return { kept, cut: undefined };
}

test(
  "maxReplay: of any history the newest events are replayed in order, and one gap reports exactly the rest",
  { timeout: 120_000 },
  withBroker(async (setup) => {
    await fc.assert(
      fc.asyncProperty(histories(fc.constant(Infinity), fc.constant([])), async (history) => {
        const { published, start, names, idOf, received } = await replay(setup, history);
        const own = published.filter(({ channels }) => channels.some((name) => names.includes(name)));
        const wanted = typeof start === "number" ? own.filter(({ seq }) => seq > start) : own;
        const { kept, cut } = newest(wanted, history.max);
        const [ready, ...rest] = received;
        const gaps = rest.filter(({ event }) => event === "fanwire-gap");

        expect(rest.filter(isData).map(({ id }) => id)).toEqual(kept.map(({ seq }) => idOf(seq)));
        if (start === "earliest") {
          expect(gaps).toEqual([]);
          return;
        }
        if (start !== "foreign" && !cut) {
          expect([ready?.id, gaps]).toEqual([idOf(start), []]);
          return;
        }
        // The gap has the first id of the stream, and comes before the replayed events.
        const gap = gapOf(gaps[0] ?? { data: "{}", id: "", event: "" });
        expect([ready?.id, gaps.length, rest[0]]).toEqual([undefined, 1, gaps[0]]);
        expect(gaps[0]?.id).toBe(gap.through);
        if (start === "foreign") {
          const through = seqOf(gap.through);
          expect([gap.channels, gap.after]).toEqual([names, null]);
          expect(through).toBeLessThan(kept[0]?.seq ?? published.length + 1);
          expect(through).toBeGreaterThanOrEqual(cut?.seq ?? 0);
          return;
        }
        const missing = wanted.filter(({ seq }) => seq <= (cut?.seq ?? 0));
        expect(gap).toEqual({
          channels: names.filter((name) => missing.some(({ channels }) => channels.includes(name))),
          after: idOf(start),
          through: idOf(cut?.seq ?? 0),
        });
      }),
      { seed: 7, numRuns: 400 },
    );
  }),
);

/** Histories with missing ranges, whose clients leave in the middle of a replay. */
const withMissingRanges = histories(
  fc.integer({ min: 1, max: 6 }),
  fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 4 }),
);

/** Replays a history, and returns what the client received in the form that the oracle reads. */
async function lineage(setup: TestSetup, history: History) {
  const { published, start, names, received } = await replay(setup, history);
  const seen = received.flatMap(({ event, id = "", data }): ReceivedItem[] => {
    if (event === undefined) return [{ type: "event", id, data }];
    return event === "fanwire-gap" ? [{ type: "gap", id, ...gapOf({ event, id, data }) }] : [];
  });
  const claim = start === "earliest" ? published.length : start === "foreign" ? 0 : start;
  return {
    published,
    lineage: { channels: names, start: claim, floor: start === "earliest" ? 0 : claim, items: seen },
  };
}

test(
  "maxReplay: with missing ranges of retention nothing is lost in silence",
  { timeout: 120_000 },
  withBroker(async (setup) => {
    await fc.assert(
      fc.asyncProperty(withMissingRanges, async (history) => {
        const { published, lineage: client } = await lineage(setup, history);
        // With a bound on the replay, even events that retention covers may be missing.
        const bounds = { events: history.retention, logBytes: Infinity, dropsChannels: true };
        expect(findFaults(published, client, bounds)).toEqual([]);
      }),
      { seed: 11, numRuns: 400 },
    );
  }),
);

test(
  "maxReplay: with missing ranges of retention no gap is a false alarm",
  { timeout: 120_000 },
  withBroker(async (setup) => {
    await fc.assert(
      fc.asyncProperty(withMissingRanges, async (history) => {
        const { published, lineage: client } = await lineage(setup, history);
        expect(findFalseGaps(published, client)).toEqual([]);
      }),
      { seed: 11, numRuns: 400 },
    );
  }),
);
