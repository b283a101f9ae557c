import { type BunClient, wrapBun } from "./bun.ts";
import type { Wrapped } from "./connection.ts";
import { type IoredisClient, wrapIoredis } from "./ioredis.ts";
import { type NodeRedisClient, wrapNodeRedis } from "./node-redis.ts";

/** A client of ioredis, of node-redis or of Bun, as far as the engine needs it. */
export type RedisClient = IoredisClient | NodeRedisClient | BunClient;
/** A client that duplicates are made of, or what makes clients. */
export type RedisSubscriber = RedisClient | (() => RedisClient | Promise<RedisClient>);

/** Tells by its members of which library a client is. @throws `TypeError` if of none. */
export function wrap(where: string, name: string, client: unknown): Wrapped {
  const it = (client ?? {}) as Record<string, unknown>;
  const has = (...members: string[]): boolean => members.every((member) => typeof it[member] === "function");
  if (it.isCluster !== true && has("duplicate")) {
    if (has("call", "disconnect", "on") && typeof it.status === "string") return wrapIoredis(client as IoredisClient);
    if (has("sendCommand", "destroy", "on") && typeof it.isReady === "boolean")
      return wrapNodeRedis(client as NodeRedisClient);
    if (has("send", "close") && typeof it.connected === "boolean") return wrapBun(client as BunClient);
  }
  throw new TypeError(
    `${where} refused: ${name} must be a client of one server, made by ioredis (new Redis()), by node-redis (createClient()) or by Bun ` +
      "(new RedisClient()).",
  );
}
