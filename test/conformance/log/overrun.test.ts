import { expect, test } from "vitest";
import type { Broker, Listened } from "../../../src/index.ts";
import { type Connection, gapOf, isData, seqOf } from "../../support/clients/connection.ts";
import { findFalseGaps, findFaults, type PublishedEvent, type ReceivedItem } from "../../support/oracle/oracle.ts";
import { type TestSetup, withBroker } from "../../support/test-broker.ts";

// A subscriber whose unread events a full log evicts. The first time it continues at the oldest retained event. If that happens again before it
// has caught up, it continues at the head. Otherwise it would read the oldest events for ever, each of them late.

/** Bytes of an event. The log holds about thirty of these, and a chunk seven. */
const SIZE = 8 * 1024;
const LOG = { logBytes: 256 * 1024 };
const MORE_THAN_HELD = 60;

/** Publishes events, remembers them, and resolves when they were offered to all live subscribers. */
class Publisher {
  readonly broker: Broker;
  readonly published: PublishedEvent[] = [];
  /** Waits for the next event at every publish, and so shows when a flush has run. It is not a client, so no figure counts it. */
  readonly #flushes: AsyncIterableIterator<Listened, undefined>;

  constructor(broker: Broker, channel?: readonly string[]) {
    this.broker = broker;
    this.#flushes = broker.listen(channel ? { channels: channel } : {});
  }

  /** Publishes `count` large events. */
  async publish(count: number, channel?: string): Promise<void> {
    const flushed = this.#reaches(this.head + count);
    for (let event = 0; event < count; event++) await this.#publish("x".repeat(SIZE), channel);
    await flushed;
  }

  async end(data: string, channel?: string): Promise<void> {
    const flushed = this.#reaches(this.head + 1);
    await this.#publish(data, channel);
    await flushed;
  }

  get head(): number {
    return this.published.at(-1)?.seq ?? 0;
  }

  async #reaches(seq: number): Promise<void> {
    while (seqOf((await nextOf(this.#flushes)).id) < seq);
  }

  async #publish(data: string, channel: string | undefined): Promise<void> {
    const { id } = await this.broker.broadcast(data, channel === undefined ? {} : { channels: channel });
    this.published.push({ seq: seqOf(id), channels: [channel ?? "fanwire-common"], data, cost: 0 });
  }
}

/** Returns the next item of a listener. */
async function nextOf(listener: AsyncIterableIterator<Listened, undefined>): Promise<Listened> {
  const { value } = await listener.next();
  if (!value) throw new Error("The listener has ended.");
  return value;
}

const seenBy = (client: Connection): ReceivedItem[] =>
  client.events.flatMap((event): ReceivedItem[] => {
    const { id = "", data } = event;
    if (isData(event)) return [{ type: "event", id, data }];
    return event.event === "fanwire-gap" ? [{ type: "gap", id, ...gapOf(event) }] : [];
  });

/** Expects that every event was received or reported as missing, and that no gap is a false alarm. */
function expectTruth({ published }: Publisher, channels: readonly string[], seen: readonly ReceivedItem[]): void {
  const lineage = { channels, start: 0, floor: 0, items: seen };
  expect(findFaults(published, lineage, { events: Infinity, logBytes: 0, dropsChannels: true })).toEqual([]);
  expect(findFalseGaps(published, lineage)).toEqual([]);
}

/** Returns what was received and reported as missing, in short form. */
const summaryOf = (seen: readonly ReceivedItem[]): string[] => {
  const lines: string[] = [];
  let [first, last] = [0, 0];
  const flush = (): void => {
    if (last > 0) lines.push(first === last ? `${first}` : `${first}-${last}`);
    last = 0;
  };
  for (const item of seen) {
    const seq = seqOf(item.id);
    if (item.type === "gap") {
      flush();
      lines.push(`(${seqOf(item.after)}, ${seqOf(item.through)}] of ${item.channels.join(", ")} @ ${seq}`);
    } else if (last > 0 && seq === last + 1) {
      last = seq;
    } else {
      flush();
      [first, last] = [seq, seq];
    }
  }
  flush();
  return lines;
};

async function blockedClient(setup: TestSetup, options: { readonly channel?: string[]; readonly log?: object } = {}) {
  const broker = setup.broker({ timeout: 60_000, log: { ...LOG, ...options.log } });
  const client = await setup.join(broker, { id: "one", ...(options.channel ? { channel: options.channel } : {}) });
  return { broker, client, publisher: new Publisher(broker, options.channel) };
}
const oldestHeld = ({ broker, head }: Publisher): number => head - broker.stats().log.events + 1;

test(
  "overrun: the first time, a client continues at the oldest retained event, and is not counted",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup);
    await publisher.publish(MORE_THAN_HELD);
    const oldest = oldestHeld(publisher);
    expect(oldest).toBeGreaterThan(20);
    await publisher.end("end");
    await client.untilData("end");
    const seen = seenBy(client);
    expect(summaryOf(seen)).toEqual([
      `(0, ${oldest - 1}] of fanwire-common @ ${oldest - 1}`,
      `${oldest}-${publisher.head}`,
    ]);
    expectTruth(publisher, ["fanwire-common"], seen);
    expect(broker.stats()).toMatchObject({ overruns: 0, gaps: 1 });
  }),
);

