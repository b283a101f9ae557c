// The export `fanwire/redis`.
export type { BunClient } from "./clients/bun.ts";
export type { RedisClient, RedisSubscriber } from "./clients/clients.ts";
export type { IoredisClient } from "./clients/ioredis.ts";
export type { NodeRedisClient } from "./clients/node-redis.ts";
export type { RedisEngineOptions } from "./engine.ts";
export { redisEngine } from "./engine.ts";
