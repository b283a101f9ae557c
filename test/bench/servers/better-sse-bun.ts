// better-sse on Bun.
import { fetch } from "../better-sse.ts";
import { announcePort } from "../usage.ts";

// A keep-alive of better-sse's default 10 s would be too late for Bun's default limit of 10 s.
const server = Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch });
announcePort(server.port);
