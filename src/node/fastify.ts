// A plugin for Fastify. Its routes take Node's objects, so no parser and no serializer of Fastify comes between.
import { brokerServer, pathsOf, type ServedBroker } from "./node-handler.ts";
import { endStreams } from "./server-watch.ts";
import type { NodeIncoming, NodeOutgoing, NodeServer } from "./types.ts";

/** Options of {@link fastifyBroker}. Fastify adds its own, such as `prefix`. */
export interface FastifyBrokerOptions {
  readonly broker: ServedBroker;
}

/** The parts of a Fastify instance that the plugin uses. */
interface FastifyApp {
  readonly server: unknown;
  all(path: string, handler: (request: FastifyRequest, reply: FastifyReply) => void): unknown;
  addHook(name: "preClose", hook: (done: () => void) => void): unknown;
  removeAllContentTypeParsers(): unknown;
  addContentTypeParser(
    type: string,
    parser: (request: unknown, body: unknown, done: (error: null) => void) => void,
  ): unknown;
}
interface FastifyRequest {
  readonly raw: unknown;
}
interface FastifyReply {
  readonly raw: unknown;
  hijack(): unknown;
}

/**
 * Serves a broker in a Fastify app, at the broker's paths below the plugin's `prefix`. `app.close()` ends the streams.
 *
 * @example await app.register(fastifyBroker, { broker, prefix: "/events" }); // GET /events/connect
 * @throws `TypeError` if `broker` is not a broker
 */
export async function fastifyBroker(app: unknown, { broker }: FastifyBrokerOptions): Promise<void> {
  const fastify = app as FastifyApp;
  const serve = brokerServer(broker);
  // The broker reads the bodies of these routes itself. A plugin's parsers concern its own routes.
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser("*", (_request, _body, done) => done(null));
  for (const path of new Set(pathsOf(broker)))
    fastify.all(path, (request, reply) => {
      reply.hijack();
      const incoming = request.raw as NodeIncoming;
      // The broker's paths do not know the prefix, which may have parameters.
      const [query = ""] = /\?.*/.exec(incoming.url ?? "") ?? [];
      serve(incoming, reply.raw as NodeOutgoing, path + query);
    });
  fastify.addHook("preClose", (done) => {
    endStreams(fastify.server as NodeServer);
    done();
  });
}
