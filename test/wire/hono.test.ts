// fanwire/hono over sockets: an app with common middleware on every runtime.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { type HonoServer, honoPlatforms, startHonoServer } from "../support/servers/hono-server.ts";
import { ON_ITS_OWN } from "../support/servers/server.ts";

describe.each(honoPlatforms)("fanwire/hono over sockets on %s", (platform) => {
  let server: HonoServer;
  beforeAll(async () => {
    server = await startHonoServer(platform);
  });
  afterAll(() => server?.stop());

  const connect = (user: string, headers: Record<string, string> = {}): Promise<SocketClient> =>
    new SocketClient(`${server.url}/events/connect?user=${user}`, headers).untilReady();

  test("sse(): behind compress(), cors(), secureHeaders() and timeout() the stream is not compressed and has their header fields", async () => {
    const client = await connect("fields", { "accept-encoding": "gzip, deflate, br", origin: "https://app.test" });
    expect([client.status, client.headers["content-encoding"]]).toEqual([200, undefined]);
    expect(client.headers).toMatchObject({
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
      "x-frame-options": "SAMEORIGIN",
      "access-control-allow-origin": "*",
      "fanwire-client-id": "fields",
    });
    client.leave();
  });

  test("sse(): each event arrives before the next one is published, at a client that accepts gzip", async () => {
    const client = await connect("one-by-one", { "accept-encoding": "gzip" });
    for (const data of ["one", "two", "three"]) {
      expect((await server.publish(data, "/events/broadcast?channel=news")).status).toBe(200);
      await client.until(() => client.data.at(-1) === data);
    }
    expect(client.data).toEqual(["one", "two", "three"]);
    client.leave();
  });

  test("sse(): a stream outlives timeout(), and heartbeats continue after it", async () => {
    const client = await connect("patient");
    await client.until(() => client.comments >= 4);
    await server.publish("still there");
    await client.until(() => client.data.includes("still there"));
    client.leave();
  });

  test("sse(): a client that leaves is noticed", async () => {
    for (const leave of ["leave", "reset"] as const) {
      const client = await connect(leave);
      client[leave]();
      const { ended } = await server.until(({ ended }) => ended.some(({ clientId }) => clientId === leave));
      expect(ended.find(({ clientId }) => clientId === leave)?.reason).toBe("client-left");
    }
  });

  test("sse(): HEAD, 403, 404 and 405 are answered, errors as problem details", async () => {
    const path = `${server.url}/events/connect`;
    const before = (await server.until(() => true)).clients;
    const head = await fetch(`${path}?user=head`, { method: "HEAD", headers: { ...ON_ITS_OWN } });
    expect([head.status, head.headers.get("fanwire-client-id")]).toEqual([200, "head"]);
    // workerd compresses what compress() has already compressed.
    const headers = { "accept-encoding": "identity", ...ON_ITS_OWN };
    const refused = await Promise.all([
      fetch(`${server.url}/events/broadcast`, { method: "POST", body: "x", headers }),
      fetch(path, { headers }),
      fetch(`${path}?user=me&id=other`, { headers }),
      fetch(`${path}?user=me`, { method: "PUT", body: "x", headers }),
    ]);
    const answers = refused.map(async (answer) => [answer.status, ((await answer.json()) as { code: string }).code]);
    expect(await Promise.all(answers)).toEqual([
      [403, "forbidden"],
      [403, "forbidden"],
      [403, "forbidden"],
      [405, "method-not-allowed"],
    ]);
    expect(refused.map(({ headers }) => headers.get("content-type"))).toEqual(
      Array(4).fill("application/problem+json"),
    );
    expect((await fetch(`${path}/x`)).status).toBe(404);
    expect((await server.until(() => true)).clients).toBe(before);
  });

  test("broadcast(): behind a validator that has read the body, publishes the body unchanged", async () => {
    const client = await connect("validated");
    const publish = (body: string): Promise<Response> =>
      fetch(`${server.url}/validated`, { method: "POST", body, headers: { "content-type": "application/json" } });
    expect((await publish("{")).status).toBe(400);
    expect((await publish('{ "n": 1.0, "ü": "€" }')).status).toBe(200);
    await client.until(() => client.data.length === 1);
    expect(client.data).toEqual(['{ "n": 1.0, "ü": "€" }']);
    client.leave();
  });

  test("no error was reported in the background", async () => {
    expect((await server.until(() => true)).errors).toEqual([]);
    expect(server.output).not.toMatch(/error/i);
  });
});

test.concurrent.each(["bun", "bun-env"] as const)(
  "fanwire/hono on %s: a stream that is idle for six times the server's idle limit stays open",
  async (platform) => {
    const server = await startHonoServer(platform, { HEARTBEAT: "6000" });
    try {
      const client = await new SocketClient(`${server.url}/events/connect?user=quiet`).untilReady();
      await client.until(() => client.comments === 1);
      await server.publish("afterwards");
      await client.until(() => client.data.length === 1);
      client.leave();
    } finally {
      server.stop();
    }
  },
);
