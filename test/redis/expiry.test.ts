// The Redis engine: how long each key, lease and ban lasts, and what is given back.
import { Redis } from "ioredis";
import { describe, expect, test } from "vitest";
import { needsRedis } from "../support/servers/redis.ts";
import { useRedis } from "./support/use-redis.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** The most that a time in Redis may differ from the expected one: far more than a test takes, and less than any two of them differ. */
const TOLERANCE_MS = 25_000;
/** The keys of a log that live as long as it does. */
const LOG = ["log", "last", "data", "order", "bytes", "records"];

describe("redisEngine: expiry", needsRedis, () => {
  const redis = useRedis();

  /** Returns the milliseconds until each key expires, by the key without prefix and random names; -1 for a key that does not. */
  async function lives(): Promise<Record<string, number>> {
    const keys = (await redis.server.command("KEYS", "*")) as string[];
    const entries = keys.map(async (key) => {
      const name = key
        .replace("{test}:", "")
        .replace(/^[0-9a-f]{16}:/, "")
        .replace(/^(appends|process):.*/, "$1");
      return [name, Number(await redis.server.command("PTTL", key))] as const;
    });
    return Object.fromEntries(await Promise.all(entries));
  }

  /** Expects keys to expire after these milliseconds, and no other key to exist. */
  async function expectLives(expected: Readonly<Record<string, number>>): Promise<void> {
    const actual = await lives();
    expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
    for (const [name, ms] of Object.entries(expected)) expectAbout(actual[name], ms, name);
  }

  function expectAbout(actual: number | undefined, expected: number, what: string): void {
    expect(actual, what).toBeLessThanOrEqual(expected + 1_000);
    expect(actual, what).toBeGreaterThan(expected - (expected < 0 ? 1 : TOLERANCE_MS));
  }

  const timeOf = async (set: string, name: string): Promise<number> => {
    const [seconds, microseconds] = (await redis.server.command("TIME")) as [string, string];
    const time = Number(seconds) * 1_000 + Math.floor(Number(microseconds) / 1_000);
    return Number(await redis.server.command("ZSCORE", `{test}:${set}`, name)) - time;
  };

  test("keys: each expires after the time of what it is for", async () => {
    const peer = await redis.join({ retention: { age: 7 * DAY }, idempotencyWindow: 10 * MINUTE, lease: 2 * MINUTE });
    await peer.session.enter([{ clientId: "ann", subject: undefined }], "allow", 5 * MINUTE);
    await peer.append(["#a"], "text", { idempotencyKey: "k" });
    await peer.session.disconnect("eve", 30 * MINUTE);
    await peer.session.linger(new Map([["bob", 20 * MINUTE]]));
    await expectLives({
      ...Object.fromEntries(LOG.map((name) => [name, 14 * DAY])),
      "channel:#a": 7 * DAY + MINUTE,
      "key:k": 10 * MINUTE,
      appends: DAY,
      // For an hour longer than the ids of a dead process linger.
      processes: HOUR + 7 * MINUTE,
      process: HOUR + 7 * MINUTE,
      barred: 30 * MINUTE,
      lingering: 20 * MINUTE,
      commands: HOUR,
      stamp: MINUTE,
    });
  });

  test("keys: with a short retention the log lives for a day, and without a bound of age for ever", async () => {
    const short = await redis.join({ retention: { age: 5 * MINUTE } });
    await short.append(["#a"], "text");
    const all = await lives();
    for (const name of LOG) expectAbout(all[name], DAY, name);
    expectAbout(all["channel:#a"], 6 * MINUTE, "channel");
    await redis.server.command("FLUSHALL");
    const endless = redis.peer({
      prefix: "endless",
      retention: { age: Infinity },
      idempotencyWindow: Infinity,
    });
    await endless.ready();
    await endless.append(["#a"], "text", { idempotencyKey: "k" });
    const keys = (await redis.server.command("KEYS", "{endless}:*")) as string[];
    const permanent = keys.filter((key) => !/:(appends|process|processes):?[^:]*$/.test(key));
    expect(permanent).toHaveLength(LOG.length + 2);
    for (const key of permanent) expect(await redis.server.command("PTTL", key), key).toBe(-1);
  });

  test("keys: a log that is used lives on, also without new events", async () => {
    const peer = await redis.join({ retention: { age: 2 * DAY } });
    await peer.append(["#a"], "text");
    const keys = (await redis.server.command("KEYS", "{test}:*")) as string[];
    for (const key of keys) expect(await redis.server.command("PEXPIRE", key, String(MINUTE))).toBe(1);
    await peer.checkpoint(["#a"]);
    const all = await lives();
    for (const name of LOG) expectAbout(all[name], 4 * DAY, name);
  });

  test("keys: a renewal extends the counter of appends and the process", async () => {
    const peer = await redis.join();
    expectAbout((await lives()).appends, DAY, "appends of a process that has just started");
    for (const key of (await redis.server.command("KEYS", "{test}:*")) as string[])
      await redis.server.command("PEXPIRE", key, String(MINUTE));
    await peer.session.renew([{ clientId: "ann", subject: undefined }]);
    const { appends, process, processes } = await lives();
    expectAbout(appends, DAY, "appends");
    // The lease, and the minute for which ids linger before a connection has named another time.
    expectAbout(process, HOUR + MINUTE + 15_000, "process");
    expectAbout(processes, HOUR + MINUTE + 15_000, "processes");
  });

  test("lease: it is renewed three times before it ends, and lasts as long as the option says", async () => {
    for (const [lease, interval] of [
      [undefined, 5_000],
      [100, 34],
      [HOUR, 20 * MINUTE],
    ] as const) {
      const peer = await redis.join(lease === undefined ? {} : { lease });
      expect(peer.session.lease).toBe(interval);
      peer.close();
    }
    const peer = await redis.join({ lease: HOUR });
    await peer.session.renew([]);
    const [process = ""] = (await redis.server.command("ZRANGE", "{test}:processes", "-1", "-1")) as string[];
    expectAbout(await timeOf("processes", process), HOUR, "lease");
  });

  test("disconnect: a shorter ban does not replace a longer one, and does not end those of others", async () => {
    const [one, two] = [await redis.join(), await redis.join()];
    await one.session.disconnect("eve", HOUR);
    await two.session.disconnect("eve", MINUTE);
    await two.session.disconnect("bob", MINUTE);
    expectAbout(await timeOf("barred", "eve"), HOUR, "eve");
    expectAbout(await timeOf("barred", "bob"), MINUTE, "bob");
    expectAbout((await lives()).barred, HOUR, "the whole set");
    await two.session.disconnect("eve", 2 * HOUR);
    expectAbout(await timeOf("barred", "eve"), 2 * HOUR, "eve");
    expect([await one.session.isBarred("eve"), await one.session.isBarred("ann")]).toEqual([true, false]);
  });

  test("linger: a shorter time does not replace a longer one", async () => {
    const peer = await redis.join();
    await peer.session.linger(new Map([["ann", HOUR]]));
    await peer.session.linger(new Map([["ann", MINUTE]]));
    expectAbout(await timeOf("lingering", "ann"), HOUR, "ann");
  });

  /** Returns the number of connections to Redis, without the one that asks. */
  const connectionCount = async (): Promise<number> =>
    String(await redis.server.command("CLIENT", "LIST"))
      .split("\n")
      .filter((line) => line.startsWith("id=")).length - 1;

  /** Waits until there are so many connections: Redis may notice the end of one late, also of one from the test before. */
  const untilConnections = (count: number): Promise<void> => expect.poll(connectionCount).toBe(count);

  test("close: gives back the feed's connection, also one that is opened afterwards", async () => {
    await untilConnections(0);
    const peer = await redis.join();
    await untilConnections(2);
    peer.close();
    await untilConnections(0);

    let open = (): void => undefined;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const late: Redis[] = [];
    const waiting = redis.peer({
      subscriber: async () => {
        await opened;
        const client = new Redis(redis.server.port, "127.0.0.1");
        late.push(client);
        await client.ping();
        return client;
      },
    });
    await waiting.until(() => waiting.hasCommands);
    waiting.close();
    open();
    await expect.poll(() => late[0]?.status).toBe("end");
    await untilConnections(0);
  });

  test("renewFeed: gives back the connection that it replaces", async () => {
    await untilConnections(0);
    const peer = await redis.join();
    for (let turn = 0; turn < 3; turn++) {
      peer.session.renewFeed();
      await peer.until(() => !peer.hasFeed);
      await peer.until(() => peer.hasFeed);
    }
    await untilConnections(2);
  });

  test("feed: the pause before it is connected again doubles up to 2 seconds, and is short again once it was connected", async () => {
    const pauses: number[] = [];
    const { random } = Math;
    const { setTimeout } = globalThis;
    // Three quarters of each pause, so that none is as long as a timer of another kind. Each is recorded and cut short.
    Math.random = () => 0.25;
    const PAUSES = new Set([38, 75, 150, 300, 600, 1_200, 1_500, 2_400, 4_800, 9_600]);
    globalThis.setTimeout = ((task: () => void, ms: number, ...rest: []) => {
      if (PAUSES.has(ms)) pauses.push(ms);
      return setTimeout(task, PAUSES.has(ms) ? 1 : ms, ...rest);
    }) as typeof setTimeout;
    try {
      let failures = 10;
      const peer = await redis.join({
        subscriber: async () => {
          if (failures-- > 0) throw new Error("no connection");
          return new Redis(redis.server.port, "127.0.0.1");
        },
      });
      expect(pauses.splice(0)).toEqual([38, 75, 150, 300, 600, 1_200, 1_500, 1_500, 1_500, 1_500]);
      peer.session.renewFeed();
      await peer.until(() => !peer.hasFeed);
      await peer.until(() => peer.hasFeed);
      expect(pauses).toEqual([38]);
    } finally {
      Math.random = random;
      globalThis.setTimeout = setTimeout;
    }
  });
});
