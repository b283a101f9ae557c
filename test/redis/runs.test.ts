// Runs in Redis: the contract of a store of runs, and what else a store has to keep that is not in the process.
import { readFileSync } from "node:fs";
import { Redis } from "ioredis";
import { createClient } from "redis";
import { afterEach, describe, expect, test } from "vitest";
import { testRunStore } from "../support/runs/store-contract.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { codeOf } from "./support/peer.ts";
import { openRuns, type RunProcess } from "./support/run-process.ts";
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

/** The time between a command and the look at what it has set, on a busy machine. */
const TOLERANCE_MS = 10_000;

describe.each(["ioredis", "node-redis"])("runs in Redis, through %s: the contract", needsRedis, (library) => {
  const redis = useRedis();
  testRunStore(async () => {
    const processes: { close(): void }[] = [];
    const open = async (): Promise<RunProcess["runs"]> => {
      const client = createClient({ url: redis.server.url });
      const process = openRuns(redis.server.port, library === "ioredis" ? {} : { client });
      processes.push({
        close() {
          process.close();
          if (client.isOpen) client.destroy();
        },
      });
      return process.runs;
    };
    return { store: await open(), other: open, close: () => processes.forEach((process) => void process.close()) };
  });
});

describe("runs in Redis", needsRedis, () => {
  const redis = useRedis();
  const { open, timeToLive } = useRuns(redis);

  async function expectLife(ms: number): Promise<void> {
    for (const key of [HASH, LIST]) {
      const left = await timeToLive(key);
      expect([key, left > ms - TOLERANCE_MS, left <= ms]).toEqual([key, true, true]);
    }
  }

  test("keys: a live run has its lease and then its time to be kept; one that has ended has the latter", async () => {
    const one = open();
    await one.runs.start("a", startOf("one"));
    await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
    await expectLife(LEASE_MS + RETAIN_MS);
    for (const renew of [
      () => one.runs.renew([{ id: "a", generation: "one" }]),
      // Its first answer may have been lost long ago.
      () => one.runs.start("a", startOf("one")),
      () => one.runs.append("a", "one", { after: 1, texts: [eventOf("2")] }),
    ]) {
      for (const key of [HASH, LIST]) await redis.server.command("PEXPIRE", key, String(RETAIN_MS + LEASE_MS / 2));
      expect((await read(one)).leaseMs).toBeLessThanOrEqual(LEASE_MS / 2);
      await renew();
      await expectLife(LEASE_MS + RETAIN_MS);
    }
    await one.runs.append("a", "one", { after: 2, texts: [], end: "ended" });
    await expectLife(RETAIN_MS);
  });

  test("keys: a run that is lost is kept from the call that notices it", async () => {
    const one = open();
    await one.runs.start("a", startOf("one"));
    await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
    // Its lease was over for almost as long as it is kept.
    for (const key of [HASH, LIST]) await redis.server.command("PEXPIRE", key, "20000");
    expect((await read(one)).end).toBe("lost");
    await expectLife(RETAIN_MS);
  });

  test("keys: a run of a producer that died, which nobody reads, disappears by itself", async () => {
    const one = open();
    await one.runs.start("a", startOf("one", { leaseMs: SHORT_MS, retainMs: SHORT_MS }));
    await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
    await expect.poll(() => redis.server.command("EXISTS", HASH, LIST), { timeout: 10_000 }).toBe(0);
  });

  test("keys: Infinity is kept for years", async () => {
    const one = open();
    await one.runs.start("a", startOf("one", { retainMs: Infinity, leaseMs: Infinity }));
    expect((await read(one)).end).toBeUndefined();
    await one.runs.append("a", "one", { after: 0, texts: [], end: "ended" });
    expect(await timeToLive(HASH)).toBeGreaterThan(1e11);
  });

  test("FLUSHALL: a run is unknown, and one that begins has no event of the one before", async () => {
    const one = open();
    await one.runs.start("a", startOf("one"));
    await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
    await redis.server.command("FLUSHALL");
    expect(await one.runs.read("a", 0, 1_000)).toBeUndefined();
    expect(await one.runs.append("a", "one", { after: 1, texts: [eventOf("2")] })).toBe(false);
    expect(await one.runs.renew([{ id: "a", generation: "one" }])).toEqual(["over"]);
    // The counter of this process is gone as well.
    expect(await codeOf(one.runs.start("a", startOf("two")))).toBe("engine-down");
    expect(await retry(() => one.runs.start("a", startOf("two")))).toBe(true);
    expect(await read(one)).toMatchObject({ generation: "two", events: 0 });
  });

  test.each<[string, [string, ...string[]]]>([
    ["the hash is evicted", ["DEL", HASH]],
    ["the list is evicted", ["DEL", LIST]],
    ["the beginning is gone", ["LPOP", LIST]],
    ["the end is gone", ["RPOP", LIST]],
    ["the list has more", ["RPUSH", LIST, "data: x\n\n"]],
  ])("%s: the run is unknown as a whole, and its id may be used again", async (_, command) => {
    const one = open();
    await one.runs.start("a", startOf("one", { readers: "ada" }));
    await one.runs.append("a", "one", { after: 0, texts: [eventOf("1"), eventOf("2")] });
    await redis.server.command(...command);
    expect(await one.runs.read("a", 0, 1_000)).toBeUndefined();
    expect(await one.runs.read("a", 2, 1_000)).toBeUndefined();
    expect(await one.runs.append("a", "one", { after: 2, texts: [eventOf("3")] })).toBe(false);
    expect(await one.runs.append("a", "one", { after: 2, texts: [], end: "ended" })).toBe(false);
    expect(await one.runs.renew([{ id: "a", generation: "one" }])).toEqual(["over"]);
    expect(await one.runs.requestStop("a")).toBe(false);
    expect(await one.runs.start("a", startOf("two"))).toBe(true);
    expect(await read(one)).toMatchObject({ generation: "two", events: 0, readers: undefined });
    await one.runs.append("a", "two", { after: 0, texts: [eventOf("9")] });
    expect(dataOf(await read(one))).toEqual(["9"]);
  });

  test("a server that has lost the last events: nothing follows the gap, and the run is lost when its lease is over", async () => {
    const one = open();
    await one.runs.start("a", startOf("one"));
    await one.runs.append("a", "one", { after: 0, texts: ["1", "2", "3"].map(eventOf) });
    await redis.server.command("RPOP", LIST);
    await redis.server.command("HSET", HASH, "events", "2");
    expect(await one.runs.append("a", "one", { after: 3, texts: [eventOf("4")] })).toBe(false);
    expect(await one.runs.append("a", "one", { after: 3, texts: [], end: "ended" })).toBe(false);
    expect(await read(one)).toMatchObject({ events: 2, end: undefined });
    // Events whose outcome was unknown are repeated from where the run is known to be.
    expect(await one.runs.append("a", "one", { after: 2, texts: ["3", "4"].map(eventOf) })).toBe(true);
    expect(dataOf(await read(one))).toEqual(["1", "2", "3", "4"]);
  });

  test("an end that names fewer events than the run has is refused", async () => {
    const one = open();
    await one.runs.start("a", startOf("one"));
    await one.runs.append("a", "one", { after: 0, texts: ["1", "2", "3"].map(eventOf) });
    expect(await one.runs.append("a", "one", { after: 1, texts: [eventOf("2")], end: "ended" })).toBe(false);
    expect(await read(one)).toMatchObject({ events: 3, end: undefined });
  });

  test("a lease that is over: the producer may be back before anybody notices, and not after that", async () => {
    const [one, two] = [open(), open()];
    await one.runs.start("a", startOf("one", { leaseMs: SHORT_MS }));
    await expect.poll(() => timeToLive(HASH), { timeout: 10_000 }).toBeLessThan(RETAIN_MS);
    expect(await one.runs.renew([{ id: "a", generation: "one" }])).toEqual(["live"]);
    await expect.poll(() => timeToLive(HASH), { timeout: 10_000 }).toBeLessThan(RETAIN_MS);
    expect(await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] })).toBe(true);
    await expect.poll(async () => (await read(two)).end, { timeout: 10_000 }).toBe("lost");
    expect(await one.runs.renew([{ id: "a", generation: "one" }])).toEqual(["over"]);
    expect(await one.runs.append("a", "one", { after: 1, texts: [eventOf("2")] })).toBe(false);
  });

  test.each<[string, (process: RunProcess) => unknown]>([
    ["read", ({ runs }) => runs.read("a", 0, 1_000)],
    ["requestStop", ({ runs }) => runs.requestStop("a")],
    ["start of the same generation", ({ runs }) => runs.start("a", startOf("one"))],
  ])("%s: notices that a lease is over, and announces it once", async (_, call) => {
    const all = [open(), open(), open()];
    const [one, two, three] = all as [RunProcess, RunProcess, RunProcess];
    await one.runs.start("a", startOf("one", { leaseMs: SHORT_MS }));
    let messages = 0;
    await three.runs.watch("a", () => messages++).ready;
    messages = 0;
    await expect.poll(() => timeToLive(HASH), { timeout: 10_000 }).toBeLessThan(RETAIN_MS);
    await Promise.all([one, two, three].map((process) => call(process)));
    expect(await read(one)).toMatchObject({ end: "lost", isStopping: false, leaseMs: Infinity });
    await three.runs.start("a", startOf("two"));
    await expect.poll(() => messages, { timeout: 10_000 }).toBe(2);
  });

  test("isStopping: stays when the run has ended, and is not taken over", async () => {
    const one = open();
    await one.runs.start("a", startOf("one"));
    await one.runs.requestStop("a");
    await one.runs.append("a", "one", { after: 0, texts: [], end: "stopped" });
    expect(await read(one)).toMatchObject({ isStopping: true, end: "stopped" });
    await one.runs.start("a", startOf("two"));
    expect(await read(one)).toMatchObject({ isStopping: false });
  });

  test("ids: any two are different runs, also with lone surrogates; texts with those have U+FFFD, as on the wire", async () => {
    const one = open();
    const ids = ["\ud800", "\udfff", "\ufffd", "\\ud800", '"', '\\"', "\n", "\\n", "run:a", "a", ""];
    for (const [index, id] of ids.entries()) {
      expect(await one.runs.start(id, startOf(`g${index}`, { readers: id }))).toBe(true);
      await one.runs.append(id, `g${index}`, { after: 0, texts: [eventOf(`${index} \ud800.`)] });
    }
    for (const [index, id] of ids.entries()) expect(dataOf(await read(one, id))).toEqual([`${index} \ufffd.`]);
    const calls = ids.map(() => 0);
    const watches = ids.map((id, index) => one.runs.watch(id, () => void ((calls[index] as number) += 1)));
    await Promise.all(watches.map(({ ready }) => ready));
    calls.fill(0);
    await one.runs.requestStop("\udfff");
    await expect.poll(() => calls[1], { timeout: 10_000 }).toBe(1);
    expect(calls.reduce((sum, count) => sum + count)).toBe(1);
  });

  test("a client with a key prefix of its own: watches work, and so does everything else", async () => {
    const one = open("nothing", {}, { keyPrefix: "app:" });
    await one.runs.start("a", startOf("one"));
    const changes: boolean[] = [];
    await one.runs.watch("a", (isStop) => changes.push(isStop)).ready;
    changes.splice(0);
    await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] });
    await one.runs.requestStop("a");
    await expect.poll(() => changes, { timeout: 10_000 }).toEqual([false, true]);
    expect(await redis.server.command("EXISTS", `app:${HASH}`, `app:${LIST}`)).toBe(2);
  });

  test("memory: a run of 500 events of 30 bytes takes little more than its bytes", async () => {
    const one = open();
    await one.runs.start("a", startOf("0123456789ab"));
    const texts = Array.from({ length: 500 }, (_, index) => eventOf(String(index).padStart(22, "x")));
    for (let index = 0; index < 500; index++)
      await one.runs.append("a", "0123456789ab", { after: index, texts: texts.slice(index, index + 1) });
    const sizeOf = async (key: string): Promise<number> =>
      Number(await redis.server.command("MEMORY", "USAGE", key, "SAMPLES", "0"));
    const [hash, list] = [await sizeOf(HASH), await sizeOf(LIST)];
    const bytes = texts.join("").length;
    console.log(`memory: ${hash} bytes for the hash and ${list} for the list of ${bytes} bytes of text`);
    expect(hash).toBeLessThan(512);
    expect(list).toBeLessThan(bytes * 1.3);
  });

  describe("permissions", () => {
    /** The user of the guide, who may give the commands of all scripts, and no others. */
    const [, GUIDE = ""] = /^redis-cli ACL SETUSER fanwire (.*?)\n```/ms.exec(
      readFileSync(new URL("../../src/redis/README.md", import.meta.url), "utf8"),
    ) as RegExpExecArray;
    const clients: Redis[] = [];
    afterEach(async () => {
      for (const client of clients.splice(0)) client.disconnect();
      await redis.server.command("ACL", "DELUSER", "fanwire");
    });
    async function openAs(commands: string): Promise<RunProcess> {
      const rules = commands.replaceAll("\\\n", " ").replaceAll("'", "").replaceAll("{shop}", "{test}").split(/\s+/);
      await redis.server.command("ACL", "SETUSER", "fanwire", ...rules);
      const client = new Redis(redis.server.port, "127.0.0.1", { username: "fanwire", password: "secret" });
      const process = open("nothing", { client });
      clients.push(client);
      return process;
    }

    test("the user of the guide may do everything", async () => {
      const one = await openAs(GUIDE);
      const watch = one.runs.watch("a", () => undefined);
      await watch.ready;
      expect(await one.runs.start("a", startOf("one", { leaseMs: SHORT_MS }))).toBe(true);
      expect(await one.runs.append("a", "one", { after: 0, texts: [eventOf("1")] })).toBe(true);
      expect(await one.runs.renew([{ id: "a", generation: "one" }])).toEqual(["live"]);
      await expect.poll(async () => (await read(one)).end, { timeout: 10_000 }).toBe("lost");
      expect(await one.runs.requestStop("a")).toBe(false);
      watch.stop();
    });

    test("a user of an earlier version: no run begins, the cause names the command, and the log works", async () => {
      const one = await openAs(GUIDE.replace("+llen +lrange +rpush +pttl", ""));
      const error = await one.runs.start("a", startOf("one")).catch((refused: Error) => refused);
      expect(error).toMatchObject({ code: "engine-down" });
      expect(String((error as Error).cause)).toMatch(/NOPERM.* LLEN .*ACL SETUSER/);
      expect(await one.session.append([""], "data: 1\n\n")).toMatchObject({ seq: 1 });
      expect(await redis.server.command("EXISTS", HASH)).toBe(0);
    });
  });
});
