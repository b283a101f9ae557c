import { createChannel, createResponse } from "better-sse";
import { announce, usage } from "../usage.ts";

const channel = createChannel();

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  // Its keep-alive of 10 s is too late for Bun's limit of 10 s.
  idleTimeout: 0,
  async fetch(request) {
    if (request.url.endsWith("/cpu")) return Response.json(usage());
    if (request.url.endsWith("/broadcast")) {
      channel.broadcast(await request.text());
      return new Response("ok");
    }
    // The data goes out as it came, as it does from the others.
    return createResponse(request, { serializer: String }, (session) => {
      channel.register(session);
    });
  },
});
announce(server.port);
