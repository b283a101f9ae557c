// The flags and environment variables of `npx fanwire`, and the checks of their values.
/// <reference types="node" />
import { type ParseArgsConfig, parseArgs } from "node:util";

/** A mistake of the person who started the program. It is printed in one line, and the exit code is 2. */
export class UsageError extends Error {}

/** The configuration of the program. */
export interface Configuration {
  readonly host: string;
  readonly port: number;
  readonly publishToken: string | undefined;
  readonly jwt: JwtConfiguration | undefined;
  readonly corsOrigins: readonly string[];
  readonly retention: { readonly age?: number; readonly events?: number };
  readonly logBytes: number | undefined;
  /** The SQLite file that keeps events. `isDefault` if nobody asked for it; `undefined` for the memory of the process. */
  readonly file: { readonly path: string; readonly isDefault: boolean } | undefined;
  readonly redis: { readonly url: string; readonly prefix: string } | undefined;
  /** Whether `/` is a page that shows events and publishes. */
  readonly open: boolean;
  /** Milliseconds over which clients are sent away at SIGTERM. */
  readonly drain: number;
}

export interface JwtConfiguration {
  readonly secret: string | undefined;
  readonly jwks: string | undefined;
  readonly algorithms: readonly string[];
  readonly issuer: string | undefined;
  readonly audience: string | undefined;
  readonly cookie: string | undefined;
}

export const HELP = `Usage: npx fanwire [options]

A broker for Server-Sent Events. Clients read GET /connect?channel=news with EventSource.
Programs publish with POST /broadcast?channel=news. GET /health, GET /metrics.

  --port <n>               PORT              port to listen on; 0 takes a free one (3000)
  --host <address>         HOST              address to listen on (127.0.0.1)
  --publish-token <text>   PUBLISH_TOKEN     lets programs publish with Authorization: Bearer
  --jwt-secret <text>      JWT_SECRET        lets clients and programs in with a token (HS256)
  --jwks <url>             JWKS_URL          the same, with the public keys of an issuer
  --jwt-algorithms <list>  JWT_ALGORITHMS    accepted algorithms (HS256; with --jwks ES256,RS256)
  --jwt-issuer <text>      JWT_ISSUER        the iss that tokens must have (any)
  --jwt-audience <text>    JWT_AUDIENCE      the aud that tokens must have (any)
  --jwt-cookie <name>      JWT_COOKIE        cookie with the token, for EventSource (none)
  --cors <origins>         CORS_ORIGINS      pages of other origins, separated by commas (none)
  --retention <time>       RETENTION         how long events are kept: 90s, 5m, 2h (5m)
  --retention-events <n>   RETENTION_EVENTS  events kept of each channel (no bound)
  --log-bytes <n>          LOG_BYTES         bytes kept in all (256 MiB; in memory 32 MiB)
  --file <path>            FANWIRE_FILE      SQLite file that keeps the events (fanwire.db)
  --memory                 MEMORY=1          keeps events in memory only
  --redis <url>            REDIS_URL         keeps events in Redis, for several processes
  --redis-prefix <text>    REDIS_PREFIX      the name of the broker in Redis (fanwire)
  --drain <time>           DRAIN             time to send clients away at SIGTERM (5s)
  --open                   OPEN=1            a page at / that shows events and publishes
  --version, --help

Claims of a token: sub is the client id; channels lists what it may read, and publish what
it may publish to ("*" is everything). Without a token option everybody may read.
Without --publish-token and without a token option nobody can publish.
`;

const FLAGS = {
  port: { type: "string" },
  host: { type: "string" },
  "publish-token": { type: "string" },
  "jwt-secret": { type: "string" },
  jwks: { type: "string" },
  "jwt-algorithms": { type: "string" },
  "jwt-issuer": { type: "string" },
  "jwt-audience": { type: "string" },
  "jwt-cookie": { type: "string" },
  cors: { type: "string" },
  retention: { type: "string" },
  "retention-events": { type: "string" },
  "log-bytes": { type: "string" },
  file: { type: "string" },
  memory: { type: "boolean" },
  redis: { type: "string" },
  "redis-prefix": { type: "string" },
  drain: { type: "string" },
  open: { type: "boolean" },
  help: { type: "boolean", short: "h" },
  version: { type: "boolean", short: "v" },
} as const satisfies ParseArgsConfig["options"];

type Flag = keyof typeof FLAGS;
/** The environment variables that are not called like their flag. */
const VARIABLES: Partial<Record<Flag, string>> = {
  jwks: "JWKS_URL",
  cors: "CORS_ORIGINS",
  file: "FANWIRE_FILE",
  redis: "REDIS_URL",
};
const variableOf = (flag: Flag): string => VARIABLES[flag] ?? flag.toUpperCase().replaceAll("-", "_");

/**
 * Reads flags and environment variables. A flag wins over its variable.
 *
 * @throws {@link UsageError} for an unknown flag, and a value that cannot be used
 */
