// The engine that keeps the log in Redis.
import type { Engine } from "../engine/engine.ts";
import { type LogOptions, resolveLogOptions } from "../log/log-options.ts";
import { sharedLogEngine } from "../shared-log/shared-log-engine.ts";
import { type RedisOptions, resolveRedisOptions } from "./options.ts";
import { redisLog } from "./redis-log.ts";

/** Options of {@link redisEngine}. */
export interface RedisEngineOptions extends RedisOptions, Pick<LogOptions, "logBytes"> {}

/**
 * Keeps the log in Redis 7.0 or later, or in Valkey, so that the brokers of several processes behave as one. All keys begin with `{prefix}`.
 * A restart, a failover or evicted keys make it uncertain that the log is complete. Then a new epoch begins, and clients that come back
 * receive a gap.
 *
 * An acknowledged event is not durable, because Redis replicates it later: see `waitReplicas`.
 *
 * @example
 * ```ts
 * const broker = createBroker({ engine: redisEngine({ client: new Redis(), prefix: "shop" }) });
 * ```
 * @throws `TypeError` and `RangeError` for options that are not valid.
 */
export function redisEngine({ logBytes, ...options }: RedisEngineOptions): Engine {
  const { retention, channels, maxChannels, tenant } = resolveRedisOptions(options);
  // Resolved here, so that an error names the function that the application called.
  const bounds = resolveLogOptions("redisEngine()", { logBytes, maxChannels, retention, channels, tenant });
  return sharedLogEngine(redisLog(options), bounds);
}
