// Elysia on Bun.
import { Elysia } from "elysia";
import { broker, hostname, port, serving } from "../serving.ts";

const app = new Elysia()
  .post("/parsed", ({ request, body }) => broker.eventHandler(request, { data: body, requireToken: true }))
  .all("/events/*", ({ request, server }) => broker.fetch(request, server), { parse: "none" })
  .listen({ hostname, port });

serving(() => app.stop());
