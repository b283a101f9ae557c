// Hono on Node, with @hono/node-server.
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { validator } from "hono/validator";
import { broadcast, sse } from "../../../src/hono.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const app = new Hono();
app.route("/events", sse(broker));
app.post(
  "/parsed",
  validator("json", (value) => value),
  broadcast(broker, { authorize: () => ({ everybody: true }) }),
);
const server = serve({ fetch: app.fetch, hostname, port }, () => serving(() => server.close()));
