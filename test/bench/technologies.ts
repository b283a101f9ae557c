import { hasNchan } from "./nchan.ts";
import { hasRedis } from "./redis.ts";

/** A server to be measured. */
export interface Technology {
  readonly name: string;
  /** The command of node_modules/.bin, with its arguments. */
  readonly command: readonly [binary: string, ...args: string[]];
  /** Below `servers/`. */
  readonly file: string;
  /** What it is told. */
  readonly argument?: string;
  /** The name of the one that it is compared with, on the same runtime. */
  readonly against?: string;
}

const DENO = ["deno", "run", "--quiet", "--allow-net", "--allow-env", "--allow-sys", "--allow-read"] as const;

const all: readonly Technology[] = [
  { name: "better-sse, Bun", command: ["bun"], file: "better-sse-bun.ts" },
  { name: "fanwire, Bun", command: ["bun"], file: "bun.ts", against: "better-sse, Bun" },
  { name: "fanwire, Bun, Redis", command: ["bun"], file: "redis-bun.ts", against: "better-sse, Bun" },
  { name: "better-sse, Node", command: ["node"], file: "better-sse-node.ts" },
  { name: "fanwire, Node, hono", command: ["node"], file: "hono.ts", against: "better-sse, Node" },
  { name: "fanwire, Node, srvx", command: ["node"], file: "srvx.ts", against: "better-sse, Node" },
  { name: "better-sse, Deno", command: [...DENO], file: "better-sse-deno.ts" },
  { name: "fanwire, Deno", command: [...DENO], file: "deno.ts", against: "better-sse, Deno" },
  { name: "better-sse, workerd", command: ["node"], file: "workerd.ts", argument: "better-sse" },
  {
    name: "fanwire, workerd",
    command: ["node"],
    file: "workerd.ts",
    argument: "fanwire",
    against: "better-sse, workerd",
  },
  {
    name: "fanwire, workerd, hub bridge",
    command: ["node"],
    file: "workerd.ts",
    argument: "hub-bridge",
    against: "better-sse, workerd",
  },
  {
    name: "fanwire, workerd, hub direct",
    command: ["node"],
    file: "workerd.ts",
    argument: "hub-direct",
    against: "better-sse, workerd",
  },
  { name: "nginx, nchan", command: ["node"], file: "nchan.ts" },
];

/** Those that this machine can run. */
export const technologies: readonly Technology[] = all.filter(
  ({ file }) => (file !== "nchan.ts" || hasNchan) && (file !== "redis-bun.ts" || hasRedis),
);
