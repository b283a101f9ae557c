// `fanwire/hono`: `authorize` with the context of the app.
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { expect, test } from "vitest";
import { broadcast, connect, sse } from "../../../src/hono.ts";
import type { AccessRequest, Broker, ErrorStage } from "../../../src/index.ts";
import {
  type AppEnv,
  createRecordingApp,
  post,
  statusesAndCodes,
  withHonoBroker,
} from "../../support/hono-test-broker.ts";
import { problemOf } from "../../support/test-broker.ts";

/** Adds a middleware that sets the user by a header. */
function withUsers(app: Hono<AppEnv>): Hono<AppEnv> {
  return app.use(async (c, next) => {
    const name = c.req.header("x-user");
    if (name) c.set("user", { name, rooms: [`room of ${name}`] });
    await next();
  });
}

const users = (broker: Broker, app: Hono<AppEnv> = new Hono()): Hono<AppEnv> =>
  withUsers(app).route(
    "/events",
    sse<AppEnv>(broker, {
      authorize: (c, { action }) =>
        action === "connect"
          ? c.var.user && { subject: c.var.user.name, clientId: c.var.user.name, channels: c.var.user.rooms }
          : c.req.header("x-secret") === c.env.SECRET,
    }),
  );

test(
  "authorize: sets the client id and channels from variables of the app's middleware",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = users(broker);
    const anna = await setup.join(app, "/events/connect", { headers: { "x-user": "anna" } });
    const ben = await setup.join(app, "/events/connect", { headers: { "x-user": "ben" } });
    expect(broker.clients()).toMatchObject([
      { clientId: "anna", subject: "anna", channels: ["room of anna"] },
      { clientId: "ben", subject: "ben", channels: ["room of ben"] },
    ]);

    await broker.broadcastTo("ben", "for ben");
    await broker.broadcast("of anna's room", { channels: "room of anna" });
    await broker.broadcast("for all");

    await anna.untilData("for all");
    await ben.untilData("for all");
    expect([anna.data, ben.data]).toEqual([
      ["of anna's room", "for all"],
      ["for ben", "for all"],
    ]);
  }),
);

test(
  "authorize: a client receives nothing beyond its grant",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = users(broker);
    const anna = { headers: { "x-user": "anna" } };
    for (const query of [
      "?id=ben",
      "?channel=room%20of%20ben",
      "?channel=room%20of%20anna&channel=room%20of%20ben",
      "?id=anna&channel=x",
    ]) {
      const answer = await app.request(`/events/connect${query}`, anna);
      expect([query, answer.status, await problemOf(answer)]).toEqual([query, 403, "forbidden"]);
    }
    expect((await app.request("/events/connect?id=a&id=anna", anna)).status).toBe(400);
    expect(broker.stats().clients).toBe(0);
    const { clientId } = await setup.join(app, "/events/connect?id=anna&channel=room%20of%20anna", anna);
    expect(clientId).toBe("anna");
  }),
);

test(
  "authorize: has the bindings, and also decides about events",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const app = users(broker);
    const env = { SECRET: "of the app" };
    const wrong = await app.request("/events/broadcast", post("x", { "x-secret": "guess", "x-user": "anna" }), env);
    expect([wrong.status, await problemOf(wrong)]).toEqual([403, "forbidden"]);
    const right = await app.request("/events/broadcast", post("x", { "x-secret": "of the app" }), env);
    expect(right.status).toBe(200);
    expect(broker.stats().published).toBe(1);
  }),
);

test(
  "authorize: receives the access request before the body is read, with the bindings as context",
  withHonoBroker(async (setup) => {
    const accesses: AccessRequest[] = [];
    const env = { SECRET: "s" };
    const app = new Hono<AppEnv>().route(
      "/events",
      sse<AppEnv>(setup.broker(), {
        authorize(_c, access) {
          accesses.push(access);
          return !access.request.bodyUsed;
        },
      }),
    );
    await setup.join(app, "/events/connect?channel=a&id=me", {}, env);
    expect((await app.request("/events/broadcast?channel=b", post("x"), env)).status).toBe(200);
    expect(accesses).toMatchObject([
      { action: "connect", channels: ["a"], clientId: "me" },
      { action: "publish", channels: ["b"], clientId: undefined },
    ]);
    for (const { context, signal } of accesses) {
      expect(context).toBe(env);
      expect(signal).toBeInstanceOf(AbortSignal);
    }
  }),
);

