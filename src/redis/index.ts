export type { BunClient } from "./bun.ts";
export type { RedisClient, RedisSubscriber } from "./clients.ts";
export type { RedisEngineOptions } from "./engine.ts";
export { redisEngine } from "./engine.ts";
export type { IoredisClient } from "./ioredis.ts";
export type { NodeRedisClient } from "./node-redis.ts";