test(
  "overrun: the second time before it has caught up, a client receives a gap up to the head and continues there",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup);
    await publisher.publish(MORE_THAN_HELD);
    const first = oldestHeld(publisher);
    await client.untilControl("gap");
    const read = seqOf((client.events.at(-1) as { id?: string }).id);
    await publisher.publish(MORE_THAN_HELD);
    const { head } = publisher;
    const gap = await client.untilControl("gap");
    expect([seqOf(gap.id), seqOf(gapOf(gap).through)]).toEqual([head, head]);
    expect(broker.stats()).toMatchObject({ overruns: 1, gaps: 2 });
    await publisher.end("end");
    expect((await client.nextData()).data).toBe("end");
    const seen = seenBy(client);
    expect(summaryOf(seen)).toEqual([
      `(0, ${first - 1}] of fanwire-common @ ${first - 1}`,
      `${first}-${read}`,
      `(${read}, ${head}] of fanwire-common @ ${head}`,
      `${head + 1}`,
    ]);
    expectTruth(publisher, ["fanwire-common"], seen);
  }),
);

test(
  "overrun: a client that leaves after the gap up to the head comes back there, and has lost nothing more",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup);
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    await client.leave();
    await publisher.end("after");
    const back = await setup.connect(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    expect(JSON.parse((await back.next()).data)).toMatchObject({ resumed: true });
    expect((await back.next()).data).toBe("after");
    expectTruth(publisher, ["fanwire-common"], [...seenBy(client), ...seenBy(back)]);
  }),
);

test(
  "overrun: a third and a fourth time in a row are each reported and counted",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup);
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    for (let time = 1; time <= 3; time++) {
      await publisher.publish(MORE_THAN_HELD);
      const gap = await client.untilControl("gap");
      expect(seqOf(gap.id)).toBe(publisher.head);
      expect(broker.stats().overruns).toBe(time);
    }
    await publisher.end("end");
    await client.untilData("end");
    expectTruth(publisher, ["fanwire-common"], seenBy(client));
  }),
);

test(
  "overrun: a client that was live in between continues at the oldest event again",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup);
    for (let time = 0; time < 3; time++) {
      await publisher.publish(MORE_THAN_HELD);
      const oldest = oldestHeld(publisher);
      const gap = await client.untilControl("gap");
      expect(seqOf(gap.id)).toBe(oldest - 1);
      await publisher.end(`end ${time}`);
      await client.untilData(`end ${time}`);
      // The client waits for the next event, so it is live.
      const next = client.nextData();
      await publisher.end(`live ${time}`);
      expect((await next).data).toBe(`live ${time}`);
    }
    expectTruth(publisher, ["fanwire-common"], seenBy(client));
    expect(broker.stats()).toMatchObject({ overruns: 0, gaps: 3 });
  }),
);

test(
  "overrun: a client that is behind is not moved to the head while the log evicts nothing more that it has not read",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup);
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    // Only events that the client has read are evicted.
    while (seqOf(client.events.at(-1)?.id) < publisher.head) {
      await publisher.publish(1);
      await client.read();
    }
    const seen = seenBy(client);
    expect(summaryOf(seen)).toHaveLength(2);
    expectTruth(publisher, ["fanwire-common"], seen);
    expect(broker.stats()).toMatchObject({ overruns: 0, gaps: 1 });
  }),
);

test(
  "overrun: a client that comes back with its id counts as overrun for the first time",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup);
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    await client.leave();
    await publisher.publish(MORE_THAN_HELD);
    const oldest = oldestHeld(publisher);
    const back = await setup.connect(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    const gap = await back.untilControl("gap");
    expect(seqOf(gap.id)).toBe(oldest - 1);
    expect(broker.stats().overruns).toBe(0);
  }),
);

test(
  "overrun: events that retention drops move no client to the head",
  withBroker(async (setup) => {
    const retention = { events: 20 };
    const { broker, client, publisher } = await blockedClient(setup, {
      log: { retention, logBytes: 32 * 1024 * 1024 },
    });
    for (let time = 0; time < 4; time++) {
      await publisher.publish(MORE_THAN_HELD);
      await publisher.end("makes retention drop old events");
      const oldest = oldestHeld(publisher);
      const gap = await client.untilControl("gap");
      expect(seqOf(gap.id)).toBe(oldest - 1);
      expect(seqOf((await client.nextData()).id)).toBe(oldest);
    }
    await publisher.end("end");
    await client.untilData("end");
    expectTruth(publisher, ["fanwire-common"], seenBy(client));
    expect(broker.stats().overruns).toBe(0);
  }),
);

