// SvelteKit 3, built for its Node adapter, behind the broker.
import { createServer } from "node:http";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const built = new URL("../apps/sveltekit/dist/server/handler.js", import.meta.url).href;
const { handler } = await import(built);
const handle = nodeHandler(broker);
const server = createServer((request, response) => handle(request, response, () => handler(request, response)));
server.listen(port, hostname, () => serving(() => server.close()));
