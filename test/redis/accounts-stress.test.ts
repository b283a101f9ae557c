// Random appends of processes with different bounds to one log: budgets end in the middle, and events expire, while owners push out each other.
import { describe, expect, test } from "vitest";
import { Random } from "../support/random.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { auditLog } from "./support/audit.ts";
import type { Peer } from "./support/peer.ts";
import { useRedis } from "./support/use-redis.ts";

const SEEDS = Array.from({ length: 20 }, (_, index) => index + 1);
/** From this seed on, channels have retentions of their own. */
const FIRST_WITH_OWN = 13;

/** A retention that follows from the end of the channel's name, in the same way in each process that has it. */
const ownRetention = (name: string) => {
  const digit = Number(name.at(-1)) || 0;
  return {
    retention: { age: [20, 300, 5_000, Infinity][digit % 4], events: [0, 1, 5, 1_000][Math.floor(digit / 2) % 4] },
  };
};

describe("redisEngine: accounts under load", needsRedis, () => {
  const redis = useRedis();

  test.each(SEEDS)("every account is right, and every lost event is reported (seed %i)", async (seed) => {
    const random = new Random(seed);
    const pick = <T>(all: readonly T[]): T => all[random.integer(0, all.length - 1)] as T;
    const bounds = () => ({
      maxChannels: pick([5, 50, 500, 100_000]),
      redisBytes: pick([20_000, 200_000, 2_000_000]),
      retention: {
        age: pick([1, 50, 2_000, Infinity]),
        events: pick([1, 3, 100, 10_000]),
        bytes: pick([500, 20_000, 1e6]),
      },
      channels: seed < FIRST_WITH_OWN ? undefined : pick([undefined, ownRetention, ownRetention]),
      tenant: pick([undefined, (name: string) => name.slice(0, 1), (name: string) => name]),
    });
    const peers = await Promise.all(Array.from({ length: 3 }, () => redis.join(bounds())));
    const large = await redis.join({ retention: { age: Infinity } });
    const published = new Map<string, number[]>();
    const { epoch } = await large.checkpoint();
    async function append(peer: Peer, keys: readonly string[], size: number): Promise<void> {
      const { seq } = await peer.append(keys, "x".repeat(size), { subject: `s${random.integer(0, 3)}` });
      for (const key of keys) published.set(key, [...(published.get(key) ?? []), seq]);
    }
    const keys = (): string[] => {
      const range = pick([3, 30, 300, 3_000]);
      const some = Array.from(
        { length: pick([1, 1, 1, 5, 40, 120]) },
        () => `#${pick(["a", "b/", "c:"])}${random.integer(1, range)}`,
      );
      return [...new Set(random.chance(0.1) ? [...some, "", "@c"] : some)];
    };
    for (let round = 0; round < 12; round++) {
      // A process without close bounds fills the log, so that the others find more than one script may drop.
      const writer = random.chance(0.5) ? large : undefined;
      const all = Array.from({ length: random.integer(1, 60) }, () =>
        append(writer ?? pick(peers), keys(), pick([1, 10, 300, 5_000])),
      );
      await Promise.all(all);
      if (random.chance(0.3)) await pick(peers).session.renew([]);
      await auditLog(redis.server);
    }
    let lost = 0;
    const names = [...published.keys()];
    for (let from = 0; from < names.length; from += 100) {
      const some = names.slice(from, from + 100);
      const held = new Set<string>();
      const { head } = await large.checkpoint();
      let dropped: readonly number[] = [];
      for (let cursor = 0; cursor < head; ) {
        const page = await large.session.read(epoch, some, cursor, 1e9);
        if (cursor === 0) dropped = page.droppedThrough;
        for (const record of page.records) for (const key of record.keys) held.add(`${record.seq} ${key}`);
        cursor = page.through;
      }
      for (const [place, key] of some.entries()) {
        const missing = (published.get(key) ?? []).filter((seq) => !held.has(`${seq} ${key}`));
        lost += missing.length;
        expect(dropped[place], key).toBeGreaterThanOrEqual(Math.max(0, ...missing));
      }
    }
    expect(lost).toBeGreaterThan(10);
  });
});
