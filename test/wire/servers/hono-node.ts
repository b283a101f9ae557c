// The Hono app on Node.
import { serve } from "@hono/node-server";
import { createHonoApp } from "./hono-app.ts";

serve({ fetch: createHonoApp().fetch, hostname: "127.0.0.1", port: Number(process.env.PORT) });
