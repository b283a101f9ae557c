// Lives of a server over one SQLite file: starts it on a runtime, publishes, kills it, and starts it again on the same port.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RunStore } from "../../../src/engine/run-store.ts";
import { freePort } from "../../support/servers/server.ts";
import type { ServerSettings } from "./server.ts";

export const RUNTIMES = ["node", "bun", "deno"] as const;
export type Runtime = (typeof RUNTIMES)[number];

const bin = (name: string): string => new URL(`../../../node_modules/.bin/${name}`, import.meta.url).pathname;
const SERVER = new URL("./server.ts", import.meta.url).pathname;
const COMMANDS: Readonly<Record<Runtime, readonly string[]>> = {
  node: [bin("node"), "--disable-warning=ExperimentalWarning", SERVER],
  bun: [bin("bun"), "run", SERVER],
  deno: [bin("deno"), "run", "-A", SERVER],
};

/** The answer to a publish. */
interface Published {
  readonly status: number;
  readonly id?: string;
  readonly repeated?: boolean;
  readonly code?: string;
}

/** One server process. */
export class Life {
  readonly #process: ChildProcess;
  readonly url: string;
  /** Everything that it printed. */
  output = "";

  constructor(child: ChildProcess, url: string) {
    this.#process = child;
    this.url = url;
    for (const stream of [child.stdout, child.stderr])
      stream?.on("data", (data) => {
        this.output += data;
      });
  }

  async untilReady(): Promise<this> {
    while (!this.output.includes("ready\n")) {
      if (this.#process.exitCode !== null) throw new Error(`The server ended: ${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return this;
  }

  /** Ends the process as a crash does. */
  async kill(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await exited;
  }

  /** Closes the broker, and ends the process. */
  async close(): Promise<void> {
    const exited = once(this.#process, "exit");
    await (await this.fetch("/close")).text();
    await exited;
  }

  /** Sends a request on a connection of its own: one that is kept would be of a process that has ended. */
  fetch(
    path: string,
    init: { method?: string; body?: string; headers?: Readonly<Record<string, string>> } = {},
  ): Promise<Response> {
    return fetch(this.url + path, { ...init, headers: { ...init.headers, connection: "close" } });
  }

  async publish(data: string, query = "", headers: Readonly<Record<string, string>> = {}): Promise<Published> {
    const response = await this.fetch(`/broadcast${query}`, {
      method: "POST",
      body: data,
      headers: { authorization: "Bearer secret", "content-type": "text/plain", ...headers },
    });
    return { status: response.status, ...((await response.json()) as object) };
  }

  /** Calls a method of the store of runs. A page of `read` has `text` in place of `bytes`. */
  async runs(method: keyof RunStore, ...values: unknown[]): Promise<unknown> {
    const response = await this.fetch("/runs", { method: "POST", body: JSON.stringify({ method, values }) });
    if (!response.ok) throw new Error(await response.text());
    return response.json();
  }

  async history(
    channel: string,
    after = "",
  ): Promise<{ readonly events: { id: string; data: string }[]; readonly gaps: object[] }> {
    const response = await this.fetch(`/history?channel=${channel}&after=${after}`);
    if (!response.ok) throw new Error(await response.text());
    return response.json() as never;
  }
}

/** A SQLite file, and the servers that use it. */
export class Lives {
  readonly path: string;
  readonly #folder: string;
  readonly #lives = new Set<Life>();
  #port: number | undefined;

  constructor() {
    this.#folder = mkdtempSync(join(tmpdir(), "fanwire-lives-"));
    this.path = join(this.#folder, "events.db");
  }

  /** Starts a server; on a port of its own with `isBeside`. */
  async start(
    runtime: Runtime,
    { engine, isBeside = false, ...settings }: Partial<ServerSettings> & { readonly isBeside?: boolean } = {},
  ): Promise<Life> {
    this.#port ??= await freePort();
    const port = isBeside ? await freePort() : this.#port;
    const [command = "", ...args] = COMMANDS[runtime];
    const all: ServerSettings = { port, engine: { path: this.path, ...engine }, ...settings };
    const child = spawn(command, args, { env: { ...process.env, NO_COLOR: "1", SETTINGS: JSON.stringify(all) } });
    const life = new Life(child, `http://127.0.0.1:${port}`);
    this.#lives.add(life);
    return life.untilReady();
  }

  async end(): Promise<void> {
    for (const life of this.#lives) await life.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
