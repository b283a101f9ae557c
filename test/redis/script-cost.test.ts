// What one script costs Redis, counted in what it looks at and returns. Redis runs nothing else meanwhile.
import { describe, expect, test } from "vitest";
import type { ReplayPage } from "../../src/engine/engine.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { auditLog } from "./support/audit.ts";
import type { Peer } from "./support/peer.ts";
import { useRedis } from "./support/use-redis.ts";

const CHANNELS = Array.from({ length: 100 }, (_, index) => `#${index}`);
/** The most that one script may look at: commands on channels, and events that it returns. */
const MOST_LOOKS = 700;
const MOST_EVENTS = 1_000;

describe("the cost of a script", needsRedis, () => {
  const redis = useRedis();

  /** Appends events to the channels in turn. */
  async function fill(peer: Peer, count: number, keys: readonly string[] = CHANNELS): Promise<string> {
    for (let index = 0; index < count; ) {
      const appends: Promise<unknown>[] = [];
      for (let room = 2_000; room > 0 && index < count; room--, index++)
        appends.push(peer.append([keys[index % keys.length] as string], "data: 12345678\n"));
      await Promise.all(appends);
    }
    return (await peer.checkpoint()).epoch;
  }

  /** Runs something, and returns how many commands on channels its scripts gave. */
  async function looksOf<T>(run: () => Promise<T>): Promise<{ looks: number; scripts: number; result: T }> {
    await redis.server.command("CONFIG", "RESETSTAT");
    const result = await run();
    const stats = (await redis.server.command("INFO", "commandstats")) as string;
    const calls = (name: RegExp): number =>
      [...stats.matchAll(/cmdstat_(\w+):calls=(\d+)/g)].reduce(
        (sum, [, command = "", count]) => sum + (name.test(command) ? Number(count) : 0),
        0,
      );
    return { looks: calls(/^z(range|count|remrangebyrank)/), scripts: calls(/^evalsha$/), result };
  }

  /** Waits until the newest event is too old for a process. */
  async function untilAllAreOld(peer: Peer, epoch: string): Promise<void> {
    while ((await peer.session.read(epoch, ["#99"], 0, 1_000)).records.length > 0);
  }

  test("read: the expired events of 100 channels cost little more than a look at each, and none is returned", async () => {
    const [writer, reader] = [await redis.join(), await redis.join({ retention: { age: 1 } })];
    const epoch = await fill(writer, 20_000);
    await untilAllAreOld(reader, epoch);
    const { looks, scripts, result } = await looksOf(() => reader.session.read(epoch, CHANNELS, 0, 49_152));
    expect(result.records).toEqual([]);
    expect(result.through).toBe(20_000);
    expect(result.droppedThrough).toEqual(CHANNELS.map((_, index) => 19_901 + index));
    expect([looks > 0, looks <= 200, scripts]).toEqual([true, true, 1]);
  });

  test("read: events of which a part is expired are found by a search that all channels share", async () => {
    const [writer, reader] = [await redis.join(), await redis.join({ retention: { age: 4_000 } })];
    const epoch = await fill(writer, 10_000);
    await untilAllAreOld(reader, epoch);
    await fill(writer, 1_000);
    const { looks, scripts, result } = await looksOf(() => reader.session.read(epoch, CHANNELS, 0, 49_152));
    const seqs = result.records.map(({ seq }) => seq);
    expect(seqs[0]).toBeGreaterThan(10_000);
    expect(seqs).toEqual(seqs.map((_, index) => (seqs[0] as number) + index));
    expect(result.droppedThrough.every((seq) => seq > 9_900 && seq < 11_000)).toBe(true);
    expect([looks > 0, looks <= MOST_LOOKS, scripts]).toEqual([true, true, 1]);
  });

  test.each([
    ["100 channels that take turns", CHANNELS, 20_000],
    ["one busy channel among 100", [...CHANNELS, ...Array.from({ length: 900 }, () => "#7")], 20_000],
    ["one channel", ["#7"], 20_000],
  ])("read: %s are read in pages of a bounded cost, each event once and in order", async (_, keys, count) => {
    const peer = await redis.join({ retention: { events: 100_000 } });
    const epoch = await fill(peer, count, keys);
    const seqs: number[] = [];
    let pages = 0;
    for (let cursor = 0; cursor < count; pages++) {
      const { looks, scripts, result }: { looks: number; scripts: number; result: ReplayPage } = await looksOf(() =>
        peer.session.read(epoch, CHANNELS, cursor, 49_152),
      );
      expect([looks <= MOST_LOOKS, result.records.length <= MOST_EVENTS, scripts]).toEqual([true, true, 1]);
      expect(result.through).toBeGreaterThan(cursor);
      for (const { seq } of result.records) seqs.push(seq);
      cursor = result.through;
    }
    expect(seqs).toEqual(Array.from({ length: count }, (_, index) => index + 1));
    // A bound that cuts pages too early would cost more in all.
    expect(pages).toBeLessThan(count / 250);
  });

  test("read: large events are copied only into the page; a page has no more of them than fit", async () => {
    const peer = await redis.join({ retention: { bytes: 1e9 } });
    const large = "x".repeat(50_000);
    for (let round = 0; round < 3; round++)
      await Promise.all(CHANNELS.map((key, index) => peer.append([key], index % 10 === 0 ? `small ${index}` : large)));
    const { epoch } = await peer.checkpoint();
    const seqs: number[] = [];
    for (let cursor = 0; cursor < 300; ) {
      const { looks, result } = await looksOf(() => peer.session.read(epoch, CHANNELS, cursor, 49_152));
      // A look at each channel, and the copy of each event of the page.
      expect(looks <= 300 && result.records.length <= 3).toBe(true);
      for (const { seq, text } of result.records) {
        expect(text).toBe((seq - 1) % 10 === 0 ? `small ${(seq - 1) % 100}` : large);
        seqs.push(seq);
      }
      cursor = result.through;
    }
    expect(seqs).toEqual(Array.from({ length: 300 }, (_, index) => index + 1));
  });

  test("read: events that are missing are reported as dropped", async () => {
    const peer = await redis.join();
    const large = "x".repeat(5_000);
    await peer.append(["#a"], large);
    await peer.append(["#a", "#b"], large);
    await peer.append(["#a"], "small");
    const { epoch } = await peer.checkpoint();
    await redis.server.command("HDEL", `{test}:${epoch}:data`, "e1");
    const page = await peer.session.read(epoch, ["#a", "#b"], 0, 100_000);
    expect(page.records.map(({ seq }) => seq)).toEqual([2, 3]);
    expect([page.through, page.droppedThrough]).toEqual([3, [1, 0]]);
    await redis.server.command("HDEL", `{test}:${epoch}:data`, "e2");
    const rest = await peer.session.read(epoch, ["#a", "#b"], 0, 100_000);
    expect(rest.records.map(({ seq }) => seq)).toEqual([3]);
    expect(rest.droppedThrough).toEqual([2, 2]);
  });

  /** Returns the positions of the events that are stored. */
  async function eventsOf(epoch: string): Promise<string[]> {
    const fields = (await redis.server.command("HKEYS", `{test}:${epoch}:data`)) as string[];
    return fields.filter((field) => field.startsWith("e"));
  }

  test("retention.bytes, maxChannels: large events leave Redis together with the rest of their channel", async () => {
    const peer = await redis.join({ retention: { bytes: 30_000 }, maxChannels: 2 });
    for (let index = 0; index < 20; index++) await peer.append(["#a"], index % 3 ? "small" : "x".repeat(9_000));
    const { epoch } = await peer.checkpoint();
    const lengths = async (): Promise<unknown[]> => [
      await redis.server.command("ZCARD", `{test}:${epoch}:channel:#a`),
      (await eventsOf(epoch)).length,
    ];
    expect(await lengths()).toEqual([10, 10]);
    for (let index = 0; index < 100; index++) await peer.append(["#a"], "x".repeat(900));
    expect(await lengths()).toEqual([32, 32]);
    await peer.append(["#a"], "x".repeat(9_000));
    for (const key of ["#b", "#c"]) await peer.append([key], "text");
    expect(await redis.server.command("KEYS", "*#a")).toEqual([]);
    expect(await lengths()).toEqual([0, 2]);
  });

  test("read: more channels than one script looks at are read by several", async () => {
    const many = Array.from({ length: 500 }, (_, index) => `#${index}`);
    const peer = await redis.join();
    const epoch = await fill(peer, 5_000, many);
    const seqs: number[] = [];
    for (let cursor = 0; cursor < 5_000; ) {
      const { looks, scripts, result } = await looksOf(() => peer.session.read(epoch, many, cursor, 49_152));
      expect([scripts > 1, looks / scripts <= MOST_LOOKS]).toEqual([true, true]);
      expect(result.droppedThrough).toEqual(many.map(() => 0));
      expect(result.through).toBeGreaterThan(cursor);
      for (const { seq } of result.records) seqs.push(seq);
      cursor = result.through;
    }
    expect(seqs).toEqual(Array.from({ length: 5_000 }, (_, index) => index + 1));
  });

  test("append: drops a bounded number of old events, and later appends the rest; none of them can be read", async () => {
    const keys = ["#a", "#b", "#c"];
    const [writer, peer] = [await redis.join(), await redis.join({ retention: { age: 1 } })];
    const epoch = await fill(writer, 9_000, keys);
    while ((await peer.session.read(epoch, keys, 0, 1_000)).records.length > 0);
    const stored = async (): Promise<number> => {
      const all = keys.map((key) => redis.server.command("ZCARD", `{test}:${epoch}:channel:${key}`));
      return (await Promise.all(all)).reduce<number>((sum, length) => sum + Number(length), 0);
    };
    let before = await stored();
    expect(before).toBe(9_000);
    while (before > 60) {
      const { looks } = await looksOf(() => peer.append(keys, "new"));
      const now = await stored();
      expect([looks <= 160, before - now > 20, before - now <= 2_010]).toEqual([true, true, true]);
      const { records } = await peer.session.read(epoch, keys, 0, 100_000);
      expect(records.every(({ seq }) => seq > 9_000)).toBe(true);
      before = now;
    }
  });

  test("append: pushes out an event of each of 100 owners at a bounded cost", async () => {
    const peer = await redis.join({ tenant: (name) => name, redisBytes: 500_000 });
    for (let index = 0; index < 40; index++) await peer.append(CHANNELS, "x".repeat(100));
    for (let index = 0; index < 5; index++) {
      const { looks, result } = await looksOf(() => peer.append(CHANNELS, "x".repeat(100)));
      // Each channel is looked at twice, and the owners some at a time.
      expect(looks).toBeGreaterThan(100);
      expect(looks).toBeLessThan(450);
      const { droppedThrough } = await peer.session.read(result.epoch, CHANNELS, 0, 1e9);
      const { records } = await peer.session.read(result.epoch, CHANNELS, result.seq - 1, 1e9);
      expect(records).toHaveLength(1);
      expect(droppedThrough.every((seq) => seq > result.seq - 25)).toBe(true);
      expect(Number(await redis.server.command("HGET", "{test}:log", "bytes"))).toBeLessThanOrEqual(500_000);
    }
    await auditLog(redis.server);
  });

  test("append: two bounds that are passed at a time both hold", async () => {
    const peer = await redis.join({ redisBytes: 100_000, maxChannels: 1_000 });
    const sizes: number[][] = [];
    for (let index = 0; index < 120; index++) {
      const { epoch } = await peer.append(
        CHANNELS.map((key) => `${key}-${index}`),
        "x",
      );
      const [bytes, channels] = await Promise.all([
        redis.server.command("HGET", "{test}:log", "bytes"),
        redis.server.command("ZCARD", `{test}:${epoch}:last`),
      ]);
      sizes.push([Number(bytes), Number(channels) - 1]);
    }
    const late = sizes.slice(60);
    expect(Math.max(...late.map(([bytes = 0]) => bytes))).toBeLessThanOrEqual(100_000);
    expect(Math.max(...late.map(([, channels = 0]) => channels))).toBeLessThanOrEqual(1_000);
    await auditLog(redis.server);
  });

  test("append: an owner that has far too much loses some events at a time", async () => {
    const [writer, peer] = [await redis.join(), await redis.join({ redisBytes: 10_000 })];
    const epoch = await fill(writer, 3_000);
    const bytes = async (): Promise<number> => Number(await redis.server.command("HGET", "{test}:log", "bytes"));
    const before = await bytes();
    let appends = 0;
    for (; (await bytes()) > 10_000; appends++) {
      const { looks } = await looksOf(() => peer.append(["#0"], "new"));
      expect(looks).toBeLessThan(450);
    }
    expect([before > 500_000, appends > 10]).toEqual([true, true]);
    expect((await peer.session.read(epoch, CHANNELS, 0, 1e9)).records.length).toBeLessThan(40);
    await auditLog(redis.server);
  });

  test("renew: clears a dead process away with any number of connections, a bounded part at a time", async () => {
    const [one, two] = [await redis.join(), await redis.join({ lease: 200 })];
    const ids = Array.from({ length: 8_000 }, (_, index) => ({ clientId: `c${index}`, subject: "s" }));
    await two.session.renew(ids);
    two.client.disconnect();
    while ((await one.session.disconnect("c7999", 0)) > 0);
    const [dead = ""] = ((await redis.server.command("KEYS", "{test}:process:*")) as string[]).filter(
      (key) => !key.endsWith(":new"),
    );
    const fields = async (): Promise<number> => Number(await redis.server.command("HLEN", dead));
    for (let left = await fields(); (await redis.server.command("ZCARD", "{test}:processes")) !== 1; ) {
      await one.session.renew([]);
      const now = await fields();
      expect(left - now).toBeLessThanOrEqual(500);
      left = now;
    }
    expect(await redis.server.command("ZCARD", "{test}:lingering")).toBe(8_000);
  });
});
