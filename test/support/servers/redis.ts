// Starts a Redis server for a test, and a proxy in front of it that fails.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import type { TestOptions } from "vitest";
import { skipIf } from "../skip.ts";
import { freePort } from "./server.ts";

const PROGRAM = process.env.REDIS_SERVER ?? "redis-server";

/** The version of the machine's Redis, or `undefined` if it has no Redis. In CI it must have one. */
export const redisVersion: string | undefined = (() => {
  try {
    const [version = PROGRAM] = /v=\S+/.exec(execFileSync(PROGRAM, ["--version"], { encoding: "utf8" })) ?? [];
    return version.replace("v=", "Redis ");
  } catch {
    if (process.env.CI === "true") throw new Error(`Looking for Redis: ${PROGRAM} is not on the PATH. Install it.`);
    return undefined;
  }
})();

export const hasRedis: boolean = redisVersion !== undefined;
/** Options that skip a test or a suite on a machine without Redis. */
export const needsRedis: TestOptions = skipIf(!hasRedis, `there is no ${PROGRAM} on the PATH`);

/** A Redis server that a test started. */
export class RedisServer {
  readonly port: number;
  readonly url: string;
  readonly #folder: string;
  readonly #args: readonly string[];
  #process: ChildProcess | undefined;
  #admin: Redis | undefined;

  constructor(port: number, args: readonly string[]) {
    this.port = port;
    this.url = `redis://127.0.0.1:${port}`;
    this.#folder = mkdtempSync(join(tmpdir(), "fanwire-redis-"));
    this.#args = args;
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Starts the process. Resolves when it answers. */
  async start(): Promise<void> {
    const common = [
      "--port",
      String(this.port),
      "--bind",
      "127.0.0.1",
      "--save",
      "",
      "--appendonly",
      "no",
      "--repl-diskless-sync-delay",
      "0",
    ];
    const child = spawn(PROGRAM, [...common, "--dir", this.#folder, ...this.#args], { stdio: "ignore" });
    this.#process = child;
    this.#admin = new Redis(this.port, "127.0.0.1", { retryStrategy: () => 20, maxRetriesPerRequest: null });
    // The server does not listen at once.
    this.#admin.on("error", () => undefined);
    await Promise.race([
      this.#admin.ping(),
      once(child, "exit").then(() => Promise.reject(new Error("Starting Redis: its process ended."))),
    ]);
  }

  /** Runs a command on a separate connection. */
  command(...args: readonly [string, ...string[]]): Promise<unknown> {
    const [name, ...rest] = args;
    if (!this.#admin) throw new Error(`Running ${name}: the server is not started.`);
    return this.#admin.call(name, ...rest);
  }

  /** Sends a signal to the process. For SIGKILL and SIGTERM, resolves when the process has ended. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    if (signal === "SIGKILL") this.#admin?.disconnect();
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const endsProcess = signal === "SIGKILL" || signal === "SIGTERM";
    if (endsProcess) this.#admin?.disconnect();
    const ended = once(child, "exit");
    child.kill(signal);
    if (endsProcess) await ended;
  }

  /** Kills the process and starts it again, with the data that it had saved. */
  async restart(): Promise<void> {
    await this.kill("SIGKILL");
    await this.start();
  }

  async stop(): Promise<void> {
    await this.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Starts a Redis server on a free port. It saves nothing to disk, unless `args` say so. */
export async function startRedis(args: readonly string[] = []): Promise<RedisServer> {
  for (let attempt = 1; ; attempt++) {
    const server = new RedisServer(await freePort(), args);
    try {
      await server.start();
      return server;
    } catch (error) {
      // Another process may have taken the port since it was found.
      await server.stop();
      if (attempt === 5) throw error;
    }
  }
}

/** Returns a Redis server that the test does not control: the one at `REDIS_URL`, or a new one. */
export async function anyRedis(): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const url = process.env.REDIS_URL;
  return url ? { url, stop: () => Promise.resolve() } : await startRedis();
}

/** A proxy that can discard bytes without a sign to either side, and cut connections. */
export class DiscardingProxy {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  /** Which bytes are discarded: those from the server, those from clients, both, or none. */
  discards: "answers" | "commands" | "both" | undefined;

  constructor(target: number) {
    this.#server = createServer((client) => {
      const server = connect(target, "127.0.0.1");
      const pair = [client, server] as const;
      this.#pairs.add(pair);
      client.on("data", (data) => this.discards === "commands" || this.discards === "both" || server.write(data));
      server.on("data", (data) => this.discards === "answers" || this.discards === "both" || client.write(data));
      const close = (): void => {
        this.#pairs.delete(pair);
        client.destroy();
        server.destroy();
      };
      for (const socket of pair) socket.on("error", close).on("close", close);
    });
  }

  async listen(): Promise<this> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The number of connected clients. */
  get connectionCount(): number {
    return this.#pairs.size;
  }

  cut(): void {
    for (const [client, server] of this.#pairs) {
      client.destroy();
      server.destroy();
    }
  }

  async stop(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }
}
