// Koa 3 with its own way to send a response: `ctx.body` takes a Web-standard one.
import { Readable } from "node:stream";
import { bodyParser } from "@koa/bodyparser";
import Koa from "koa";
import { broker, hostname, port, serving } from "../serving.ts";

const app = new Koa();
const parse = bodyParser();
app.use(async (ctx) => {
  const { method, href, path } = ctx;
  const init = { method, headers: ctx.headers as Record<string, string>, duplex: "half" };
  if (path === "/parsed") {
    await parse(ctx, async () => undefined);
    ctx.body = await broker.eventHandler(new Request(href, init), { data: ctx.request.body, requireToken: true });
    return;
  }
  const body = method === "POST" ? Readable.toWeb(ctx.req) : null;
  ctx.body = await broker.fetch(new Request(href, { ...init, body } as RequestInit));
});
const server = app.listen(port, hostname, () => serving(() => server.close()));
