// The runtime that the tests run on.
export type Runtime = "node" | "bun" | "deno" | "workerd";

declare module "vitest" {
  interface ProvidedContext {
    /** The `--mode` of this run. */
    part: string;
    /** The seed of random histories. Empty: the default. */
    seed: string;
    /** The number of random histories. Empty: the default. */
    histories: string;
  }
}

const agent = globalThis.navigator?.userAgent ?? "";

// Every runtime has `process`, so only the user agent distinguishes them.
const agents: readonly (readonly [prefix: string, runtime: Runtime])[] = [
  ["Node.js/", "node"],
  ["Bun/", "bun"],
  ["Deno/", "deno"],
  ["Cloudflare-Workers", "workerd"],
];

function detect(): Runtime {
  for (const [prefix, name] of agents) if (agent.startsWith(prefix)) return name;
  const known = agents.map(([prefix]) => prefix).join(", ");
  throw new Error(`Detecting the runtime: navigator.userAgent is "${agent}" and starts with none of ${known}.`);
}

export const runtime: Runtime = detect();

/** Returns the version of the runtime, as text for people. */
export async function runtimeVersion(): Promise<string> {
  if (runtime !== "workerd") return process.versions[runtime] ?? "of unknown version";
  const { env } = await workersModule<{ env: { WORKERD_VERSION: string } }>("cloudflare:workers");
  return env.WORKERD_VERSION;
}

/** Imports a module that only workerd has. The name is a variable, so the bundlers of other runtimes do not try to resolve it. */
export function workersModule<T>(name: "cloudflare:workers" | "cloudflare:test"): Promise<T> {
  return import(/* @vite-ignore */ name);
}
