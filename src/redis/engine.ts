import type { Engine } from "../engine/engine.ts";
import type { LogOptions } from "../log/log.ts";
import { sharedLogEngine } from "../shared-log/shared-log-engine.ts";
import { type RedisOptions, resolveRedisOptions } from "./options.ts";
import { redisLog } from "./redis-log.ts";

/** Options of {@link redisEngine}. */
export interface RedisEngineOptions extends RedisOptions, Pick<LogOptions, "logBytes"> {}

/**
 * Keeps the log in Redis 7.0 or later, or in Valkey, so that the brokers of several processes behave as one. What has to do with the log is kept
 * under `{prefix}`. Whatever makes it doubtful that the log is whole (a restart, a failover, keys that were evicted) begins a new epoch: clients
 * that come back are told of a gap.
 *
 * Acknowledged is not durable: Redis replicates later. See `waitReplicas`.
 *
 * @example
 * ```ts
 * const broker = createBroker({ engine: redisEngine({ client: new Redis(), prefix: "shop" }) });
 * ```
 * @throws `TypeError` and `RangeError` for options that are none.
 */
export function redisEngine({ logBytes, ...options }: RedisEngineOptions): Engine {
  const { retention, maxChannels } = resolveRedisOptions(options);
  return sharedLogEngine(redisLog(options), { logBytes, maxChannels, retention });
}
