// The server under test on Node, with srvx.
import { serve } from "srvx";
import { createApp } from "./app.ts";

const collect = globalThis.gc as () => void;
const app = createApp({ gc: () => collect(), heapUsed: () => process.memoryUsage().heapUsed });
const server = serve({ fetch: app, hostname: "127.0.0.1", port: Number(process.env.PORT), silent: true });
process.once("SIGTERM", () => void server.close());