export function readConfiguration(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Configuration | "help" | "version" {
  const flags = readFlags(args);
  if (flags.help) return "help";
  if (flags.version) return "version";
  /** Returns the value of a flag or its variable, and the name of the one that has it. */
  const find = (flag: Flag): readonly [value: string | undefined, name: string] => {
    const given = flags[flag];
    if (given !== undefined) return [String(given), `--${flag}`];
    const value = env[variableOf(flag)];
    // An empty secret must not leave everything open. Any other empty variable counts as not set.
    return [value === "" && !/^(?:jwt|jwks|publish)/.test(flag) ? undefined : value, variableOf(flag)];
  };
  const text = (flag: Flag): string | undefined => {
    const [value, name] = find(flag);
    if (value === "") throw new UsageError(`${name} is empty; give it a value, or do not set it`);
    return value;
  };
  const number = (flag: Flag, from: number, to = Number.MAX_SAFE_INTEGER): number | undefined => {
    const [value, name] = find(flag);
    if (value === undefined) return undefined;
    const parsed = /^\d+$/.test(value) ? Number(value) : NaN;
    if (!(parsed >= from && parsed <= to))
      throw new UsageError(`${name} is "${value}"; it must be a whole number${range(from, to)}`);
    return parsed;
  };
  const time = (flag: Flag, from: number): number | undefined => {
    const [value, name] = find(flag);
    if (value === undefined) return undefined;
    const [, amount, unit = ""] = /^(\d+)(ms|s|m|h|d)$/.exec(value) ?? [];
    const ms = Number(amount) * (UNITS[unit] ?? NaN);
    if (!(ms >= from)) throw new UsageError(`${name} is "${value}"; it must be a time such as 90s, 5m or 2h`);
    return ms;
  };
  const redisUrl = text("redis");
  const path = text("file");
  const inMemory = flags.memory ?? isOn("MEMORY", env.MEMORY);
  if (path !== undefined && (redisUrl !== undefined || inMemory))
    throw new UsageError("a file is set besides Redis or memory; events have one place, so leave one out");
  const age = time("retention", 1);
  const events = number("retention-events", 1);
  return {
    host: text("host") ?? "127.0.0.1",
    port: number("port", 0, 65_535) ?? 3_000,
    publishToken: text("publish-token"),
    jwt: jwtOf(text),
    corsOrigins: listOf(text("cors")),
    retention: { ...(age === undefined ? {} : { age }), ...(events === undefined ? {} : { events }) },
    logBytes: number("log-bytes", 1),
    file:
      redisUrl !== undefined || inMemory ? undefined : { path: path ?? "fanwire.db", isDefault: path === undefined },
    redis: redisUrl === undefined ? undefined : { url: redisUrl, prefix: text("redis-prefix") ?? "fanwire" },
    open: flags.open ?? isOn("OPEN", env.OPEN),
    drain: time("drain", 0) ?? 5_000,
  };
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

const range = (from: number, to: number): string =>
  to === Number.MAX_SAFE_INTEGER ? `, ${from} or more` : ` from ${from} to ${to}`;

const listOf = (value: string | undefined): string[] => (value ?? "").split(",").flatMap((item) => item.trim() || []);

/** @throws {@link UsageError} for a value that says neither yes nor no */
function isOn(name: string, value = ""): boolean {
  if (/^(?:1|true|yes)$/i.test(value)) return true;
  if (/^(?:0|false|no|)$/i.test(value)) return false;
  throw new UsageError(`${name} is "${value}"; it must be 1 or 0`);
}

function jwtOf(text: (flag: Flag) => string | undefined): JwtConfiguration | undefined {
  const [secret, jwks, algorithms] = [text("jwt-secret"), text("jwks"), text("jwt-algorithms")];
  const [issuer, audience, cookie] = [text("jwt-issuer"), text("jwt-audience"), text("jwt-cookie")];
  if (secret !== undefined && jwks !== undefined)
    throw new UsageError("--jwt-secret and --jwks are both set; tokens have one kind of key, so leave one out");
  if (secret === undefined && jwks === undefined) {
    // A check that is set and does nothing would leave everything open.
    if (algorithms ?? issuer ?? audience ?? cookie)
      throw new UsageError("an option for tokens is set without a key; set --jwt-secret or --jwks too");
    return undefined;
  }
  const accepted = listOf(algorithms ?? (jwks === undefined ? "HS256" : "ES256,RS256"));
  return { secret, jwks, algorithms: accepted, issuer, audience, cookie };
}

type Flags = { readonly [Name in Flag]?: (typeof FLAGS)[Name] extends { type: "boolean" } ? boolean : string };

function readFlags(args: readonly string[]): Flags {
  try {
    return parseArgs({ args: [...args], options: FLAGS, strict: true, allowPositionals: false }).values;
  } catch (error) {
    // Node adds advice about positional arguments after the first sentence.
    const [sentence = ""] = (error as Error).message.split(/(?<=')\.? /);
    throw new UsageError(sentence.replace(/\.$/, ""));
  }
}
