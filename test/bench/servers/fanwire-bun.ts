import { fetch } from "../fanwire.ts";
import { announce } from "../usage.ts";

announce(Bun.serve({ fetch, hostname: "127.0.0.1", port: 0 }).port);
