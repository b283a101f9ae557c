import { expect, test } from "vitest";
import type { Broker, Listened } from "../../../src/index.ts";
import { type Connection, gapOf, isData, seqOf } from "../../support/clients/connection.ts";
import { judge, judgeAlarms, type Seen, type Told } from "../../support/oracle/oracle.ts";
import { type Scene, scene } from "../../support/test-broker.ts";

// A reader that the log drops events of for want of room: at first it goes on at the oldest that is left, and if that happens again
// before it has caught up, at the newest. Otherwise it would be read the oldest for ever, each of them late.

/** The log holds some thirty of these, and one chunk seven. */
const SIZE = 8 * 1024;
const LOG = { logBytes: 256 * 1024 };
const MORE_THAN_HELD = 60;

/** Publishes, remembers what, and resolves when that was offered to all who are live. */
class Publisher {
  readonly broker: Broker;
  readonly told: Told[] = [];
  /** Waits for what is next whenever something is published, so that it tells when a flush was made. No client, so it counts nowhere. */
  readonly #clock: AsyncIterableIterator<Listened, undefined>;

  constructor(broker: Broker, channel?: readonly string[]) {
    this.broker = broker;
    this.#clock = broker.listen(channel ? { channels: channel } : {});
  }

  /** Large ones. */
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
    return this.told.at(-1)?.seq ?? 0;
  }

  async #reaches(seq: number): Promise<void> {
    while (seqOf((await heard(this.#clock)).id) < seq);
  }

  async #publish(data: string, channel: string | undefined): Promise<void> {
    const { id } = await this.broker.broadcast(data, channel === undefined ? {} : { channels: channel });
    this.told.push({ seq: seqOf(id), channels: [channel ?? "fanwire-common"], data, cost: 0 });
  }
}

/** The next item of a listener. */
async function heard(listener: AsyncIterableIterator<Listened, undefined>): Promise<Listened> {
  const { value } = await listener.next();
  if (!value) throw new Error("listening: it ended");
  return value;
}

const seenBy = (client: Connection): Seen[] =>
  client.events.flatMap((event): Seen[] => {
    const { id = "", data } = event;
    if (isData(event)) return [{ type: "event", id, data }];
    return event.event === "fanwire-gap" ? [{ type: "gap", id, ...gapOf(event) }] : [];
  });

/** Every event was received or told as lost, and nothing was told as lost that was received, or that there was not. */
function expectTruth({ told }: Publisher, channels: readonly string[], seen: readonly Seen[]): void {
  const lineage = { channels, start: 0, floor: 0, seen };
  expect(judge(told, lineage, { events: Infinity, logBytes: 0, forgets: true })).toEqual([]);
  expect(judgeAlarms(told, lineage)).toEqual([]);
}

/** What was received and told as lost, in short. */
const story = (seen: readonly Seen[]): string[] => {
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

async function blocked(stage: Scene, options: { readonly channel?: string[]; readonly log?: object } = {}) {
  const broker = stage.broker({ timeout: 60_000, log: { ...LOG, ...options.log } });
  const client = await stage.join(broker, { id: "one", ...(options.channel ? { channel: options.channel } : {}) });
  return { broker, client, publisher: new Publisher(broker, options.channel) };
}
const heldFrom = ({ broker, head }: Publisher): number => head - broker.stats().log.events + 1;

test(
  "overrun: the first time a client goes on at the oldest event that is retained, and is not counted",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage);
    await publisher.publish(MORE_THAN_HELD);
    const oldest = heldFrom(publisher);
    expect(oldest).toBeGreaterThan(20);
    await publisher.end("end");
    await client.untilData("end");
    const seen = seenBy(client);
    expect(story(seen)).toEqual([
      `(0, ${oldest - 1}] of fanwire-common @ ${oldest - 1}`,
      `${oldest}-${publisher.head}`,
    ]);
    expectTruth(publisher, ["fanwire-common"], seen);
    expect(broker.stats()).toMatchObject({ overruns: 0, gaps: 1 });
  }),
);

test(
  "overrun: the second time before it has caught up a client is told a gap up to the head, and goes on there",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage);
    await publisher.publish(MORE_THAN_HELD);
    const first = heldFrom(publisher);
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
    expect(story(seen)).toEqual([
      `(0, ${first - 1}] of fanwire-common @ ${first - 1}`,
      `${first}-${read}`,
      `(${read}, ${head}] of fanwire-common @ ${head}`,
      `${head + 1}`,
    ]);
    expectTruth(publisher, ["fanwire-common"], seen);
  }),
);

test(
  "overrun: who leaves after the gap up to the head comes back there, and has lost no more",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage);
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    await client.leave();
    await publisher.end("after");
    const back = await stage.connect(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    expect(JSON.parse((await back.next()).data)).toMatchObject({ resumed: true });
    expect((await back.next()).data).toBe("after");
    expectTruth(publisher, ["fanwire-common"], [...seenBy(client), ...seenBy(back)]);
  }),
);

