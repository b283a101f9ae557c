// The option `channels` of `redisEngine`: what Redis keeps of single channels, for several processes.
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Broker, LogOptions } from "../../src/index.ts";
import { redisEngine } from "../../src/redis/index.ts";
import { gapOf } from "../support/clients/connection.ts";
import { Random } from "../support/random.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { type ConnectOptions, clientRequest, eventRequest, problemOf, TestSetup } from "../support/test-broker.ts";
import { auditLog } from "./support/audit.ts";
import { useRedis } from "./support/use-redis.ts";

const HOUR = 3_600_000;
/** Far longer than what comes between an event and the check that it is still there, also on a busy machine. */
const SHORT = 1_000;
const EARLIEST = { query: { from: "earliest" } };

/** What the channels of these tests keep, by the beginning of their name. */
const channels: NonNullable<LogOptions["channels"]> = (name) => {
  if (name.startsWith("state")) return { retention: { events: 1 } };
  if (name.startsWith("chat")) return { retention: { age: HOUR } };
  if (name.startsWith("short")) return { retention: { age: SHORT } };
  if (name.startsWith("typing")) return { retention: { events: 0 } };
  if (name.startsWith("small")) return { retention: { bytes: 300 } };
  return name.startsWith("plain") ? {} : undefined;
};

async function publish(broker: Broker, channel: string | readonly string[], ...data: readonly string[]): Promise<void> {
  for (const each of data) await broker.broadcast(each, { channels: channel });
}

