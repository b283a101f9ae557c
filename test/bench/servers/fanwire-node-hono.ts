// fanwire on Node, with @hono/node-server.
import { serve } from "@hono/node-server";
import { fetch } from "../fanwire.ts";
import { announcePort } from "../usage.ts";

serve({ fetch, hostname: "127.0.0.1", port: 0 }, ({ port }) => announcePort(port));
