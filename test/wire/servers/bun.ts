import { createApp } from "./app.ts";

// As a user would write it; no `idleTimeout`, which is 10 s then.
export default {
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  fetch: createApp({ gc: () => Bun.gc(true), heapUsed: () => process.memoryUsage().heapUsed }),
};
