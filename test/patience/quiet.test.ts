// Streams at the defaults, over minutes: one without events, and one that is read slowly.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { platforms, type Server, startServer } from "../support/servers/server.ts";

const waitSeconds = (count: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, count * 1000));

// All platforms wait at the same time.
describe("with default options", () => {
  let servers: Server[];
  beforeAll(async () => {
    servers = await Promise.all(platforms.map((platform) => startServer(platform)));
  });
  afterAll(() => {
    for (const server of servers ?? []) server.stop();
  });

  test.concurrent("heartbeat: a stream without events is open after 75 seconds, on every platform", async () => {
    await Promise.all(
      servers.map(async (server) => {
        const broker = await server.createBroker();
        const client = await new SocketClient(server.url + broker.path("connect")).untilReady();
        await waitSeconds(75);
        await broker.publish("after a long silence");
        await client.until(() => client.data.length === 1);
        expect(client.comments, server.platform).toBeGreaterThanOrEqual(8);
        expect((await broker.state()).ended, server.platform).toEqual([]);
        client.leave();
      }),
    );
  });

  test.concurrent("timeout: a client that reads 50 kB/s is not disconnected and misses nothing, on every platform", async () => {
    await Promise.all(
      servers.map(async (server) => {
        const broker = await server.createBroker();
        const client = await new SocketClient(server.url + broker.path("connect")).untilReady();
        client.readSlowly(50_000);
        // More than all buffers on the way hold, and less than the log holds.
        await broker.control("flood", { count: 2_500, bytes: 10_000 });
        await broker.untilState(({ stats }) => stats.blocked === 1);
        // timeout × tolerance is 90 seconds.
        await waitSeconds(110);
        const { ended, stats } = await broker.state();
        expect(ended, server.platform).toEqual([]);
        expect(stats.clients, server.platform).toBe(1);
        expect(client.receivedBytes, server.platform).toBeLessThan(110 * 60_000);
        client.resume();
        await client.until(() => client.data.length === 2_500);
        expect(client.data.map((data) => Number.parseInt(data, 10))).toEqual(
          Array.from({ length: 2_500 }, (_, n) => n),
        );
        expect(client.control("gap"), server.platform).toEqual([]);
        client.leave();
      }),
    );
  });
});
