import { serve } from "@hono/node-server";
import { app } from "../hono-stream.ts";
import { announce } from "../usage.ts";

serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, ({ port }) => announce(port));