test(
  "authorize: is called in place of the broker's own, which decides if this one is not set",
  withHonoBroker(async (setup) => {
    const calls: string[] = [];
    const broker = setup.broker({
      authorize: ({ action }) => {
        calls.push(`broker ${action}`);
        return false;
      },
    });
    const app = new Hono()
      .route("/own", sse(broker, { authorize: (_c, { action }) => calls.push(`app ${action}`) > 0 }))
      .route("/broker", sse(broker))
      .post("/publish", broadcast(broker));
    await setup.join(app, "/own/connect");
    expect((await app.request("/own/broadcast", post("x"))).status).toBe(200);
    expect((await app.request("/broker/connect")).status).toBe(403);
    expect((await app.request("/broker/broadcast", post("x"))).status).toBe(403);
    expect((await app.request("/publish", post("x"))).status).toBe(403);
    expect(calls).toEqual(["app connect", "app publish", "broker connect", "broker publish", "broker publish"]);
  }),
);

test(
  "authorize: a Response is the answer, and not an error",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    app.route("/events", sse<AppEnv>(setup.broker(), { authorize: (c) => c.redirect("/login") }));
    const answer = await app.request("/events/connect");
    expect([answer.status, answer.headers.get("location"), errors]).toEqual([302, "/login", []]);
  }),
);

test(
  "authorize: an HTTPException goes to app.onError as it is",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    const reported: unknown[] = [];
    const broker = setup.broker({ onError: (event) => reported.push(event) });
    const thrown: Error[] = [];
    app.route(
      "/events",
      sse<AppEnv>(broker, {
        async authorize() {
          const exception = new HTTPException(402, { res: new Response("pay first", { headers: { "x-price": "1" } }) });
          thrown.push(exception);
          throw exception;
        },
      }),
    );
    const answer = await app.request("/events/connect", { headers: { accept: "text/event-stream" } });
    expect([answer.status, answer.headers.get("x-price"), await answer.text()]).toEqual([402, "1", "pay first"]);
    expect((await app.request("/events/broadcast", post("x"))).status).toBe(402);
    expect(errors).toHaveLength(2);
    for (const [index, error] of errors.entries()) expect(error).toBe(thrown[index]);
    expect([reported, broker.stats()]).toMatchObject([[], { clients: 0, published: 0 }]);
  }),
);

for (const [how, fail] of [
  [
    "throws",
    () => {
      throw new Error("the password is 1234");
    },
  ],
  ["rejects", () => Promise.reject(new Error("the password is 1234"))],
] as const) {
  test(
    `authorize: an error that it ${how} is 500 without its message; app.onError finds it as the cause of the cause`,
    withHonoBroker(async (setup) => {
      const { app, errors } = createRecordingApp();
      const reported: { stage: ErrorStage; error: unknown }[] = [];
      const broker = setup.broker({ onError: (event) => reported.push(event) });
      app.route("/events", sse<AppEnv>(broker, { authorize: fail }));
      const answer = await app.request("/events/connect");
      expect(answer.status).toBe(500);
      expect(await answer.text()).not.toContain("1234");
      expect(statusesAndCodes(errors)).toEqual([[500, "internal"]]);
      expect(errors[0]).toMatchObject({ cause: { cause: { message: "the password is 1234" } } });
      expect(reported).toMatchObject([{ stage: "authorize", error: { message: "the password is 1234" } }]);
      expect(broker.stats().clients).toBe(0);
    }),
  );
}

test(
  "authorize: if the middleware has set no user, undefined is an invalid result and allows nothing",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const answer = await users(broker).request("/events/connect");
    expect([answer.status, await problemOf(answer)]).toEqual([500, "internal"]);
    expect(broker.stats().clients).toBe(0);
  }),
);

test(
  "authorize: has the broker's deadline; programs and EventSources have to come back later",
  withHonoBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    const broker = setup.broker({ authorizeTimeout: 5, retry: 4_000 });
    app.route("/events", sse<AppEnv>(broker, { authorize: () => new Promise<boolean>(() => undefined) }));
    const answer = await app.request("/events/connect");
    expect([answer.status, answer.headers.get("retry-after"), await problemOf(answer)]).toEqual([
      503,
      "4",
      "authorize-timeout",
    ]);
    expect(statusesAndCodes(errors)).toEqual([[503, "authorize-timeout"]]);

    const stream = await app.request("/events/connect", { headers: { accept: "text/event-stream" } });

    expect(stream.status).toBe(200);
    expect(await stream.text()).toContain("event: fanwire-end");
    expect(errors).toHaveLength(1);
    expect(broker.stats()).toMatchObject({ clients: 0, pending: 0 });
  }),
);

test(
  "sse(), connect(), broadcast(): a wrong option is a TypeError, so a misspelling cannot leave them open",
  withHonoBroker(async (setup) => {
    const broker = setup.broker();
    const wrongOptions: object[] = [
      { authorise: () => false },
      { authorize: true },
      { authorize: null },
      { authorize: {} },
    ];
    for (const wrong of wrongOptions) {
      for (const make of [sse, connect, broadcast]) expect(() => make(broker, wrong)).toThrow(TypeError);
    }
  }),
);
