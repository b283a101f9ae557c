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
  /** Outcomes other than "✓". */
  readonly outcomes?: Partial<Record<CheckName, string>>;
}

/** A form from elsewhere is refused, and text counts as one, because a page could send both (CSRF). */
const REFUSES_FORMS = { text: "403", "curl -d": "403", form: "403" } as const;

/** The broker behind each framework's own conversion of requests and responses. */
export const fetchMounts: readonly Mount[] = [
  { name: "Elysia on Bun", dependency: "elysia", server: "elysia", runtime: "bun", parsed: "/parsed" },
  { name: "Hono", dependency: "hono", server: "hono", parsed: "/parsed" },
  { name: "h3 2", dependency: "h3", server: "h3-v2", parsed: "/parsed" },
  {
    name: "h3 1, toWebRequest",
    dependency: "h3-v1",
    server: "h3-v1",
    parsed: "/parsed",
    outcomes: { HEAD: "a client", "leaves idle": "never", "leaves at once": "never", "32 MB": "all buffered" },
  },
  { name: "@whatwg-node/server", dependency: "@whatwg-node/server", server: "whatwg-node" },
  { name: "React Router", dependency: "react-router", server: "react-router" },
  {
    name: "SvelteKit",
    dependency: "@sveltejs/kit",
    server: "sveltekit",
    build: { app: "sveltekit", command: ["vite/bin/vite.js", "build"] },
    outcomes: REFUSES_FORMS,
  },
  {
    name: "Astro",
    dependency: "astro",
    server: "astro",
    build: { app: "astro", command: ["astro/bin/astro.mjs", "build"] },
    outcomes: { ...REFUSES_FORMS, "32 MB": "all buffered" },
  },
  {
    name: "Next",
    dependency: "next",
    server: "next",
    build: { app: "next", command: ["next/dist/bin/next", "build"] },
  },
  { name: "Fastify, reply.send(response)", dependency: "fastify", server: "fastify-reply", parsed: "/parsed" },
  {
    name: "Koa, ctx.body = response",
    dependency: "koa",
    server: "koa-body",
    parsed: "/parsed",
    outcomes: { HEAD: "a client", "leaves idle": "at a write", "leaves at once": "never", output: "some" },
  },
];
