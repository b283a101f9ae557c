// Token streams on Bun.
import { announcePort } from "../usage.ts";
import { createServer, type Kind } from "./server.ts";

const fetch = createServer(process.argv[2] as Kind);
announcePort(Bun.serve({ fetch, hostname: "127.0.0.1", port: 0, idleTimeout: 0 }).port);
