// A server of token streams: with runs of fanwire, or with bare streams. Both write the same text at the same times, to as many readers.
import { createBroker } from "../../../src/index.ts";
import { createRuns, type Run } from "../../../src/runs/index.ts";
import { isUsageRequest, usage } from "../usage.ts";

export type Kind = "fanwire" | "bare";

/** About as long as what a model yields at a time, with its JSON. */
export const tokenOf = (index: number): string => ` token ${index} `.padEnd(30, ".");
const TICK_MS = 1;
const encoder = new TextEncoder();

interface Stream {
  write(text: string): void;
}

/** Answers `/start?runs=…&rate=…`, `/run/<number>` and `/cpu`. */
export function createServer(kind: Kind): (request: Request) => Response | Promise<Response> {
  const runs = createRuns(createBroker({ maxClients: 100_000 }));
  const streams: Stream[] = [];
  const readers = new Map<string, Set<ReadableStreamDefaultController<Uint8Array>>>();
  let tokens = 0;

  const startRun = async (id: string): Promise<Stream> => {
    const run: Run = await runs.start(id);
    return { write: (text) => void run.write(text).catch(console.error) };
  };
  const startBare = (id: string): Stream => {
    const controllers = new Set<ReadableStreamDefaultController<Uint8Array>>();
    readers.set(id, controllers);
    return {
      write(text) {
        const frame = encoder.encode(`data: ${text}\n\n`);
        for (const controller of controllers) controller.enqueue(frame);
      },
    };
  };
  const openBare = (id: string): Response => {
    let own: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        own = controller;
        controller.enqueue(encoder.encode(":\n"));
        readers.get(id)?.add(own);
      },
      cancel: () => void readers.get(id)?.delete(own),
    });
    return new Response(body, { headers: { "content-type": "text/event-stream", "cache-control": "no-store" } });
  };

  /** Writes each stream's tokens in their time, spread evenly. */
  const pace = (rate: number): void => {
    const begin = performance.now();
    setInterval(() => {
      const due = Math.floor(((performance.now() - begin) / 1_000) * rate * streams.length);
      for (; tokens < due; tokens++)
        streams[tokens % streams.length]?.write(tokenOf(Math.floor(tokens / streams.length)));
    }, TICK_MS);
  };

  return async (request) => {
    const { pathname, searchParams } = new URL(request.url);
    if (isUsageRequest(request.url)) return Response.json({ ...usage(request.url), tokens });
    if (pathname === "/start") {
      const count = Number(searchParams.get("runs"));
      for (let index = 0; index < count; index++)
        streams.push(kind === "fanwire" ? await startRun(String(index)) : startBare(String(index)));
      return new Response();
    }
    if (pathname === "/pace") {
      pace(Number(searchParams.get("rate")));
      return new Response();
    }
    const id = pathname.slice("/run/".length);
    return kind === "fanwire" ? runs.response(id, request) : openBare(id);
  };
}