test(
  "overrun: a third and a fourth time in a row are told and counted each",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage);
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
  "overrun: a client that was live in between goes on at the oldest event again",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage);
    for (let time = 0; time < 3; time++) {
      await publisher.publish(MORE_THAN_HELD);
      const oldest = heldFrom(publisher);
      const gap = await client.untilControl("gap");
      expect(seqOf(gap.id)).toBe(oldest - 1);
      await publisher.end(`end ${time}`);
      await client.untilData(`end ${time}`);
      // It waits for what is next: it is live.
      const next = client.nextData();
      await publisher.end(`live ${time}`);
      expect((await next).data).toBe(`live ${time}`);
    }
    expectTruth(publisher, ["fanwire-common"], seenBy(client));
    expect(broker.stats()).toMatchObject({ overruns: 0, gaps: 3 });
  }),
);

test(
  "overrun: who is behind is not put at the head while the log drops nothing more of what it has not read",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage);
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    // So much that what goes is what it has read.
    while (seqOf(client.events.at(-1)?.id) < publisher.head) {
      await publisher.publish(1);
      await client.read();
    }
    const seen = seenBy(client);
    expect(story(seen)).toHaveLength(2);
    expectTruth(publisher, ["fanwire-common"], seen);
    expect(broker.stats()).toMatchObject({ overruns: 0, gaps: 1 });
  }),
);

test(
  "overrun: a client that comes back with its id begins anew",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage);
    await publisher.publish(MORE_THAN_HELD);
    await client.untilControl("gap");
    await client.leave();
    await publisher.publish(MORE_THAN_HELD);
    const oldest = heldFrom(publisher);
    const back = await stage.connect(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    const gap = await back.untilControl("gap");
    expect(seqOf(gap.id)).toBe(oldest - 1);
    expect(broker.stats().overruns).toBe(0);
  }),
);

test(
  "overrun: holes that retention makes put nobody at the head",
  scene(async (stage) => {
    const retention = { events: 20 };
    const { broker, client, publisher } = await blocked(stage, { log: { retention, logBytes: 32 * 1024 * 1024 } });
    for (let time = 0; time < 4; time++) {
      await publisher.publish(MORE_THAN_HELD);
      await publisher.end("and what is old goes");
      const oldest = heldFrom(publisher);
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
  "overrun: after a hole that the log made for want of room, one that retention makes does not count as the second",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage, {
      log: { retention: { events: 25 }, logBytes: 64 * 1024 },
    });
    // In one turn, so that it is the bound of the log that drops, and not retention.
    const published = Array.from({ length: 30 }, () => broker.broadcast("x".repeat(SIZE)));
    for (const { id } of await Promise.all(published))
      publisher.told.push({ seq: seqOf(id), channels: ["fanwire-common"], data: "x".repeat(SIZE), cost: 0 });
    await client.read();
    const [first] = client.control("gap").map(gapOf);
    expect(seqOf(first?.through)).toBeGreaterThan(0);
    // Small ones: the log has room for all of them, retention has not.
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
  "overrun: of several channels the gaps are true, and one of which nothing was missed is in none",
  scene(async (stage) => {
    const channels = ["fanwire-common", "fanwire-inbox", "large", "small", "quiet"];
    const { broker, client, publisher } = await blocked(stage, { channel: ["large", "small", "quiet"] });
    const burst = async (): Promise<void> => {
      for (let round = 0; round < 10; round++) {
        await publisher.publish(6, "large");
        await publisher.end(`small ${publisher.head}`, "small");
      }
    };
    await burst();
    await client.untilControl("gap");
    // The largest lost its oldest, the small one lost nothing.
    await client.untilData("small 6");
    await burst();
    const second = await client.until(({ event, id }) => event === "fanwire-gap" && seqOf(id) === publisher.head);
    expect(broker.stats().overruns).toBe(1);
    await publisher.end("end", "small");
    await client.untilData("end");
    expectTruth(publisher, channels, seenBy(client));
    const told = client.events.filter(({ id }) => id === second.id).flatMap((event) => gapOf(event).channels);
    expect(told.sort()).toEqual(["large", "small"]);
  }),
);

test(
  "overrun: what was announced of a hole before the second overrun is still covered after it",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage, { channel: ["large", "small"] });
    // Events of the small channel lie inside of the hole of the large one, more of them than a chunk holds.
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
  "overrun: one client that cannot keep up takes nothing from one that can",
  scene(async (stage) => {
    const { broker, client, publisher } = await blocked(stage);
    const reading = await stage.join(broker, { id: "two" });
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
  "overrun: a listener goes on at the oldest the first time and at the head the second time, as a client does",
  scene(async (stage) => {
    const broker = stage.broker({ log: LOG });
    const publisher = new Publisher(broker);
    const listener = broker.listen();
    const seen: Seen[] = [];
    const take = async (): Promise<Listened> => {
      const item = await heard(listener);
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
    const oldest = heldFrom(publisher);
    expect(seqOf((await takeGap()).id)).toBe(oldest - 1);
    await publisher.publish(MORE_THAN_HELD);
    expect(seqOf((await takeGap()).id)).toBe(publisher.head);
    // It has everything once it waits.
    const next = take();
    await publisher.end("live");
    expect(await next).toMatchObject({ type: "event", data: "live" });
    await publisher.publish(MORE_THAN_HELD);
    const again = heldFrom(publisher);
    expect(seqOf((await takeGap()).id)).toBe(again - 1);
    await publisher.end("end");
    while (seqOf((await take()).id) < publisher.head);
    expectTruth(publisher, ["fanwire-common"], seen);
    // It is no client.
    expect(broker.stats()).toMatchObject({ overruns: 0, gaps: 0 });
  }),
);
