// A bare stream on Deno.
import { fetch } from "../bare.ts";
import { announcePort } from "../usage.ts";

Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: ({ port }) => announcePort(port) }, fetch);
