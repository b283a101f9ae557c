// Hono's streamSSE on Node.
import { serve } from "@hono/node-server";
import { app } from "../hono-stream.ts";
import { announcePort } from "../usage.ts";

serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, ({ port }) => announcePort(port));
