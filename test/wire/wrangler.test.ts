import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Server, startServer } from "../support/servers/server.ts";

// Its proxy notices that a client left a write later than workerd does, so the heartbeat after the next one finds out.
describe.each(["hub-bridge-wrangler", "hub-direct-wrangler"] as const)("clients that leave, on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test.each(["FIN", "RST"])("idle, by %s", async (how) => {
    const stage = await server.stage({ heartbeat: 100 });
    const clients = await Promise.all(Array.from({ length: 10 }, () => stage.join()));
    expect((await stage.state()).stats.clients).toBe(10);
    for (const client of clients) how === "FIN" ? client.leave() : client.reset();
    const { ended, stats } = await stage.until(({ stats }) => stats.clients === 0);
    expect(stats).toMatchObject({ ids: 0, blocked: 0, closing: 0, channels: 0 });
    expect(ended.map(({ reason }) => reason)).toEqual(Array.from({ length: 10 }, () => "client-left"));
  });
});
