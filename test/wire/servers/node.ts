// The server under test on Node, with fanwire's own handler.
import { createServer } from "node:http";
import { nodeHandler } from "../../../src/node/index.ts";
import { createApp } from "./app.ts";

const collect = globalThis.gc as () => void;
const app = createApp({ gc: () => collect(), heapUsed: () => process.memoryUsage().heapUsed });
const server = createServer(nodeHandler(app)).listen(Number(process.env.PORT), "127.0.0.1");
process.once("SIGTERM", () => void server.close());
