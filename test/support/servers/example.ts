import { type ChildProcess, spawn } from "node:child_process";

const root = new URL("../../../", import.meta.url).pathname;
const bin = (name: string): string => `${root}node_modules/.bin/${name}`;
const COMMANDS = {
  bun: [bin("bun"), "examples/bun/server.ts"],
  deno: [bin("deno"), "run", "--allow-net", "--allow-env", "examples/deno/server.ts"],
  hono: [bin("bun"), "examples/bun/hono.ts"],
  workers: [bin("node"), "examples/workers/start.ts"],
  "workers-hono": [bin("node"), "examples/workers/start.ts", "hono.ts", "wrangler.hono.jsonc", "events/broadcast"],
} as const;

export type Example = keyof typeof COMMANDS;
/** Those with the live page. */
export const examples = ["bun", "deno", "workers"] as const satisfies Example[];
/** Those with a login. */
export const honoExamples = ["hono", "workers-hono"] as const satisfies Example[];

/** An example that runs, and what it has printed. */
export interface Running {
  readonly child: ChildProcess;
  /** Its address, with a slash at the end. */
  readonly url: string;
  readonly output: string;
}

/** Starts an example on a free port, and waits until it has printed this. */
export async function startExample(name: Example, env: Record<string, string>, last: RegExp): Promise<Running> {
  const [program, ...args] = COMMANDS[name];
  const child = spawn(program, args, {
    cwd: root,
    env: { ...process.env, PORT: "0", PUBLISH_TOKEN: "", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (data) => (output += data));
  while (!last.test(output)) {
    if (child.exitCode !== null) throw new Error(`examples/${name} ended: ${output}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const [url = ""] = /http:\/\/127\.0\.0\.1:\d+\//.exec(output) ?? [];
  return { child, url, output };
}
