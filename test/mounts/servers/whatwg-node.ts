// @whatwg-node/server on Node.
import { createServer } from "node:http";
import { createServerAdapter } from "@whatwg-node/server";
import { broker, hostname, port, serving } from "../serving.ts";

const adapter = createServerAdapter((request) => broker.fetch(request));
const server = createServer(adapter).listen(port, hostname, () => serving(() => server.close()));
