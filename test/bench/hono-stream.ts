// Hono's streamSSE with a set of streams.
import { Hono } from "hono";
import { type SSEStreamingApi, streamSSE } from "hono/streaming";
import { isUsageRequest, usage } from "./usage.ts";

const streams = new Set<SSEStreamingApi>();
let id = 0;

/** The same on every runtime: `/connect`, `/broadcast` and `/cpu`. */
export const app: Hono = new Hono();

app.get("/connect", (context) =>
  streamSSE(context, async (stream) => {
    const aborted = new Promise<void>((resolve) => stream.onAbort(resolve));
    streams.add(stream);
    // Bun holds the end of the head back until there is a byte to send, and no client would know that it is connected.
    await stream.write(": connected\n\n");
    // The stream ends when this function ends.
    await aborted;
    streams.delete(stream);
  }),
);

app.post("/broadcast", async (context) => {
  const event = { id: String(++id), data: await context.req.text() };
  // A write settles when the stream takes it. All writes are awaited, as in Hono's examples, but at once instead of one by one: otherwise the queues
  // of slow streams would grow without bound. One client that reads nothing holds up the answer.
  await Promise.all(Array.from(streams, (stream) => stream.writeSSE(event)));
  return context.text("ok");
});

app.get("/cpu", ({ req }) =>
  isUsageRequest(req.url) ? Response.json(usage(req.url)) : new Response(null, { status: 404 }),
);
