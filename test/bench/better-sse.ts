// better-sse with its fetch adapter.
import { createChannel, createResponse } from "better-sse";
import { isUsageRequest, usage } from "./usage.ts";

const channel = createChannel();

/** The same on every runtime: `/connect`, `/broadcast` and `/cpu`. */
export async function fetch(request: Request): Promise<Response> {
  if (isUsageRequest(request.url)) return Response.json(usage(request.url));
  if (request.url.endsWith("/broadcast")) {
    channel.broadcast(await request.text());
    return new Response("ok");
  }
  // As with the other servers, data is sent unchanged, and a heartbeat every 8 s.
  return createResponse(request, { serializer: String, keepAlive: 8_000 }, (session) => {
    channel.register(session);
  });
}
