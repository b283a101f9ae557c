// Runs in Redis when something fails: commands that arrive late or are not answered, a server that is full, and a feed that is lost.
import { afterEach, describe, expect, test, vi } from "vitest";
import { needsRedis } from "../support/servers/redis.ts";
import { codeOf } from "./support/peer.ts";
import type { RunProcess } from "./support/run-process.ts";
import { useRedis } from "./support/use-redis.ts";
import {
  dataOf,
  eventOf,
  HASH,
  LEASE_MS,
  LIST,
  RETAIN_MS,
  read,
  retry,
  SHORT_MS,
  startOf,
  useRuns,
} from "./support/use-runs.ts";

describe("runs in Redis when something fails", needsRedis, () => {
  const redis = useRedis();
  const used = useRuns(redis);
  const { open, timeToLive } = used;
  afterEach(async () => {
    vi.useRealTimers();
    await redis.server.command("CONFIG", "SET", "maxmemory", "0");
  });

  describe("commands that a client library sends late", () => {
    /** Remembers the commands of a process, and returns a function that sends the last one of a script again. */
    function record({ client }: RunProcess): (isIt: (args: readonly string[]) => boolean) => Promise<unknown> {
      const sent: string[][] = [];
      const call = client.call.bind(client) as (...args: string[]) => Promise<unknown>;
      client.call = ((...args: string[]) => {
        sent.push(args);
        return call(...args);
      }) as typeof client.call;
      return (isIt) => call(...(sent.findLast(isIt) as string[]));
    }
    const isStart = (args: readonly string[]): boolean => args.includes("one") && args.includes(String(LEASE_MS));
    const isStop = ({ length, 5: name, 6: counter = "" }: readonly string[]): boolean =>
      length === 8 && name === "a" && counter.length === 16;

    test("a start that was executed is not executed again", async () => {
      const one = open();
      const again = record(one);
      await one.runs.start("a", startOf("one"));
      await redis.server.command("DEL", HASH);
      expect(await again(isStart)).toBe("stale");
      expect(await one.runs.read("a", 0, 1_000)).toBeUndefined();
    });

    test("a start has no effect once commands can be given again: a run that has ended in the meantime stays", async () => {
      const [one, two] = [open("commands", {}, { autoResendUnfulfilledCommands: false }), open()];
      await one.runs.read("a", 0, 1_000);
      const again = record(one);
      used.proxy.discards = "commands";
      const lost = codeOf(one.runs.start("a", startOf("one")));
      used.proxy.discards = undefined;
      used.proxy.cut();
      expect(await lost).toBe("publish-outcome-unknown");
      expect(await retry(() => one.runs.requestStop("a"))).toBe(false);
      expect(await two.runs.start("a", startOf("two"))).toBe(true);
      await two.runs.append("a", "two", { after: 0, texts: [eventOf("1")], end: "ended" });
      expect(await again(isStart)).toBe("no-counter");
      expect(await read(two)).toMatchObject({ generation: "two", end: "ended" });
      expect(dataOf(await read(two))).toEqual(["1"]);
    });

    test("a request to stop does not reach a later run", async () => {
      const one = open();
      const again = record(one);
      await one.runs.start("a", startOf("one"));
      await one.runs.requestStop("a");
      await one.runs.append("a", "one", { after: 0, texts: [], end: "stopped" });
      await one.runs.start("a", startOf("two"));
      expect(await again(isStop)).toBe("stale");
      expect(await read(one)).toMatchObject({ generation: "two", isStopping: false });
      await redis.server.command("CLIENT", "KILL", "TYPE", "normal");
      await retry(() => one.runs.start("b", startOf("three")));
      expect(await again(isStop)).toBe("no-counter");
      expect(await read(one)).toMatchObject({ generation: "two", isStopping: false });
    });

    test("an append changes nothing that has followed", async () => {
      const one = open();
      const again = record(one);
      const isAppend = (args: readonly string[]): boolean => args.includes(eventOf("1"));
      await one.runs.start("a", startOf("one"));
      await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
      await one.runs.append("a", "one", { after: 1, texts: [eventOf("2")] });
      expect(await again(isAppend)).toBe(1);
      expect(dataOf(await read(one))).toEqual(["1", "2"]);
      await one.runs.append("a", "one", { after: 2, texts: [], end: "ended" });
      expect(await again(isAppend)).toBe(0);
      await one.runs.start("a", startOf("two"));
      expect(await again(isAppend)).toBe(0);
      expect(await read(one)).toMatchObject({ generation: "two", events: 0 });
    });
  });

  test("start: a generation that another has replaced does not begin again, however often it is repeated", async () => {
    const one = open();
    await one.runs.start("a", startOf("one", { leaseMs: SHORT_MS }));
    await expect.poll(async () => (await read(one)).end, { timeout: 10_000 }).toBe("lost");
    expect(await one.runs.start("a", startOf("one"))).toBe(true);
    expect(await read(one)).toMatchObject({ generation: "one", end: "lost" });
    for (const generation of ["two", "three", "one-more"]) {
      expect(await one.runs.start("a", startOf(generation))).toBe(true);
      expect(await one.runs.start("a", startOf("one"))).toBe(false);
      await one.runs.append("a", generation, { after: 0, texts: [], end: "ended" });
      // It has begun, and is over.
      expect(await one.runs.start("a", startOf("one"))).toBe(true);
      expect(await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] })).toBe(false);
      expect(await read(one)).toMatchObject({ generation, end: "ended" });
    }
  });

  test("an outage: changes are of unknown outcome, reading is refused, and repeating everything does nothing twice", async () => {
    const [one, two] = [open("commands"), open()];
    await one.runs.start("a", startOf("one"));
    await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
    used.proxy.discards = "answers";
    const append = { after: 1, texts: [eventOf("2"), eventOf("3")], end: "ended" } as const;
    const calls = [
      () => one.runs.start("b", startOf("two")),
      () => one.runs.renew([{ id: "a", generation: "one" }]),
      () => one.runs.requestStop("a"),
      () => one.runs.append("a", "one", append),
    ];
    const codes = [...calls, () => Promise.resolve(one.runs.read("a", 0, 1_000))].map((call) => codeOf(call()));
    await expect.poll(async () => (await read(two)).end, { timeout: 10_000 }).toBe("ended");
    used.proxy.discards = "both";
    used.proxy.cut();
    expect(await Promise.all(codes)).toEqual([...calls.map(() => "publish-outcome-unknown"), "engine-down"]);
    expect(await Promise.all(calls.map((call) => codeOf(call())))).toEqual(calls.map(() => "engine-down"));
    used.proxy.discards = undefined;
    used.proxy.cut();
    expect(await retry(() => one.runs.append("a", "one", append))).toBe(true);
    expect(await one.runs.start("b", startOf("two"))).toBe(true);
    expect(await one.runs.requestStop("a")).toBe(false);
    expect(await read(one)).toMatchObject({ events: 3, end: "ended", isStopping: true });
    expect(dataOf(await read(one))).toEqual(["1", "2", "3"]);
  });

  test("a full server: nothing of an append happens; runs are renewed, lost, and read nevertheless", async () => {
    const one = open();
    await one.runs.start("a", startOf("one"));
    await one.runs.start("b", startOf("two", { leaseMs: SHORT_MS }));
    await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
    await redis.server.command("CONFIG", "SET", "maxmemory", "1");
    expect(await codeOf(one.runs.append("a", "one", { after: 1, texts: [eventOf("2")], end: "ended" }))).toBe(
      "engine-down",
    );
    expect(await codeOf(one.runs.start("c", startOf("three")))).toBe("engine-down");
    expect(await codeOf(one.runs.requestStop("a"))).toBe("engine-down");
    for (const key of [HASH, LIST]) await redis.server.command("PEXPIRE", key, String(RETAIN_MS + LEASE_MS / 2));
    expect(await one.runs.renew([{ id: "a", generation: "one" }])).toEqual(["live"]);
    for (const key of [HASH, LIST]) expect(await timeToLive(key)).toBeGreaterThan(RETAIN_MS + LEASE_MS / 2);
    await expect.poll(async () => (await read(one, "b")).end, { timeout: 10_000 }).toBe("lost");
    expect(await read(one)).toMatchObject({ events: 1, end: undefined, isStopping: false });
    await redis.server.command("CONFIG", "SET", "maxmemory", "0");
    expect(await one.runs.append("a", "one", { after: 1, texts: [eventOf("2")], end: "ended" })).toBe(true);
    expect(dataOf(await read(one))).toEqual(["1", "2"]);
  });

  test("waitReplicas: a change that too few replicas have is of unknown outcome, and may be repeated", async () => {
    const one = open("nothing", { waitReplicas: 1, commandTimeout: 400 });
    expect(await codeOf(one.runs.start("a", startOf("one")))).toBe("publish-outcome-unknown");
    expect(await codeOf(one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] }))).toBe(
      "publish-outcome-unknown",
    );
    expect(await codeOf(one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] }))).toBe(
      "publish-outcome-unknown",
    );
    expect(dataOf(await read(one))).toEqual(["1"]);
  });

  describe("watch", () => {
    test("a feed that was lost: all watchers are called when it is back, also for what they have missed", async () => {
      const [one, two] = [open("feed"), open()];
      await two.runs.start("a", startOf("one"));
      const seen: boolean[][] = [[], []];
      const watches = ["a", "b"].map((id, index) => one.runs.watch(id, (isStop) => seen[index]?.push(isStop)));
      await Promise.all(watches.map(({ ready }) => ready));
      // Where they had to wait for the feed, they were called when it came.
      seen.splice(0, 2, [], []);
      expect(watches.map(() => one.runs.watch("a", () => undefined).ready)).toEqual([undefined, undefined]);
      // Nothing arrives, and nothing says so.
      used.proxy.discards = "both";
      await two.runs.requestStop("a");
      used.proxy.discards = undefined;
      expect(seen).toEqual([[], []]);
      used.proxy.cut();
      await expect.poll(() => seen, { timeout: 20_000 }).toEqual([[true], [true]]);
      await two.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
      await expect.poll(() => seen, { timeout: 20_000 }).toEqual([[true, false], [true]]);
    });

    test("while the feed is away: `ready` waits for it, and an ended watch is not called", async () => {
      const [one, two] = [open("feed"), open()];
      await one.runs.watch("first", () => undefined).ready;
      used.proxy.discards = "both";
      used.proxy.cut();
      await expect.poll(() => one.errors.length, { timeout: 20_000 }).toBeGreaterThan(0);
      const calls = { kept: 0, ended: 0 };
      const kept = one.runs.watch("a", () => calls.kept++);
      const ended = one.runs.watch("b", () => calls.ended++);
      let isReady = false;
      void kept.ready?.then(() => {
        isReady = true;
      });
      ended.stop();
      await two.runs.start("a", startOf("one"));
      expect([isReady, kept.ready !== undefined]).toEqual([false, true]);
      used.proxy.discards = undefined;
      used.proxy.cut();
      await kept.ready;
      await expect.poll(() => calls, { timeout: 20_000 }).toEqual({ kept: 1, ended: 0 });
      const before = calls.kept;
      await two.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
      await expect.poll(() => calls.kept, { timeout: 20_000 }).toBe(before + 1);
    });

    test("a feed that does not come: `ready` rejects after a while, and the watch is called when it comes after all", async () => {
      const one = open("feed");
      await one.runs.watch("first", () => undefined).ready;
      used.proxy.discards = "both";
      used.proxy.cut();
      await expect.poll(() => one.errors.length, { timeout: 20_000 }).toBeGreaterThan(0);
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
      let calls = 0;
      const watch = one.runs.watch("a", () => calls++);
      const code = codeOf(watch.ready as Promise<void>);
      await vi.advanceTimersByTimeAsync(4_000);
      expect(await code).toBe("engine-down");
      vi.useRealTimers();
      one.session.close();
      expect(calls).toBe(0);
    });

    test("a session that closes ends what waits; a store that closes ends its watches", async () => {
      const one = open("feed");
      await one.runs.watch("first", () => undefined).ready;
      used.proxy.discards = "both";
      used.proxy.cut();
      await expect.poll(() => one.errors.length, { timeout: 20_000 }).toBeGreaterThan(0);
      const waiting = codeOf(one.runs.watch("a", () => undefined).ready as Promise<void>);
      one.session.close();
      expect(await waiting).toBe("engine-down");
    });

    test("of two stores of one session, one closes: its channels are left, and those of the other are not", async () => {
      const [one, two] = [open(), open()];
      const second = one.session.openRuns?.(() => undefined) as RunProcess["runs"];
      let calls = 0;
      await Promise.all([
        one.runs.watch("a", () => undefined).ready,
        one.runs.watch("b", () => undefined).ready,
        second.watch("a", () => calls++).ready,
      ]);
      const channels = async (): Promise<unknown> =>
        ((await redis.server.command("PUBSUB", "CHANNELS", "*:run:*")) as string[]).sort();
      expect(await channels()).toEqual(["{test}:run:a", "{test}:run:b"]);
      one.runs.close();
      await expect.poll(channels, { timeout: 10_000 }).toEqual(["{test}:run:a"]);
      calls = 0;
      await two.runs.start("a", startOf("one"));
      await expect.poll(() => calls, { timeout: 10_000 }).toBe(1);
    });
  });
});
