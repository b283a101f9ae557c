// A server of `node:http` without a framework.
import { createServer } from "node:http";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const server = createServer(nodeHandler(broker)).listen(port, hostname, () => serving(() => server.close()));
