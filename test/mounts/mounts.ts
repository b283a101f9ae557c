// The mounts of the matrix, and what is expected of each.
import type { CheckName } from "./checks.ts";

export interface Mount {
  /** The framework, and how the broker is mounted. */
  readonly name: string;
  /** The key of the framework's package in `devDependencies` of this folder. */
  readonly dependency: string;
  /** The file in `servers`. */
  readonly server: string;
  /** @default "node" */
  readonly runtime?: "bun" | "node";
  /** The program in `node_modules` that builds the app, and its arguments. */
  readonly build?: {
    readonly app: string;
    readonly command: readonly [string, ...string[]];
    readonly env?: Record<string, string>;
  };
  /** The path of an endpoint behind a body parser of the framework, if it has one. */
  readonly parsed?: string;
  /** Whether the framework removes `/events` from the URL, and the broker has its default paths. @default false */
  readonly isBelow?: boolean;
  /** Outcomes other than "✓". */
  readonly outcomes?: Partial<Record<CheckName, string>>;
}

type Build = NonNullable<Mount["build"]>;
const ASTRO: Build = { app: "astro", command: ["astro/bin/astro.mjs", "build"] };
const SVELTEKIT: Build = { app: "sveltekit", command: ["vite/bin/vite.js", "build"] };
const NEXT: Build = { app: "next", command: ["next/dist/bin/next", "build"] };

/** `nodeHandler` and the Fastify plugin. */
export const nodeMounts: readonly Mount[] = [
  { name: "node:http", dependency: "", server: "node-http" },
  { name: "Express 5", dependency: "express", server: "express5", isBelow: true, parsed: "/parsed/broadcast" },
  { name: "Express 4", dependency: "express4", server: "express4", isBelow: true, parsed: "/parsed/broadcast" },
  { name: "NestJS", dependency: "@nestjs/core", server: "nestjs", isBelow: true, parsed: "/parsed" },
  { name: "Connect", dependency: "connect", server: "connect", isBelow: true },
  { name: "Fastify, fastifyBroker", dependency: "fastify", server: "fastify", isBelow: true },
  {
    name: "Koa, ctx.respond = false",
    dependency: "koa",
    server: "koa",
    parsed: "/parsed",
    outcomes: { output: "some" },
  },
  { name: "Koa, behind the broker", dependency: "koa", server: "koa-behind" },
  { name: "h3 1, fromNodeMiddleware", dependency: "h3-v1", server: "h3-v1-node", isBelow: true },
  {
    name: "Astro, mode middleware",
    dependency: "astro",
    server: "astro-node",
    build: { ...ASTRO, env: { ADAPTER_MODE: "middleware" } },
  },
  {
    name: "SvelteKit, handler.js",
    dependency: "@sveltejs/kit",
    server: "sveltekit-node",
    build: SVELTEKIT,
  },
  {
    name: "Next, custom server",
    dependency: "next",
    server: "next-node",
    build: NEXT,
  },
];

/** A form from elsewhere is refused, and text counts as one, because a page could send both (CSRF). */
const REFUSES_FORMS = { text: "403", "curl -d": "403", form: "403" } as const;
/** The server waits for the streams, which do not end by themselves. */
const WAITS = { "stop alone": "waits" } as const;

/** The broker behind each framework's own conversion of requests and responses. */
export const fetchMounts: readonly Mount[] = [
  { name: "Elysia on Bun", dependency: "elysia", server: "elysia", runtime: "bun", parsed: "/parsed", outcomes: WAITS },
  { name: "Hono", dependency: "hono", server: "hono", parsed: "/parsed", outcomes: WAITS },
  { name: "h3 2", dependency: "h3", server: "h3-v2", parsed: "/parsed", outcomes: { "stop alone": "cut" } },
  {
    name: "h3 1, toWebRequest",
    dependency: "h3-v1",
    server: "h3-v1",
    parsed: "/parsed",
    outcomes: {
      "leaves idle": "never",
      "leaves at once": "never",
      "32 MB": "all buffered",
      ...WAITS,
    },
  },
  { name: "@whatwg-node/server", dependency: "@whatwg-node/server", server: "whatwg-node", outcomes: WAITS },
  { name: "React Router", dependency: "react-router", server: "react-router", outcomes: WAITS },
  {
    name: "SvelteKit",
    dependency: "@sveltejs/kit",
    server: "sveltekit",
    build: SVELTEKIT,
    outcomes: { ...REFUSES_FORMS, ...WAITS },
  },
  {
    name: "Astro",
    dependency: "astro",
    server: "astro",
    build: ASTRO,
    outcomes: { ...REFUSES_FORMS, "32 MB": "all buffered", "stop alone": "cut" },
  },
  { name: "Next", dependency: "next", server: "next", build: NEXT, outcomes: WAITS },
  {
    name: "Fastify, reply.send(response)",
    dependency: "fastify",
    server: "fastify-reply",
    parsed: "/parsed",
    outcomes: WAITS,
  },
  {
    name: "Koa, ctx.body = response",
    dependency: "koa",
    server: "koa-body",
    parsed: "/parsed",
    outcomes: { "leaves idle": "at a write", "leaves at once": "never", ...WAITS, output: "some" },
  },
];

/** A mount that keeps little, so that the checks are seen to fail. */
export const faultyMounts: readonly Mount[] = [
  {
    name: "faulty",
    dependency: "",
    server: "faulty",
    outcomes: {
      text: "changed",
      "curl -d": "changed",
      JSON: "changed",
      chunked: "changed",
      form: "no answer",
      "413 too large": "413",
      "401 no token": "401",
      HEAD: "no answer",
      OPTIONS: "no answer",
      "leaves idle": "never",
      "leaves at once": "never",
      heartbeat: "none",
      "32 MB": "all buffered",
      "close()": "no end event",
      stop: "3",
      "stop alone": "3",
      output: "some",
    },
  },
];
