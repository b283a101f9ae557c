// A bare stream, to measure the least that a connection costs on a runtime.
import { isUsageRequest, usage } from "./usage.ts";

const FIRST = new TextEncoder().encode(": connected\n\n");

/** Opens a stream and sends nothing after its first comment. */
const openStream = (): Response =>
  new Response(
    new ReadableStream<Uint8Array>(
      {
        start: (controller) => controller.enqueue(FIRST),
        pull: () => undefined,
        cancel: () => undefined,
      },
      { highWaterMark: 0 },
    ),
    { headers: { "content-type": "text/event-stream", "cache-control": "no-store" } },
  );

/** The same on every runtime: `/connect` and `/cpu`. */
export function fetch({ url }: Request): Response {
  if (isUsageRequest(url)) return Response.json(usage(url));
  return new URL(url).pathname === "/connect" ? openStream() : new Response(null, { status: 404 });
}
