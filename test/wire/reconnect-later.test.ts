// Requests that cannot be answered now. A program receives 503 with Retry-After. An EventSource never comes back after a 503, so it receives a
// stream that ends with a reconnection time.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { exchange, type HttpResponse, RawHttpClient } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem, expectReconnectLater } from "../support/http/problem.ts";
import { isHub, platformsWithWrangler, type Server, startServer, type TestBroker } from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";

const PUBLISHER = { authorization: "Bearer secret" };
const EVENT_SOURCE = { accept: "text/event-stream" };

describe.each(platformsWithWrangler)("requests that have to be repeated later, on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  const publish = (broker: TestBroker, body: string, headers: Record<string, string> = {}): Promise<HttpResponse> =>
    exchange(server.url, broker.path("broadcast"), { method: "POST", body, headers: { ...PUBLISHER, ...headers } });

  const engineTest = (title: string, body: () => Promise<void>): void =>
    test(title, skipIf(isHub(platform), "the engine of an object cannot be replaced from outside"), body);

  test("close(): an event is 503, a new client is asked to reconnect later, and open streams stay open until their turn", async () => {
    const broker = await server.createBroker({ retry: 100_000, heartbeat: 100 });
    const clients = [await broker.join(), await broker.join()] as const;
    // The first stream ends at once, the second in half an hour.
    await broker.control("close", { spreadOver: 3_600_000, background: true });
    await clients[0].untilEnded();
    expect(JSON.parse(clients[0].control("end")[0]?.data ?? "")).toEqual({ reason: "closing", reconnect: true });

    const event = await publish(broker, "too late");
    expectProblem(event, 503, "closed");
    // The body is not read first: one that never ends gets the same answer. A Worker has to ask its object, together with the event.
    if (!isHub(platform)) {
      const endless = new RawHttpClient(server.url);
      const headers = { ...PUBLISHER, "transfer-encoding": "chunked" };
      endless.send(broker.path("broadcast"), { method: "POST", headers });
      expectProblem(await endless.chunk("half an ev").response(), 503, "closed");
      await endless.close();
    }
    expect(event.headers["retry-after"]).toBe("100");
    const newClients = await Promise.all(
      Array.from({ length: 5 }, () =>
        broker.joinUntilEnded("?id=x", { "last-event-id": clients[0].lastEventId ?? "" }),
      ),
    );
    for (const newClient of newClients) expectReconnectLater(newClient, "closing", 100_000);
    expect(new Set(newClients.map(({ retry }) => retry)).size).toBeGreaterThan(1);
    expectProblem(await exchange(server.url, broker.path("connect")), 503, "closed");
    expectProblem(await exchange(server.url, broker.path("connect"), { headers: { accept: "*/*" } }), 503, "closed");

    const beats = clients[1].comments;
    await clients[1].until(({ comments }) => comments > beats);
    expect(clients[1].events).toHaveLength(1);
    expect((await broker.state()).stats).toMatchObject({ clients: 1, published: 0 });
    clients[1].leave();
  });

  test("close(): an event whose body is still arriving is 503, and a client that waits for authorize is asked to reconnect later", async () => {
    const broker = await server.createBroker({ authorize: "waits", retry: 5_000 });
    const client = new RawHttpClient(server.url);
    client.send(broker.path("broadcast"), {
      method: "POST",
      headers: { ...PUBLISHER, "transfer-encoding": "chunked" },
    });
    client.chunk("half an ev");
    const newClient = new SocketClient(server.url + broker.path("connect"));
    await broker.untilState(({ stats }) => stats.pending === 1);
    await broker.control("close");
    await broker.control("decide");
    expectProblem(await client.chunk("ent").chunk().response(), 503, "closed");
    expectReconnectLater(await newClient.untilEnded(), "closing", 5_000);
    expect((await broker.state()).stats.published).toBe(0);
    await client.close();
  });

  test("maxClients: a client is asked to reconnect later, or receives 503, until there is a free slot", async () => {
    const broker = await server.createBroker({ maxClients: 2, retry: 3_000, heartbeat: 100 });
    const clients = [await broker.join(), await broker.join()] as const;
    expectReconnectLater(await broker.joinUntilEnded(), "at-capacity", 3_000);
    const plain = await exchange(server.url, broker.path("connect"));
    expectProblem(plain, 503, "at-capacity");
    expect(plain.headers["retry-after"]).toBe("3");
    // Only connections are limited; publishing still works.
    expect((await publish(broker, "x")).status).toBe(200);

    clients[0].leave();
    await broker.untilState(({ stats }) => stats.clients === 1);
    const third = await broker.join();
    expectReconnectLater(await broker.joinUntilEnded(), "at-capacity", 3_000);
    expect((await broker.state()).connected).toBe(3);
    third.leave();
    clients[1].leave();
  });

  test("maxClients: a client without access receives 401 or 403, and does not learn that the broker is full", async () => {
    const broker = await server.createBroker({ maxClients: 1, authorize: "roles" });
    // None of these requests keeps a slot.
    for (let n = 0; n < 3; n++) {
      await exchange(server.url, broker.path("connect"), { headers: EVENT_SOURCE });
      await exchange(server.url, broker.path("connect?channel="), { headers: EVENT_SOURCE });
      await exchange(server.url, broker.path("connect"), {
        method: "HEAD",
        headers: { authorization: "Bearer reader" },
      });
    }
    const reader = await broker.join("", { authorization: "Bearer reader" });
    for (const accept of ["text/event-stream", "*/*"]) {
      const nobody = await exchange(server.url, broker.path("connect"), { headers: { accept } });
      expectProblem(nobody, 401, "unauthorized");
      const stranger = { accept, authorization: "Bearer stranger" };
      expectProblem(await exchange(server.url, broker.path("connect"), { headers: stranger }), 403, "forbidden");
    }
    expectReconnectLater(await broker.joinUntilEnded("", { authorization: "Bearer reader" }), "at-capacity", 2_000);
    reader.leave();
  });

  test("maxClients: a request that waits for authorize reserves a slot, and releases it", async () => {
    const broker = await server.createBroker({ maxClients: 1, authorize: "waits" });
    const waiting = new SocketClient(server.url + broker.path("connect?id=waiting"));
    await broker.untilState(({ stats }) => stats.pending === 1);
    const next = new SocketClient(server.url + broker.path("connect?id=next"));
    await broker.untilState(({ stats }) => stats.pending === 2);
    await broker.control("decide");
    const first = await Promise.any([waiting.untilReady(), next.untilReady()]);
    expectReconnectLater(await (first === next ? waiting : next).untilEnded(), "at-capacity", 2_000);
    first.leave();
  });

  test("maxClientsPerSubject and maxClientsPerId: bound one subject and one client id, and no other client", async () => {
    const broker = await server.createBroker({
      maxClientsPerSubject: 2,
      maxClientsPerId: 1,
      authorize: "named",
      heartbeat: 100,
    });
    const me = { "x-subject": "me" };
    const clients = [await broker.join("?id=a", me), await broker.join("?id=b", me)] as const;
    expectReconnectLater(await broker.joinUntilEnded("?id=c", me), "at-capacity", 2_000);
    expectProblem(await exchange(server.url, broker.path("connect?id=c"), { headers: me }), 503, "at-capacity");
    const other = await broker.join("?id=c", { "x-subject": "you" });
    expectReconnectLater(await broker.joinUntilEnded("?id=c"), "at-capacity", 2_000);
    clients[0].reset();
    await broker.untilState(({ stats }) => stats.clients === 2);
    const third = await broker.join("?id=d", me);
    for (const client of [clients[1], other, third]) client.leave();
  });

  test("maxPending: the first request over the limit is asked to reconnect later", async () => {
    const broker = await server.createBroker({ maxPending: 1, authorize: "waits", publishToken: null });
    const waiting = new SocketClient(server.url + broker.path("connect"));
    await broker.untilState(({ stats }) => stats.pending === 1);
    expectReconnectLater(await broker.joinUntilEnded(), "at-capacity", 2_000);
    expectProblem(await publish(broker, "x"), 503, "at-capacity");
    await broker.control("decide");
    await waiting.untilReady();
    expect((await publish(broker, "x")).status).toBe(200);
    waiting.leave();
  });

  test("authorizeTimeout: a client that waits too long is asked to reconnect later", async () => {
    const broker = await server.createBroker({ authorizeTimeout: 50, authorize: "waits", publishToken: null });
    expectReconnectLater(await broker.joinUntilEnded(), "authorize-timeout", 2_000);
    expectProblem(await publish(broker, "x"), 503, "authorize-timeout");
    expectProblem(await exchange(server.url, broker.path("connect")), 503, "authorize-timeout");
    expect((await broker.state()).connected).toBe(0);
  });

  engineTest(
    "engine-down: an event is 503, a new client is asked to reconnect later, and open streams continue when the engine is up again",
    async () => {
      const broker = await server.createBroker({ engine: { breakable: true }, heartbeat: 100 });
      const client = await broker.join();
      await broker.control("break", { append: "engine-down", subscribe: "engine-down" });
      expectProblem(await publish(broker, "lost"), 503, "engine-down");
      expectReconnectLater(await broker.joinUntilEnded(), "engine-down", 2_000);
      expectProblem(await exchange(server.url, broker.path("connect")), 503, "engine-down");
      const { comments } = client;
      await client.until((now) => now.comments > comments);
      const { stats, connected } = await broker.state();
      expect([stats.engine, stats.clients, stats.published, connected]).toEqual(["down", 1, 0, 1]);

      await broker.control("break", {});
      expect((await publish(broker, "back")).status).toBe(200);
      await client.until(({ data }) => data.length === 1);
      expect(client.data).toEqual(["back"]);
      const next = await broker.join();
      next.leave();
      client.leave();
    },
  );

  engineTest(
    "publish-outcome-unknown: an event is 503, and a repeat with the same idempotency key is not published twice",
    async () => {
      const broker = await server.createBroker({ engine: { breakable: true } });
      const client = await broker.join();
      await broker.control("break", { append: "publish-outcome-unknown" });
      const key = { "idempotency-key": "once" };
      expectProblem(await publish(broker, "once", key), 503, "publish-outcome-unknown");
      await broker.control("break", {});
      const again = await publish(broker, "once", key);
      expect(again.status).toBe(200);
      await publish(broker, "last");
      await client.until(({ data }) => data.includes("last"));
      expect(client.data).toEqual(["once", "last"]);
      expect(JSON.parse(again.body).id).toBe(client.events.find(({ data }) => data === "once")?.id);
      client.leave();
    },
  );

  engineTest("internal: an unexpected error is 500, goes to onError, and its text is sent to no client", async () => {
    const broker = await server.createBroker({ engine: { breakable: true } });
    await broker.control("break", { append: "inner", subscribe: "inner" });
    expectProblem(await publish(broker, "x"), 500, "internal");
    expectProblem(await exchange(server.url, broker.path("connect"), { headers: EVENT_SOURCE }), 500, "internal");
    const { errors } = await broker.state();
    expect(errors).toEqual([expect.stringMatching(/^request: .*inner/), expect.stringMatching(/^request: .*inner/)]);
  });
});
