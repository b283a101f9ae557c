import { createBroker, type Grant } from "fanwire";
import { broadcast, connect, type HonoOptions, type SseHandler, sse } from "fanwire/hono";
import { type Context, Hono } from "hono";
import { bearerAuth } from "hono/bearer-auth";
import { expect, expectTypeOf, test } from "vitest";

// The types as they are published. What is wrong here fails `npm run types`.

interface User {
  readonly id: string;
  readonly rooms: readonly string[];
}
interface AppEnv {
  Variables: { user: User };
  Bindings: { SECRET: string };
}
const broker = createBroker();

test("authorize: its context has the app's own variables and bindings", () => {
  const app = new Hono<AppEnv>();
  const events = sse<AppEnv>(broker, {
    authorize(c, attempt) {
      expectTypeOf(c).toEqualTypeOf<Context<AppEnv>>();
      expectTypeOf(c.var.user).toEqualTypeOf<User>();
      expectTypeOf(c.get("user")).toEqualTypeOf<User>();
      expectTypeOf(c.env.SECRET).toEqualTypeOf<string>();
      expectTypeOf(attempt.action).toEqualTypeOf<"connect" | "publish">();
      // @ts-expect-error: there is no such variable
      void c.var.nobody;
      // @ts-expect-error: nor such a binding
      void c.env.NOTHING;
      return { clientId: c.var.user.id, channels: c.var.user.rooms };
    },
  });
  expectTypeOf(events).toEqualTypeOf<Hono<AppEnv>>();
  expect(app.route("/events", events).routes.map(({ path }) => path)).toEqual(["/events/connect", "/events/broadcast"]);
});

test("authorize: an annotated context says which app it is, and its path's parameters", () => {
  const events = sse(broker, { authorize: (c: Context<AppEnv>) => c.env.SECRET === c.var.user.id });
  expectTypeOf(events).toEqualTypeOf<Hono<AppEnv>>();
  const app = new Hono<AppEnv>().get(
    "/rooms/:room",
    connect(broker, {
      authorize(c: Context<AppEnv, "/rooms/:room">) {
        expectTypeOf(c.req.param("room")).toEqualTypeOf<string>();
        return { channels: [c.req.param("room")], clientId: c.var.user.id };
      },
    }),
  );
  expect(app.routes).toHaveLength(1);
});

test("authorize: without an app it knows of no variables, and what is no verdict is refused", () => {
  const wrong: (() => unknown)[] = [
    // @ts-expect-error: this app has no variables
    () => sse(broker, { authorize: (c) => c.var.user.id === "me" }),
    // @ts-expect-error: a name is no verdict
    () => sse<AppEnv>(broker, { authorize: (c) => c.var.user.id }),
    // @ts-expect-error: nor is nothing
    () => sse<AppEnv>(broker, { authorize: () => undefined }),
    // @ts-expect-error: a grant has no such key
    () => sse<AppEnv>(broker, { authorize: (c) => ({ rooms: c.var.user.rooms }) }),
    // @ts-expect-error: an option that does not exist would leave all open
    () => connect<AppEnv>(broker, { authorise: () => false }),
    // @ts-expect-error: the same
    () => broadcast<AppEnv>(broker, { authorize: undefined }),
  ];
  expect(wrong).toHaveLength(6);
});

test("connect, broadcast: are handlers of the app, alone and behind a middleware", () => {
  const app = new Hono<AppEnv>();
  const options: HonoOptions<AppEnv> = { authorize: async (c): Promise<Grant> => ({ subject: c.var.user.id }) };
  expectTypeOf(connect(broker, options)).toEqualTypeOf<SseHandler<AppEnv>>();
  app.get("/connect", connect(broker, options));
  app.on(["GET", "HEAD"], "/live", async (_c, next) => next(), connect<AppEnv>(broker));
  app.post("/publish", bearerAuth({ token: "t" }), broadcast(broker));
  expect(app.routes).toHaveLength(7);
});