describe("redisEngine: channels with a retention of their own", needsRedis, () => {
  const redis = useRedis();
  const clients = new TestSetup(undefined);
  afterEach(() => clients.close());

  const openTwo = (engine = {}): [Broker, Broker] => [
    redis.open({ channels, ...engine }),
    redis.open({ channels, ...engine }),
  ];

  let ends = 0;
  const isNoEnd = (data: string): boolean => !data.startsWith("end ");

  /** Returns the data that a new client receives, and the channels of its gaps, up to a last event for every client. */
  async function received(broker: Broker, options: ConnectOptions) {
    const client = await clients.join(broker, options);
    const end = `end ${++ends}`;
    await broker.broadcast(end);
    await client.untilData(end);
    const gaps = client.control("gap").flatMap((event) => gapOf(event).channels);
    await client.leave();
    return { data: client.data.filter(isNoEnd), gaps: [...new Set(gaps)].sort() };
  }

  /** Waits until a client that comes now receives nothing of a channel. */
  async function untilExpired(broker: Broker, channel: string): Promise<void> {
    await expect.poll(async () => (await broker.history({ channels: channel })).events).toEqual([]);
  }

  test("one keeps the latest event only, beside others that keep all of them", async () => {
    const [one, other] = openTwo();
    const { id: lastEventId } = await one.broadcast("start", { channels: "other" });
    await publish(one, "state", "s1", "s2", "s3");
    await publish(one, "other", "o1", "o2", "o3");
    const channel = ["state", "other"];
    const { data } = await received(other, { channel, ...EARLIEST });
    expect(data).toEqual(["start", "s3", "o1", "o2", "o3"]);
    expect(await received(other, { channel, lastEventId: lastEventId as string })).toEqual({
      data: ["s3", "o1", "o2", "o3"],
      gaps: ["state"],
    });
    await auditLog(redis.server);
  });

  test("one keeps few bytes, and what an answer does not set comes from the engine's retention", async () => {
    const [one, other] = openTwo({ retention: { events: 3, age: 60_000 } });
    await publish(one, "small", "x".repeat(100), "y".repeat(100), "z".repeat(100));
    await publish(one, "plain", "p1", "p2", "p3", "p4");
    await publish(one, "chat", "c1", "c2", "c3", "c4");
    const { data } = await received(other, { channel: ["small", "plain", "chat"], ...EARLIEST });
    expect(data).toEqual(["y".repeat(100), "z".repeat(100), "p2", "p3", "p4", "c2", "c3", "c4"]);
    await auditLog(redis.server);
  });

  test("one keeps an hour beside the engine's shorter age, and one keeps less: in pages, bounds, history() and last", async () => {
    const retention = { age: 4 * SHORT };
    const [one, other] = openTwo({ retention });
    const { id } = await one.broadcast("c0", { channels: "chat" });
    const lastEventId = id as string;
    await publish(one, "short", "s1", "s2");
    await publish(one, "chat", "c1");
    await publish(one, "other", "o1");
    await untilExpired(other, "short");
    const channel = ["chat", "short", "other"];
    expect((await received(other, { channel, ...EARLIEST })).data.filter((data) => data !== "o1")).toEqual([
      "c0",
      "c1",
    ]);
    await untilExpired(other, "other");
    await publish(one, "short", "s3");
    // Another process has no page from before.
    const third = redis.open({ channels, retention });
    expect(await received(third, { channel, lastEventId })).toEqual({ data: ["c1", "s3"], gaps: ["other", "short"] });
    const last = await clients.connect(third, { channel, query: { last: "5" } });
    const { incomplete } = JSON.parse((await last.untilControl("ready")).data);
    expect(incomplete.sort()).toEqual(["other", "short"]);
    await last.untilData("s3");
    expect(last.data.filter(isNoEnd)).toEqual(["c0", "c1", "s3"]);
    const { events } = await third.history({ channels: channel });
    expect(events.map(({ data }) => data)).toEqual(["c0", "c1", "s3"]);
  });

  test("one keeps nothing: an event reaches those who can take it now, and a client that comes back receives a gap", async () => {
    const [one, other] = openTwo();
    const live = await clients.join(other, { channel: "typing" });
    const ids: string[] = [];
    for (const data of ["t1", "t2"]) {
      // A client that does not read could not take it.
      const reading = live.untilData(data);
      ids.push((await one.broadcast(data, { channels: "typing" })).id as string);
      await reading;
    }
    const [lastEventId = ""] = ids;
    expect(live.control("gap")).toEqual([]);
    const { epoch } = await (await redis.join({ channels })).checkpoint();
    const stored = (await redis.server.command("HKEYS", `{test}:${epoch}:data`)) as string[];
    expect(stored.filter((field) => /^[ep]\d/.test(field))).toEqual([]);
    expect(await redis.server.command("EXISTS", `{test}:${epoch}:channel:#typing`)).toBe(0);
    expect(await received(one, { channel: "typing", ...EARLIEST })).toEqual({ data: [], gaps: [] });
    for (const broker of [one, redis.open({ channels })])
      expect(await received(broker, { channel: "typing", lastEventId })).toEqual({ data: [], gaps: ["typing"] });
    await auditLog(redis.server);
  });

  test("an event of several channels: each keeps it as long as its own retention says", async () => {
    const [one, other] = openTwo();
    await publish(one, ["state", "chat", "typing"], "1", "2", "3");
    const read = async (channel: string[]) => (await received(other, { channel, ...EARLIEST })).data;
    expect(await read(["chat"])).toEqual(["1", "2", "3"]);
    expect(await read(["typing", "chat", "state"])).toEqual(["1", "2", "3"]);
    expect(await read(["state"])).toEqual(["3"]);
    await auditLog(redis.server);
  });

  test("expired events leave Redis, although an older one of another channel stays", async () => {
    const peer = await redis.join({ channels });
    const { epoch } = await peer.append(["#chat"], "kept");
    for (let index = 0; index < 30; index++) {
      await peer.append([`#short${index}`], "text");
      await peer.append(["#short", "#state"], "text");
    }
    const stored = async (): Promise<number> =>
      ((await redis.server.command("HKEYS", `{test}:${epoch}:data`)) as string[]).filter((field) => /^e\d/.test(field))
        .length;
    expect(await stored()).toBe(61);
    await expect
      .poll(
        async () => {
          await peer.session.renew([]);
          return await stored();
        },
        { timeout: 5_000 },
      )
      .toBe(2);
    await auditLog(redis.server);
    const queue = (await redis.server.command("ZRANGE", `{test}:${epoch}:expiry`, "0", "-1")) as string[];
    expect(queue.sort()).toEqual(["300000 #state", `${HOUR} #chat`]);
  });

  test("redisBytes: what has expired is given back before anything is evicted", async () => {
    const peer = await redis.join({ channels, redisBytes: 20_000, tenant: (name) => name.replace(/\d+$/, "") });
    await peer.append(["#chat1"], "kept");
    for (let index = 0; index < 10; index++) await peer.append([`#short${index}`], "x".repeat(900));
    const { epoch } = await peer.checkpoint();
    while ((await peer.session.read(epoch, ["#short9"], 0, 1_000)).records.length > 0);
    for (let index = 0; index < 3; index++) await peer.append(["#chat2"], "x".repeat(5_500));
    const { records, droppedThrough } = await peer.session.read(epoch, ["#chat1", "#chat2"], 0, 100_000);
    expect([records.length, droppedThrough]).toEqual([4, [0, 0]]);
    await auditLog(redis.server);
  });

  test("keys: a channel and the log live as long as the longest age says", async () => {
    const peer = await redis.join({
      channels: (name) => (name === "week" ? { retention: { age: 168 * HOUR } } : channels(name)),
    });
    const { epoch } = await peer.append(["#week"], "text");
    for (const key of ["#chat", "#other", "#short"]) await peer.append([key], "text");
    // A process that knows of no long age does not shorten the life of the log.
    const other = await redis.join();
    await other.checkpoint();
    const life = async (key: string): Promise<number> => Number(await redis.server.command("PTTL", `{test}:${key}`));
    const expected: readonly (readonly [string, number])[] = [
      ...["log", ...["last", "data", "order", "bytes", "records", "expiry"].map((name) => `${epoch}:${name}`)].map(
        (name) => [name, 336 * HOUR] as const,
      ),
      [`${epoch}:channel:#week`, 168 * HOUR + 60_000],
      [`${epoch}:channel:#chat`, HOUR + 60_000],
      [`${epoch}:channel:#other`, 360_000],
      [`${epoch}:channel:#short`, SHORT + 60_000],
    ];
    for (const [key, ms] of expected) {
      const actual = await life(key);
      expect([actual <= ms, actual > ms - 25_000], `${key}: ${actual}`).toEqual([true, true]);
    }
  });

  test("a quiet client: its id stays good for a short age, and a lost event is a gap", async () => {
    const options = { heartbeat: SHORT / 2 };
    const [one, other] = [redis.open({ channels }, options), redis.open({ channels }, options)];
    await publish(one, "short", "s1");
    const client = await clients.join(other, { channel: "short", ...EARLIEST });
    await client.untilData("s1");
    await publish(one, "other", "o1", "o2");
    await client.untilControl("position");
    const lastEventId = client.events.findLast(({ id }) => id)?.id as string;
    await client.leave();
    await untilExpired(other, "short");
    for (const broker of [one, other])
      expect(await received(broker, { channel: "short", lastEventId })).toEqual({ data: [], gaps: [] });
    await publish(one, "short", "s2");
    await untilExpired(other, "short");
    for (const broker of [one, other])
      expect((await received(broker, { channel: "short", lastEventId })).gaps).toEqual(["short"]);
  });

  test.each(Array.from({ length: 6 }, (_, seed) => [seed]))(
    "random events: each channel keeps its newest ones, the accounts are right, and the bounds agree with the pages (seed %i)",
    async (seed) => {
      const random = new Random(seed);
      const ownOf = Array.from({ length: 8 }, () => ({
        events: random.integer(0, 6),
        age: random.chance(0.5) ? HOUR : 2 * HOUR,
      }));
      const options = { channels: (name: string) => ({ retention: ownOf[Number(name)] }) };
      const [one, other] = [await redis.join(options), await redis.join(options)];
      const keys = ownOf.map((_, index) => `#${index}`);
      const seqs: number[][] = keys.map(() => []);
      for (let count = 0; count < 120; count++) {
        const places = [...new Set([random.integer(0, 7), random.integer(0, 7)])];
        const { seq } = await one.append(
          places.map((place) => keys[place] as string),
          "text",
        );
        for (const place of places) seqs[place]?.push(seq);
      }
      const { epoch } = await other.checkpoint();
      const kept = seqs.map((list, place) => list.slice(list.length - (ownOf[place]?.events ?? 0)));
      const page = await other.session.read(epoch, keys, 0, 1e6);
      expect(page.records.map(({ seq }) => seq)).toEqual([...new Set(kept.flat())].sort((a, b) => a - b));
      const dropped = seqs.map((list, place) => list.at(-1 - (kept[place]?.length ?? 0)) ?? 0);
      expect(page.droppedThrough).toEqual(dropped);
      const { channels: bounds } = await other.session.historyBounds(epoch, keys, 0, {}, 2);
      expect(bounds.map(({ droppedThrough, oldest }) => [droppedThrough, oldest])).toEqual(
        kept.map((list, place) => [dropped[place], list[0]]),
      );
      expect(bounds.map(({ lastFloor }) => lastFloor)).toEqual(
        kept.map((list) => (list.length > 2 ? (list.at(-2) as number) - 1 : 0)),
      );
      await auditLog(redis.server);
    },
  );

  test("read: channels of 100 ages are read by several scripts of a bounded cost, in order", async () => {
    const keys = Array.from({ length: 100 }, (_, index) => `#${index}`);
    const peer = await redis.join({ channels: (name) => ({ retention: { age: HOUR + Number(name) } }) });
    const { epoch } = await peer.checkpoint();
    for (let turn = 0; turn < 30; turn++) await Promise.all(keys.map((key) => peer.append([key], "text")));
    await redis.server.command("CONFIG", "RESETSTAT");
    const { records, droppedThrough } = await peer.session.read(epoch, keys, 0, 49_152);
    const stats = (await redis.server.command("INFO", "commandstats")) as string;
    const calls = (name: string): number => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
    expect(records.map(({ seq }) => seq)).toEqual(records.map((_, index) => index + 1));
    expect([records.length > 100, droppedThrough.every((seq) => seq === 0)]).toEqual([true, true]);
    expect([calls("evalsha") > 5, calls("evalsha") < 20]).toEqual([true, true]);
    expect(calls("zrange")).toBeLessThan(calls("evalsha") * 700);
  });

  test.each([
    [
      "throws",
      () => {
        throw new Error("no answer");
      },
    ],
    ["returns what is not valid", () => ({ retention: { events: -1 } })],
  ])("channels that %s: refuses events and connections of this channel, and keeps what it has", async (_, fails) => {
    const onError = vi.fn();
    let isFailing = false;
    const options = { channels: (name: string) => (isFailing && name === "chat" ? fails() : channels(name)) };
    const writer = redis.open(options);
    await publish(writer, "chat", "c1");
    isFailing = true;
    const broker = redis.open(options, { onError });
    await expect(broker.broadcast("x", { channels: ["other", "chat"] })).rejects.toThrow();
    const answer = await broker.eventHandler(eventRequest("x", "?channel=chat"), {});
    expect([answer.status, await problemOf(answer)]).toEqual([500, "internal"]);
    // A notice of lost events does not pass through the engine. It must not be held back, and must not drop anything.
    const peer = await redis.join(options);
    await peer.append(["#chat"], "data: notice\n\n");
    const { epoch } = await peer.checkpoint();
    expect((await peer.session.read(epoch, ["#chat"], 0, 1_000)).records.map(({ text }) => text)).toHaveLength(2);
    const refused = await broker.clientHandler(clientRequest({ channel: "chat" }));
    expect([refused.status, await problemOf(refused)]).toEqual([500, "internal"]);
    expect(onError).toHaveBeenCalled();
    await publish(broker, "other", "o1");
    isFailing = false;
    expect((await received(broker, { channel: ["chat", "other"], ...EARLIEST })).data).toEqual(["c1", "notice", "o1"]);
  });
});

test("redisEngine(): channels that is not a function is a TypeError", () => {
  for (const value of [{}, "a", 1])
    expect(() => redisEngine({ client: {}, prefix: "x", channels: value } as never)).toThrow(TypeError);
});
