import { createChannel, createResponse } from "better-sse";
import { asksUsage, usage } from "./usage.ts";

const channel = createChannel();

/** better-sse's fetch adapter, the same for every runtime: `/connect`, `/broadcast`, and `/cpu`. */
export async function fetch(request: Request): Promise<Response> {
  if (asksUsage(request.url)) return Response.json(usage(request.url));
  if (request.url.endsWith("/broadcast")) {
    channel.broadcast(await request.text());
    return new Response("ok");
  }
  // The data goes out as it came, and a heartbeat as often, as it does from the others.
  return createResponse(request, { serializer: String, keepAlive: 8_000 }, (session) => {
    channel.register(session);
  });
}
