// `fanwire/hono` inside Hono's middleware, and Bun's idle limit.
import { Hono } from "hono";
import { bearerAuth } from "hono/bearer-auth";
import { bodyLimit } from "hono/body-limit";
import { compress } from "hono/compress";
import { cors } from "hono/cors";
import { logger } from "hono/logger";
import { secureHeaders } from "hono/secure-headers";
import { timeout } from "hono/timeout";
import { validator } from "hono/validator";
import { expect, test } from "vitest";
import { broadcast, connect, sse } from "../../../src/hono.ts";
import type { Broker, DisconnectReason } from "../../../src/index.ts";
import {
  type AppEnv,
  createRecordingApp,
  post,
  statusesAndCodes,
  withHonoBroker,
} from "../../support/hono-test-broker.ts";
import { runtime } from "../../support/runtime.ts";
import { Recorder } from "../../support/test-broker.ts";

test(
  "cors(): its header fields are on the stream, on errors and on the preflight",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono()
      .use(cors({ origin: "https://app.test", credentials: true, exposeHeaders: ["fanwire-client-id"] }))
      .route("/events", sse(broker));
    const origin = { origin: "https://app.test" };
    const client = await setup.join(app, "/events/connect", { headers: origin });
    const refused = await app.request("/events/broadcast", post("x", origin));
    expect(refused.status).toBe(403);
    for (const { headers } of [client.response, refused]) {
      expect(headers.get("access-control-allow-origin")).toBe("https://app.test");
      expect(headers.get("access-control-allow-credentials")).toBe("true");
      expect(headers.get("vary")).toBe("Origin");
    }
    const preflight = await app.request("/events/connect", {
      method: "OPTIONS",
      headers: { ...origin, "access-control-request-method": "GET" },
    });
    expect([preflight.status, preflight.headers.get("access-control-allow-origin")]).toEqual([204, "https://app.test"]);
    await broker.broadcast("x");
    expect((await client.nextData()).data).toBe("x");
  }),
);

test(
  "cors of the broker: its header fields are on the stream, on errors and on the preflight, once each",
  withHonoBroker(async (setup) => {
    const broker = setup.broker({ cors: { origins: ["https://app.test"] } });
    const origin = { origin: "https://app.test" };
    for (const app of [new Hono(), new Hono().use(cors({ origin: "https://app.test" }))]) {
      app.route("/events", sse(broker));
      const client = await setup.join(app, "/events/connect", { headers: origin });
      const refused = await app.request("/events/broadcast", post("x", origin));
      const preflight = await app.request("/events/connect", {
        method: "OPTIONS",
        headers: { ...origin, "access-control-request-method": "GET" },
      });
      for (const { headers } of [client.response, refused, preflight])
        expect(headers.get("access-control-allow-origin")).toBe("https://app.test");
    }
  }),
);

test(
  "cors(): to publish with cookies from another origin, the broker's own cors must list it too",
  withHonoBroker(async (setup) => {
    const origins = ["https://app.test"];
    const headers = { origin: "https://app.test", "sec-fetch-site": "cross-site", cookie: "session=1" };
    const publish = async (broker: Broker): Promise<number> => {
      const app = new Hono().use(cors({ origin: origins, credentials: true }));
      app.route("/events", sse(broker, { authorize: () => true }));
      return (await app.request("/events/broadcast", post("x", headers))).status;
    };
    expect(await publish(setup.broker())).toBe(403);
    expect(await publish(setup.broker({ cors: { origins, credentials: true } }))).toBe(200);
  }),
);

test(
  "bearerAuth(): only requests with its token pass, and these may publish where broadcast() is mounted by hand",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono()
      .use(bearerAuth({ token: "secret" }))
      .route("/events", sse(broker))
      .post("/publish", broadcast(broker));
    const headers = { authorization: "Bearer secret" };
    for (const path of ["/events/connect", "/publish"]) {
      const answer = await app.request(path, path === "/publish" ? post("x") : {});
      expect([answer.status, answer.headers.get("www-authenticate")]).toEqual([401, expect.stringContaining("Bearer")]);
    }
    expect(broker.stats()).toMatchObject({ clients: 0, published: 0 });
    const client = await setup.join(app, "/events/connect", { headers });
    expect((await app.request("/publish", post("x", headers))).status).toBe(200);
    expect((await client.nextData()).data).toBe("x");
    // The route of sse() still asks for publishToken or authorize.
    expect((await app.request("/events/broadcast", post("x", headers))).status).toBe(403);
  }),
);

test(
  "timeout(): the stream outlives it",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono().use(timeout(20)).route("/events", sse(broker));
    const client = await setup.join(app, "/events/connect");
    // This timer starts later and is longer, so when it fires, the timeout would have fired too.
    await new Promise((resolve) => setTimeout(resolve, 25));
    await broker.broadcast("after the timeout");
    expect((await client.nextData()).data).toBe("after the timeout");
    expect(client.response.status).toBe(200);
  }),
);

