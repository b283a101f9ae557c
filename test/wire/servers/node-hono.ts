// The server under test on Node, with @hono/node-server.
import { serve } from "@hono/node-server";
import { createApp } from "./app.ts";

const collect = globalThis.gc as () => void;
const app = createApp({ gc: () => collect(), heapUsed: () => process.memoryUsage().heapUsed });
const server = serve({ fetch: app, hostname: "127.0.0.1", port: Number(process.env.PORT) });
process.once("SIGTERM", () => void server.close());
