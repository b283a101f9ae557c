// Processes that share the runs of one Redis server, for the tests of a file.
import { Redis } from "ioredis";
import { afterEach, beforeEach, vi } from "vitest";
import type { RunPage, RunStart } from "../../../src/engine/run-store.ts";
import { decode } from "../../../src/event/sse-format.ts";
import { DiscardingProxy } from "../../support/servers/redis.ts";
import { type ClientOptions, openRuns, type RunProcess } from "./run-process.ts";
import type { UsedRedis } from "./use-redis.ts";

export const LEASE_MS = 30_000;
export const RETAIN_MS = 300_000;
/** A lease that is over soon. */
export const SHORT_MS = 20;
/** The keys of the run `a`. */
export const HASH = "{test}:run:a";
export const LIST = "{test}:run-events:a";

export const startOf = (generation: string, changes: Partial<RunStart> = {}): RunStart => ({
  generation,
  leaseMs: LEASE_MS,
  retainMs: RETAIN_MS,
  readers: undefined,
  ...changes,
});
export const eventOf = (data: string): string => `data: ${data}\n\n`;
export const dataOf = ({ bytes }: RunPage): string[] =>
  Array.from(decode(bytes).matchAll(/data: (.*)/g), ([, data = ""]) => data);

/** Reads a run that has to be known. */
export async function read({ runs }: RunProcess, id = "a", after = 0): Promise<RunPage> {
  const page = await runs.read(id, after, 65_536);
  if (!page) throw new Error(`Reading the run ${id}: it is unknown.`);
  return page;
}

/** Calls until it succeeds, because commands cannot be given for a while. */
export const retry = <T>(call: () => Promise<T> | T): Promise<T> =>
  vi.waitFor(async () => await call(), { timeout: 20_000, interval: 10 });

export interface UsedRuns {
  /** A proxy in front of the server, for `open`. Present while a test runs. */
  readonly proxy: DiscardingProxy;
  /** Opens a store whose commands, or whose feed, go through the proxy. */
  open(
    through?: "commands" | "feed" | "nothing",
    options?: Parameters<typeof openRuns>[1],
    clientOptions?: ClientOptions,
  ): RunProcess;
  timeToLive(key: string): Promise<number>;
}

/** Closes after each test of the `describe` that calls this what the test has opened. */
export function useRuns(redis: UsedRedis): UsedRuns {
  let proxy: DiscardingProxy;
  const processes: RunProcess[] = [];
  beforeEach(async () => {
    proxy = await new DiscardingProxy(redis.server.port).listen();
  });
  afterEach(async () => {
    for (const process of processes.splice(0)) process.close();
    await proxy.stop();
  });
  return {
    get proxy() {
      return proxy;
    },
    open(through = "nothing", options = {}, clientOptions = {}) {
      const feedPort = through === "feed" ? proxy.port : redis.server.port;
      const subscriber = (): Redis =>
        new Redis(feedPort, "127.0.0.1", { lazyConnect: true, retryStrategy: () => null });
      const port = through === "commands" ? proxy.port : redis.server.port;
      const process = openRuns(port, { subscriber, ...options }, clientOptions);
      processes.push(process);
      return process;
    },
    timeToLive: async (key) => Number(await redis.server.command("PTTL", key)),
  };
}