test(
  "timeout(): a client whose response it replaced does not stay registered",
  withHonoBroker(async (setup) => {
    let decide = (): void => undefined;
    const decided = new Promise<boolean>((resolve) => {
      decide = () => resolve(true);
    });
    const disconnects = new Recorder<{ reason: DisconnectReason }>();
    const broker = setup.broker({ onDisconnect: disconnects.record });
    const app = new Hono().use(timeout(5)).route("/events", sse(broker, { authorize: () => decided }));
    const answer = await app.request("/events/connect");
    expect(answer.status).toBe(504);

    decide();

    expect((await disconnects.next()).reason).toBe("client-left");
    expect(broker.stats().clients).toBe(0);
  }),
);

test(
  "timeout(): a later error does not call app.onError again",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    let decide = (): void => undefined;
    const decided = new Promise<boolean>((resolve) => {
      decide = () => resolve(false);
    });
    const late = new Recorder<string>();
    app.use(timeout(5));
    app.use(async (_c, next) => {
      await next();
      late.record("answered");
    });
    app.route("/events", sse<AppEnv>(setup.broker(), { authorize: () => decided }));
    expect((await app.request("/events/connect")).status).toBe(504);
    decide();
    await late.next();
    expect(statusesAndCodes(errors)).toEqual([[504, undefined]]);
  }),
);

test(
  "a middleware that throws after next(): the client, whose stream is never read, is ended after a minute",
  withHonoBroker(async (setup) => {
    const disconnects = new Recorder<{ reason: DisconnectReason }>();
    const broker = setup.broker({ timeout: 10, tolerance: 2, heartbeat: Infinity, onDisconnect: disconnects.record });
    const app = new Hono()
      .onError((_error, c) => c.text("failed", 500))
      .use(async (_c, next) => {
        await next();
        throw new Error("after next()");
      });
    app.route("/events", sse(broker));
    const { setTimeout } = globalThis;
    const now = performance.now.bind(performance);
    let elapse = (): void => undefined;
    try {
      // Captures the timer of a minute, and then lets the minute pass.
      globalThis.setTimeout = ((task: () => void, ms: number) => {
        if (ms < 59_000) return setTimeout(task, ms);
        elapse = task;
        return 0;
      }) as typeof globalThis.setTimeout;
      expect((await app.request("/events/connect")).status).toBe(500);
      performance.now = () => now() + 60_000;
      elapse();
    } finally {
      globalThis.setTimeout = setTimeout;
      performance.now = now;
    }
    expect((await disconnects.next()).reason).toBe("timeout");
  }),
);

test(
  "compress(): the stream is not compressed, and each event can be read as soon as it is published",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    // With a filter that accepts every type, only the stream's own `no-transform` prevents compression.
    for (const middleware of [compress(), compress({ threshold: 0, contentTypeFilter: () => true })]) {
      const app = new Hono().use(middleware).route("/events", sse(broker));
      const client = await setup.join(app, "/events/connect", { headers: { "accept-encoding": "gzip, deflate" } });
      expect(client.response.headers.get("content-encoding")).toBeNull();
      for (const data of ["one", "two", "three"]) {
        await broker.broadcast(data);
        expect((await client.nextData()).data).toBe(data);
      }
    }
  }),
);

test(
  "secureHeaders(), logger(): add their header fields, keep those of the stream, and do not wait for its end",
  withHonoBroker(async (setup) => {
    const lines: string[] = [];
    const broker = setup.broker();
    const app = new Hono()
      .use(
        logger((line) => lines.push(line)),
        secureHeaders(),
      )
      .use(async (c, next) => {
        c.header("x-before", "1");
        await next();
        c.header("x-after", "2");
      })
      .route("/events", sse(broker));
    const client = await setup.join(app, "/events/connect?id=one");
    expect(Object.fromEntries(client.response.headers)).toMatchObject({
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
      "x-content-type-options": "nosniff",
      "fanwire-client-id": "one",
      "x-frame-options": "SAMEORIGIN",
      "x-before": "1",
      "x-after": "2",
    });
    expect(lines).toHaveLength(2);
    await broker.broadcast("x");
    expect((await client.nextData()).data).toBe("x");
  }),
);

/** A body without a length. */
const streamed = (text: string): RequestInit =>
  ({
    method: "POST",
    body: new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(text));
        controller.close();
      },
    }),
    duplex: "half",
  }) as RequestInit;

test(
  "bodyLimit(): a body within the limit is published completely, and a larger one is 413",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono()
      .get("/connect", connect(broker))
      .post("/publish", bodyLimit({ maxSize: 10 }), broadcast(broker));
    const client = await setup.join(app, "/connect");
    expect((await app.request("/publish", streamed("1234567890"))).status).toBe(200);
    expect((await app.request("/publish", streamed("12345678901"))).status).toBe(413);
    expect((await app.request("/publish", post("1234567890", { "content-length": "10" }))).status).toBe(200);
    expect((await app.request("/publish", post("12345678901", { "content-length": "11" }))).status).toBe(413);
    for (let n = 0; n < 2; n++) expect((await client.nextData()).data).toBe("1234567890");
    expect(broker.stats().published).toBe(2);
  }),
);

