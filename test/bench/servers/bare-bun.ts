import { fetch } from "../bare.ts";
import { announce } from "../usage.ts";

// Nothing is ever sent, and Bun's limit is 10 s.
announce(Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch }).port);
