// fanwire on Node, with its own handler.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { nodeHandler } from "../../../src/node/index.ts";
import { fetch } from "../fanwire.ts";
import { announcePort } from "../usage.ts";

const server = createServer(nodeHandler(fetch));
server.listen(0, "127.0.0.1", () => announcePort((server.address() as AddressInfo).port));
