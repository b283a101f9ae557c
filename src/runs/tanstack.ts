// `StreamDurability` of TanStack AI over runs. A chunk is an event, whose id is its offset.
import { randomName } from "../base/random.ts";
import { after } from "../base/runtime.ts";
import type { Run } from "./run.ts";
import type { RunEvent, Runs, StartRunOptions } from "./runs.ts";

/** Milliseconds for which, and after which, a reader looks for a run that is not there: a page may join before the producer has begun. */
const [JOIN_MS, POLL_MS] = [100, 10];
/** The last chunk of a run that broke off in a turn after the first, for which TanStack AI has none. */
const BROKEN = '{"type":"RUN_ERROR","message":"The run broke off."}';
type Item<Chunk> = { offset: string; chunk: Chunk };
export interface RunDurability<Chunk> {
  resumeFrom(): string | null;
  append(chunks: readonly Chunk[]): Promise<string[]>;
  read(offset: string, signal?: AbortSignal): AsyncIterable<Item<Chunk>>;
  close(): Promise<void>;
  snapshot(): Promise<Item<Chunk>[]>;
}

/** Keeps a request's run, of `X-Run-Id` or `?runId=`. `runs.stop` aborts `abortController`. Everybody may read: check the request before. */
export function streamDurability<Chunk extends { readonly type: string }>(
  runs: Runs,
  request: Request,
  { authorize, abortController }: Pick<StartRunOptions, "authorize"> & { abortController?: AbortController } = {},
): RunDurability<Chunk> {
  const query = new URL(request.url).searchParams;
  const id = request.headers.get("x-run-id") || query.get("runId") || randomName(12);
  const itemOf = ({ id: offset, data }: RunEvent): Item<Chunk> => ({ offset, chunk: JSON.parse(data) });
  let run: Promise<Run> | undefined;
  let isTurnOpen = false;
  return {
    resumeFrom: () => request.headers.get("last-event-id") || query.get("offset") || null,
    async append(chunks) {
      const { write, stopped } = await (run ??= runs.start(id, undefined, { authorize }));
      // By this reason TanStack AI knows that somebody stops the run, and has not only left.
      stopped.onabort = () => abortController?.abort("tanstack-ai:cancel-requested");
      for (const { type } of chunks) if (type.startsWith("RUN_")) isTurnOpen = type === "RUN_STARTED";
      return Promise.all(chunks.map(async (chunk) => (await write(JSON.stringify(chunk))).id));
    },
    async *read(offset, signal) {
      for (let left = JOIN_MS; left > 0 && (await runs.state(id)) === "unknown"; left -= POLL_MS)
        await new Promise<void>((resolve) => after(POLL_MS, resolve));
      try {
        for await (const event of runs.read(id, { after: offset, signal })) yield itemOf(event);
      } catch (error) {
        if (!signal?.aborted) throw error;
      }
    },
    async close() {
      const { close, stopped } = (await run?.catch(() => undefined)) ?? {};
      await (isTurnOpen ? close?.(stopped?.aborted ? "stopped" : "failed", BROKEN) : close?.());
    },
    async snapshot() {
      const items: Item<Chunk>[] = [];
      const isThere = (await runs.state(id)) !== "unknown";
      if (isThere) for await (const event of runs.read(id, { live: false })) items.push(itemOf(event));
      return items;
    },
  };
}
