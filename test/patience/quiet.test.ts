import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { platforms, type Server, startServer } from "../support/servers/server.ts";

const seconds = (count: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, count * 1000));

// All at the defaults, as a user would have them; all platforms wait at the same time.
describe("at the defaults", () => {
  let servers: Server[];
  beforeAll(async () => {
    servers = await Promise.all(platforms.map((platform) => startServer(platform)));
  });
  afterAll(() => {
    for (const server of servers ?? []) server.stop();
  });

  test.concurrent("a stream without a single event is open after 75 seconds, on every platform", async () => {
    await Promise.all(
      servers.map(async (server) => {
        const stage = await server.stage();
        const client = await new SocketClient(server.url + stage.path("connect")).ready();
        await seconds(75);
        await stage.publish("after a long silence");
        await client.until(() => client.data.length === 1);
        expect(client.comments, server.platform).toBeGreaterThanOrEqual(8);
        expect((await stage.state()).ended, server.platform).toEqual([]);
        client.leave();
      }),
    );
  });

  test.concurrent("a client that reads 50 kB a second is not disconnected and misses nothing, on every platform", async () => {
    await Promise.all(
      servers.map(async (server) => {
        const stage = await server.stage();
        const client = await new SocketClient(server.url + stage.path("connect")).ready();
        client.drip(50_000);
        // More than all buffers on the way hold, and less than the log.
        await stage.tell("flood", { count: 2_500, bytes: 10_000 });
        await stage.until(({ stats }) => stats.blocked === 1);
        // timeout × tolerance is 90 seconds.
        await seconds(110);
        const { ended, stats } = await stage.state();
        expect(ended, server.platform).toEqual([]);
        expect(stats.clients, server.platform).toBe(1);
        expect(client.received, server.platform).toBeLessThan(110 * 60_000);
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
