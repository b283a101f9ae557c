// Hono's streamSSE on Bun.
import { app } from "../hono-stream.ts";
import { announcePort } from "../usage.ts";

// There is no heartbeat, and Bun's default limit is 10 s.
announcePort(Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch: app.fetch }).port);
