// NestJS 12 on Express. Its decorators are called as functions, because Node runs these files without a compiler.
import "reflect-metadata";
import { Controller, Module, Post, Req, Res } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import type { NestExpressApplication } from "@nestjs/platform-express";
import { type NodeHandler, nodeHandler } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

/** A route of a controller, which Nest's own body parser runs before. */
class Publisher {
  readonly publish: NodeHandler = nodeHandler((request) => broker.eventHandler(request, { requireToken: true }));
  handle(...[incoming, outgoing]: Parameters<NodeHandler>): void {
    this.publish(incoming, outgoing);
  }
}
Controller("parsed")(Publisher);
Post()(
  Publisher.prototype,
  "handle",
  Object.getOwnPropertyDescriptor(Publisher.prototype, "handle") as PropertyDescriptor,
);
Req()(Publisher.prototype, "handle", 0);
Res()(Publisher.prototype, "handle", 1);
class App {}
Module({ controllers: [Publisher] })(App);

const app = await NestFactory.create<NestExpressApplication>(App, { logger: false });
app.use("/events", nodeHandler(broker));
await app.listen(port, hostname);
serving(() => app.close());
