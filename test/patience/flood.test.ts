import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { onWorkerd, platforms, type Server, startServer } from "../support/servers/server.ts";

const MIB = 1024 * 1024;
const growth = (bytes: number): string => `${bytes < 0 ? "" : "+"}${(bytes / MIB).toFixed(0)} MiB`;
/** Events of 10 kB that fill every buffer between the broker and a client that does not read. */
const FILL = 2_000;

// The others are the same runtime, or the same broker, as one of these, and a flood takes a minute.
const others: readonly string[] = ["deno-serve", "node-srvx", "hub-direct"];

describe.each(platforms.filter((platform) => !others.includes(platform)))("floods on %s", (platform) => {
  // One for each test: what a flood leaves behind in the runtime's heap would hide the growth of the next.
  let server: Server;
  beforeEach(async () => {
    server = await startServer(platform);
  });
  afterEach(() => server.stop());

  test("for (…) await broadcast(…) a million times: a healthy client gets all of it, and no gap", async () => {
    const stage = await server.stage();
    const client = await new SocketClient(server.url + stage.path("connect")).ready();
    await stage.tell("flood", { count: 1_000_000, bytes: 10 });
    await client.until(() => client.events.length >= 1_000_001 || client.control("gap").length > 0);
    expect(client.control("gap")).toEqual([]);
    expect(client.data.every((data, n) => Number.parseInt(data, 10) === n)).toBe(true);
    expect((await stage.state()).stats).toMatchObject({ gaps: 0, sent: 1_000_000, disconnects: {} });
    client.leave();
  });

  test("200 clients that never read while 500 MB are published: bounded, nobody delayed, each disconnected for its timeout", async () => {
    const flood = { count: 50_000, bytes: 10_000 };
    const stage = await server.stage({ timeout: 16_000, tolerance: 2 });
    const healthy = await new SocketClient(server.url + stage.path("connect?id=healthy")).ready();
    healthy.forget = true;

    const alone = performance.now();
    await stage.tell("flood", { ...flood, count: flood.count / 10 });
    await healthy.until(() => healthy.count === flood.count / 10);
    const aloneFor = performance.now() - alone;
    const before = await stage.state(true);
    const memoryBefore = server.memory();

    const stuck = await Promise.all(
      Array.from({ length: 200 }, async (_, n) => {
        const client = await new SocketClient(server.url + stage.path(`connect?id=stuck${n}`)).ready();
        client.stall();
        return client;
      }),
    );
    // Each takes about 4 MB until its kernel queue is full, which is work of its own; from here on none takes anything.
    await stage.tell("flood", { ...flood, count: FILL });
    await stage.until(({ stats }) => stats.blocked === 200);
    const together = performance.now();
    await stage.tell("flood", { ...flood, count: flood.count - FILL });
    await healthy.until(() => healthy.count === flood.count / 10 + flood.count);
    const togetherFor = performance.now() - together;
    const during = await stage.state(true);
    const memoryDuring = server.memory();
    const heap = during.heapUsed === null || before.heapUsed === null ? null : during.heapUsed - before.heapUsed;
    expect(during.stats.clients).toBe(201);
    expect(healthy.outOfOrder).toBe(0);
    expect(healthy.control("gap")).toEqual([]);

    console.log(
      `memory on ${server.agent} (${platform}): 200 clients that never read, 500 MB published: process ${growth(memoryDuring - memoryBefore)}, ` +
        `heap after a collection ${heap === null ? "not told" : growth(heap)}, log ${during.stats.log.bytes} bytes; ` +
        `per event ${((togetherFor / (flood.count - FILL)) * 1000).toFixed(0)} µs with them, ${((aloneFor / flood.count) * 10_000).toFixed(0)} µs without`,
    );
    // The log's own 32 MiB, and for each client at most one chunk of 64 KiB that its stream still holds; the rest is the runtime's.
    expect(during.stats.log.bytes).toBeLessThanOrEqual(32 * MIB);
    // The day that workerd tells, this says so.
    if (onWorkerd(platform)) expect(heap).toBeNull();
    else expect(heap ?? Number.NaN).toBeLessThan(64 * MIB);
    expect(memoryDuring - memoryBefore).toBeLessThan(500 * MIB);

    const { ended } = await stage.until(({ stats }) => stats.clients === 1);
    expect(ended.map(({ clientId }) => clientId).sort()).toEqual(stuck.map((_, n) => `stuck${n}`).sort());
    expect(new Set(ended.map(({ reason }) => reason))).toEqual(new Set(["timeout"]));
    for (const client of stuck) client.reset();
    healthy.leave();
    await stage.until(({ stats, alive }) => stats.clients === 0 && alive === 0, true);
  });
});
