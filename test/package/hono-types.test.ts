// The published types of `fanwire/hono`. An error here fails `npm run types`.
import { createBroker, type Grant } from "fanwire";
import { broadcast, connect, type HonoOptions, type SseHandler, sse } from "fanwire/hono";
import { type Context, Hono } from "hono";
import { bearerAuth } from "hono/bearer-auth";
import { expect, expectTypeOf, test } from "vitest";

interface User {
  readonly id: string;
  readonly rooms: readonly string[];
}
interface AppEnv {
  Variables: { user: User };
  Bindings: { SECRET: string };
}
const broker = createBroker();

test("authorize: the context has the variables and bindings of the app", () => {
  const app = new Hono<AppEnv>();
  const events = sse<AppEnv>(broker, {
    authorize(c, access) {
      expectTypeOf(c).toEqualTypeOf<Context<AppEnv>>();
      expectTypeOf(c.var.user).toEqualTypeOf<User>();
      expectTypeOf(c.get("user")).toEqualTypeOf<User>();
      expectTypeOf(c.env.SECRET).toEqualTypeOf<string>();
      expectTypeOf(access.action).toEqualTypeOf<"connect" | "publish">();
      // @ts-expect-error: the app has no such variable
      void c.var.nobody;
      // @ts-expect-error: the app has no such binding
      void c.env.NOTHING;
      return { clientId: c.var.user.id, channels: c.var.user.rooms };
    },
  });
  expectTypeOf(events).toEqualTypeOf<Hono<AppEnv>>();
  expect(app.route("/events", events).routes.map(({ path }) => path)).toEqual(["/events/connect", "/events/broadcast"]);
});

test("authorize: an annotated context determines the app, and the parameters of the path", () => {
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

test("authorize: without an app the context has no variables, and a result that is not a grant is an error", () => {
  const wrong: (() => unknown)[] = [
    // @ts-expect-error: this app has no variables
    () => sse(broker, { authorize: (c) => c.var.user.id === "me" }),
    // @ts-expect-error: a string is not a grant
    () => sse<AppEnv>(broker, { authorize: (c) => c.var.user.id }),
    // @ts-expect-error: undefined is not a grant
    () => sse<AppEnv>(broker, { authorize: () => undefined }),
    // @ts-expect-error: a grant has no such key
    () => sse<AppEnv>(broker, { authorize: (c) => ({ rooms: c.var.user.rooms }) }),
    // @ts-expect-error: a misspelled option would leave everything open
    () => connect<AppEnv>(broker, { authorise: () => false }),
    // @ts-expect-error: undefined would leave everything open
    () => broadcast<AppEnv>(broker, { authorize: undefined }),
  ];
  expect(wrong).toHaveLength(6);
});

test("connect(), broadcast(): return handlers of the app, alone and behind a middleware", () => {
  const app = new Hono<AppEnv>();
  const options: HonoOptions<AppEnv> = { authorize: async (c): Promise<Grant> => ({ subject: c.var.user.id }) };
  expectTypeOf(connect(broker, options)).toEqualTypeOf<SseHandler<AppEnv>>();
  app.get("/connect", connect(broker, options));
  app.on(["GET", "HEAD"], "/live", async (_c, next) => next(), connect<AppEnv>(broker));
  app.post("/publish", bearerAuth({ token: "t" }), broadcast(broker));
  expect(app.routes).toHaveLength(7);
});
