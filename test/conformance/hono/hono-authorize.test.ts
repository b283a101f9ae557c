import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { expect, test } from "vitest";
import { broadcast, connect, sse } from "../../../src/hono.ts";
import type { AccessRequest, Broker, ErrorStage } from "../../../src/index.ts";
import { type AppEnv, honoScene, post, shown, watched } from "../../support/hono-test-broker.ts";
import { problemOf } from "../../support/test-broker.ts";

// `fanwire/hono`: `authorize` with the app's own context.

/** An app whose middleware says who it is by a header. */
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
  "authorize: sets the client's id and channels by what the app's middleware established",
  honoScene(async (stage) => {
    const broker = stage.broker();
    const app = users(broker);
    const anna = await stage.join(app, "/events/connect", { headers: { "x-user": "anna" } });
    const ben = await stage.join(app, "/events/connect", { headers: { "x-user": "ben" } });
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
  "authorize: a client gets nothing beyond its grant",
  honoScene(async (stage) => {
    const broker = stage.broker();
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
    const { clientId } = await stage.join(app, "/events/connect?id=anna&channel=room%20of%20anna", anna);
    expect(clientId).toBe("anna");
  }),
);

test(
  "authorize: has the bindings, and decides about events as well",
  honoScene(async (stage) => {
    const broker = stage.broker();
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
  "authorize: is asked with the attempt, the body unread, and has the bindings as context",
  honoScene(async (stage) => {
    const attempts: AccessRequest[] = [];
    const env = { SECRET: "s" };
    const app = new Hono<AppEnv>().route(
      "/events",
      sse<AppEnv>(stage.broker(), {
        authorize(_c, attempt) {
          attempts.push(attempt);
          return !attempt.request.bodyUsed;
        },
      }),
    );
    await stage.join(app, "/events/connect?channel=a&id=me", {}, env);
    expect((await app.request("/events/broadcast?channel=b", post("x"), env)).status).toBe(200);
    expect(attempts).toMatchObject([
      { action: "connect", channels: ["a"], clientId: "me" },
      { action: "publish", channels: ["b"], clientId: undefined },
    ]);
    for (const { context, signal } of attempts) {
      expect(context).toBe(env);
      expect(signal).toBeInstanceOf(AbortSignal);
    }
  }),
);

test(
  "authorize: is asked in place of the broker's own, which decides where there is none",
  honoScene(async (stage) => {
    const asked: string[] = [];
    const broker = stage.broker({
      authorize: ({ action }) => {
        asked.push(`broker ${action}`);
        return false;
      },
    });
    const app = new Hono()
      .route("/own", sse(broker, { authorize: (_c, { action }) => asked.push(`app ${action}`) > 0 }))
      .route("/broker", sse(broker))
      .post("/publish", broadcast(broker));
    await stage.join(app, "/own/connect");
    expect((await app.request("/own/broadcast", post("x"))).status).toBe(200);
    expect((await app.request("/broker/connect")).status).toBe(403);
    expect((await app.request("/broker/broadcast", post("x"))).status).toBe(403);
    expect((await app.request("/publish", post("x"))).status).toBe(403);
    expect(asked).toEqual(["app connect", "app publish", "broker connect", "broker publish", "broker publish"]);
  }),
);

test(
  "authorize: a Response is the answer itself, and no error",
  honoScene(async (stage) => {
    const { app, errors } = watched();
    app.route("/events", sse<AppEnv>(stage.broker(), { authorize: (c) => c.redirect("/login") }));
    const answer = await app.request("/events/connect");
    expect([answer.status, answer.headers.get("location"), errors]).toEqual([302, "/login", []]);
  }),
);

test(
  "authorize: an HTTPException goes to app.onError as it is",
  honoScene(async (stage) => {
    const { app, errors } = watched();
    const reported: unknown[] = [];
    const broker = stage.broker({ onError: (event) => reported.push(event) });
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
    `authorize: what it ${how} is 500 and says nothing to the client, app.onError finds it as the cause's cause`,
    honoScene(async (stage) => {
      const { app, errors } = watched();
      const reported: { stage: ErrorStage; error: unknown }[] = [];
      const broker = stage.broker({ onError: (event) => reported.push(event) });
      app.route("/events", sse<AppEnv>(broker, { authorize: fail }));
      const answer = await app.request("/events/connect");
      expect(answer.status).toBe(500);
      expect(await answer.text()).not.toContain("1234");
      expect(shown(errors)).toEqual([[500, "internal"]]);
      expect(errors[0]).toMatchObject({ cause: { cause: { message: "the password is 1234" } } });
      expect(reported).toMatchObject([{ stage: "authorize", error: { message: "the password is 1234" } }]);
      expect(broker.stats().clients).toBe(0);
    }),
  );
}

test(
  "authorize: where the middleware established nobody, nothing is no verdict and allows nothing",
  honoScene(async (stage) => {
    const broker = stage.broker();
    const answer = await users(broker).request("/events/connect");
    expect([answer.status, await problemOf(answer)]).toEqual([500, "internal"]);
    expect(broker.stats().clients).toBe(0);
  }),
);

test(
  "authorize: has the broker's deadline; a program is told to come back, an EventSource as well",
  honoScene(async (stage) => {
    const { app, errors } = watched();
    const broker = stage.broker({ authorizeTimeout: 5, retry: 4_000 });
    app.route("/events", sse<AppEnv>(broker, { authorize: () => new Promise<boolean>(() => undefined) }));
    const answer = await app.request("/events/connect");
    expect([answer.status, answer.headers.get("retry-after"), await problemOf(answer)]).toEqual([
      503,
      "4",
      "authorize-timeout",
    ]);
    expect(shown(errors)).toEqual([[503, "authorize-timeout"]]);

    const stream = await app.request("/events/connect", { headers: { accept: "text/event-stream" } });

    expect(stream.status).toBe(200);
    expect(await stream.text()).toContain("event: fanwire-end");
    expect(errors).toHaveLength(1);
    expect(broker.stats()).toMatchObject({ clients: 0, pending: 0 });
  }),
);

test(
  "sse, connect, broadcast: an option that is none is a TypeError, nothing is left open by a slip",
  honoScene(async (stage) => {
    const broker = stage.broker();
    const slips: object[] = [{ authorise: () => false }, { authorize: true }, { authorize: null }, { authorize: {} }];
    for (const slip of slips) {
      for (const make of [sse, connect, broadcast]) expect(() => make(broker, slip)).toThrow(TypeError);
    }
  }),
);
