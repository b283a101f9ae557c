// `fanwire/hono`: errors, and which handler answers them.
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { expect, test } from "vitest";
import { broadcast, sse } from "../../../src/hono.ts";
import { BrokerError } from "../../../src/index.ts";
import {
  type AppEnv,
  createRecordingApp,
  post,
  statusesAndCodes,
  withHonoBroker,
} from "../../support/hono-test-broker.ts";

test(
  "app.onError: receives an HTTPException whose cause is the BrokerError",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    const broker = setup.broker({ publishToken: "secret", maxBodyBytes: 10 });
    app.route("/events", sse<AppEnv>(broker)).post("/publish", broadcast<AppEnv>(broker));
    await app.request("/events/connect?channel=");
    await app.request("/events/connect", { method: "PUT" });
    await app.request("/events/broadcast", post("x"));
    await app.request("/publish", post(""));
    await app.request("/publish", post("12345678901"));
    await app.request("/publish?id=nobody", post("x"));
    expect(statusesAndCodes(errors)).toEqual([
      [400, "bad-channel"],
      [405, "method-not-allowed"],
      [401, "unauthorized"],
      [400, "no-event-data"],
      [413, "body-too-large"],
      [404, "unknown-client"],
    ]);
    for (const error of errors) {
      expect(error.cause).toBeInstanceOf(BrokerError);
      expect(error.message).toBe((error.cause as BrokerError).message);
    }
  }),
);

test(
  "mistakes: an unknown parameter, another charset and bytes that are not UTF-8 are refused as without Hono",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    const broker = setup.broker({ publishToken: "secret", allowQuery: ["ticket"] });
    app.route("/events", sse<AppEnv>(broker)).post("/publish", broadcast<AppEnv>(broker));
    const typed = (type: string): RequestInit => ({ ...post("x"), headers: { "content-type": type } });
    await app.request("/publish?chanel=private", post("x"));
    await app.request("/events/connect?channels=private");
    await app.request("/publish", typed("text/plain; charset=iso-8859-1"));
    await app.request("/publish", { method: "POST", body: new Uint8Array([0xff]) });
    expect(statusesAndCodes(errors)).toEqual([
      [400, "bad-request"],
      [400, "bad-request"],
      [415, "unsupported-media-type"],
      [400, "bad-request"],
    ]);
    expect((await app.request("/publish?ticket=1&channel=private", post("allowed"))).status).toBe(200);
    expect(broker.stats().published).toBe(1);
  }),
);

test(
  "app.onError: its response is sent",
  withHonoBroker(async (setup) => {
    const app = new Hono()
      .onError((error, c) => c.json({ mine: (error.cause as BrokerError).code }, 418))
      .route("/events", sse(setup.broker()));
    const answer = await app.request("/events/broadcast", post("x"));
    expect([answer.status, await answer.json()]).toEqual([418, { mine: "publishing-closed" }]);
  }),
);

test(
  "app.onError: without one, problem details are sent, with their header fields",
  withHonoBroker(async (setup) => {
    const broker = setup.broker({ publishToken: "secret" });
    const app = new Hono().route("/events", sse(broker));
    const answer = await app.request("/events/broadcast", post("x"));
    expect(Object.fromEntries(answer.headers)).toEqual({
      "content-type": "application/problem+json",
      "cache-control": "no-store",
      "www-authenticate": "Bearer",
    });
    const plain = await broker.fetch(new Request("https://fanwire.test/broadcast", post("x")));
    expect([answer.status, await answer.json()]).toEqual([plain.status, await plain.json()]);
    await broker.close();
    const closed = await app.request("/events/connect");
    expect([closed.status, closed.headers.get("retry-after")]).toEqual([503, "2"]);
  }),
);

test(
  "app.onError: one on the sub-app is called first",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    const events = sse<AppEnv>(setup.broker()).onError((_error, c) => c.text("of the sub-app", 400));
    const answer = await app.route("/events", events).request("/events/broadcast", post("x"));
    expect([await answer.text(), errors]).toEqual(["of the sub-app", []]);
  }),
);

test(
  "cors of the broker: every refusal varies by origin, also one that authorize throws",
  withHonoBroker(async (setup) => {
    const broker = setup.broker({ cors: { origins: ["https://app.test"] } });
    const thrown = new Hono().route(
      "/events",
      sse(broker, {
        authorize() {
          throw new HTTPException(402);
        },
      }),
    );
    const refused = new Hono().route("/events", sse(broker, { authorize: () => false }));
    for (const [events, status, vary] of [
      [thrown, 402, "Cookie, Origin"],
      // Hono's own handler replaces the field by the one of the exception's response, which no cache may store.
      [refused, 403, "Origin"],
    ] as const) {
      const app = new Hono()
        .use(async (c, next) => {
          c.header("vary", "Cookie");
          await next();
        })
        .route("/", events);
      for (const [origin, allowed] of [
        ["https://app.test", "https://app.test"],
        ["https://evil.test", null],
      ] as const) {
        const answers = [
          await app.request("/events/connect", { headers: { origin } }),
          await app.request("/events/broadcast", post("x", { origin })),
        ];
        for (const { status: actual, headers } of answers) {
          expect([actual, headers.get("access-control-allow-origin")]).toEqual([status, allowed]);
          expect(headers.get("vary")).toBe(vary);
        }
      }
    }
  }),
);

test(
  "errorHandler: one of the broker answers, and nothing is thrown",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    const broker = setup.broker({ errorHandler: ({ code, status }) => new Response(`own ${code}`, { status }) });
    app.route("/events", sse<AppEnv>(broker));
    const answer = await app.request("/events/broadcast", post("x"));
    expect([answer.status, await answer.text(), errors]).toEqual([403, "own publishing-closed", []]);
  }),
);

test(
  "app.onError: is not called for a client that left, and no client is registered",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    const broker = setup.broker();
    const abort = new AbortController();
    app.route(
      "/events",
      sse<AppEnv>(broker, {
        authorize() {
          abort.abort();
          return true;
        },
      }),
    );
    const answer = await app.request("/events/connect", { signal: abort.signal });
    expect([answer.status, errors, broker.stats().clients]).toEqual([499, [], 0]);
  }),
);

test(
  "app.onError: is not called for an EventSource that has to come back later",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    const broker = setup.broker({ maxClients: 0 });
    app.route("/events", sse<AppEnv>(broker));
    const answer = await app.request("/events/connect", { headers: { accept: "text/event-stream" } });
    expect([answer.status, errors]).toEqual([200, []]);
    expect(await answer.text()).toContain("fanwire-end");
    expect((await app.request("/events/connect")).status).toBe(503);
    expect(statusesAndCodes(errors)).toEqual([[503, "at-capacity"]]);
  }),
);
