// Creates the broker of `npx fanwire` from its configuration. Libraries that only some users need are loaded when they are asked for.
/// <reference types="node" />
import type { BrokerError } from "../base/errors.ts";
import { createBroker } from "../broker/broker.ts";
import type { Broker } from "../broker/interface.ts";
import type { BrokerOptions } from "../broker/options.ts";
import type { Engine } from "../engine/engine.ts";
import { memoryEngine } from "../engine/memory-engine.ts";
import type { AccessRequest, Authorize, Grant } from "../http/authorize.ts";
import type { RedisClient } from "../redis/clients/clients.ts";
import { redisEngine } from "../redis/engine.ts";
import { hasSqlite } from "../sqlite/database.ts";
import { sqliteEngine } from "../sqlite/engine.ts";
import { type Configuration, type JwtConfiguration, UsageError } from "./options.ts";

/** Creates the broker. @throws {@link UsageError} for options that the broker refuses, and for a library that is not installed */
export async function brokerOf(configuration: Configuration, onError: BrokerOptions["onError"]): Promise<Broker> {
  const { publishToken, corsOrigins, jwt } = configuration;
  const engine = await engineOf(configuration);
  const authorize = jwt && (await authorizeOf(jwt));
  return checked(() =>
    createBroker({
      engine,
      ...(publishToken === undefined ? {} : { publishToken }),
      ...(authorize ? { authorize } : {}),
      ...(corsOrigins.length > 0
        ? { cors: { origins: [...corsOrigins], credentials: jwt?.cookie !== undefined } }
        : {}),
      ...(onError ? { onError } : {}),
    }),
  );
}

/** Returns the result of a function. What it refuses is a mistake in the configuration. */
function checked<T>(create: () => T): T {
  try {
    return create();
  } catch (error) {
    throw new UsageError((error as BrokerError).message.replace(/\.$/, ""));
  }
}

/** Returns the kind of engine. `missing` says that the file was asked for by nobody, and this runtime has no SQLite. */
export function storeOf({ redis, file }: Configuration): "redis" | "sqlite" | "memory" | "missing" {
  if (redis) return "redis";
  if (!file) return "memory";
  if (withoutWarning(hasSqlite)) return "sqlite";
  if (file.isDefault) return "missing";
  throw new UsageError("--file needs SQLite, which this Node does not have; use Node 22.13 or later, or Bun");
}

/** Calls a function without the warning of Node 22 that its SQLite is experimental. */
function withoutWarning<T>(call: () => T): T {
  const { emitWarning } = process;
  process.emitWarning = () => undefined;
  try {
    return call();
  } finally {
    process.emitWarning = emitWarning;
  }
}

async function engineOf(configuration: Configuration): Promise<Engine> {
  const { redis, retention, logBytes, file } = configuration;
  const bounds = { retention, ...(logBytes === undefined ? {} : { logBytes }) };
  const store = storeOf(configuration);
  if (store === "sqlite") return checked(() => sqliteEngine({ ...bounds, path: file?.path }));
  if (!redis) return checked(() => memoryEngine(bounds));
  if (!/^rediss?:\/\/./.test(redis.url))
    throw new UsageError(`the URL of Redis is "${redis.url}"; it must begin with redis:// or rediss://`);
  const client = await redisClient(redis.url);
  return checked(() => redisEngine({ ...bounds, client, prefix: redis.prefix }));
}

interface BunGlobal {
  readonly RedisClient: new (url: string) => RedisClient;
}

/** Bun has a client of its own. Elsewhere it is a library that the user installs. */
async function redisClient(url: string): Promise<RedisClient> {
  const { Bun } = globalThis as { Bun?: BunGlobal };
  if (Bun) return new Bun.RedisClient(url);
  const { Redis } = await library<{ Redis: new (url: string) => RedisClient & RedisEvents }>("ioredis", "--redis");
  const client = new Redis(url);
  // The engine reports what matters; without a listener ioredis prints each failed attempt.
  client.on("error", () => undefined);
  return client;
}

interface RedisEvents {
  on(event: "error", listener: () => void): unknown;
}

/** @throws {@link UsageError} if the library is not installed */
async function library<T>(name: string, flag: string): Promise<T> {
  try {
    return (await import(name)) as T;
  } catch {
    throw new UsageError(`${flag} needs the library ${name}; start it with: npx -p fanwire -p ${name} fanwire`);
  }
}

/** Claims of a token. */
interface Claims {
  readonly sub?: string;
  /** Channels that its owner may read; `"*"` is every channel that it asks for. */
  readonly channels?: unknown;
  /** Channels that its owner may publish to; `"*"` is everything. */
  readonly publish?: unknown;
}

async function authorizeOf({
  secret,
  jwks,
  algorithms,
  issuer,
  audience,
  cookie,
}: JwtConfiguration): Promise<Authorize> {
  await library("jose", secret === undefined ? "--jwks" : "--jwt-secret");
  const { jwt } = await import("../jwt.ts");
  const options = {
    ...(secret === undefined ? { jwks: jwks as string } : { secret }),
    algorithms,
    ...(issuer === undefined ? {} : { issuer }),
    ...(audience === undefined ? {} : { audience }),
    ...(cookie === undefined ? {} : { cookie }),
    grant: grantOf,
  };
  return checked(() => jwt(options));
}

/** Returns what the owner of a token may do. */
function grantOf(
  claims: Claims,
  { action, channels, clientId }: Pick<AccessRequest, "action" | "channels" | "clientId">,
): Grant | boolean {
  const { sub } = claims;
  if (action === "connect") {
    const own = sub === undefined ? {} : { clientId: sub };
    const readable = namesIn(claims.channels);
    return { ...own, channels: readable.includes("*") ? channels : readable };
  }
  const targets = namesIn(claims.publish);
  if (targets.includes("*")) return { channels, everybody: true, ...(clientId === undefined ? {} : { clientId }) };
  return targets.length > 0 && { channels: targets };
}

/** Returns the names that a claim lists. One name may stand without a list. */
function namesIn(claim: unknown): string[] {
  return [claim].flat().filter((name) => typeof name === "string");
}
