import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { platforms, type Server, startServer } from "../support/servers/server.ts";

describe.each(platforms)("close() on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test("every stream ends with its reason and what was pending, the one that never reads is cut off, and nothing is left", async () => {
    const stage = await server.stage({ timeout: 1_000, tolerance: 1_000, retry: 5_000 });
    const { timers } = await stage.state();
    const stuck = await new SocketClient(server.url + stage.path("connect?id=stuck")).ready();
    stuck.stall();
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => new SocketClient(server.url + stage.path("connect")).ready()),
    );
    await stage.tell("flood", { count: 1_200, bytes: 10_000 });
    await stage.until(({ stats }) => stats.blocked === 1);

    // Published and not awaited: still pending when the broker closes.
    await stage.tell("close", { spreadOver: 200, first: "the last word" });

    for (const client of clients) {
      await client.end();
      expect(client.ended).toBe("complete");
      expect(client.data).toHaveLength(1_201);
      expect(client.data.at(-1)).toBe("the last word");
      const last = client.events.at(-1);
      expect(last).toMatchObject({ event: "fanwire-end", id: undefined });
      expect(JSON.parse(last?.data ?? "")).toEqual({ reason: "closing", reconnect: true });
      expect(client.retry).toBeGreaterThanOrEqual(2_500);
    }
    expect(new Set(clients.map((client) => client.retry)).size).toBeGreaterThan(1);
    // Nothing more comes after close() has resolved: no wait here.
    const { stats, ended, timers: left } = await stage.state();
    expect(stats).toMatchObject({ clients: 0, ids: 0, blocked: 0, closing: 0, channels: 0 });
    expect(ended).toHaveLength(21);
    expect(new Set(ended.map(({ reason }) => reason))).toEqual(new Set(["closing"]));
    expect(left).toBeLessThanOrEqual(timers);
    stuck.reset();
    await stage.until(({ alive }) => alive === 0, true);
    await stage.tell("close");
  });

  test("while closed: an EventSource is told to come back, everything else is 503", async () => {
    const stage = await server.stage({ retry: 1_500 });
    await stage.tell("close");
    const client = await new SocketClient(server.url + stage.path("connect")).end();
    expect([client.status, client.ended]).toEqual([200, "complete"]);
    expect(client.events).toEqual([
      { id: undefined, event: "fanwire-end", data: JSON.stringify({ reason: "closing", reconnect: true }) },
    ]);
    expect(client.retry).toBeGreaterThan(0);

    const plain = await fetch(server.url + stage.path("connect"));
    const event = await stage.publish("too late");
    for (const response of [plain, event]) {
      expect([response.status, response.headers.get("retry-after")]).toEqual([503, "2"]);
      expect(await response.json()).toMatchObject({ code: "closed", status: 503 });
    }
  });
});
