import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { platforms, type Server, type Stage, startServer } from "../support/servers/server.ts";

// workerd notices a client that left only when it writes to it, so the heartbeat is what finds out.
const OPTIONS = { heartbeat: 100 };

describe.each(platforms)("clients that leave, on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  /** Nobody is registered, no timer runs, and none of the connections is in memory any more. */
  async function expectNothingLeft(stage: Stage, connections: number, idleTimers: number): Promise<void> {
    const state = await stage.until(
      ({ stats, alive, timers }) => stats.clients === 0 && alive === 0 && timers <= idleTimers,
      true,
    );
    expect(state.stats).toMatchObject({ clients: 0, ids: 0, blocked: 0, closing: 0, channels: 0 });
    expect(state.ended).toHaveLength(connections);
    expect(new Set(state.ended.map(({ reason }) => reason))).toEqual(new Set(["client-left"]));
    expect(state.errors).toEqual([]);
  }

  const ways = {
    FIN: (client: SocketClient) => client.leave(),
    RST: (client: SocketClient) => client.reset(),
  };

  describe.each(Object.keys(ways) as (keyof typeof ways)[])("by %s", (way) => {
    const go = ways[way];

    test("idle", async () => {
      const stage = await server.stage(OPTIONS);
      const { timers } = await stage.state();
      const clients = await Promise.all(
        Array.from({ length: 10 }, () => new SocketClient(server.url + stage.path("connect")).ready()),
      );
      expect((await stage.state()).stats.clients).toBe(10);
      clients.forEach(go);
      await expectNothingLeft(stage, 10, timers);
    });

    test("busy", async () => {
      const stage = await server.stage(OPTIONS);
      const { timers } = await stage.state();
      const clients = await Promise.all(
        Array.from({ length: 10 }, () => new SocketClient(server.url + stage.path("connect")).ready()),
      );
      await stage.tell("flood", { count: 200_000, bytes: 100, background: true });
      await Promise.all(clients.map((client) => client.until(() => client.data.length > 100)));
      clients.forEach(go);
      await stage.tell("flooded");
      await expectNothingLeft(stage, 10, timers);
    });

    test("before the first byte", async () => {
      const stage = await server.stage(OPTIONS);
      const { timers } = await stage.state();
      for (let n = 0; n < 10; n++) {
        const client = new SocketClient(server.url + stage.path("connect"));
        // The request is on its way; nothing was read.
        await new Promise<void>((resolve) => client.socket.once("connect", resolve));
        go(client);
      }
      // Some runtimes never call the handler for a socket that is gone, so how many were registered is open.
      const { ended } = await stage.until(
        ({ stats, alive, timers: now }) => stats.clients === 0 && alive === 0 && now <= timers,
        true,
      );
      for (const { reason } of ended) expect(reason).toBe("client-left");
    });

    test("during the replay", async () => {
      const stage = await server.stage(OPTIONS);
      const { timers } = await stage.state();
      await stage.tell("flood", { count: 1_000, bytes: 20_000 });
      const clients = Array.from(
        { length: 5 },
        () => new SocketClient(server.url + stage.path("connect?from=earliest")),
      );
      await Promise.all(clients.map((client) => client.until(() => client.data.length > 10)));
      for (const client of clients) client.stall();
      expect((await stage.state()).stats.clients).toBe(5);
      clients.forEach(go);
      await expectNothingLeft(stage, 5, timers);
    });
  });

  test("one that left is replaced by another of the same id, whose stream goes on", async () => {
    const stage = await server.stage(OPTIONS);
    const first = await new SocketClient(server.url + stage.path("connect?id=same")).ready();
    const second = await new SocketClient(server.url + stage.path("connect?id=same")).ready();
    first.reset();
    await stage.until(({ stats }) => stats.clients === 1);
    expect((await stage.publish("still here", "?id=same")).status).toBe(200);
    await second.until(() => second.data.includes("still here"));
    second.leave();
    await stage.until(({ stats }) => stats.clients === 0);
  });
});
