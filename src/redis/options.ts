// The options of the Redis engine, their defaults and their checks.
import { checkNumbers, withDefaults } from "../base/validate.ts";
import type { LogOptions, Retention } from "../log/log-options.ts";
import { adaptClient, type RedisClient, type RedisSubscriber } from "./clients/clients.ts";
import type { ClientAdapter } from "./clients/connection.ts";

/** Options of a log in Redis. */
export interface RedisOptions {
  /**
   * The application's client: of ioredis, of node-redis (`createClient`) or of Bun (`Bun.redis`, `new RedisClient`), but not of a cluster.
   * All commands go through it. The engine connects it if it was never connected, and never closes it.
   */
  readonly client: RedisClient;
  /**
   * The source of the connection through which events arrive: a client of the same kind, which the engine duplicates, or a function that
   * creates a new client with each call. The engine closes the clients that the function creates. @default client
   */
  readonly subscriber?: RedisSubscriber | undefined;
  /**
   * The beginning of every key and channel. The engine adds braces, so that one node of a cluster holds all of them. Required, because two
   * applications with the same prefix on one Redis would read each other's events and end each other's clients, even in different
   * databases. 1 to 100 characters, without braces and control characters.
   */
  readonly prefix: string;
  /** The part of each channel that Redis keeps. @default { age: 300_000, events: 10_000, bytes: 4_194_304 } */
  readonly retention?: Retention | undefined;
  /**
   * Returns the options of a channel; `undefined` for none of its own. `retention` is what Redis and each process keep of it; what is not set
   * comes from the engine's. An `age` of `Infinity` is ten years. MUST return the same for the same name, at once, in all processes: the one that
   * publishes decides what is kept, and the one that reads leaves out what is too old. If it throws or returns something else, the event or the
   * connection is refused. Inboxes and events for every client have the engine's `retention`. @default none
   */
  readonly channels?: LogOptions["channels"];
  /**
   * Bytes of all events in Redis, 1 or more: each event once, and 256 for each channel that retains it. Beyond it, the owner that has the most
   * loses the oldest events of its largest channel (to within a factor of two). Redis needs up to 1.3 times as much memory.
   * @default 134_217_728 (128 MiB)
   */
  readonly redisBytes?: number | undefined;
  /**
   * Channels whose last position Redis remembers, inboxes included; 1 or more. Beyond it, the owner that has the most loses the channel
   * without an event for the longest time. @default 100_000
   */
  readonly maxChannels?: number | undefined;
  /**
   * Returns the owner of a channel, such as the tenant that its name begins with. Owners share `redisBytes`, `maxChannels` and `logBytes`: one
   * that keeps within an equal part of them loses nothing because of others. MUST return the same string for the same channel, in all processes.
   * If it throws or returns something else, the event is refused. Without it, a channel belongs to the subject that published into it first,
   * as inboxes and the channel for every client always do; events without a subject have one owner. @default none
   */
  readonly tenant?: LogOptions["tenant"];
  /** Milliseconds for which the idempotency key of an event is remembered, 0 or more; 0 remembers none. @default 300_000 */
  readonly idempotencyWindow?: number | undefined;
  /**
   * Milliseconds that a command may take, 1 or more. A command that takes longer is given up, and Redis counts as unreachable until it
   * answers. @default 5_000
   */
  readonly commandTimeout?: number | undefined;
  /** Milliseconds for which a process counts as alive after its last sign of life, 100 to 86,400,000. @default 15_000 */
  readonly lease?: number | undefined;
  /**
   * Replicas that must have an event before its publisher is answered, 0 or more. If fewer have it after half of `commandTimeout`, publishing
   * fails with `publish-outcome-unknown`. With 0, a failover can lose acknowledged events. The client sends nothing else while it waits, so
   * give the engine a client of its own. @default 0
   */
  readonly waitReplicas?: number | undefined;
}

/** Options with all defaults applied. */
export interface RedisSettings {
  readonly client: ClientAdapter;
  /** The client to duplicate for the feed, or a function that creates one. */
  readonly subscriber: ClientAdapter | (() => Promise<ClientAdapter>);
  /** The beginning of keys and channels, braces included. */
  readonly base: string;
  readonly retention: { readonly events: number; readonly bytes: number; readonly age: number };
  readonly channels: LogOptions["channels"];
  readonly redisBytes: number;
  readonly maxChannels: number;
  readonly tenant: LogOptions["tenant"];
  readonly idempotencyWindow: number;
  readonly commandTimeout: number;
  readonly lease: number;
  readonly waitReplicas: number;
}

const WHERE = "redisEngine()";
const DEFAULT_RETENTION = { events: 10_000, bytes: 4 * 1024 * 1024, age: 300_000 };
const DEFAULTS = {
  client: undefined,
  subscriber: undefined,
  prefix: undefined,
  retention: {},
  channels: undefined,
  redisBytes: 128 * 1024 * 1024,
  maxChannels: 100_000,
  tenant: undefined,
  idempotencyWindow: 300_000,
  commandTimeout: 5_000,
  lease: 15_000,
  waitReplicas: 0,
};
const MIN_LEASE_MS = 100;
const MAX_LEASE_MS = 86_400_000;

// biome-ignore lint/suspicious/noControlCharactersInRegex: a prefix must not contain these characters
const FORBIDDEN_IN_PREFIX = /[{}\0-\x1f\x7f]/;

/** @throws `TypeError` and `RangeError` for options that are not valid. */
export function resolveRedisOptions(options: RedisOptions): RedisSettings {
  const all = withDefaults<Required<RedisOptions>>(WHERE, "option", DEFAULTS, options);
  const retention = withDefaults<RedisSettings["retention"]>(
    WHERE,
    "retention option",
    DEFAULT_RETENTION,
    all.retention,
  );
  const { prefix, redisBytes = 0, maxChannels = 0, tenant, channels } = all;
  const { idempotencyWindow = 0, commandTimeout = 0, lease = 0, waitReplicas = 0 } = all;
  if (typeof prefix !== "string" || prefix === "" || prefix.length > 100 || FORBIDDEN_IN_PREFIX.test(prefix)) {
    throw new TypeError(
      `${WHERE} refused: prefix must be a string of 1 to 100 characters without braces and control characters. Use the application's name: ` +
        "two applications with the same prefix on one Redis would read each other's events.",
    );
  }
  checkNumbers(WHERE, { redisBytes, maxChannels, commandTimeout, ...retention }, 1);
  checkNumbers(WHERE, { idempotencyWindow, waitReplicas }, 0);
  checkNumbers(WHERE, { lease }, MIN_LEASE_MS, MAX_LEASE_MS);
  const client = adaptClient(WHERE, "client", all.client);
  const { subscriber } = all;
  return {
    client,
    subscriber:
      subscriber === undefined
        ? client
        : typeof subscriber === "function"
          ? async () => adaptClient(WHERE, "the result of subscriber()", await subscriber())
          : adaptClient(WHERE, "subscriber", subscriber),
    base: `{${prefix}}`,
    retention,
    channels,
    redisBytes,
    maxChannels,
    tenant,
    idempotencyWindow,
    commandTimeout,
    lease,
    waitReplicas,
  };
}
