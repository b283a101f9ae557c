// A client of one's own: fetch and `eventsource-parser`. The parser reports ids only of complete events.
import { setTimeout as wait } from "node:timers/promises";
import { createParser } from "eventsource-parser";
import type { Connect } from "../client.ts";

export const connect: Connect = (url, onEvent, onStopped) => {
  const abort = new AbortController();
  const { signal } = abort;
  let lastEventId = "";
  let retry = 2_000;
  const parser = createParser({
    onEvent: ({ event = "message", id, data }) => onEvent({ type: event, id, data }),
    onId: (id) => void (lastEventId = id),
    onRetry: (ms) => void (retry = ms),
  });
  async function read(): Promise<void> {
    const accept = "text/event-stream";
    const headers = lastEventId ? { accept, "last-event-id": lastEventId } : { accept };
    const response = await fetch(url, { headers, signal });
    if (response.status !== 200 || !response.body) return void abort.abort(onStopped());
    parser.reset();
    for await (const text of response.body.pipeThrough(new TextDecoderStream())) parser.feed(text);
  }
  async function run(): Promise<void> {
    while (!signal.aborted) {
      // Whether the stream ended or broke, the client comes back.
      await read().catch(() => undefined);
      await wait(retry, undefined, { signal }).catch(() => undefined);
    }
  }
  void run();
  return () => abort.abort();
};
