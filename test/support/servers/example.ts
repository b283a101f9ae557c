// Starts the servers of `examples/`.
import { type ChildProcess, spawn } from "node:child_process";
import { newDatabasePath } from "../engines/database-path.ts";

const root = new URL("../../../", import.meta.url).pathname;
const bin = (name: string): string => `${root}node_modules/.bin/${name}`;
const COMMANDS = {
  bun: [bin("bun"), "examples/bun/server.ts"],
  deno: [bin("deno"), "run", "--allow-net", "--allow-env", "examples/deno/server.ts"],
  node: [bin("node"), "examples/node/server.ts"],
  hono: [bin("bun"), "examples/bun/hono.ts"],
  llm: [bin("bun"), "examples/bun/llm.ts"],
  workers: [bin("node"), "examples/workers/start.ts"],
  "workers-hono": [bin("node"), "examples/workers/start.ts", "hono.ts", "wrangler.hono.jsonc", "events/broadcast"],
  "workers-llm": [bin("node"), "examples/workers/start.ts", "llm.ts", "wrangler.llm.jsonc", "answers/first"],
} as const;

export type Example = keyof typeof COMMANDS;
/** Examples with the live page. */
export const examples = ["bun", "deno", "node", "workers"] as const satisfies Example[];
/** Examples with a login. */
export const honoExamples = ["hono", "workers-hono"] as const satisfies Example[];
/** Examples with an answer of a model. */
export const llmExamples = ["llm", "workers-llm"] as const satisfies Example[];

/** The process of an example. */
export interface RunningExample {
  readonly child: ChildProcess;
  /** Its address, with a slash at the end. */
  readonly url: string;
  /** Everything that it printed until it was ready. */
  readonly output: string;
}

/** Starts an example on a free port, and waits until its output matches `ready`. */
export async function startExample(name: Example, env: Record<string, string>, ready: RegExp): Promise<RunningExample> {
  const [program, ...args] = COMMANDS[name];
  const child = spawn(program, args, {
    cwd: root,
    env: { ...process.env, PORT: "0", PUBLISH_TOKEN: "", FANWIRE_FILE: newDatabasePath(), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (data) => (output += data));
  while (!ready.test(output)) {
    if (child.exitCode !== null) throw new Error(`Starting examples/${name}: it ended. Its output:\n${output}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const [url = ""] = /http:\/\/127\.0\.0\.1:\d+\//.exec(output) ?? [];
  return { child, url, output };
}
