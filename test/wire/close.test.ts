// close() over sockets: how streams end, and how requests are answered afterwards.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { platforms, type Server, startServer } from "../support/servers/server.ts";

describe.each(platforms)("close() on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test("close(): every stream receives pending events and fanwire-end, a client that never reads is disconnected, and nothing is left", async () => {
    const broker = await server.createBroker({ timeout: 1_000, tolerance: 1_000, retry: 5_000 });
    const { timers } = await broker.state();
    const stuck = await new SocketClient(server.url + broker.path("connect?id=stuck")).untilReady();
    stuck.pause();
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => new SocketClient(server.url + broker.path("connect")).untilReady()),
    );
    await broker.control("flood", { count: 1_200, bytes: 10_000 });
    await broker.untilState(({ stats }) => stats.blocked === 1);

    // Not awaited, so the event is still pending when the broker closes.
    await broker.control("close", { spreadOver: 200, first: "the last word" });

    for (const client of clients) {
      await client.untilEnded();
      expect(client.ended).toBe("complete");
      expect(client.data).toHaveLength(1_201);
      expect(client.data.at(-1)).toBe("the last word");
      const last = client.events.at(-1);
      expect(last).toMatchObject({ event: "fanwire-end", id: undefined });
      expect(JSON.parse(last?.data ?? "")).toEqual({ reason: "closing", reconnect: true });
      expect(client.retry).toBeGreaterThanOrEqual(2_500);
    }
    expect(new Set(clients.map((client) => client.retry)).size).toBeGreaterThan(1);
    // Checked without waiting: nothing may happen after close() has resolved.
    const { stats, ended, timers: left } = await broker.state();
    expect(stats).toMatchObject({ clients: 0, ids: 0, blocked: 0, closing: 0, channels: 0 });
    expect(ended).toHaveLength(21);
    expect(new Set(ended.map(({ reason }) => reason))).toEqual(new Set(["closing"]));
    expect(left).toBeLessThanOrEqual(timers);
    stuck.reset();
    await broker.untilState(({ alive }) => alive === 0, true);
    await broker.control("close");
  });

  test("close({ force }): cuts short a close() that waits, with fanwire-end for clients that read, and nothing is left", async () => {
    const broker = await server.createBroker({ timeout: 3_600_000 });
    const stuck = await broker.join("?id=stuck");
    stuck.pause();
    const clients = await Promise.all(Array.from({ length: 5 }, () => broker.join()));
    await broker.control("flood", { count: 1_200, bytes: 10_000 });
    await broker.untilState(({ stats }) => stats.blocked === 1);
    for (const client of clients) await client.until(() => client.data.length === 1_200);
    await broker.control("close", { spreadOver: 3_600_000, background: true });

    await broker.control("close", { force: true });

    const { stats, ended } = await broker.state();
    expect(stats).toMatchObject({ clients: 0, ids: 0, blocked: 0, closing: 0, channels: 0 });
    expect(ended.map(({ reason }) => reason)).toEqual(Array.from({ length: 6 }, () => "closing"));
    for (const client of clients) {
      await client.untilEnded();
      expect(client.ended).toBe("complete");
      expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "closing", reconnect: true });
    }
    stuck.reset();
    await broker.untilState(({ alive }) => alive === 0, true);
  });

  test("close(): afterwards an EventSource receives fanwire-end with a retry time, and other requests are 503", async () => {
    const broker = await server.createBroker({ retry: 1_500 });
    await broker.control("close");
    const client = await new SocketClient(server.url + broker.path("connect")).untilEnded();
    expect([client.status, client.ended]).toEqual([200, "complete"]);
    expect(client.events).toEqual([
      { id: undefined, event: "fanwire-end", data: JSON.stringify({ reason: "closing", reconnect: true }) },
    ]);
    expect(client.retry).toBeGreaterThan(0);

    const plain = await fetch(server.url + broker.path("connect"));
    const event = await broker.publish("too late");
    for (const response of [plain, event]) {
      expect([response.status, response.headers.get("retry-after")]).toEqual([503, "2"]);
      expect(await response.json()).toMatchObject({ code: "closed", status: 503 });
    }
  });
});
