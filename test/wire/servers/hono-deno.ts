// The Hono app on Deno.
import { createHonoApp } from "./hono-app.ts";

Deno.serve({ hostname: "127.0.0.1", port: Number(Deno.env.get("PORT")) }, createHonoApp().fetch);