test(
  "overrun: after an eviction, a drop by retention does not count as the second overrun",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup, {
      log: { retention: { events: 25 }, logBytes: 64 * 1024 },
    });
    // In one turn, so that the bound of the log drops events, and not retention.
    const burst = Array.from({ length: 30 }, () => broker.broadcast("x".repeat(SIZE)));
    for (const { id } of await Promise.all(burst))
      publisher.published.push({ seq: seqOf(id), channels: ["fanwire-common"], data: "x".repeat(SIZE), cost: 0 });
    await client.read();
    const [first] = client.control("gap").map(gapOf);
    expect(seqOf(first?.through)).toBeGreaterThan(0);
    // Small events: the log has room for all of them, but retention drops some.
    for (let event = 0; event < 100; event++) await publisher.end(`${event}`);
    await client.untilData("99");
    const gaps = client.control("gap").map(gapOf);
    expect(gaps).toHaveLength(2);
    expect(seqOf(gaps[1]?.through)).toBe(publisher.head - 25);
    expectTruth(publisher, ["fanwire-common"], seenBy(client));
    expect(broker.stats().overruns).toBe(0);
  }),
);

test(
  "overrun: with several channels the gaps are exact, and a channel without a missing event is in none",
  withBroker(async (setup) => {
    const channels = ["fanwire-common", "fanwire-inbox", "large", "small", "quiet"];
    const { broker, client, publisher } = await blockedClient(setup, { channel: ["large", "small", "quiet"] });
    const burst = async (): Promise<void> => {
      for (let round = 0; round < 10; round++) {
        await publisher.publish(6, "large");
        await publisher.end(`small ${publisher.head}`, "small");
      }
    };
    await burst();
    await client.untilControl("gap");
    // The largest channel lost its oldest events, and the small one lost nothing.
    await client.untilData("small 6");
    await burst();
    const second = await client.until(({ event, id }) => event === "fanwire-gap" && seqOf(id) === publisher.head);
    expect(broker.stats().overruns).toBe(1);
    await publisher.end("end", "small");
    await client.untilData("end");
    expectTruth(publisher, channels, seenBy(client));
    const reported = client.events.filter(({ id }) => id === second.id).flatMap((event) => gapOf(event).channels);
    expect(reported.sort()).toEqual(["large", "small"]);
  }),
);

test(
  "overrun: a missing range that was announced before the second overrun is still covered after it",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup, { channel: ["large", "small"] });
    // More events of the small channel than a chunk holds lie inside the missing range of the large one.
    for (let round = 0; round < 40; round++) {
      await publisher.publish(3, "large");
      await publisher.end("s".repeat(3 * 1024), "small");
    }
    await client.untilControl("gap");
    const before = client.events.length;
    await publisher.publish(MORE_THAN_HELD, "large");
    await client.until(({ event, id }) => event === "fanwire-gap" && seqOf(id) === publisher.head);
    expect(client.events.length).toBeGreaterThan(before);
    expect(broker.stats().overruns).toBe(1);
    await publisher.end("end", "small");
    await client.untilData("end");
    expectTruth(publisher, ["fanwire-common", "fanwire-inbox", "large", "small"], seenBy(client));
  }),
);

test(
  "overrun: a client that can keep up loses nothing because of one that cannot",
  withBroker(async (setup) => {
    const { broker, client, publisher } = await blockedClient(setup);
    const reading = await setup.join(broker, { id: "two" });
    const read = reading.untilData("end");
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    await publisher.end("end");
    await read;
    expect(reading.data).toHaveLength(2 * MORE_THAN_HELD + 1);
    expect(reading.control("gap")).toEqual([]);
    expect(broker.stats().overruns).toBe(1);
  }),
);

test(
  "overrun: a listener continues at the oldest event the first time and at the head the second time, like a client",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: LOG });
    const publisher = new Publisher(broker);
    const listener = broker.listen();
    const seen: ReceivedItem[] = [];
    const take = async (): Promise<Listened> => {
      const item = await nextOf(listener);
      seen.push(item.type === "gap" ? item : { type: "event", id: item.id, data: item.data });
      return item;
    };
    const takeGap = async (): Promise<Listened> => {
      for (;;) {
        const item = await take();
        if (item.type === "gap") return item;
      }
    };
    await publisher.publish(MORE_THAN_HELD);
    const oldest = oldestHeld(publisher);
    expect(seqOf((await takeGap()).id)).toBe(oldest - 1);
    await publisher.publish(MORE_THAN_HELD);
    expect(seqOf((await takeGap()).id)).toBe(publisher.head);
    // A listener that waits has everything.
    const next = take();
    await publisher.end("live");
    expect(await next).toMatchObject({ type: "event", data: "live" });
    await publisher.publish(MORE_THAN_HELD);
    const again = oldestHeld(publisher);
    expect(seqOf((await takeGap()).id)).toBe(again - 1);
    await publisher.end("end");
    while (seqOf((await take()).id) < publisher.head);
    expectTruth(publisher, ["fanwire-common"], seen);
    // A listener is not a client, so no figure counts it.
    expect(broker.stats()).toMatchObject({ overruns: 0, gaps: 0 });
  }),
);
