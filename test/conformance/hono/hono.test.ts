// `fanwire/hono`: the routes, through Hono's own test clients.
import { Hono } from "hono";
import { secureHeaders } from "hono/secure-headers";
import { testClient } from "hono/testing";
import { expect, test } from "vitest";
import { broadcast, connect, sse } from "../../../src/hono.ts";
import type { DisconnectReason } from "../../../src/index.ts";
import { Connection } from "../../support/clients/connection.ts";
import { post, withHonoBroker } from "../../support/hono-test-broker.ts";
import { problemOf, Recorder } from "../../support/test-broker.ts";

test(
  "sse(): GET /connect streams events posted to /broadcast, below its mount path",
  withHonoBroker(async (setup) => {
    const broker = setup.broker({ publishToken: "secret" });
    const app = new Hono().basePath("/api").route("/events", sse(broker));
    const client = await setup.join(app, "/api/events/connect?id=one&channel=news");
    expect([client.response.status, client.clientId]).toEqual([200, "one"]);
    expect(client.response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");

    const answer = await app.request(
      "/api/events/broadcast?channel=news&type=t",
      post("x", { authorization: "Bearer secret" }),
    );

    expect([answer.status, await answer.json()]).toEqual([200, { id: expect.any(String), clients: 1 }]);
    expect(await client.nextData()).toMatchObject({ event: "t", data: "x" });
  }),
);

test(
  "sse(): other paths are left to the app's notFound handler",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono().notFound((c) => c.text("of the app", 404)).route("/events", sse(broker));
    for (const path of [
      "/",
      "/connect",
      "/broadcast",
      "/events",
      "/events/",
      "/events/connect/",
      "/events/connect/x",
    ]) {
      const answer = await app.request(path);
      expect([path, answer.status, await answer.text()]).toEqual([path, 404, "of the app"]);
    }
    expect(broker.stats().failures).toEqual({});
  }),
);

test(
  "sse(): HEAD is answered like GET without a body, and registers no client",
  withHonoBroker(async (setup) => {
    const connected: unknown[] = [];
    const broker = setup.broker({ onConnect: (event) => connected.push(event) });
    const app = new Hono().route("/events", sse(broker));
    const answer = await app.request("/events/connect?id=one", { method: "HEAD" });
    expect([answer.status, answer.body, answer.headers.get("fanwire-client-id")]).toEqual([200, null, "one"]);
    expect([broker.stats().clients, connected]).toEqual([0, []]);
    const other = await app.request("/events/broadcast", { method: "HEAD" });
    expect([other.status, other.headers.get("allow")]).toEqual([405, "POST, OPTIONS"]);
  }),
);

test(
  "sse(): OPTIONS is 204 with Allow, and other methods are 405 with Allow",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono().route("/events", sse(broker));
    for (const [path, allow, others] of [
      ["/events/connect", "GET, HEAD, POST, OPTIONS", ["PUT", "DELETE", "PATCH"]],
      ["/events/broadcast", "POST, OPTIONS", ["GET", "PUT", "DELETE"]],
    ] as const) {
      const options = await app.request(path, { method: "OPTIONS" });
      expect([options.status, options.headers.get("allow")]).toEqual([204, allow]);
      for (const method of others) {
        const answer = await app.request(path, { method });
        expect([answer.status, answer.headers.get("allow"), await problemOf(answer)]).toEqual([
          405,
          allow,
          "method-not-allowed",
        ]);
      }
    }
  }),
);

test(
  "sse(): refuses every event while neither publishToken nor authorize is set, with any token",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono().route("/events", sse(broker));
    for (const headers of [{}, { authorization: "Bearer guess" }]) {
      const answer = await app.request("/events/broadcast", post("x", headers as Record<string, string>));
      expect([answer.status, await problemOf(answer)]).toEqual([403, "publishing-closed"]);
    }
    expect(broker.stats().published).toBe(0);
  }),
);

test(
  "sse(): asks for the broker's publishToken, and answers 401 without it",
  withHonoBroker(async (setup) => {
    const broker = setup.broker({ publishToken: "secret" });
    const app = new Hono().route("/events", sse(broker));
    const refused = await app.request("/events/broadcast", post("x"));
    expect([refused.status, refused.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
    expect(broker.stats().published).toBe(0);
    expect((await app.request("/events/broadcast", post("x", { authorization: "Bearer secret" }))).status).toBe(200);
  }),
);

test(
  "broadcast(): mounted by hand it needs no token, and authorize can close it",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono()
      .post("/open", broadcast(broker))
      .post("/closed", broadcast(broker, { authorize: () => false }));
    expect((await app.request("/open", post("x"))).status).toBe(200);
    expect((await app.request("/closed", post("x"))).status).toBe(403);
    expect(broker.stats().published).toBe(1);
  }),
);

test(
  "connect(): may be mounted at any path, and a path parameter can be the channel",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono().get(
      "/rooms/:room",
      connect(broker, { authorize: (c) => ({ channels: [c.req.param("room") ?? ""] }) }),
    );
    const client = await setup.join(app, "/rooms/a%20b");
    await broker.broadcast("elsewhere", { channels: "b" });
    await broker.broadcast("here", { channels: "a b" });
    expect((await client.nextData()).data).toBe("here");
    expect((await app.request("/rooms/a?channel=b")).status).toBe(403);
  }),
);

test(
  "connect(): resumes after Last-Event-ID, from the header and from the query",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono().route("/events", sse(broker));
    const id = (await setup.join(app, "/events/connect")).lastEventId ?? "";
    await broker.broadcast("missed");
    const byHeader = await setup.join(app, "/events/connect", { headers: { "last-event-id": id } });
    const byQuery = await setup.join(app, `/events/connect?lastEventId=${id}`);
    for (const client of [byHeader, byQuery]) expect((await client.nextData()).data).toBe("missed");
  }),
);

test(
  "connect(): a client that leaves is removed, after a cancel and after the request's signal",
  withHonoBroker(async (setup) => {
    const disconnects = new Recorder<{ reason: DisconnectReason }>();
    const broker = setup.broker({ onDisconnect: disconnects.record });
    const app = new Hono().use(secureHeaders()).route("/events", sse(broker));
    const [first, second] = [await setup.join(app, "/events/connect"), await setup.join(app, "/events/connect")];
    await first.leave();
    expect((await disconnects.next()).reason).toBe("client-left");
    second.abort();
    expect((await disconnects.next()).reason).toBe("client-left");
    expect(broker.stats().clients).toBe(0);
  }),
);

test(
  "connect(), broadcast(): Hono's testClient knows their paths and methods",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono().get("/events/connect", connect(broker)).post("/events/broadcast", broadcast(broker));
    const client = testClient(app);
    const connection = new Connection(
      (await client.events.connect.$get({}, { headers: { accept: "text/event-stream" } })) as unknown as Response,
      new AbortController(),
    );
    await connection.untilControl("ready");

    const answer = await client.events.broadcast.$post({}, { init: { body: "hello" } });

    expect([answer.status, await answer.json()]).toMatchObject([200, { clients: 1 }]);
    expect((await connection.nextData()).data).toBe("hello");
    await connection.leave();
  }),
);
