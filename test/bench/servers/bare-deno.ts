import { fetch } from "../bare.ts";
import { announce } from "../usage.ts";

Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: ({ port }) => announce(port) }, fetch);
