import { serve } from "@hono/node-server";
import { fetch } from "../fanwire.ts";
import { announce } from "../usage.ts";

serve({ fetch, hostname: "127.0.0.1", port: 0 }, ({ port }) => announce(port));
