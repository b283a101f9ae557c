// fanwire on Bun.
import { fetch } from "../fanwire.ts";
import { announcePort } from "../usage.ts";

announcePort(Bun.serve({ fetch, hostname: "127.0.0.1", port: 0 }).port);
