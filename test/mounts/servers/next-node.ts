// Next 16 in a server of its own, behind the broker.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

// Its types are those of a module with a default export, and it is a CommonJS module without one.
const next: typeof import("next").default = createRequire(import.meta.url)("next");
const app = next({ dir: new URL("../apps/next", import.meta.url).pathname, hostname, port });
await app.prepare();
const toNext = app.getRequestHandler();
const handle = nodeHandler(broker);
const server = createServer((request, response) => handle(request, response, () => void toNext(request, response)));
server.listen(port, hostname, () => serving(() => server.close()));
