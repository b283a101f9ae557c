import { fetch } from "../better-sse.ts";
import { announce } from "../usage.ts";

// Its keep-alive of 10 s is too late for Bun's limit of 10 s.
const server = Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch });
announce(server.port);
