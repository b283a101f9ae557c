// h3 1, as in Nitro 2 and Nuxt, with Node's objects.
import { createServer } from "node:http";
import { createApp, fromNodeMiddleware, toNodeListener } from "h3-v1";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const app = createApp();
app.use("/events", fromNodeMiddleware(nodeHandler(broker)));
const server = createServer(toNodeListener(app)).listen(port, hostname, () => serving(() => server.close()));
