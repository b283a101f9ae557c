import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { isHub, platforms, type Server, type Stage, startServer } from "../support/servers/server.ts";

const MIB = 1024 * 1024;
/** What fills every buffer between the broker and a client that does not read, on every runtime. */
const FILL = { count: 1_200, bytes: 10_000 };

const numbers = (client: SocketClient): number[] => client.data.map((data) => Number.parseInt(data, 10));
const upTo = (count: number, from = 0): number[] => Array.from({ length: count - from }, (_, n) => from + n);

/** A client that has stopped reading and that the broker has seen to be blocked. */
async function blocked(stage: Stage, query = ""): Promise<SocketClient> {
  const client = await new SocketClient(stage.server.url + stage.path(`connect${query}`)).ready();
  client.stall();
  await stage.tell("flood", FILL);
  await stage.until(({ stats, ended }) => stats.blocked === 1 || ended.length > 0);
  return client;
}

describe.each(platforms)("slow clients on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test("one that stalls and reads on loses nothing and doubles nothing", async () => {
    const stage = await server.stage({ timeout: 60_000 });
    const client = await blocked(stage);
    client.resume();
    await client.until(() => client.data.length === FILL.count);
    await stage.tell("flood", { count: 1 });
    await client.until(() => client.data.length === FILL.count + 1);
    expect(numbers(client)).toEqual([...upTo(FILL.count), 0]);
    expect(client.control("gap")).toEqual([]);
    expect((await stage.until(({ stats }) => stats.blocked === 0)).stats).toMatchObject({ gaps: 0, disconnects: {} });
    client.leave();
  });

  test("one that never reads fails at timeout, is disconnected at tolerance with its reason, and delays nobody", async () => {
    // In an object its publisher waits for it for half a second, which must not be all the time that it has.
    const timeout = isHub(platform) ? 1_000 : 400;
    const stage = await server.stage({ timeout, tolerance: 2, heartbeat: 100 });
    const healthy = await new SocketClient(server.url + stage.path("connect?id=healthy")).ready();
    const stuck = await blocked(stage, "?id=stuck");
    await healthy.until(() => healthy.data.length === FILL.count);
    // It is registered still: nothing but `timeout` ends it.
    expect((await stage.state()).ended).toEqual([]);

    const { ended, stats } = await stage.until(({ stats }) => stats.clients === 1);
    expect(ended).toEqual([{ clientId: "stuck", reason: "timeout" }]);
    expect(stats).toMatchObject({ blocked: 0, disconnects: { timeout: 1 } });
    expect((await stage.publish("to the stuck one", "?id=stuck")).status).toBe(200);

    await stage.tell("flood", { count: 10 });
    await healthy.until(() => healthy.data.length === FILL.count + 10);
    expect(numbers(healthy)).toEqual([...upTo(FILL.count), ...upTo(10)]);
    expect(healthy.control("gap")).toEqual([]);
    healthy.leave();
    stuck.reset();
    await stage.until(({ stats, alive }) => stats.clients === 0 && alive === 0, true);
  });

  test("one that reads nothing for 0.9 × timeout, then a little, again and again, stays", async () => {
    const timeout = 3_000;
    const stage = await server.stage({ timeout, tolerance: 1, engine: { logBytes: 64 * MIB } });
    let stalled = Date.now();
    const client = await blocked(stage);
    for (let round = 0; round < 3; round++) {
      await new Promise((resolve) => setTimeout(resolve, stalled + 0.9 * timeout - Date.now()));
      // Progress is visible once about a third of the kernel's queue was read.
      const before = client.received;
      client.resume();
      await client.until(() => client.received > before + 2 * MIB);
      client.stall();
      stalled = Date.now();
      await stage.tell("flood", { count: 400, bytes: 10_000 });
    }
    expect((await stage.state()).ended).toEqual([]);
    client.resume();
    await client.until(() => client.data.length === FILL.count + 3 * 400);
    expect(numbers(client)).toEqual([...upTo(FILL.count), ...upTo(400), ...upTo(400), ...upTo(400)]);
    client.leave();
  });

  test("one that was disconnected and comes back gets what the log holds, and a gap that is exactly what it does not", async () => {
    const stage = await server.stage({ timeout: 300, tolerance: 1, engine: { logBytes: 4 * MIB } });
    const client = await blocked(stage);
    await stage.until(({ stats }) => stats.clients === 0);
    await stage.tell("flood", FILL);
    client.reset();
    const seen = numbers(client).length;

    const { stats } = await stage.state();
    const back = new SocketClient(server.url + stage.path("connect"), { "last-event-id": client.lastEventId ?? "" });
    await back.until(() => back.data.length === stats.log.events);
    const [gap] = back.control("gap");
    const data = JSON.parse(gap?.data ?? "{}");
    // Events are numbered from 0, positions from 1.
    const oldest = 2 * FILL.count - stats.log.events;
    const epoch = client.lastEventId?.split("-")[0];
    expect(data).toEqual({
      channels: ["fanwire-common"],
      after: client.lastEventId ?? `${epoch}-0`,
      through: `${epoch}-${oldest}`,
    });
    expect(gap?.id).toBe(data.through);
    expect(back.control("gap")).toHaveLength(1);
    expect(back.control("ready")[0]?.id).toBeUndefined();
    expect(numbers(back)).toEqual([...upTo(FILL.count), ...upTo(FILL.count)].slice(oldest));
    expect(seen).toBeLessThan(oldest);
    back.leave();
  });

  test("a report tells who has it and who is late", async () => {
    const stage = await server.stage({ timeout: 500, tolerance: 100 });
    const healthy = await new SocketClient(server.url + stage.path("connect?id=healthy")).ready();
    const stuck = await blocked(stage, "?id=stuck");
    const report = await stage.tell<{ sent: number; failed: { clientId: string; reason: string }[] }>("report");
    expect(report).toMatchObject({ sent: 1, failed: [{ clientId: "stuck", reason: "late" }] });
    healthy.leave();
    stuck.reset();
  });
});
