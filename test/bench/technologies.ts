// The servers to measure, and their configuration.
import { hasNchan, nchanVersions } from "./nchan.ts";
import { hasRedis } from "./redis.ts";
import { version } from "./versions.ts";

/** A server to measure. */
export interface Technology {
  readonly name: string;
  /** `bare` only holds connections, `firehose` only sends. */
  readonly kind: "fanwire" | "peer" | "bare" | "firehose";
  /** A command in node_modules/.bin, with its arguments. */
  readonly command: readonly [binary: string, ...args: string[]];
  /** Path below `servers/`. */
  readonly file: string;
  /** An argument of the program. */
  readonly argument?: string;
  /** Versions and options, for the report. */
  readonly configuration: string;
}

const BUN = ["bun"] as const;
const NODE = ["node", "--expose-gc"] as const;
const DENO = [
  "deno",
  "run",
  "--quiet",
  "--allow-net",
  "--allow-env",
  "--allow-sys",
  "--allow-read",
  "--allow-write",
  "--v8-flags=--expose-gc",
] as const;
/** Returns the name of a package with its version. */
const versioned = (name: string): string => `${name} ${version(name)}`;

const FANWIRE = "memory engine, defaults (heartbeat 8 s, log of 32 MiB), publishToken";
const SQLITE = "as above, with the log in a SQLite file on disk (durability power), publishToken";
const BETTER_SSE = `${versioned("better-sse")}, createChannel, serializer String, keep-alive every 8 s, no history`;
const STREAM_SSE = `${versioned("hono")} streamSSE, a Set of streams, all writes of an event awaited together; no heartbeat, no history`;
const BARE = "a ReadableStream with one comment and nothing behind it, high-water mark 0";

const all: readonly Technology[] = [
  {
    name: "nginx, nchan",
    kind: "peer",
    command: NODE,
    file: "nchan.ts",
    configuration: `${nchanVersions()}, one worker; messages stored (buffer of 2,000, 5 minutes), ping every 8 s, no access log`,
  },
  {
    name: "fanwire, Bun",
    kind: "fanwire",
    command: BUN,
    file: "fanwire-bun.ts",
    configuration: `${versioned("bun")}: Bun.serve, ${FANWIRE}`,
  },
  {
    name: "fanwire, Deno",
    kind: "fanwire",
    command: DENO,
    file: "fanwire-deno.ts",
    configuration: `${versioned("deno")}: Deno.serve, ${FANWIRE}`,
  },
  {
    name: "fanwire, Node",
    kind: "fanwire",
    command: NODE,
    file: "fanwire-node.ts",
    configuration: `${versioned("node")}, nodeHandler of fanwire/node, ${FANWIRE}`,
  },
  {
    name: "fanwire, Node, hono",
    kind: "fanwire",
    command: NODE,
    file: "fanwire-node-hono.ts",
    configuration: `${versioned("node")}, ${versioned("@hono/node-server")}, ${FANWIRE}`,
  },
  {
    name: "fanwire, Node, srvx",
    kind: "fanwire",
    command: NODE,
    file: "fanwire-node-srvx.ts",
    configuration: `${versioned("node")}, ${versioned("srvx")}, ${FANWIRE}`,
  },
  {
    name: "fanwire, workerd",
    kind: "fanwire",
    command: NODE,
    file: "workerd.ts",
    argument: "fanwire",
    configuration: `${versioned("workerd")}: createBroker in one Durable Object, ${FANWIRE}`,
  },
  {
    name: "fanwire, workerd, direct",
    kind: "fanwire",
    command: NODE,
    file: "workerd.ts",
    argument: "hub-direct",
    configuration: `${versioned("workerd")}: BrokerObject with its log in SQLite on disk, worker() in mode direct`,
  },
  {
    name: "fanwire, workerd, bridge",
    kind: "fanwire",
    command: NODE,
    file: "workerd.ts",
    argument: "hub-bridge",
    configuration: `${versioned("workerd")}: BrokerObject with its log in SQLite on disk, worker() in mode bridge`,
  },
  {
    name: "fanwire with SQLite, Bun",
    kind: "fanwire",
    command: BUN,
    file: "fanwire-bun.ts",
    argument: "sqlite",
    configuration: `${versioned("bun")}: ${SQLITE}`,
  },
  {
    name: "fanwire with SQLite, Deno",
    kind: "fanwire",
    command: DENO,
    file: "fanwire-deno.ts",
    argument: "sqlite",
    configuration: `${versioned("deno")}: ${SQLITE}`,
  },
  {
    name: "fanwire with SQLite, Node",
    kind: "fanwire",
    command: NODE,
    file: "fanwire-node.ts",
    argument: "sqlite",
    configuration: `${versioned("node")}: ${SQLITE}`,
  },
  {
    name: "fanwire with Redis, Bun",
    kind: "fanwire",
    command: BUN,
    file: "fanwire-bun-redis.ts",
    configuration: `${versioned("bun")}: Bun.serve, log in Redis (whose own CPU is not counted), Bun's client, publishToken`,
  },
  {
    name: "better-sse, Bun",
    kind: "peer",
    command: BUN,
    file: "better-sse-bun.ts",
    configuration: `${versioned("bun")}, ${BETTER_SSE}`,
  },
  {
    name: "better-sse, Deno",
    kind: "peer",
    command: DENO,
    file: "better-sse-deno.ts",
    configuration: `${versioned("deno")}, ${BETTER_SSE}`,
  },
  {
    name: "better-sse, Node",
    kind: "peer",
    command: NODE,
    file: "better-sse-node.ts",
    configuration: `${versioned("node")}, ${BETTER_SSE}`,
  },
  {
    name: "hono streamSSE, Bun",
    kind: "peer",
    command: BUN,
    file: "hono-stream-bun.ts",
    configuration: `${versioned("bun")}, ${STREAM_SSE}`,
  },
  {
    name: "hono streamSSE, Node",
    kind: "peer",
    command: NODE,
    file: "hono-stream-node.ts",
    configuration: `${versioned("node")}, ${versioned("@hono/node-server")}, ${STREAM_SSE}`,
  },
  {
    name: "res.write, Node",
    kind: "peer",
    command: NODE,
    file: "write-node.ts",
    configuration: `${versioned("node")}: node:http, each event encoded once and written to every response`,
  },
  { name: "bare, Bun", kind: "bare", command: BUN, file: "bare-bun.ts", configuration: `${versioned("bun")}: ${BARE}` },
  {
    name: "bare, Deno",
    kind: "bare",
    command: DENO,
    file: "bare-deno.ts",
    configuration: `${versioned("deno")}: ${BARE}`,
  },
  {
    name: "bare, Node, hono",
    kind: "bare",
    command: NODE,
    file: "bare-node-hono.ts",
    configuration: `${versioned("node")}, ${versioned("@hono/node-server")}: ${BARE}`,
  },
  {
    name: "bare, Node, srvx",
    kind: "bare",
    command: NODE,
    file: "bare-node-srvx.ts",
    configuration: `${versioned("node")}, ${versioned("srvx")}: ${BARE}`,
  },
  {
    name: "firehose",
    kind: "firehose",
    command: BUN,
    file: "firehose.ts",
    configuration: `${versioned("bun")}: prepared events, written to bare sockets`,
  },
];

/** The servers that this machine can run. */
export const technologies: readonly Technology[] = all.filter(
  ({ file }) => (file !== "nchan.ts" || hasNchan) && (file !== "fanwire-bun-redis.ts" || hasRedis),
);
