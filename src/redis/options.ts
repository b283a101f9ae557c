import { checkNumbers, withDefaults } from "../base/validate.ts";
import type { Retention } from "../log/log.ts";
import { type RedisClient, type RedisSubscriber, wrap } from "./clients/clients.ts";
import type { Wrapped } from "./clients/connection.ts";

/** Options of a log in Redis. */
export interface RedisOptions {
  /**
   * The application's client: of ioredis, of node-redis (`createClient`) or of Bun (`Bun.redis`, `new RedisClient`); not of a cluster. All commands go
   * through it. It stays the application's: it is connected if it never was, and not closed.
   */
  readonly client: RedisClient;
  /**
   * What the connection is made from that events come in through: a client of the same kind, of which duplicates are made, or a function that makes
   * a new one at every call, which is closed when it is of no more use. @default client
   */
  readonly subscriber?: RedisSubscriber | undefined;
  /**
   * What every key and channel begins with, in braces, so that one node of a cluster has all of them. Required: two applications that use one Redis
   * under the same name would read each other's events, and end each other's clients, in two databases of it as well. 1 to 100 characters, without braces and control characters.
   */
  readonly prefix: string;
  /** How much of each channel is kept in Redis. @default { age: 300_000, events: 10_000, bytes: 4_194_304 } */
  readonly retention?: Retention | undefined;
  /** Channels that Redis remembers the last position of, inboxes included; 1 or more. Beyond it the quietest is forgotten. @default 100_000 */
  readonly maxChannels?: number | undefined;
  /** Milliseconds that the key of an event is remembered, 0 or more; 0 remembers none. @default 300_000 */
  readonly idempotencyWindow?: number | undefined;
  /** Milliseconds that a command may take, 1 or more. What takes longer is given up, and Redis counts as away until it answers. @default 5_000 */
  readonly commandTimeout?: number | undefined;
  /** Milliseconds that a process counts as alive after it was last heard of, 100 or more. @default 15_000 */
  readonly lease?: number | undefined;
  /**
   * Replicas that must have an event before its publisher is told, 0 or more. With fewer, after half of `commandTimeout`, the publish fails with
   * `publish-outcome-unknown`; with 0 a failover can lose events that were acknowledged. The connection does nothing else meanwhile. @default 0
   */
  readonly waitReplicas?: number | undefined;
}

/** Options with every default in its place. */
export interface RedisSettings {
  readonly client: Wrapped;
  /** What the feed's connection is a duplicate of, or what makes it. */
  readonly subscriber: Wrapped | (() => Promise<Wrapped>);
  /** What keys and channels begin with. */
  readonly base: string;
  readonly retention: { readonly events: number; readonly bytes: number; readonly age: number };
  readonly maxChannels: number;
  readonly idempotencyWindow: number;
  readonly commandTimeout: number;
  readonly lease: number;
  readonly waitReplicas: number;
}

const WHERE = "redisEngine()";
const RETENTION = { events: 10_000, bytes: 4 * 1024 * 1024, age: 300_000 };
const DEFAULTS = {
  client: undefined,
  subscriber: undefined,
  prefix: undefined,
  retention: {},
  maxChannels: 100_000,
  idempotencyWindow: 300_000,
  commandTimeout: 5_000,
  lease: 15_000,
  waitReplicas: 0,
};

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters that must not pass
const REFUSED = /[{}\0-\x1f\x7f]/;

/** @throws `TypeError` and `RangeError` for what no engine can be made with. */
export function resolveRedisOptions(options: RedisOptions): RedisSettings {
  const all = withDefaults<Required<RedisOptions>>(WHERE, "option", DEFAULTS, options);
  const retention = withDefaults<RedisSettings["retention"]>(WHERE, "retention option", RETENTION, all.retention);
  const { prefix, maxChannels = 0, idempotencyWindow = 0, commandTimeout = 0, lease = 0, waitReplicas = 0 } = all;
  if (typeof prefix !== "string" || prefix === "" || prefix.length > 100 || REFUSED.test(prefix)) {
    throw new TypeError(
      `${WHERE} refused: prefix must be a string of 1 to 100 characters without braces and control characters, such as the application's ` +
        "name. Two applications that use one Redis under the same name would read each other's events.",
    );
  }
  checkNumbers(WHERE, { maxChannels, commandTimeout, ...retention }, 1);
  checkNumbers(WHERE, { idempotencyWindow, waitReplicas }, 0);
  checkNumbers(WHERE, { lease }, 100, 86_400_000);
  const client = wrap(WHERE, "client", all.client);
  const { subscriber } = all;
  return {
    client,
    subscriber:
      subscriber === undefined
        ? client
        : typeof subscriber === "function"
          ? async () => wrap(WHERE, "what subscriber() makes", await subscriber())
          : wrap(WHERE, "subscriber", subscriber),
    base: `{${prefix}}`,
    retention,
    maxChannels,
    idempotencyWindow,
    commandTimeout,
    lease,
    waitReplicas,
  };
}
