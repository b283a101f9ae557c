import { Hono } from "hono";
import { type SSEStreamingApi, streamSSE } from "hono/streaming";
import { asksUsage, usage } from "./usage.ts";

const streams = new Set<SSEStreamingApi>();
let id = 0;

/** hono's `streamSSE`, the same for every runtime: `/connect`, `/broadcast`, and `/cpu`. */
export const app: Hono = new Hono();

app.get("/connect", (context) =>
  streamSSE(context, async (stream) => {
    const aborted = new Promise<void>((resolve) => stream.onAbort(resolve));
    streams.add(stream);
    // Bun keeps the end of the head back until there is something to send, and no client would know that it is connected.
    await stream.write(": connected\n\n");
    // The stream ends when this does.
    await aborted;
    streams.delete(stream);
  }),
);

app.post("/broadcast", async (context) => {
  const event = { id: String(++id), data: await context.req.text() };
  // A write settles when the stream takes it. All are waited for, as in hono's examples, at once rather than one by one:
  // without that the queues of streams that are slow would grow without bound. One client that reads nothing holds up the answer.
  await Promise.all(Array.from(streams, (stream) => stream.writeSSE(event)));
  return context.text("ok");
});

app.get("/cpu", ({ req }) =>
  asksUsage(req.url) ? Response.json(usage(req.url)) : new Response(null, { status: 404 }),
);
