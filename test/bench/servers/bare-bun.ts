// A bare stream on Bun.
import { fetch } from "../bare.ts";
import { announcePort } from "../usage.ts";

// Nothing is sent after the head, and Bun's default limit is 10 s.
announcePort(Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch }).port);
