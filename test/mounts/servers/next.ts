// Next 16: a route handler, built.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { hostname, port, serving } from "../serving.ts";

// Its types are those of a module with a default export, and it is a CommonJS module without one.
const next: typeof import("next").default = createRequire(import.meta.url)("next");
const dir = new URL("../apps/next", import.meta.url).pathname;
const app = next({ dir, hostname, port });
await app.prepare();
const handle = app.getRequestHandler();
const server = createServer((request, response) => void handle(request, response));
server.listen(port, hostname, () => serving(() => server.close()));
