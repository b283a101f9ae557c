// Streams that start with the newest events of each channel, on Redis: what a session answers, and what clients of several processes receive.
import { afterEach, describe, expect, test } from "vitest";
import type { Broker } from "../../src/index.ts";
import { gapOf } from "../support/clients/connection.ts";
import { Random } from "../support/random.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { type ConnectOptions, TestSetup } from "../support/test-broker.ts";
import type { Peer } from "./support/peer.ts";
import { useRedis } from "./support/use-redis.ts";

interface Appended {
  readonly seq: number;
  readonly keys: readonly string[];
  readonly size: number;
}

/** What a start of each channel at its newest events has to be: counted one by one. */
function expectedOf(events: readonly Appended[], keys: readonly string[], last: number, max: Bounds) {
  const { events: mostEvents = Infinity, bytes: mostBytes = Infinity } = max;
  const newest = keys.map((key) => events.filter((event) => event.keys.includes(key)).slice(-last));
  const all = new Map(newest.flat().map((event) => [event.seq, event]));
  let [count, bytes, floor] = [0, 0, 0];
  for (const event of [...all.values()].sort((a, b) => b.seq - a.seq)) {
    count++;
    bytes += event.size;
    if (count <= mostEvents && bytes <= mostBytes) continue;
    floor = event.seq;
    break;
  }
  return { floor, starts: newest.map((list) => list.map(({ seq }) => seq)) };
}

interface Bounds {
  readonly events?: number;
  readonly bytes?: number;
}

/** Publishes events to channels: `"a1"` to channel `a`, `"ab1"` to `a` and `b`. */
async function publish(broker: Broker, ...data: readonly string[]): Promise<void> {
  for (const each of data) await broker.broadcast(each, { channels: each.replace(/\d+$/, "").split("") });
}

const numbers = (channel: string, from: number, through: number): string[] =>
  Array.from({ length: through - from + 1 }, (_, index) => `${channel}${from + index}`);

