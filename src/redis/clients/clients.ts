// Recognizes the library of a client, and adapts the client.
import { adaptBun, type BunClient } from "./bun.ts";
import type { ClientAdapter } from "./connection.ts";
import { adaptIoredis, type IoredisClient } from "./ioredis.ts";
import { adaptNodeRedis, type NodeRedisClient } from "./node-redis.ts";

/** A client of ioredis, of node-redis or of Bun. Only the members that the engine needs are listed. */
export type RedisClient = IoredisClient | NodeRedisClient | BunClient;
/** A client to duplicate, or a function that creates clients. */
export type RedisSubscriber = RedisClient | (() => RedisClient | Promise<RedisClient>);

/**
 * Recognizes the library of a client by its members.
 *
 * @throws `TypeError` for a value that is not a client of one of the libraries.
 */
export function adaptClient(where: string, name: string, client: unknown): ClientAdapter {
  const value = (client ?? {}) as Record<string, unknown>;
  const has = (...members: string[]): boolean => members.every((member) => typeof value[member] === "function");
  if (value.isCluster !== true && has("duplicate")) {
    if (has("call", "disconnect", "on") && typeof value.status === "string")
      return adaptIoredis(client as IoredisClient);
    if (has("sendCommand", "destroy", "on") && typeof value.isReady === "boolean")
      return adaptNodeRedis(client as NodeRedisClient);
    if (has("send", "close") && typeof value.connected === "boolean") return adaptBun(client as BunClient);
  }
  throw new TypeError(
    `${where} refused: ${name} must be a client of one server, made by ioredis (new Redis()), by node-redis (createClient()) or by Bun ` +
      "(new RedisClient()).",
  );
}
