// SvelteKit 3, built for its Node adapter, in a server of its own.
import { createServer } from "node:http";
import { hostname, port, serving } from "../serving.ts";

const built = new URL("../apps/sveltekit/dist/server/handler.js", import.meta.url).href;
const { handler } = await import(built);
const server = createServer(handler).listen(port, hostname, () => serving(() => server.close()));
