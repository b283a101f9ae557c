// Fastify 5, with the plugin.
import Fastify from "fastify";
import { fastifyBroker } from "../../../src/node/index.ts";
import { broker, hostname, port, serving } from "../serving.ts";

const app = Fastify();
await app.register(fastifyBroker, { broker, prefix: "/events" });
await app.listen({ host: hostname, port });
serving(() => app.close());
