import { serve } from "@hono/node-server";
import { createApp } from "./app.ts";

const collect = globalThis.gc as () => void;
const app = createApp({ gc: () => collect(), heapUsed: () => process.memoryUsage().heapUsed });
serve({ fetch: app, hostname: "127.0.0.1", port: Number(process.env.PORT) });
