import { fileURLToPath } from "node:url";
import { freePort } from "../../bench/outside.ts";
import { Child } from "./processes.ts";

/** A runtime, with the client of Redis that is at home on it. */
export type Runtime = "bun" | "deno" | "node";
const LIBRARIES: Record<Runtime, string> = { bun: "bun", deno: "node-redis", node: "ioredis" };

const bin = (name: string): string => fileURLToPath(new URL(`../../../node_modules/.bin/${name}`, import.meta.url));
const SERVER = fileURLToPath(new URL("./server.ts", import.meta.url));
const COMMANDS: Record<Runtime, readonly string[]> = {
  bun: [bin("bun"), "run", SERVER],
  deno: [bin("deno"), "run", "-A", "--quiet", SERVER],
  node: [bin("node"), SERVER],
};

/** A broker process that can be killed, and comes back at the same address. */
export class Instance {
  readonly runtime: Runtime;
  readonly url: string;
  isUp = false;
  /** What it said when it ended without being told to. */
  collapse: string | undefined;
  /** The end of what each of its processes printed. */
  readonly tails: (readonly string[])[] = [];
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
    this.tails.push(child.tail);
    void child.exited.then(() => {
      if (this.#child !== child) return;
      this.isUp = false;
      this.collapse = `${this.runtime} ended by itself: ${child.tail.join("\n")}`;
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
