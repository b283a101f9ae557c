// Broker processes on Bun, Deno and Node.
import { fileURLToPath } from "node:url";
import { freePort } from "../../support/servers/server.ts";
import { Child } from "./processes.ts";

/** A runtime. Each uses the Redis client that is most common on it. */
export type Runtime = "bun" | "deno" | "node";
const LIBRARIES: Record<Runtime, string> = { bun: "bun", deno: "node-redis", node: "ioredis" };

const bin = (name: string): string => fileURLToPath(new URL(`../../../node_modules/.bin/${name}`, import.meta.url));
const SERVER = fileURLToPath(new URL("./server.ts", import.meta.url));
const COMMANDS: Record<Runtime, readonly string[]> = {
  bun: [bin("bun"), "run", SERVER],
  deno: [bin("deno"), "run", "-A", "--quiet", SERVER],
  node: [bin("node"), SERVER],
};

/** A broker process that can be killed, and started again at the same address. */
export class Instance {
  readonly runtime: Runtime;
  readonly url: string;
  isUp = false;
  /** The output of a process that ended by itself. */
  unexpectedExit: string | undefined;
  /** The last lines of the output of each process. */
  readonly outputs: (readonly string[])[] = [];
  readonly #env: Readonly<Record<string, string>>;
  #child: Child | undefined;

  private constructor(runtime: Runtime, port: number, env: Readonly<Record<string, string>>) {
    this.runtime = runtime;
    this.url = `http://127.0.0.1:${port}`;
    this.#env = { PORT: String(port), LIBRARY: LIBRARIES[runtime], ...env };
  }

  static async start(runtime: Runtime, env: Readonly<Record<string, string>>): Promise<Instance> {
    const instance = new Instance(runtime, await freePort(), env);
    await instance.start();
    return instance;
  }

  async start(): Promise<void> {
    const child = new Child(COMMANDS[this.runtime], this.#env);
    this.#child = child;
    this.outputs.push(child.output);
    void child.exited.then(() => {
      if (this.#child !== child) return;
      this.isUp = false;
      this.unexpectedExit = `${this.runtime} ended by itself: ${child.output.join("\n")}`;
    });
    await child.line(/^listening$/);
    this.isUp = true;
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    this.isUp = false;
    await child?.kill();
  }
}
