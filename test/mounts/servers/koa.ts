// Koa 3, which is told that the response is not its own.
import { bodyParser } from "@koa/bodyparser";
import Koa from "koa";
import { nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const handle = nodeHandler(broker);
const publish = nodeHandler((request) => broker.eventHandler(request, { requireToken: true }));
const app = new Koa();
app.use(async (ctx, next) => {
  if (ctx.path.startsWith("/events/")) {
    ctx.respond = false;
    handle(ctx.req, ctx.res);
  } else await next();
});
app.use(bodyParser());
app.use((ctx) => {
  ctx.respond = false;
  // A parser of Koa leaves the body with Koa's own request.
  publish(Object.assign(ctx.req, { body: ctx.request.body }), ctx.res);
});
const server = app.listen(port, hostname, () => serving(() => server.close()));
