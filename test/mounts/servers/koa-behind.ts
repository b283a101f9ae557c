// Koa 3 behind the broker, which sees each request first.
import { createServer } from "node:http";
import Koa from "koa";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const app = new Koa();
const koa = app.callback();
const handle = nodeHandler(broker);
const server = createServer((request, response) => handle(request, response, () => void koa(request, response)));
server.listen(port, hostname, () => serving(() => server.close()));