const TEXT = '{ "n": 1.0, "ü": "€\\n" }';
for (const [how, init, read] of [
  ["c.req.json()", { "content-type": "application/json" }, (c) => c.req.json()],
  ["c.req.text()", {}, (c) => c.req.text()],
  ["c.req.arrayBuffer()", {}, (c) => c.req.arrayBuffer()],
  ["c.req.blob()", {}, (c) => c.req.blob()],
  ["c.req.parseBody()", { "content-type": "application/x-www-form-urlencoded" }, (c) => c.req.parseBody()],
] as const satisfies readonly [string, Record<string, string>, (c: import("hono").Context) => Promise<unknown>][]) {
  test(
    `a middleware that read the body with ${how}: the event is published unchanged`,
    withHonoBroker(async (setup) => {
      const broker = setup.broker();
      const app = new Hono().get("/connect", connect(broker)).post(
        "/publish",
        async (c, next) => {
          await read(c);
          await next();
        },
        broadcast(broker, { authorize: (c, { request }) => c.req.raw.bodyUsed && !request.bodyUsed }),
      );
      const client = await setup.join(app, "/connect");
      const answer = await app.request("/publish?type=t", post(TEXT, { ...init, "idempotency-key": "k" }));
      expect(answer.status).toBe(200);
      expect(await client.nextData()).toMatchObject({ event: "t", data: TEXT });
      await app.request("/publish?type=t", post(TEXT, { ...init, "idempotency-key": "k" }));
      expect(broker.stats().published).toBe(1);
    }),
  );
}

test(
  "validator(): a body that it accepts is published, and one that it refuses is not",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = new Hono().get("/connect", connect(broker)).post(
      "/publish",
      validator("json", (value, c) => (typeof value.n === "number" ? value : c.text("no n", 422))),
      broadcast(broker),
    );
    const client = await setup.join(app, "/connect");
    const json = { "content-type": "application/json" };
    expect((await app.request("/publish", post('{"m":1}', json))).status).toBe(422);
    expect((await app.request("/publish", post("{", json))).status).toBe(400);
    expect((await app.request("/publish", post('{"n":1}', json))).status).toBe(200);
    expect((await client.nextData()).data).toBe('{"n":1}');
    expect(broker.stats().published).toBe(1);
  }),
);

test(
  "a middleware that read the raw body: 500, and no event is published",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const { app, errors } = createRecordingApp();
    app.post(
      "/publish",
      async (c, next) => {
        await c.req.raw.text();
        await next();
      },
      broadcast<AppEnv>(broker),
    );
    expect((await app.request("/publish", post("x"))).status).toBe(500);
    expect([errors.length, broker.stats().published]).toEqual([1, 0]);
  }),
);

/** The part of Bun's server that matters here. */
class FakeServer {
  readonly calls: [request: Request, seconds: number][] = [];
  timeout(request: Request, seconds: number): void {
    this.calls.push([request, seconds]);
  }
}

for (const [how, wrap] of [
  ["itself, with `export default app`", (server: FakeServer): object => server],
  ["env.server, with `app.fetch(request, { server })`", (server: FakeServer): object => ({ server })],
] as const) {
  test(
    `c.env is Bun's server, as ${how}: timeout() is called with the original request, and only for a stream`,
    withHonoBroker(async (setup) => {
      const server = new FakeServer();
      const broker = setup.broker({ heartbeat: 20_000, timeout: 1_000, tolerance: 1 });
      const app = new Hono().use(secureHeaders()).route("/events", sse(broker));
      const request = new Request("https://fanwire.test/events/connect");
      const answer = await app.request(request, undefined, wrap(server));
      await answer.body?.cancel();
      await app.request("/events/connect", { method: "HEAD" }, wrap(server));
      await app.request("/events/connect?channel=", {}, wrap(server));
      await app.request("/events/broadcast", post("x"), wrap(server));
      if (runtime === "workerd" && "server" in wrap(server)) expect(server.calls).toEqual([]);
      else {
        expect(server.calls).toEqual([[expect.anything(), 68]]);
        expect(server.calls[0]?.[0]).toBe(request);
      }
    }),
  );
}

test(
  "c.env: an env.server that is not a server is ignored",
  withHonoBroker(async (setup) => {
    const contexts: unknown[] = [];
    const app = new Hono<{ Bindings: object }>().route(
      "/events",
      sse<{ Bindings: object }>(setup.broker(), { authorize: (_c, { context }) => contexts.push(context) > 0 }),
    );
    const envs = [undefined, {}, { server: null }, { server: "10.0.0.1" }, { server: { timeout: 5 } }];
    for (const env of envs) await (await app.fetch(new Request("http://x/events/connect"), env)).body?.cancel();
    expect(contexts).toEqual(envs);
  }),
);

if (runtime === "workerd") {
  test(
    "c.env: a service binding named server, which appears to have every method, is not called",
    withHonoBroker(async (setup) => {
      const called: unknown[] = [];
      const binding = new Proxy({}, { get: (_target, name) => () => called.push(name) });
      const app = new Hono().route("/events", sse(setup.broker()));
      await setup.join(app, "/events/connect", {}, { server: binding });
      expect(called).toEqual([]);
    }),
  );
}
