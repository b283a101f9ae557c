// Fastify 5 with its own way to send a response: `reply.send()` takes a Web-standard one.
import Fastify, { type FastifyRequest } from "fastify";
import { broker, hostname, port, serving } from "../serving.ts";

const toRequest = ({ method, url, headers, body }: FastifyRequest): Request =>
  new Request(new URL(url, "http://localhost"), {
    method,
    headers: headers as Record<string, string>,
    body: (body as Uint8Array<ArrayBuffer> | undefined) ?? null,
  });
const app = Fastify();
await app.register((routes, _options, done) => {
  routes.removeAllContentTypeParsers();
  routes.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  routes.all("/events/*", async (request, reply) => reply.send(await broker.fetch(toRequest(request))));
  done();
});
app.post("/parsed", async (request, reply) =>
  reply.send(await broker.eventHandler(toRequest(request), { data: request.body as object, requireToken: true })),
);
await app.listen({ host: hostname, port });
serving(() => app.close());
