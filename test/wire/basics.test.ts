import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { type Server, startServer, withWrangler } from "../support/servers/server.ts";

describe.each(withWrangler)("over sockets on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test("connect: the head and fanwire-ready leave before any event, with the fields that proxies need", async () => {
    const stage = await server.stage();
    const client = await new SocketClient(server.url + stage.path("connect?id=a%20b")).ready();

    expect(client.status).toBe(200);
    expect(client.headers).toMatchObject({
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
      "x-content-type-options": "nosniff",
      "fanwire-client-id": "a%20b",
    });
    expect(client.retry).toBeGreaterThan(0);
    const [ready] = client.control("ready");
    expect(JSON.parse(ready?.data ?? "")).toEqual({ clientId: "a b", resumed: false });
    expect(ready?.id).toMatch(/^[0-9a-v]+-0$/);
    client.leave();
  });

  test("fetch: what is posted reaches every client, in order, once, each with its id", async () => {
    const stage = await server.stage();
    const clients = await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        new SocketClient(server.url + stage.path(`connect?channel=c${n % 2}`)).ready(),
      ),
    );
    const posted: string[] = [];
    for (let n = 0; n < 30; n++) {
      const answer = await stage.publish(`event ${n}`, n % 3 === 0 ? "?channel=c0&type=tick" : "");
      expect(answer.status).toBe(200);
      const { id, clients: count } = (await answer.json()) as { id: string; clients: number };
      expect(count).toBe(n % 3 === 0 ? 10 : 20);
      posted.push(id);
    }
    for (const [index, client] of clients.entries()) {
      const mine = posted.map((_, n) => n).filter((n) => n % 3 !== 0 || index % 2 === 0);
      await client.until(() => client.data.length >= mine.length);
      expect(client.events.slice(1)).toEqual(
        mine.map((n) => ({ id: posted[n], event: n % 3 === 0 ? "tick" : undefined, data: `event ${n}` })),
      );
      client.leave();
    }
  });

  test("connect: with Last-Event-ID a client gets what it missed and nothing twice", async () => {
    const stage = await server.stage();
    const first = await new SocketClient(server.url + stage.path("connect?id=me")).ready();
    await stage.publish("one");
    await first.until(() => first.data.length === 1);
    first.reset();
    await stage.publish("two");
    await stage.publish("mine", "?id=me");

    const second = new SocketClient(server.url + stage.path("connect?id=me"), {
      "last-event-id": first.lastEventId ?? "",
    });
    await second.until(() => second.data.length === 2);
    await stage.publish("four");
    await second.until(() => second.data.length === 3);
    expect(second.data).toEqual(["two", "mine", "four"]);
    expect(JSON.parse(second.control("ready")[0]?.data ?? "")).toEqual({ clientId: "me", resumed: true });
    expect(second.control("gap")).toEqual([]);
    second.leave();
  });

  test("HEAD: no stream, no client", async () => {
    const stage = await server.stage();
    const response = await fetch(server.url + stage.path("connect"), { method: "HEAD" });
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
    expect((await stage.state()).stats.clients).toBe(0);
  });

  test("fetch: a body over maxBodyBytes is 413 however it is sent, and the server goes on", async () => {
    const stage = await server.stage();
    const large = "x".repeat(65_537);
    expect((await stage.publish(large)).status).toBe(413);
    const streamed = await fetch(server.url + stage.path("broadcast"), {
      method: "POST",
      headers: { authorization: "Bearer secret" },
      body: new Blob([large]).stream(),
      duplex: "half",
    } as RequestInit);
    expect(streamed.status).toBe(413);
    expect((await stage.publish(large.slice(1))).status).toBe(200);
    expect(((await (await stage.publish("")).json()) as { detail: string }).detail).toBe("no event data provided");
  });
});
