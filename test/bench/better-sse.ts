import { createChannel, createResponse } from "better-sse";
import { usage } from "./usage.ts";

const channel = createChannel();

/** better-sse's fetch adapter, the same for every runtime: `/connect`, `/broadcast`, and `/cpu`. */
export async function fetch(request: Request): Promise<Response> {
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
