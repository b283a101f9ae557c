// `maxReplay` in Redis: where a replay of bounded size begins.
import { describe, expect, test } from "vitest";
import { Random } from "../support/random.ts";
import { needsRedis } from "../support/servers/redis.ts";
import type { Peer } from "./support/peer.ts";
import { useRedis } from "./support/use-redis.ts";

interface Appended {
  readonly seq: number;
  readonly keys: readonly string[];
  readonly size: number;
}

/** Counts events one by one, newest first. An event counts once, however many of the channels it has. */
function floorOf(events: readonly Appended[], keys: readonly string[], after: number, max: Bounds): number {
  const { events: mostEvents = Infinity, bytes: mostBytes = Infinity } = max;
  let [count, bytes] = [0, 0];
  for (const event of [...events].reverse()) {
    if (event.seq <= after) return 0;
    if (!event.keys.some((key) => keys.includes(key))) continue;
    count++;
    bytes += event.size;
    if (count > mostEvents || bytes > mostBytes) return event.seq;
  }
  return 0;
}

interface Bounds {
  readonly events?: number;
  readonly bytes?: number;
}

describe("historyBounds: the floor of a replay", needsRedis, () => {
  const redis = useRedis();

  /** Fills a log at random. `shared` is the part of its events that have two channels. */
  async function fill(random: Random, keys: readonly string[], count: number, shared: number) {
    const peer = redis.peer({ retention: { events: random.chance(0.3) ? 40 : 1e6, bytes: 1e9 } });
    await peer.ready();
    const { epoch } = await peer.checkpoint();
    const events: Appended[] = [];
    const size = random.chance(0.5) ? 10 : 2_000;
    const skew = random.chance(0.5) ? 1 : 3;
    const pick = (): string => keys[Math.floor(random.next() ** skew * keys.length)] as string;
    const all: Promise<void>[] = [];
    for (let index = 0; index < count; index++) {
      const names = [...new Set(random.chance(shared) ? [pick(), pick()] : [pick()])];
      const text = "x".repeat(random.integer(1, size));
      const appended = peer.append(names, text);
      all.push(
        appended.then(
          ({ seq }) => void events.push({ seq, keys: names, size: `id: ${epoch}-${seq}\n${text}\n`.length - 1 }),
        ),
      );
    }
    await Promise.all(all);
    return { peer, epoch, events };
  }

  /** Returns the floor, how many scripts it took, and how many commands on streams one of them gave on average. */
  async function floorIn(peer: Peer, epoch: string, keys: readonly string[], after: number, max: Bounds) {
    await redis.server.command("CONFIG", "RESETSTAT");
    const { floor, channels } = await peer.session.historyBounds(epoch, keys, after, max);
    const stats = (await redis.server.command("INFO", "commandstats")) as string;
    const count = (name: string): number => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
    return { floor, channels, scripts: count("evalsha"), looks: count("zrange") };
  }

  test.each(Array.from({ length: 12 }, (_, seed) => [seed]))(
    "events of one channel: the floor is exact, and costs a bounded number of scripts (seed %i)",
    async (seed) => {
      const random = new Random(seed);
      const all = Array.from({ length: random.integer(1, 40) }, (_, index) => `#${index}`);
      const { peer, epoch, events } = await fill(random, all, random.integer(1, 3_000), 0);
      for (let round = 0; round < 12; round++) {
        const keys = all.filter(() => random.chance(0.7));
        const after = random.chance(0.5) ? 0 : random.integer(0, events.length);
        const max: Bounds = {
          ...(random.chance(0.6) ? { events: random.integer(0, events.length) } : {}),
          ...(random.chance(0.6) ? { bytes: random.integer(0, 40 * events.length) } : {}),
        };
        const { floor, scripts, looks } = await floorIn(peer, epoch, keys, after, max);
        // What retention has dropped is not replayed in any case.
        const { channels } = await peer.session.historyBounds(epoch, keys, 0, {});
        const retained = events.filter((event) =>
          event.keys.some((key) => event.seq > (channels[keys.indexOf(key)]?.droppedThrough ?? Infinity)),
        );
        expect(floor, JSON.stringify({ keys, after, max })).toBe(floorOf(retained, keys, after, max));
        expect([scripts <= 45, looks <= scripts * 700]).toEqual([true, true]);
      }
    },
  );

  test.each(Array.from({ length: 8 }, (_, seed) => [seed]))(
    "events of several channels: a replay never has more than it may, and the newest events count once (seed %i)",
    async (seed) => {
      const random = new Random(100 + seed);
      const all = Array.from({ length: random.integer(2, 20) }, (_, index) => `#${index}`);
      const { peer, epoch, events } = await fill(random, all, 1_500, 0.5);
      for (let round = 0; round < 12; round++) {
        const max = random.chance(0.5) ? { events: random.integer(0, 1_500) } : { bytes: random.integer(0, 60_000) };
        const { floor } = await floorIn(peer, epoch, all, 0, max);
        const exact = floorOf(events, all, 0, max);
        if (floor > 0) expect(floor).toBeGreaterThanOrEqual(exact);
        if ("events" in max && max.events < 200) {
          const oldest = Math.min(
            ...(await peer.session.historyBounds(epoch, all, 0, {})).channels.map((c) => c.oldest ?? Infinity),
          );
          expect(floor).toBe(exact < oldest ? 0 : exact);
        }
      }
    },
  );

  test("more channels than one script looks at: the counts of all groups are added", async () => {
    const keys = Array.from({ length: 300 }, (_, index) => `#${index}`);
    const { peer, epoch, events } = await fill(new Random(7), keys, 3_000, 0);
    for (const max of [{ events: 1_000 }, { events: 10 }, { bytes: 20_000 }, { events: 3_000 }]) {
      const { channels } = await peer.session.historyBounds(epoch, keys, 0, {});
      const retained = events.filter(
        ({ seq, keys: [key = ""] }) => seq > (channels[keys.indexOf(key)]?.droppedThrough ?? 0),
      );
      expect((await floorIn(peer, epoch, keys, 0, max)).floor).toBe(floorOf(retained, keys, 0, max));
    }
  });
});
