// Bun's idle timeout: `server.timeout(request, 4)` or less closes a stream after 4 s at the latest, also one that is written to.
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Server, startServer } from "../support/servers/server.ts";

let server: Server;
beforeAll(async () => {
  server = await startServer("bun");
});
afterAll(() => server.stop());

test("heartbeat and timeout of 500 ms: a client that reads stays connected on Bun", async () => {
  const broker = await server.createBroker({ heartbeat: 500, timeout: 500, tolerance: 1 });
  const client = await broker.join();
  // Ten heartbeats take 5 s.
  await client.until(() => client.comments >= 11);
  expect((await broker.state()).stats.clients).toBe(1);
  client.reset();
});
