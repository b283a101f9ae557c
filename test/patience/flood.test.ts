// Floods of events, which take minutes: an awaited loop of a million, and 200 clients that never read.
import { describe, expect, type TestContext, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import {
  type Platform,
  platforms,
  type Server,
  startServer,
  type TestBroker,
  usesWorkerd,
} from "../support/servers/server.ts";

const MIB = 1024 * 1024;
const growth = (bytes: number): string => `${bytes < 0 ? "" : "+"}${(bytes / MIB).toFixed(0)} MiB`;
/** Events of 10 kB that fill every buffer between the broker and a client that does not read. */
const FILL = 2_000;

// Platforms that share their runtime or their broker with another one are left out, because a flood takes a minute.
const skipped: readonly string[] = ["deno-serve", "node-hono", "node-srvx", "hub-direct"];

/** Runs tasks one after another. */
function queue(): <T>(task: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (task) => {
    const result = last.then(task);
    last = result.catch(() => undefined);
    return result;
  };
}
/** Lets one flood run at a time, because each is measured. */
const alone = queue();
/** Lets 200 clients be blocked at a time, because they fill 800 MB of the kernel's memory. Until they are disconnected, other floods can run. */
const withBlocked = queue();

/** Starts a server for one test: the heap that one flood leaves behind would hide the growth of the next. */
async function start(platform: Platform, { onTestFinished }: Pick<TestContext, "onTestFinished">): Promise<Server> {
  const server = await startServer(platform);
  onTestFinished(() => server.stop());
  return server;
}

describe.concurrent.each(platforms.filter((platform) => !skipped.includes(platform)))("floods on %s", (platform) => {
  test("broadcast(): in an awaited loop of a million events, a healthy client receives all of them and no gap", (context) =>
    alone(async () => {
      const server = await start(platform, context);
      const broker = await server.createBroker();
      const client = await new SocketClient(server.url + broker.path("connect")).untilReady();
      await broker.control("flood", { count: 1_000_000, bytes: 10 });
      await client.until(() => client.events.length >= 1_000_001 || client.control("gap").length > 0);
      expect(client.control("gap")).toEqual([]);
      expect(client.data.every((data, n) => Number.parseInt(data, 10) === n)).toBe(true);
      expect((await broker.state()).stats).toMatchObject({ gaps: 0, sent: 1_000_000, disconnects: {} });
      client.leave();
    }));

  test("timeout: 200 clients that never read while 500 MB are published cost bounded memory, delay no client, and are disconnected", (context) =>
    withBlocked(async () => {
      let flooded: Flooded | undefined;
      // On a machine that is busy with other things they may be disconnected before the flood is over. Then they are left alone for longer.
      for (let timeout = 16_000; !flooded; timeout *= 2) {
        const server = await start(platform, context);
        flooded = await alone(() => floodBlocked(server, platform, timeout));
        if (!flooded) server.stop();
      }
      const { broker, healthy, stuck } = flooded;
      const { ended } = await broker.untilState(({ stats }) => stats.clients === 1);
      expect(ended.map(({ clientId }) => clientId).sort()).toEqual(stuck.map((_, n) => `stuck${n}`).sort());
      expect(new Set(ended.map(({ reason }) => reason))).toEqual(new Set(["timeout"]));
      for (const client of stuck) client.reset();
      healthy.leave();
      await broker.untilState(({ stats, alive }) => stats.clients === 0 && alive === 0, true);
    }));
});

/** A flood that is over, with its clients. */
interface Flooded {
  readonly broker: TestBroker;
  readonly healthy: SocketClient;
  readonly stuck: readonly SocketClient[];
}

/**
 * Publishes 500 MB to a healthy client and to 200 that never read. Checks what that costs while all of them are connected. Returns `undefined`
 * if one was disconnected before that.
 */
async function floodBlocked(server: Server, platform: Platform, timeout: number): Promise<Flooded | undefined> {
  const flood = { count: 50_000, bytes: 10_000 };
  const broker = await server.createBroker({ timeout, tolerance: 2 });
  const healthy = await new SocketClient(server.url + broker.path("connect?id=healthy")).untilReady();
  healthy.countsOnly = true;

  const aloneStart = performance.now();
  await broker.control("flood", { ...flood, count: flood.count / 10 });
  await healthy.until(() => healthy.count === flood.count / 10);
  const aloneMs = (performance.now() - aloneStart) / (flood.count / 10);
  const before = await broker.state(true);
  const memoryBefore = server.memory();

  const stuck = await Promise.all(
    Array.from({ length: 200 }, async (_, n) => {
      const client = await new SocketClient(server.url + broker.path(`connect?id=stuck${n}`)).untilReady();
      client.pause();
      return client;
    }),
  );
  // Each client takes about 4 MB until its kernel queues are full, which is work of its own. From here on none takes anything.
  await broker.control("flood", { ...flood, count: FILL });
  const filled = await broker.untilState(({ stats }) => stats.blocked === 200 || stats.clients < 201);
  if (filled.stats.clients < 201) return undefined;
  const togetherStart = performance.now();
  await broker.control("flood", { ...flood, count: flood.count - FILL });
  await healthy.until(() => healthy.count === flood.count / 10 + flood.count);
  const togetherMs = (performance.now() - togetherStart) / (flood.count - FILL);
  const during = await broker.state(true);
  const memoryDuring = server.memory();
  const heap = during.heapUsed === null || before.heapUsed === null ? null : during.heapUsed - before.heapUsed;
  expect(healthy.outOfOrder).toBe(0);
  expect(healthy.control("gap")).toEqual([]);
  if (during.stats.clients < 201) return undefined;

  console.log(
    `memory on ${server.agent} (${platform}): 200 clients that never read, 500 MB published: process ${growth(memoryDuring - memoryBefore)}, ` +
      `heap after a collection ${heap === null ? "unknown" : growth(heap)}, log ${during.stats.log.bytes} bytes; ` +
      `per event ${(togetherMs * 1000).toFixed(0)} µs with them, ${(aloneMs * 1000).toFixed(0)} µs without`,
  );
  // The log has 32 MiB, and each stream holds at most one chunk of 64 KiB; the rest belongs to the runtime.
  expect(during.stats.log.bytes).toBeLessThanOrEqual(32 * MIB);
  // The assertion fails on the day that workerd tells the size of its heap.
  if (usesWorkerd(platform)) expect(heap).toBeNull();
  else expect(heap ?? Number.NaN).toBeLessThan(64 * MIB);
  expect(memoryDuring - memoryBefore).toBeLessThan(500 * MIB);
  // An event takes about as long as without them. Ten times is a delay, whatever else the machine does.
  expect(togetherMs).toBeLessThan(10 * aloneMs);
  return { broker, healthy, stuck };
}