describe("the newest events of each channel, on Redis", needsRedis, () => {
  const redis = useRedis();
  const clients = new TestSetup(undefined);
  afterEach(() => clients.close());

  /** Appends events at random, and returns them in order of position. */
  async function fill(peer: Peer, random: Random, keys: readonly string[], count: number, shared: number) {
    const { epoch } = await peer.checkpoint();
    const pick = (): string => keys[Math.floor(random.next() ** 2 * keys.length)] as string;
    const all = Array.from({ length: count }, async () => {
      const names = [...new Set(random.chance(shared) ? [pick(), pick()] : [pick()])];
      const text = "x".repeat(random.integer(1, 200));
      const { seq } = await peer.append(names, text);
      return { seq, keys: names, size: `id: ${epoch}-${seq}\n${text}\n`.length - 1 };
    });
    return { epoch, events: (await Promise.all(all)).sort((a, b) => a.seq - b.seq) };
  }

  test.each(Array.from({ length: 8 }, (_, seed) => [seed]))(
    "historyBounds: lastFloor is exact, and maxReplay counts only the newest events (seed %i)",
    async (seed) => {
      const random = new Random(200 + seed);
      const keys = Array.from({ length: random.integer(1, 30) }, (_, index) => `#${index}`);
      const [writer, reader] = [await redis.join({ retention: { events: 1e6 } }), await redis.join()];
      const { epoch, events } = await fill(writer, random, keys, 1_500, 0);
      for (let round = 0; round < 12; round++) {
        const last = random.chance(0.5) ? random.integer(1, 20) : random.integer(1, 1_000);
        const max: Bounds = {
          ...(random.chance(0.5) ? { events: random.integer(0, 800) } : {}),
          ...(random.chance(0.5) ? { bytes: random.integer(0, 100_000) } : {}),
        };
        const { floor, channels } = await reader.session.historyBounds(epoch, keys, 0, max, last);
        const expected = expectedOf(events, keys, last, max);
        expect(floor, JSON.stringify({ last, max })).toBe(expected.floor);
        for (const [index, { lastFloor = -1 }] of channels.entries()) {
          const start = expected.starts[index] ?? [];
          const isCut = events.filter(({ keys: [key] }) => key === keys[index]).length > last;
          expect(lastFloor).toBe(isCut ? (start[0] as number) - 1 : 0);
        }
      }
    },
  );

  test("historyBounds: with events of several channels, a replay never has more than maxReplay allows", async () => {
    const keys = Array.from({ length: 10 }, (_, index) => `#${index}`);
    const peer = await redis.join();
    const { epoch, events } = await fill(peer, new Random(9), keys, 2_000, 0.5);
    for (const [last, most] of [
      [5, 3],
      [50, 30],
      [300, 600],
      [300, 1_000],
    ] as const) {
      const { floor } = await peer.session.historyBounds(epoch, keys, 0, { events: most }, last);
      const exact = expectedOf(events, keys, last, { events: most }).floor;
      if (most <= 100) expect(floor).toBe(exact);
      else expect(floor).toBeGreaterThanOrEqual(exact);
    }
  });

  test("historyBounds: 100 channels of 200 events, and more channels than one script looks at, cost a bounded number of looks", async () => {
    const keys = Array.from({ length: 300 }, (_, index) => `#${index}`);
    const peer = await redis.join({ retention: { events: 1e6 } });
    const { epoch } = await peer.checkpoint();
    for (let turn = 0; turn < 200; turn++)
      await Promise.all(keys.slice(0, 100).map((key) => peer.append([key], "data: 1\n")));
    await Promise.all(keys.map((key) => peer.append([key], "data: 1\n")));
    for (const [count, last, max, floor] of [
      [100, 200, {}, 0],
      [100, 200, { events: 10_000 }, 10_100],
      [300, 1, { events: 250 }, 20_050],
      [300, 1, { events: 300 }, 0],
    ] as const) {
      await redis.server.command("CONFIG", "RESETSTAT");
      const bounds = await peer.session.historyBounds(epoch, keys.slice(0, count), 0, max, last);
      const stats = (await redis.server.command("INFO", "commandstats")) as string;
      const calls = (name: string): number => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
      expect([bounds.floor, bounds.channels.length]).toEqual([floor, count]);
      const starts = bounds.channels.slice(0, 100).map(({ lastFloor }) => lastFloor);
      expect(starts).toEqual(starts.map((_, index) => (last === 1 ? 20_000 + index : index + 100)));
      const scripts = calls("evalsha");
      expect([scripts > 0, scripts <= 45, calls("zrange") <= scripts * 700]).toEqual([true, true, true]);
    }
  });

  test("historyBounds: events that have expired do not count as the newest ones", async () => {
    const [writer, reader] = [await redis.join(), await redis.join({ retention: { age: 1_000 } })];
    const { epoch } = await writer.checkpoint();
    for (let index = 0; index < 10; index++) await writer.append(["#a", "#b"], "old");
    while ((await reader.session.read(epoch, ["#a"], 0, 1_000)).records.length > 0);
    const { seq } = await writer.append(["#a"], "new 1");
    await writer.append(["#a"], "new 2");
    const boundsOf = async (last: number) => {
      const { channels } = await reader.session.historyBounds(epoch, ["#a", "#b"], 0, {}, last);
      return channels.map(({ oldest, lastFloor }) => [oldest, lastFloor]);
    };
    expect(await boundsOf(1)).toEqual([
      [seq, seq],
      [undefined, 0],
    ]);
    expect(await boundsOf(2)).toEqual([
      [seq, 0],
      [undefined, 0],
    ]);
    expect(await boundsOf(5)).toEqual(await boundsOf(2));
  });

  const QUERY = (query: Record<string, string>, ...channel: string[]): ConnectOptions => ({ channel, query });

  test("last: each channel starts at its newest events in any process, without a gap, and new events follow", async () => {
    const [one, other] = [redis.open(), redis.open({ logBytes: 2_000 })];
    await publish(one, "q1", "q2", "q3", ...numbers("l", 1, 30), "q4", "l31");
    const client = await clients.connect(other, QUERY({ last: "2" }, "q", "l"));
    const ready = await client.untilControl("ready");
    expect(JSON.parse(ready.data)).toMatchObject({ resumed: false, complete: false, incomplete: ["q", "l"] });
    expect(ready.id).toBeUndefined();
    await client.untilData("l31");
    await publish(one, "l32");
    await client.untilData("l32");
    expect(client.data).toEqual(["q3", "l30", "q4", "l31", "l32"]);
    expect(client.control("gap")).toEqual([]);
  });

  test("from=latest: the newest event of each channel; a channel without an older one is complete", async () => {
    const [one, other] = [redis.open(), redis.open()];
    await publish(one, "a1", "b1", "a2", "c1", "ab3");
    const client = await clients.connect(other, QUERY({ from: "latest" }, "a", "b", "c"));
    expect(JSON.parse((await client.untilControl("ready")).data)).toMatchObject({
      complete: false,
      incomplete: ["a", "b"],
    });
    await client.untilData("ab3");
    expect(client.data).toEqual(["c1", "ab3"]);
    const whole = await clients.connect(other, QUERY({ last: "3" }, "a", "b", "c"));
    expect(JSON.parse((await whole.untilControl("ready")).data)).toMatchObject({ complete: true });
    await whole.untilData("ab3");
    expect(whole.data).toEqual(["a1", "b1", "a2", "c1", "ab3"]);
  });

  test("last: what retention has dropped makes a channel incomplete; a client that comes back to it receives a gap", async () => {
    const engine = { retention: { events: 3 } };
    const [one, other] = [redis.open(engine), redis.open(engine)];
    const { id: lastEventId } = await one.broadcast("b1", { channels: "b" });
    await publish(one, ...numbers("a", 1, 5));
    const client = await clients.connect(other, QUERY({ last: "50" }, "a", "b"));
    expect(JSON.parse((await client.untilControl("ready")).data)).toMatchObject({ incomplete: ["a"] });
    await client.untilData("a5");
    expect(client.data).toEqual(["b1", "a3", "a4", "a5"]);
    // An id counts, and not `last`.
    const resumed = await clients.connect(other, {
      ...QUERY({ last: "1" }, "a", "b"),
      lastEventId: lastEventId as string,
    });
    await resumed.untilData("a5");
    expect(resumed.data).toEqual(["a3", "a4", "a5"]);
    expect(resumed.control("gap").flatMap((event) => gapOf(event).channels)).toContain("a");
  });

  test("last: maxReplay counts only the events that the channels start with", async () => {
    const [one, other] = [redis.open(), redis.open({}, { maxReplay: { events: 4 } })];
    await publish(one, "b1", ...numbers("a", 1, 20), "b2", "b3");
    const client = await clients.connect(other, QUERY({ last: "2" }, "a", "b"));
    await client.untilData("b3");
    expect(client.data).toEqual(["a19", "a20", "b2", "b3"]);
    const cut = await clients.connect(other, QUERY({ last: "3" }, "a", "b"));
    await cut.untilData("b3");
    expect(cut.data).toEqual(["a19", "a20", "b2", "b3"]);
  });

  test("last: listen() starts as clients do", async () => {
    const [one, other] = [redis.open(), redis.open()];
    await publish(one, ...numbers("a", 1, 9));
    const received: string[] = [];
    for await (const item of other.listen({ channels: "a", last: 3 })) {
      received.push(item.type === "event" ? item.data : "gap");
      if (received.length === 3) break;
    }
    expect(received).toEqual(["a7", "a8", "a9"]);
  });
});
