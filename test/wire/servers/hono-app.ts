// A Hono app as a user would write it, the same on every runtime: common middleware, and the broker behind it.
import { Hono } from "hono";
import { compress } from "hono/compress";
import { cors } from "hono/cors";
import { secureHeaders } from "hono/secure-headers";
import { timeout } from "hono/timeout";
import { validator } from "hono/validator";
import { broadcast, sse } from "../../../src/hono.ts";
import { createBroker, type Engine } from "../../../src/index.ts";

/** Milliseconds after which an idle stream receives a heartbeat, and within which a response has to begin. */
const HEARTBEAT = 200;
const DEADLINE = 500;

interface AppEnv {
  Variables: { user: string };
}

export function createHonoApp({
  engine,
  heartbeat = HEARTBEAT,
}: {
  engine?: Engine;
  heartbeat?: number;
} = {}): Hono<AppEnv> {
  const ended: { clientId: string; reason: string }[] = [];
  const errors: string[] = [];
  const broker = createBroker({
    ...(engine ? { engine } : {}),
    publishToken: "secret",
    heartbeat,
    onDisconnect: ({ client, reason }) => ended.push({ clientId: client.clientId, reason }),
    onError: ({ stage, error }) => errors.push(`${stage}: ${String(error)}`),
  });
  return new Hono<AppEnv>()
    .get("/", (c) => c.text(navigator.userAgent))
    .get("/state", (c) => c.json({ clients: broker.stats().clients, ended, errors }))
    .use(compress({ threshold: 0 }), cors(), secureHeaders(), timeout(DEADLINE))
    .use(async (c, next) => {
      c.set("user", c.req.query("user") ?? "");
      await next();
    })
    .route(
      "/events",
      sse<AppEnv>(broker, { authorize: (c) => c.var.user !== "" && { clientId: c.var.user, channels: ["news"] } }),
    )
    .post(
      "/validated",
      validator("json", (value) => value),
      broadcast<AppEnv>(broker),
    );
}
