// The server under test on Bun.
import type { Server } from "bun";
import { createApp } from "./app.ts";

const app = createApp({ gc: () => Bun.gc(true), heapUsed: () => process.memoryUsage().heapUsed });
let running: Server<unknown> | undefined;
process.once("SIGTERM", () => void running?.stop());

// As a user would write it, without `idleTimeout`, which is 10 s then.
export default {
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  fetch(request: Request, server: Server<unknown>): Promise<Response> {
    running = server;
    return app(request, server);
  },
};
