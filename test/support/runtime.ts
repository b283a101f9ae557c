export type Runtime = "node" | "bun" | "deno" | "workerd";

declare module "vitest" {
  interface ProvidedContext {
    /** The `--mode` of this run. */
    part: string;
    /** What random histories begin with, and how many there are to be; empty for what is usual. */
    seed: string;
    histories: string;
  }
}

const agent = globalThis.navigator?.userAgent ?? "";

// `process` exists in all of them and thus tells nothing apart.
const agents: readonly (readonly [prefix: string, runtime: Runtime])[] = [
  ["Node.js/", "node"],
  ["Bun/", "bun"],
  ["Deno/", "deno"],
  ["Cloudflare-Workers", "workerd"],
];

function detect(): Runtime {
  for (const [prefix, name] of agents) if (agent.startsWith(prefix)) return name;
  throw new Error(`detecting the runtime: navigator.userAgent is "${agent}", which is none that the suite knows`);
}

/** The runtime that this module runs on. */
export const runtime: Runtime = detect();

/** The version of that runtime, for people to read. */
export async function version(): Promise<string> {
  if (runtime !== "workerd") return process.versions[runtime] ?? "of unknown version";
  const { env } = await workersModule<{ env: { WORKERD_VERSION: string } }>("cloudflare:workers");
  return env.WORKERD_VERSION;
}

/** A module that only workerd has; the name is a variable so that no other runtime's bundler tries to resolve it. */
export function workersModule<T>(name: "cloudflare:workers" | "cloudflare:test"): Promise<T> {
  return import(/* @vite-ignore */ name);
}
