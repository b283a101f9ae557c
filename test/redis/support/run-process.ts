// One of the processes that share runs in Redis: the store, as the session of the engine opens it.
import { Redis } from "ioredis";
import type { EngineListener, EngineSession } from "../../../src/engine/engine.ts";
import type { RunStore } from "../../../src/engine/run-store.ts";
import { type RedisEngineOptions, redisEngine } from "../../../src/redis/index.ts";

/** Options of ioredis. */
export interface ClientOptions {
  readonly keyPrefix?: string;
  readonly autoResendUnfulfilledCommands?: boolean;
}

export interface RunProcess {
  readonly client: Redis;
  readonly session: EngineSession;
  readonly runs: RunStore;
  /** What went wrong in the background. */
  readonly errors: unknown[];
  close(): void;
}

/** Opens a store of runs. Its first calls wait until Redis has answered. */
export function openRuns(
  port: number,
  options: Partial<RedisEngineOptions> = {},
  clientOptions: ClientOptions = {},
): RunProcess {
  const client = new Redis(port, "127.0.0.1", {
    retryStrategy: () => 20,
    maxRetriesPerRequest: null,
    ...clientOptions,
  });
  client.on("error", () => undefined);
  const errors: unknown[] = [];
  const listener: EngineListener = {
    position: 0,
    onAppended: () => undefined,
    onOverrun: () => undefined,
    onError: (error) => void errors.push(error),
  };
  const session = redisEngine({ client, prefix: "test", ...options }).open(listener);
  const runs = session.openRuns?.((error) => errors.push(error));
  if (!runs) throw new Error("Opening runs: the engine keeps none.");
  return {
    ...{ client, session, runs, errors },
    close() {
      runs.close();
      session.close();
      client.disconnect();
    },
  };
}
