// An application on a real socket, and a network in front of it that breaks off where a test says.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { Redis } from "ioredis";
import { onTestFinished, vi } from "vitest";
import { createBroker, type Engine, memoryEngine } from "../../src/index.ts";
import { type NodeFetch, nodeHandler } from "../../src/node/index.ts";
import { redisEngine } from "../../src/redis/index.ts";
import { createRuns, type Runs, type RunsOptions } from "../../src/runs/index.ts";
import { sqliteEngine } from "../../src/sqlite/index.ts";
import { newDatabasePath } from "../support/engines/database-path.ts";
import { Random } from "../support/random.ts";
import { listen } from "../support/servers/node-server.ts";
import { anyRedis } from "../support/servers/redis.ts";

/** Chunks of a run. */
export const CHUNKS = 500;

/** Returns the text of a chunk: as a model may write it, with text that event streams and JSON treat in a special way. */
export const wordOf = (index: number): string =>
  `${index}${[" ", "\n", "\r\n", " é☃🎉", ' "data: [DONE]" ', "\n\n", "\\", " id: 7 "][index % 8]}`;

/** Returns the text of so many chunks. */
export const textOf = (count: number): string => Array.from({ length: count }, (_, index) => wordOf(index)).join("");

/** Yields words as a model does: a few, then a pause. Ends early when the signal aborts. */
export async function* words(count: number, signal?: AbortSignal): AsyncGenerator<string> {
  for (let index = 0; index < count; index++) {
    if (index % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
    if (signal?.aborted) return;
    yield wordOf(index);
  }
}

/** Returns chunks as a stream. */
export function streamOf<T>(chunks: AsyncGenerator<T>): ReadableStream<T> {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await chunks.return(undefined);
    },
  });
}

/** Hides that a client prints each connection that broke off. */
export function hush(): void {
  const spy = vi.spyOn(console, "error").mockImplementation(() => undefined);
  onTestFinished(() => spy.mockRestore());
}

/** Returns a promise, and the function that resolves it. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Returns an engine for one test: in memory, or with `ENGINE=sqlite` or `ENGINE=redis` where the log is kept otherwise. */
export async function newEngine(): Promise<Engine> {
  const kind = process.env.ENGINE ?? "memory";
  if (kind === "memory") return memoryEngine();
  if (kind === "sqlite") return sqliteEngine({ path: newDatabasePath() });
  if (kind !== "redis")
    throw new Error(`Testing adapters: there is no engine ${kind}; set ENGINE to memory, sqlite or redis.`);
  const server = await anyRedis();
  const client = new Redis(server.url);
  onTestFinished(async () => {
    client.disconnect();
    await server.stop();
  });
  return redisEngine({ client, prefix: randomUUID() });
}

/** Serves an application with runs until the test ends. */
export async function serve(
  appOf: (runs: Runs) => NodeFetch,
  options?: RunsOptions,
): Promise<{ readonly url: string; readonly runs: Runs; readonly stop: () => Promise<void> }> {
  const broker = createBroker({ engine: await newEngine() });
  const runs = createRuns(broker, options);
  const { url } = await listen(nodeHandler(appOf(runs)));
  onTestFinished(() => broker.close({ force: true }));
  return { url, runs, stop: () => broker.close({ force: true }) };
}

/** Where a connection breaks off: behind so many events, or so many bytes of the answer. */
export interface Cut {
  readonly unit: "events" | "bytes";
  readonly after: number;
}

/** Returns the places at which the tests cut: with `CUTS=all` behind every chunk, and at 500 random bytes. Else some of both. */
export function cutsOf(seed: number, bytes: number): readonly Cut[] {
  const isAll = process.env.CUTS === "all";
  const random = new Random(seed);
  const cuts: Cut[] = [];
  for (let after = 1; after < CHUNKS; after += isAll ? 1 : 7) cuts.push({ unit: "events", after });
  // Not within the head of the answer, and the first event.
  for (let count = isAll ? 500 : 50; count > 0; count--)
    cuts.push({ unit: "bytes", after: random.integer(800, bytes) });
  return cuts;
}

/** Runs a check for each cut, a few at a time. */
export async function forEachCut(
  cuts: readonly Cut[],
  check: (cut: Cut, index: number) => Promise<void>,
): Promise<void> {
  const queue = [...cuts.entries()];
  const lane = async (): Promise<void> => {
    for (let next = queue.shift(); next; next = queue.shift()) await check(next[1], next[0]);
  };
  await Promise.all(Array.from({ length: 8 }, lane));
}

const EMPTY_LINE = Buffer.from("\n\n");

/** A network that breaks the first connection off, and lets the others pass. */
export class Network {
  readonly #server: Server;
  /** Connections that were broken off. */
  broken = 0;

  constructor(url: string, { unit, after }: Cut) {
    this.#server = createServer((inbound) => {
      const outbound = connect(Number(new URL(url).port), "127.0.0.1");
      const end = (): void => void [inbound, outbound].map((socket) => socket.destroy());
      for (const socket of [inbound, outbound]) socket.on("error", end).on("close", end);
      inbound.pipe(outbound);
      let left = this.broken === 0 ? after : Infinity;
      outbound.on("data", (bytes: Buffer) => {
        if (left <= 0) return;
        let length = bytes.length;
        if (unit === "bytes") {
          length = Math.min(length, left);
          left -= length;
        } else {
          for (let at = bytes.indexOf(EMPTY_LINE); at >= 0 && left > 0; at = bytes.indexOf(EMPTY_LINE, at + 2))
            if (--left === 0) length = at + 2;
        }
        const isLast = left <= 0;
        inbound.write(bytes.subarray(0, length), () => {
          if (!isLast) return;
          this.broken++;
          end();
        });
      });
    }).listen(0, "127.0.0.1");
  }

  async open(): Promise<string> {
    if (!this.#server.listening) await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.close();
  }
}
