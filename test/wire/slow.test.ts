// Slow clients over sockets: blocked clients, timeout and tolerance, and what a client receives when it comes back.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { isHub, platforms, type Server, startServer, type TestBroker } from "../support/servers/server.ts";

const MIB = 1024 * 1024;
/** Fills every buffer between the broker and a client that does not read, on every runtime. */
const FLOOD = { count: 1_200, bytes: 10_000 };

const numbersOf = (client: SocketClient): number[] => client.data.map((data) => Number.parseInt(data, 10));
const range = (count: number, from = 0): number[] => Array.from({ length: count - from }, (_, n) => from + n);

/** Connects a client that stops reading, and waits until the broker sees it as blocked. */
async function connectBlocked(broker: TestBroker, query = ""): Promise<SocketClient> {
  const client = await new SocketClient(broker.server.url + broker.path(`connect${query}`)).untilReady();
  client.pause();
  await broker.control("flood", FLOOD);
  await broker.untilState(({ stats, ended }) => stats.blocked === 1 || ended.length > 0);
  return client;
}

describe.each(platforms)("slow clients on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test("a client that stalls and reads on loses nothing and receives nothing twice", async () => {
    const broker = await server.createBroker({ timeout: 60_000 });
    const client = await connectBlocked(broker);
    client.resume();
    await client.until(() => client.data.length === FLOOD.count);
    await broker.control("flood", { count: 1 });
    await client.until(() => client.data.length === FLOOD.count + 1);
    expect(numbersOf(client)).toEqual([...range(FLOOD.count), 0]);
    expect(client.control("gap")).toEqual([]);
    expect((await broker.untilState(({ stats }) => stats.blocked === 0)).stats).toMatchObject({
      gaps: 0,
      disconnects: {},
    });
    client.leave();
  });

  test("timeout, tolerance: a client that never reads is disconnected after timeout × tolerance, and delays no other client", async () => {
    /** Floods a client that reads beside one that does not. `isInTime`: the first one had everything before the other was disconnected. */
    const flood = async (timeout: number) => {
      const broker = await server.createBroker({ timeout, tolerance: 2, heartbeat: 100 });
      const healthy = await new SocketClient(server.url + broker.path("connect?id=healthy")).untilReady();
      const stuck = await connectBlocked(broker, "?id=stuck");
      await healthy.until(() => healthy.data.length === FLOOD.count);
      return { timeout, broker, healthy, stuck, isInTime: (await broker.state()).ended.length === 0 };
    };
    // An object holds a publisher for half a second because of this client, and that must not be its whole time.
    let flooded = await flood(isHub(platform) ? 1_000 : 400);
    // A machine that is busy needs longer for a flood. If the one delayed the other, no time would be long enough.
    while (!flooded.isInTime) {
      for (const client of [flooded.healthy, flooded.stuck]) client.reset();
      flooded = await flood(2 * flooded.timeout);
    }
    const { broker, healthy, stuck } = flooded;

    const { ended, stats } = await broker.untilState(({ stats }) => stats.clients === 1);
    expect(ended).toEqual([{ clientId: "stuck", reason: "timeout" }]);
    expect(stats).toMatchObject({ blocked: 0, disconnects: { timeout: 1 } });
    expect((await broker.publish("to the stuck one", "?id=stuck")).status).toBe(200);

    await broker.control("flood", { count: 10 });
    await healthy.until(() => healthy.data.length === FLOOD.count + 10);
    expect(numbersOf(healthy)).toEqual([...range(FLOOD.count), ...range(10)]);
    expect(healthy.control("gap")).toEqual([]);
    healthy.leave();
    stuck.reset();
    await broker.untilState(({ stats, alive }) => stats.clients === 0 && alive === 0, true);
  });

  test("timeout: a client that reads a little after each 0.6 × timeout stays connected", async () => {
    const timeout = 3_000;
    const broker = await server.createBroker({ timeout, tolerance: 1, engine: { logBytes: 64 * MIB } });
    let stalled = Date.now();
    const client = await connectBlocked(broker);
    // Two rounds are longer than the timeout, and what is left of it in each is for a machine that is busy.
    for (let round = 0; round < 3; round++) {
      await new Promise((resolve) => setTimeout(resolve, stalled + 0.6 * timeout - Date.now()));
      // The broker sees progress after about a third of the kernel's queue was read.
      const before = client.receivedBytes;
      client.resume();
      await client.until(() => client.receivedBytes > before + 2 * MIB);
      client.pause();
      stalled = Date.now();
      await broker.control("flood", { count: 400, bytes: 10_000 });
    }
    expect((await broker.state()).ended).toEqual([]);
    client.resume();
    await client.until(() => client.data.length === FLOOD.count + 3 * 400);
    expect(numbersOf(client)).toEqual([...range(FLOOD.count), ...range(400), ...range(400), ...range(400)]);
    client.leave();
  });

  test("a client that was disconnected and comes back receives what the log holds, and a gap for exactly the rest", async () => {
    const broker = await server.createBroker({ timeout: 300, tolerance: 1, engine: { logBytes: 4 * MIB } });
    const client = await connectBlocked(broker);
    await broker.untilState(({ stats }) => stats.clients === 0);
    await broker.control("flood", FLOOD);
    client.reset();
    const seen = numbersOf(client).length;

    const { stats } = await broker.state();
    const back = new SocketClient(server.url + broker.path("connect"), { "last-event-id": client.lastEventId ?? "" });
    await back.until(() => back.data.length === stats.log.events);
    const [gap] = back.control("gap");
    const data = JSON.parse(gap?.data ?? "{}");
    // Events are numbered from 0, positions from 1.
    const oldest = 2 * FLOOD.count - stats.log.events;
    const epoch = client.lastEventId?.split("-")[0];
    expect(data).toEqual({
      channels: ["fanwire-common"],
      after: client.lastEventId ?? `${epoch}-0`,
      through: `${epoch}-${oldest}`,
    });
    expect(gap?.id).toBe(data.through);
    expect(back.control("gap")).toHaveLength(1);
    expect(back.control("ready")[0]?.id).toBeUndefined();
    expect(numbersOf(back)).toEqual([...range(FLOOD.count), ...range(FLOOD.count)].slice(oldest));
    expect(seen).toBeLessThan(oldest);
    back.leave();
  });

  test("broadcast({ report }): names the clients that have the event and those that are late", async () => {
    const broker = await server.createBroker({ timeout: 500, tolerance: 100 });
    const healthy = await new SocketClient(server.url + broker.path("connect?id=healthy")).untilReady();
    const stuck = await connectBlocked(broker, "?id=stuck");
    const report = await broker.control<{ sent: number; failed: { clientId: string; reason: string }[] }>("report");
    expect(report).toMatchObject({ sent: 1, failed: [{ clientId: "stuck", reason: "late" }] });
    healthy.leave();
    stuck.reset();
  });
});
