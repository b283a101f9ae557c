// The basic use of a broker over sockets: connect, publish, resume, HEAD and the limit of a body.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { platformsWithWrangler, type Server, startServer } from "../support/servers/server.ts";

describe.each(platformsWithWrangler)("over sockets on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test("connect: the head and fanwire-ready are sent before any event, with the header fields that proxies need", async () => {
    const broker = await server.createBroker();
    const client = await new SocketClient(server.url + broker.path("connect?id=a%20b")).untilReady();

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
    expect(JSON.parse(ready?.data ?? "")).toEqual({
      clientId: "a b",
      resumed: false,
      channels: [],
      secret: expect.any(String),
      heartbeat: expect.any(Number),
    });
    expect(ready?.id).toMatch(/^[0-9a-v]+-0$/);
    client.leave();
  });

  test("broadcast: every posted event reaches every client once, in order, with its id", async () => {
    const broker = await server.createBroker();
    const clients = await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        new SocketClient(server.url + broker.path(`connect?channel=c${n % 2}`)).untilReady(),
      ),
    );
    const posted: string[] = [];
    for (let n = 0; n < 30; n++) {
      const answer = await broker.publish(`event ${n}`, n % 3 === 0 ? "?channel=c0&type=tick" : "");
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

  test("connect: ?last= starts each channel at its newest events, and anything but a number of its range is 400", async () => {
    const broker = await server.createBroker();
    for (const channel of ["a", "b", "a", "a"]) await broker.publish(`of ${channel}`, `?channel=${channel}`);
    const client = await new SocketClient(server.url + broker.path("connect?channel=a&channel=b&last=2")).untilReady();
    await client.until(() => client.data.length >= 3);
    await broker.publish("of a", "?channel=a");
    await client.until(() => client.data.length >= 4);
    expect(client.data).toEqual(["of b", "of a", "of a", "of a"]);
    expect(JSON.parse(client.control("ready")[0]?.data ?? "")).toMatchObject({ complete: false, incomplete: ["a"] });
    client.leave();
    for (const query of ["last=0", "last=1001", "last=x", "last=1&from=latest", "from=newest"])
      expect((await fetch(server.url + broker.path(`connect?${query}`))).status).toBe(400);
  });

  test("connect: with Last-Event-ID a client receives what it missed, and nothing twice", async () => {
    const broker = await server.createBroker();
    const first = await new SocketClient(server.url + broker.path("connect?id=me")).untilReady();
    await broker.publish("one");
    await first.until(() => first.data.length === 1);
    first.reset();
    await broker.publish("two");
    await broker.publish("mine", "?id=me");

    const second = new SocketClient(server.url + broker.path("connect?id=me"), {
      "last-event-id": first.lastEventId ?? "",
    });
    await second.until(() => second.data.length === 2);
    await broker.publish("four");
    await second.until(() => second.data.length === 3);
    expect(second.data).toEqual(["two", "mine", "four"]);
    expect(JSON.parse(second.control("ready")[0]?.data ?? "")).toEqual({
      clientId: "me",
      resumed: true,
      channels: [],
      secret: expect.any(String),
      heartbeat: expect.any(Number),
    });
    expect(second.control("gap")).toEqual([]);
    second.leave();
  });

  test("HEAD: opens no stream and registers no client", async () => {
    const broker = await server.createBroker();
    const response = await fetch(server.url + broker.path("connect"), { method: "HEAD" });
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
    expect((await broker.state()).stats.clients).toBe(0);
  });

  test("broadcast: a body over maxBodyBytes is 413 however it is sent, and the server keeps working", async () => {
    const broker = await server.createBroker();
    const large = "x".repeat(65_537);
    expect((await broker.publish(large)).status).toBe(413);
    const streamed = await fetch(server.url + broker.path("broadcast"), {
      method: "POST",
      headers: { authorization: "Bearer secret" },
      body: new Blob([large]).stream(),
      duplex: "half",
    } as RequestInit);
    expect(streamed.status).toBe(413);
    expect((await broker.publish(large.slice(1))).status).toBe(200);
    expect(((await (await broker.publish("")).json()) as { detail: string }).detail).toBe("no event data provided");
  });
});
