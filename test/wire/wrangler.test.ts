// Clients that leave behind the proxy of `wrangler dev`.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Server, startServer } from "../support/servers/server.ts";

// The proxy notices that a client left one write later than workerd does, so it takes one more heartbeat.
describe.each(["hub-bridge-wrangler", "hub-direct-wrangler"] as const)("clients that leave, on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test.each(["FIN", "RST"])("a client that leaves by %s while the stream is idle is noticed", async (how) => {
    const broker = await server.createBroker({ heartbeat: 100 });
    const clients = await Promise.all(Array.from({ length: 10 }, () => broker.join()));
    expect((await broker.state()).stats.clients).toBe(10);
    for (const client of clients) how === "FIN" ? client.leave() : client.reset();
    const { ended, stats } = await broker.untilState(({ stats }) => stats.clients === 0);
    expect(stats).toMatchObject({ ids: 0, blocked: 0, closing: 0, channels: 0 });
    expect(ended.map(({ reason }) => reason)).toEqual(Array.from({ length: 10 }, () => "client-left"));
  });
});
