// Token streams on Node.
import { createServer as createHttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { nodeHandler } from "../../../src/node/index.ts";
import { announcePort } from "../usage.ts";
import { createServer, type Kind } from "./server.ts";

const server = createHttpServer(nodeHandler(createServer(process.argv[2] as Kind)));
server.listen(0, "127.0.0.1", () => announcePort((server.address() as AddressInfo).port));
