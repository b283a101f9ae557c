// fanwire on Node, with srvx.
import { serve } from "srvx/node";
import { fetch } from "../fanwire.ts";
import { announcePort } from "../usage.ts";

const server = serve({ fetch, hostname: "127.0.0.1", port: 0, silent: true });
await server.ready();
announcePort(Number(new URL(server.url as string).port));
