import { createChannel, createResponse } from "better-sse";
import { announce, usage } from "../usage.ts";

const channel = createChannel();

async function handle(request: Request): Promise<Response> {
  if (request.url.endsWith("/cpu")) return Response.json(usage());
  if (request.url.endsWith("/broadcast")) {
    channel.broadcast(await request.text());
    return new Response("ok");
  }
  // The data goes out as it came, as it does from the others.
  return createResponse(request, { serializer: String }, (session) => {
    channel.register(session);
  });
}

Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: ({ port }) => announce(port) }, handle);
