import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Answer, exchange, PlainClient } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem, expectToldToComeBack } from "../support/http/problem.ts";
import { isHub, type Server, type Stage, startServer, withWrangler } from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";

// What cannot be answered now: 503 with a time for a program, and for an EventSource, which never comes back after a 503, a stream that
// ends with the time to come back.

const PUBLISHER = { authorization: "Bearer secret" };
const EVENT_SOURCE = { accept: "text/event-stream" };

describe.each(withWrangler)("not now, on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  const publish = (stage: Stage, body: string, headers: Record<string, string> = {}): Promise<Answer> =>
    exchange(server.url, stage.path("broadcast"), { method: "POST", body, headers: { ...PUBLISHER, ...headers } });

  const engineTest = (title: string, body: () => Promise<void>): void =>
    test(title, skipIf(isHub(platform), "the engine of an object cannot be replaced from outside"), body);

  test("draining: an event is 503, a client is told to come back, and who is still there is kept until its turn", async () => {
    const stage = await server.stage({ retry: 100_000, heartbeat: 100 });
    const clients = [await stage.join(), await stage.join()] as const;
    // The first leaves at once, the second in half an hour.
    await stage.tell("close", { spreadOver: 3_600_000, background: true });
    await clients[0].end();
    expect(JSON.parse(clients[0].control("end")[0]?.data ?? "")).toEqual({ reason: "closing", reconnect: true });

    const event = await publish(stage, "too late");
    expectProblem(event, 503, "closed");
    // It is not read first: a body that never ends gets the same. A Worker has to ask its object, with the event.
    if (!isHub(platform)) {
      const endless = new PlainClient(server.url);
      const headers = { ...PUBLISHER, "transfer-encoding": "chunked" };
      endless.ask(stage.path("broadcast"), { method: "POST", headers });
      expectProblem(await endless.chunk("half an ev").answer(), 503, "closed");
      await endless.leave();
    }
    expect(event.headers["retry-after"]).toBe("100");
    const comers = await Promise.all(
      Array.from({ length: 5 }, () => stage.knock("?id=x", { "last-event-id": clients[0].lastEventId ?? "" })),
    );
    for (const comer of comers) expectToldToComeBack(comer, "closing", 100_000);
    expect(new Set(comers.map(({ retry }) => retry)).size).toBeGreaterThan(1);
    expectProblem(await exchange(server.url, stage.path("connect")), 503, "closed");
    expectProblem(await exchange(server.url, stage.path("connect"), { headers: { accept: "*/*" } }), 503, "closed");

    const beats = clients[1].comments;
    await clients[1].until(({ comments }) => comments > beats);
    expect(clients[1].events).toHaveLength(1);
    expect((await stage.state()).stats).toMatchObject({ clients: 1, published: 0 });
    clients[1].leave();
  });

  test("draining: an event whose body was on its way is 503, a client that waits for authorize is told to come back", async () => {
    const stage = await server.stage({ authorize: "waits", retry: 5_000 });
    const client = new PlainClient(server.url);
    client.ask(stage.path("broadcast"), { method: "POST", headers: { ...PUBLISHER, "transfer-encoding": "chunked" } });
    client.chunk("half an ev");
    const comer = new SocketClient(server.url + stage.path("connect"));
    await stage.until(({ stats }) => stats.pending === 1);
    await stage.tell("close");
    await stage.tell("decide");
    expectProblem(await client.chunk("ent").chunk().answer(), 503, "closed");
    expectToldToComeBack(await comer.end(), "closing", 5_000);
    expect((await stage.state()).stats.published).toBe(0);
    await client.leave();
  });

  test("at capacity: a client is told to come back, or 503, until there is room", async () => {
    const stage = await server.stage({ maxClients: 2, retry: 3_000, heartbeat: 100 });
    const clients = [await stage.join(), await stage.join()] as const;
    expectToldToComeBack(await stage.knock(), "at-capacity", 3_000);
    const plain = await exchange(server.url, stage.path("connect"));
    expectProblem(plain, 503, "at-capacity");
    expect(plain.headers["retry-after"]).toBe("3");
    // Reading is full; publishing is not.
    expect((await publish(stage, "x")).status).toBe(200);

    clients[0].leave();
    await stage.until(({ stats }) => stats.clients === 1);
    const third = await stage.join();
    expectToldToComeBack(await stage.knock(), "at-capacity", 3_000);
    expect((await stage.state()).connected).toBe(3);
    third.leave();
    clients[1].leave();
  });

  test("at capacity: who is not allowed is told so, and not that it is full", async () => {
    const stage = await server.stage({ maxClients: 1, authorize: "roles" });
    // None of these keeps a place.
    for (let n = 0; n < 3; n++) {
      await exchange(server.url, stage.path("connect"), { headers: EVENT_SOURCE });
      await exchange(server.url, stage.path("connect?channel="), { headers: EVENT_SOURCE });
      await exchange(server.url, stage.path("connect"), {
        method: "HEAD",
        headers: { authorization: "Bearer reader" },
      });
    }
    const reader = await stage.join("", { authorization: "Bearer reader" });
    for (const accept of ["text/event-stream", "*/*"]) {
      const nobody = await exchange(server.url, stage.path("connect"), { headers: { accept } });
      expectProblem(nobody, 401, "unauthorized");
      const stranger = { accept, authorization: "Bearer stranger" };
      expectProblem(await exchange(server.url, stage.path("connect"), { headers: stranger }), 403, "forbidden");
    }
    expectToldToComeBack(await stage.knock("", { authorization: "Bearer reader" }), "at-capacity", 2_000);
    reader.leave();
  });

  test("at capacity: those who wait for authorize take a place, and give it back", async () => {
    const stage = await server.stage({ maxClients: 1, authorize: "waits" });
    const waiting = new SocketClient(server.url + stage.path("connect?id=waiting"));
    await stage.until(({ stats }) => stats.pending === 1);
    const next = new SocketClient(server.url + stage.path("connect?id=next"));
    await stage.until(({ stats }) => stats.pending === 2);
    await stage.tell("decide");
    const first = await Promise.any([waiting.ready(), next.ready()]);
    expectToldToComeBack(await (first === next ? waiting : next).end(), "at-capacity", 2_000);
    first.leave();
  });

  test("at capacity: maxClientsPerSubject and maxClientsPerId bound one subject and one id, and nobody else", async () => {
    const stage = await server.stage({
      maxClientsPerSubject: 2,
      maxClientsPerId: 1,
      authorize: "named",
      heartbeat: 100,
    });
    const me = { "x-subject": "me" };
    const clients = [await stage.join("?id=a", me), await stage.join("?id=b", me)] as const;
    expectToldToComeBack(await stage.knock("?id=c", me), "at-capacity", 2_000);
    expectProblem(await exchange(server.url, stage.path("connect?id=c"), { headers: me }), 503, "at-capacity");
    const other = await stage.join("?id=c", { "x-subject": "you" });
    expectToldToComeBack(await stage.knock("?id=c"), "at-capacity", 2_000);
    clients[0].reset();
    await stage.until(({ stats }) => stats.clients === 2);
    const third = await stage.join("?id=d", me);
    for (const client of [clients[1], other, third]) client.leave();
  });

  test("maxPending: one more request that waits for authorize is told to come back", async () => {
    const stage = await server.stage({ maxPending: 1, authorize: "waits", publishToken: null });
    const waiting = new SocketClient(server.url + stage.path("connect"));
    await stage.until(({ stats }) => stats.pending === 1);
    expectToldToComeBack(await stage.knock(), "at-capacity", 2_000);
    expectProblem(await publish(stage, "x"), 503, "at-capacity");
    await stage.tell("decide");
    await waiting.ready();
    expect((await publish(stage, "x")).status).toBe(200);
    waiting.leave();
  });

  test("authorize-timeout: who waits too long is told to come back", async () => {
    const stage = await server.stage({ authorizeTimeout: 50, authorize: "waits", publishToken: null });
    expectToldToComeBack(await stage.knock(), "authorize-timeout", 2_000);
    expectProblem(await publish(stage, "x"), 503, "authorize-timeout");
    expectProblem(await exchange(server.url, stage.path("connect")), 503, "authorize-timeout");
    expect((await stage.state()).connected).toBe(0);
  });

  engineTest(
    "engine-down: 503 for an event, a client is told to come back, open streams stay and go on when it is up",
    async () => {
      const stage = await server.stage({ engine: { breakable: true }, heartbeat: 100 });
      const client = await stage.join();
      await stage.tell("break", { append: "engine-down", subscribe: "engine-down" });
      expectProblem(await publish(stage, "lost"), 503, "engine-down");
      expectToldToComeBack(await stage.knock(), "engine-down", 2_000);
      expectProblem(await exchange(server.url, stage.path("connect")), 503, "engine-down");
      const { comments } = client;
      await client.until((now) => now.comments > comments);
      const { stats, connected } = await stage.state();
      expect([stats.engine, stats.clients, stats.published, connected]).toEqual(["down", 1, 0, 1]);

      await stage.tell("break", {});
      expect((await publish(stage, "back")).status).toBe(200);
      await client.until(({ data }) => data.length === 1);
      expect(client.data).toEqual(["back"]);
      const next = await stage.join();
      next.leave();
      client.leave();
    },
  );

  engineTest("publish-outcome-unknown: 503, and the same key sent again does not double the event", async () => {
    const stage = await server.stage({ engine: { breakable: true } });
    const client = await stage.join();
    await stage.tell("break", { append: "publish-outcome-unknown" });
    const key = { "idempotency-key": "once" };
    expectProblem(await publish(stage, "once", key), 503, "publish-outcome-unknown");
    await stage.tell("break", {});
    const again = await publish(stage, "once", key);
    expect(again.status).toBe(200);
    await publish(stage, "last");
    await client.until(({ data }) => data.includes("last"));
    expect(client.data).toEqual(["once", "last"]);
    expect(JSON.parse(again.body).id).toBe(client.events.find(({ data }) => data === "once")?.id);
    client.leave();
  });

  engineTest("internal: an error of the inside is 500, goes to onError, and none of its text to anybody", async () => {
    const stage = await server.stage({ engine: { breakable: true } });
    await stage.tell("break", { append: "inner", subscribe: "inner" });
    expectProblem(await publish(stage, "x"), 500, "internal");
    expectProblem(await exchange(server.url, stage.path("connect"), { headers: EVENT_SOURCE }), 500, "internal");
    const { errors } = await stage.state();
    expect(errors).toEqual([expect.stringMatching(/^request: .*inner/), expect.stringMatching(/^request: .*inner/)]);
  });
});
