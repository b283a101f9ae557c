import { asksUsage, usage } from "./usage.ts";

const FIRST = new TextEncoder().encode(": connected\n\n");

/** A stream that is open and nothing else: the least that a connection can cost on a runtime. */
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

/** The same for every runtime: `/connect` and `/cpu`. */
export function fetch({ url }: Request): Response {
  if (asksUsage(url)) return Response.json(usage(url));
  return new URL(url).pathname === "/connect" ? openStream() : new Response(null, { status: 404 });
}
