// Bounds by owner in Redis: a tenant or publisher that takes more than its part loses of its own, and nobody else does.
import { describe, expect, test } from "vitest";
import { needsRedis } from "../support/servers/redis.ts";
import { auditLog } from "./support/audit.ts";
import { codeOf, type Peer } from "./support/peer.ts";
import { useRedis } from "./support/use-redis.ts";

type PeerOptions = ConstructorParameters<typeof Peer>[1];

/** The part of a channel's name before the first slash. */
const tenant = (channel: string): string => channel.slice(0, channel.indexOf("/"));
const names = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}${index}`);
/** Two ways to tell owners apart: by the tenant of a channel, and by the publisher. */
const WAYS: readonly (readonly [by: string, options: PeerOptions])[] = [
  ["tenant", { tenant }],
  ["subject", {}],
];

describe("redisEngine: bounds by owner", needsRedis, () => {
  const redis = useRedis();

  /** Appends events, some at a time. */
  async function appendAll(peer: Peer, subject: string, events: readonly (readonly [string[], string])[]) {
    for (let index = 0; index < events.length; index += 50) {
      const some = events.slice(index, index + 50);
      await Promise.all(some.map(([keys, text]) => peer.append(keys, text, { subject })));
    }
  }

  /** Reads all that is retained of some channels. */
  async function readAll(peer: Peer, keys: readonly string[]) {
    const { epoch, head } = await peer.checkpoint();
    const first = await peer.session.read(epoch, keys, 0, 1e9);
    const texts = first.records.map(({ text }) => text);
    for (let { through } = first; through < head; ) {
      const page = await peer.session.read(epoch, keys, through, 1e9);
      texts.push(...page.records.map(({ text }) => text));
      through = page.through;
    }
    return { texts, dropped: first.droppedThrough };
  }

  const setting = async (name: string): Promise<number> =>
    Number(await redis.server.command("HGET", "{test}:log", name));
  const memory = async (): Promise<number> =>
    Number(/used_memory:(\d+)/.exec(String(await redis.server.command("INFO", "memory")))?.[1]);
  const keysOf = async (pattern: string): Promise<string[]> =>
    (await redis.server.command("KEYS", pattern)) as string[];

  test.each(WAYS)(
    "maxChannels, by %s: 1,001 events in 100 new channels each take nothing from another owner",
    { timeout: 60_000 },
    async (_, options) => {
      const peer = await redis.join({ ...options, commandTimeout: 60_000 });
      const own = names("#ada/", 20);
      await appendAll(
        peer,
        "ada",
        own.map((key) => [[key], `in ${key}`]),
      );
      await appendAll(
        peer,
        "eve",
        names("", 1_001).map((post) => [names(`#eve/${post}-`, 100), "x"]),
      );
      const { epoch } = await peer.checkpoint();
      expect(Number(await redis.server.command("ZCARD", `{test}:${epoch}:last`)) - 1).toBeLessThanOrEqual(100_000);
      expect(await readAll(peer, own)).toEqual({ texts: own.map((key) => `in ${key}`), dropped: own.map(() => 0) });
      expect((await readAll(peer, ["#eve/0-0"])).dropped[0]).toBeGreaterThanOrEqual(21);
    },
  );

  test.each(WAYS)(
    "redisBytes, by %s: a flood of 2,000 channels takes nothing from an owner of 200 events in one channel",
    async (_, options) => {
      const peer = await redis.join({ ...options, redisBytes: 1024 * 1024 });
      const texts = names("event ", 200).map((text) => text.padEnd(1_000));
      await appendAll(
        peer,
        "ada",
        texts.map((text) => [["#ada/a"], text]),
      );
      await appendAll(
        peer,
        "eve",
        names("#eve/", 2_000).map((key) => [[key], "x".repeat(1_000)]),
      );
      expect(await readAll(peer, ["#ada/a"])).toEqual({ texts, dropped: [0] });
      expect(await setting("bytes")).toBeGreaterThan(1_000_000);
      expect(await setting("bytes")).toBeLessThanOrEqual(1024 * 1024);
      const eves = await readAll(peer, ["#eve/0", "#eve/1999"]);
      expect([eves.texts.length, eves.dropped[0], eves.dropped[1]]).toEqual([1, 201, 0]);
    },
  );

  test("append: an event in 100 channels is stored once, and leaves Redis with the last of its channels", async () => {
    const peer = await redis.join({ retention: { events: 1 } });
    const keys = names("#", 100);
    const { epoch } = await peer.checkpoint();
    const before = await memory();
    await peer.append(keys, "x".repeat(60_000));
    expect((await memory()) - before).toBeLessThan(60_000 + 100 * 1_200);
    expect(await setting("bytes")).toBeGreaterThan(60_000 + 100 * 256);
    expect(await setting("bytes")).toBeLessThan(61_000 + 100 * 256);
    const holds = async (): Promise<boolean> =>
      (await redis.server.command("HEXISTS", `{test}:${epoch}:data`, "e1")) === 1;
    for (const key of keys) {
      expect(await holds()).toBe(true);
      await peer.append([key], "small");
    }
    expect(await holds()).toBe(false);
    expect(await readAll(peer, keys)).toEqual({ texts: keys.map(() => "small"), dropped: keys.map(() => 1) });
    await auditLog(redis.server);
  });

  test("append: 60,000 new channels with one small event each need less than 1 kB of memory each", async () => {
    const peer = await redis.join();
    await peer.append(["#first"], "x");
    const before = await memory();
    await appendAll(
      peer,
      "",
      names("", 600).map((post) => [names(`#room-${post}-`, 100), "x"]),
    );
    expect(((await memory()) - before) / 60_000).toBeLessThan(1_000);
  });

  test("redisBytes: an event in channels of two owners counts for both, and leaves Redis when both have lost it", async () => {
    const peer = await redis.join({ tenant, redisBytes: 40_000 });
    const both = "of both".padEnd(10_000);
    const { epoch, seq } = await peer.append(["#ada/a", "#eve/a", "#eve/b"], both);
    await appendAll(
      peer,
      "",
      names("eve's ", 100).map((text) => [["#eve/c"], text.padEnd(1_000)]),
    );
    expect((await readAll(peer, ["#ada/a"])).texts).toEqual([both]);
    await auditLog(redis.server);
    await appendAll(
      peer,
      "",
      names("ada's ", 100).map((text) => [["#ada/b"], text.padEnd(1_000)]),
    );
    expect(await readAll(peer, ["#ada/a", "#eve/a", "#eve/b"])).toEqual({ texts: [], dropped: [seq, seq, seq] });
    expect(await redis.server.command("HEXISTS", `{test}:${epoch}:data`, `e${seq}`)).toBe(0);
    expect(await setting("bytes")).toBeLessThanOrEqual(40_000);
    await auditLog(redis.server);
  });

  test("maxChannels: what forgotten channels had is in doubt for channels of the same prefix, and for no others", async () => {
    const peer = await redis.join({ tenant, maxChannels: 10 });
    await appendAll(
      peer,
      "",
      names("#eve/", 20).map((key) => [[key], "x"]),
    );
    const { epoch } = await peer.checkpoint();
    const keys = ["#ada/never", "#other", "", "@ada", "#eve/never", "#eve/9", "#eve/10"];
    const page = await peer.session.read(epoch, keys, 0, 1_000);
    expect(page.droppedThrough).toEqual([0, 0, 0, 0, 10, 10, 0]);
    expect((await peer.checkpoint(keys)).last).toEqual([0, 0, 0, 0, 10, 10, 11]);
  });

  test("maxChannels: beyond 1,000 prefixes there is one position for all channels", async () => {
    const peer = await redis.join({ maxChannels: 1 });
    await appendAll(
      peer,
      "",
      names("#", 1_200).map((prefix) => [[`${prefix}/a`], "x"]),
    );
    const { last } = await peer.checkpoint(["#0/never", "#1198/a", "#unknown/b", "@ada", ""]);
    expect(last[0]).toBeGreaterThan(900);
    expect(last[1]).toBe(1_199);
    expect(last[2]).toBe(last[0]);
    expect(last.slice(3)).toEqual([0, 0]);
    expect(Number(await redis.server.command("HLEN", "{test}:log"))).toBeLessThan(1_100);
  });

  test("retention.age: expired events are given back to their owner by later appends, and by renewals", async () => {
    const [writer, peer] = [await redis.join({ tenant }), await redis.join({ tenant, retention: { age: 1 } })];
    await appendAll(
      writer,
      "",
      names("", 50).map((text) => [["#ada/a", "#ada/b", "#eve/a"], text]),
    );
    const full = await setting("bytes");
    const { epoch } = await writer.checkpoint();
    while ((await peer.session.read(epoch, ["#ada/a"], 0, 1_000)).records.length > 0);
    const { seq } = await peer.append(["#eve/b"], "last");
    // The budget of one append is for a part of them.
    for (let bytes = await setting("bytes"); (await setting("swept")) < 50; bytes = await setting("bytes")) {
      expect(bytes).toBeLessThan(full);
      await peer.append(["#eve/b"], "last");
    }
    await auditLog(redis.server);
    await expect
      .poll(async () => {
        await peer.session.renew([]);
        return await setting("bytes");
      })
      .toBe(0);
    expect(await redis.server.command("ZRANGE", `{test}:${epoch}:bytes`, "0", "-1")).toEqual([""]);
    // The record of each channel, and the field that is always there.
    expect(await redis.server.command("HLEN", `{test}:${epoch}:data`)).toBe(5);
    // A process that retains more knows what is gone.
    const keys = ["#ada/a", "#ada/b", "#eve/a", "#eve/b"];
    const { dropped, texts } = await readAll(writer, keys);
    expect([texts, dropped.slice(0, 3), (dropped[3] ?? 0) >= seq]).toEqual([[], [50, 50, 50], true]);
  });

  test("retention.age: an owner whose events have expired does not count as the one that has the most", async () => {
    const options = { tenant, redisBytes: 200_000 };
    const [writer, peer] = [await redis.join(options), await redis.join({ ...options, retention: { age: 1_000 } })];
    // Together they need the whole log, and eve's have expired when ada's come.
    await appendAll(
      writer,
      "",
      names("#eve/", 600).map((key) => [[key], "x"]),
    );
    const { epoch } = await writer.checkpoint();
    while ((await peer.session.read(epoch, ["#eve/599"], 0, 1_000)).records.length > 0);
    const texts = names("ada's ", 60).map((text) => text.padEnd(1_000));
    for (const text of texts) await writer.append(["#ada/a"], text);
    await auditLog(redis.server);
    const { records } = await writer.session.read(epoch, ["#ada/a"], 0, 1e9);
    expect(records.map(({ text }) => text)).toEqual(texts);
  });

  test("subject: a channel whose events have all ended belongs to the next publisher", async () => {
    const peer = await redis.join({ redisBytes: 20_000 });
    // The first event of eve is pushed out by her own ones.
    await peer.append(["#shared"], "first".padEnd(5_000), { subject: "eve" });
    await appendAll(
      peer,
      "eve",
      names("#large-", 30).map((key) => [[key], "x".repeat(1_000)]),
    );
    expect((await readAll(peer, ["#shared"])).texts).toEqual([]);
    const texts = names("ada's ", 3);
    await appendAll(
      peer,
      "ada",
      texts.map((text) => [["#shared"], text]),
    );
    await appendAll(
      peer,
      "eve",
      names("#more-", 100).map((key) => [[key], "x".repeat(1_000)]),
    );
    expect((await readAll(peer, ["#shared"])).texts).toEqual(texts);
    await auditLog(redis.server);
  });

  test("tenant: processes with different functions keep the accounts in order, and lose nothing in silence", async () => {
    const one = await redis.join({ tenant, redisBytes: 30_000, maxChannels: 20 });
    const two = await redis.join({ tenant: (name) => name.slice(-1), redisBytes: 30_000, maxChannels: 20 });
    const none = await redis.join({ redisBytes: 30_000, maxChannels: 20 });
    const published = new Map<string, number[]>();
    for (let index = 0; index < 300; index++) {
      const peer = [one, two, none][index % 3] as Peer;
      const keys = [`#${"abc"[index % 3]}/${index % 40}`, `#${"abc"[(index * 7) % 3]}/x${index % 11}`];
      const { seq } = await peer.append(keys, "x".repeat((index * 37) % 900), { subject: `s${index % 4}` });
      for (const key of keys) published.set(key, [...(published.get(key) ?? []), seq]);
    }
    await auditLog(redis.server);
    const { epoch } = await one.checkpoint();
    for (const peer of [one, two, none]) {
      for (const [key, seqs] of published) {
        const { records, droppedThrough } = await peer.session.read(epoch, [key], 0, 1e9);
        const held = records.map(({ seq }) => seq);
        const lost = seqs.filter((seq) => !held.includes(seq));
        expect(droppedThrough[0], key).toBeGreaterThanOrEqual(Math.max(0, ...lost));
      }
    }
  });

  test.each([
    ["throws", () => JSON.parse("{")],
    ["returns a number", () => 7],
  ])("tenant: if it %s, the event is refused, and nothing is appended", async (what, result) => {
    const peer = await redis.join({ tenant: (name) => (name === "wrong" ? (result() as string) : "ada") });
    const { seq } = await peer.append(["#right"], "one");
    const refused = peer.append(["#right", "#wrong"], "two", { idempotencyKey: "k" });
    expect(await codeOf(refused)).toContain(what === "throws" ? "SyntaxError" : "TypeError");
    expect(await peer.append(["#right"], "three", { idempotencyKey: "k" })).toMatchObject({ seq: seq + 1 });
    const { epoch } = await peer.checkpoint();
    expect((await peer.session.read(epoch, ["#wrong"], 0, 1_000)).records).toEqual([]);
  });

  test("a log of the version before is replaced: clients receive a gap, and its keys are deleted", async () => {
    const peer = await redis.join();
    const { epoch } = await peer.append(["#a"], "one");
    // As the version before: other fields, and streams.
    await redis.server.command("HDEL", "{test}:log", "format", "bytes", "swept", "forgottenThrough");
    await redis.server.command("HSET", "{test}:log", "forgotten", "0");
    for (const kind of ["stream", "large"])
      await redis.server.command("XADD", `{test}:${epoch}:${kind}:#a`, "1-0", "h", "0 1 1 1 1", "e", "");
    const next = await peer.checkpoint(["#a"], { epoch, seq: 1 });
    expect([next.epoch === epoch, next.head, next.last]).toEqual([false, 0, [0]]);
    await peer.session.renew([]);
    expect(await keysOf(`*${epoch}*`)).toEqual([]);
    // A process of the version before does not take the new log for one of its own.
    expect(await redis.server.command("HEXISTS", "{test}:log", "forgotten")).toBe(0);
  });
});
