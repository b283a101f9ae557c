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
import { type AppEnv, honoScene, post, shown, watched } from "../../support/hono-test-broker.ts";
import { runtime } from "../../support/runtime.ts";
import { Witness } from "../../support/test-broker.ts";

// `fanwire/hono`: Hono's middleware around it, and the idle limit of Bun.

test(
  "cors() around it: its fields are on the stream, on errors and on the preflight",
  honoScene(async (stage) => {
    const broker = stage.broker();
    const app = new Hono()
      .use(cors({ origin: "https://app.test", credentials: true, exposeHeaders: ["fanwire-client-id"] }))
      .route("/events", sse(broker));
    const origin = { origin: "https://app.test" };
    const client = await stage.join(app, "/events/connect", { headers: origin });
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
  "cors of the broker: works through Hono, on the stream, on errors and on the preflight, once",
  honoScene(async (stage) => {
    const broker = stage.broker({ cors: { origins: ["https://app.test"] } });
    const origin = { origin: "https://app.test" };
    for (const app of [new Hono(), new Hono().use(cors({ origin: "https://app.test" }))]) {
      app.route("/events", sse(broker));
      const client = await stage.join(app, "/events/connect", { headers: origin });
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
  "cors() around it: to publish with cookies from another origin, the broker's own cors has to name it too",
  honoScene(async (stage) => {
    const origins = ["https://app.test"];
    const headers = { origin: "https://app.test", "sec-fetch-site": "cross-site", cookie: "session=1" };
    const publish = async (broker: Broker): Promise<number> => {
      const app = new Hono().use(cors({ origin: origins, credentials: true }));
      app.route("/events", sse(broker, { authorize: () => true }));
      return (await app.request("/events/broadcast", post("x", headers))).status;
    };
    expect(await publish(stage.broker())).toBe(403);
    expect(await publish(stage.broker({ cors: { origins, credentials: true } }))).toBe(200);
  }),
);

test(
  "bearerAuth() around it: nobody comes past it, and who does publishes where broadcast is mounted by hand",
  honoScene(async (stage) => {
    const broker = stage.broker();
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
    const client = await stage.join(app, "/events/connect", { headers });
    expect((await app.request("/publish", post("x", headers))).status).toBe(200);
    expect((await client.nextData()).data).toBe("x");
    // The guarded route still waits for a decision.
    expect((await app.request("/events/broadcast", post("x", headers))).status).toBe(403);
  }),
);

test(
  "timeout() around it: the stream outlives it",
  honoScene(async (stage) => {
    const broker = stage.broker();
    const app = new Hono().use(timeout(20)).route("/events", sse(broker));
    const client = await stage.join(app, "/events/connect");
    // Set later and for as long: when it fires, the other one would have.
    await new Promise((resolve) => setTimeout(resolve, 25));
    await broker.broadcast("after the timeout");
    expect((await client.nextData()).data).toBe("after the timeout");
    expect(client.response.status).toBe(200);
  }),
);

test(
  "timeout() around it: a client whose answer it took is not registered, or is gone at once",
  honoScene(async (stage) => {
    let decide = (): void => undefined;
    const decided = new Promise<boolean>((resolve) => {
      decide = () => resolve(true);
    });
    const left = new Witness<{ reason: DisconnectReason }>();
    const broker = stage.broker({ onDisconnect: left.see });
    const app = new Hono().use(timeout(5)).route("/events", sse(broker, { authorize: () => decided }));
    const answer = await app.request("/events/connect");
    expect(answer.status).toBe(504);

    decide();

    expect((await left.next()).reason).toBe("client-left");
    expect(broker.stats().clients).toBe(0);
  }),
);

test(
  "timeout() around it: an error that comes too late does not bother app.onError again",
  honoScene(async (stage) => {
    const { app, errors } = watched();
    let decide = (): void => undefined;
    const decided = new Promise<boolean>((resolve) => {
      decide = () => resolve(false);
    });
    const late = new Witness<string>();
    app.use(timeout(5));
    app.use(async (_c, next) => {
      await next();
      late.see("answered");
    });
    app.route("/events", sse<AppEnv>(stage.broker(), { authorize: () => decided }));
    expect((await app.request("/events/connect")).status).toBe(504);
    decide();
    await late.next();
    expect(shown(errors)).toEqual([[504, undefined]]);
  }),
);

test(
  "a middleware that fails behind the stream: a client whose stream nobody ever reads ends after a minute",
  honoScene(async (stage) => {
    const left = new Witness<{ reason: DisconnectReason }>();
    const broker = stage.broker({ timeout: 10, tolerance: 2, heartbeat: Infinity, onDisconnect: left.see });
    const app = new Hono()
      .onError((_error, c) => c.text("failed", 500))
      .use(async (_c, next) => {
        await next();
        throw new Error("behind the stream");
      });
    app.route("/events", sse(broker));
    const { setTimeout } = globalThis;
    const now = performance.now.bind(performance);
    let elapse = (): void => undefined;
    try {
      // The one timer of a minute, and the minute.
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
    expect((await left.next()).reason).toBe("timeout");
  }),
);

test(
  "compress() around it: the stream is not compressed, and each event can be read when it was published",
  honoScene(async (stage) => {
    const broker = stage.broker();
    // A filter that takes all: the stream's own `no-transform` is what forbids it then.
    for (const middleware of [compress(), compress({ threshold: 0, contentTypeFilter: () => true })]) {
      const app = new Hono().use(middleware).route("/events", sse(broker));
      const client = await stage.join(app, "/events/connect", { headers: { "accept-encoding": "gzip, deflate" } });
      expect(client.response.headers.get("content-encoding")).toBeNull();
      for (const data of ["one", "two", "three"]) {
        await broker.broadcast(data);
        expect((await client.nextData()).data).toBe(data);
      }
    }
  }),
);

test(
  "secureHeaders() and logger() around it: their fields are there, the stream's own stay, its end is not waited for",
  honoScene(async (stage) => {
    const lines: string[] = [];
    const broker = stage.broker();
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
    const client = await stage.join(app, "/events/connect?id=one");
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

/** A body that says nothing of its length. */
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
  "bodyLimit() before it: what it lets through is published whole, what it does not is 413",
  honoScene(async (stage) => {
    const broker = stage.broker();
    const app = new Hono()
      .get("/connect", connect(broker))
      .post("/publish", bodyLimit({ maxSize: 10 }), broadcast(broker));
    const client = await stage.join(app, "/connect");
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
    `a middleware that read the body by ${how}: it is published as it came`,
    honoScene(async (stage) => {
      const broker = stage.broker();
      const app = new Hono().get("/connect", connect(broker)).post(
        "/publish",
        async (c, next) => {
          await read(c);
          await next();
        },
        broadcast(broker, { authorize: (c, { request }) => c.req.raw.bodyUsed && !request.bodyUsed }),
      );
      const client = await stage.join(app, "/connect");
      const answer = await app.request("/publish?type=t", post(TEXT, { ...init, "idempotency-key": "k" }));
      expect(answer.status).toBe(200);
      expect(await client.nextData()).toMatchObject({ event: "t", data: TEXT });
      await app.request("/publish?type=t", post(TEXT, { ...init, "idempotency-key": "k" }));
      expect(broker.stats().published).toBe(1);
    }),
  );
}

test(
  "validator() before it: what it refuses is not published, what it takes is",
  honoScene(async (stage) => {
    const broker = stage.broker();
    const app = new Hono().get("/connect", connect(broker)).post(
      "/publish",
      validator("json", (value, c) => (typeof value.n === "number" ? value : c.text("no n", 422))),
      broadcast(broker),
    );
    const client = await stage.join(app, "/connect");
    const json = { "content-type": "application/json" };
    expect((await app.request("/publish", post('{"m":1}', json))).status).toBe(422);
    expect((await app.request("/publish", post("{", json))).status).toBe(400);
    expect((await app.request("/publish", post('{"n":1}', json))).status).toBe(200);
    expect((await client.nextData()).data).toBe('{"n":1}');
    expect(broker.stats().published).toBe(1);
  }),
);

test(
  "a middleware that took the body away: 500, nothing is published",
  honoScene(async (stage) => {
    const broker = stage.broker();
    const { app, errors } = watched();
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

/** As Bun's server is, so far as it matters. */
class FakeServer {
  readonly calls: [request: Request, seconds: number][] = [];
  timeout(request: Request, seconds: number): void {
    this.calls.push([request, seconds]);
  }
}

for (const [how, wrap] of [
  ["itself, as with `export default app`", (server: FakeServer): object => server],
  ["env.server, as with `app.fetch(request, { server })`", (server: FakeServer): object => ({ server })],
] as const) {
  test(
    `c.env is Bun's server ${how}: it is told of the very request, and only for a stream`,
    honoScene(async (stage) => {
      const server = new FakeServer();
      const broker = stage.broker({ heartbeat: 20_000, timeout: 1_000, tolerance: 1 });
      const app = new Hono().use(secureHeaders()).route("/events", sse(broker));
      const request = new Request("https://fanwire.test/events/connect");
      const answer = await app.request(request, undefined, wrap(server));
      await answer.body?.cancel();
      await app.request("/events/connect", { method: "HEAD" }, wrap(server));
      await app.request("/events/connect?channel=", {}, wrap(server));
      await app.request("/events/broadcast", post("x"), wrap(server));
      if (runtime === "workerd" && "server" in wrap(server)) expect(server.calls).toEqual([]);
      else {
        expect(server.calls).toEqual([[expect.anything(), 60]]);
        expect(server.calls[0]?.[0]).toBe(request);
      }
    }),
  );
}

test(
  "c.env: an env.server that is no server is left alone",
  honoScene(async (stage) => {
    const contexts: unknown[] = [];
    const app = new Hono<{ Bindings: object }>().route(
      "/events",
      sse<{ Bindings: object }>(stage.broker(), { authorize: (_c, { context }) => contexts.push(context) > 0 }),
    );
    const envs = [undefined, {}, { server: null }, { server: "10.0.0.1" }, { server: { timeout: 5 } }];
    for (const env of envs) await (await app.fetch(new Request("http://x/events/connect"), env)).body?.cancel();
    expect(contexts).toEqual(envs);
  }),
);

if (runtime === "workerd") {
  test(
    "c.env: a service binding called server, which seems to have every method, is not called",
    honoScene(async (stage) => {
      const called: unknown[] = [];
      const binding = new Proxy({}, { get: (_target, name) => () => called.push(name) });
      const env = { server: binding };
      const app = new Hono().route("/events", sse(stage.broker()));
      await stage.join(app, "/events/connect", {}, env);
      expect(called).toEqual([]);
    }),
  );
}
