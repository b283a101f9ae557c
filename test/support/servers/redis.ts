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

/** The Redis that this machine has of its own, if it has one. Under CI it has to. */
export const redisVersion: string | undefined = (() => {
  try {
    const [said = PROGRAM] = /v=\S+/.exec(execFileSync(PROGRAM, ["--version"], { encoding: "utf8" })) ?? [];
    return said.replace("v=", "Redis ");
  } catch {
    if (process.env.CI === "true") throw new Error(`there is no ${PROGRAM} on the PATH; install it`);
    return undefined;
  }
})();

export const hasRedis: boolean = redisVersion !== undefined;
/** Skips a test or a suite where there is no Redis. */
export const needsRedis: TestOptions = skipIf(!hasRedis, `there is no ${PROGRAM} on the PATH`);

/** A Redis that a test started. */
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

  /** Resolves when it answers. */
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
    // It is not listening at once.
    this.#admin.on("error", () => undefined);
    await Promise.race([
      this.#admin.ping(),
      once(child, "exit").then(() => Promise.reject(new Error("redis-server ended"))),
    ]);
  }

  /** Runs a command on a connection of the test's own. */
  cli(...args: readonly [string, ...string[]]): Promise<unknown> {
    const [command, ...rest] = args;
    if (!this.#admin) throw new Error("there is no server");
    return this.#admin.call(command, ...rest);
  }

  /** Sends a signal; resolves when a deadly one has worked. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    if (signal === "SIGKILL") this.#admin?.disconnect();
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const isDeadly = signal === "SIGKILL" || signal === "SIGTERM";
    if (isDeadly) this.#admin?.disconnect();
    const gone = once(child, "exit");
    child.kill(signal);
    if (isDeadly) await gone;
  }

  /** Kills it, and starts it again with what it had saved. */
  async restart(): Promise<void> {
    await this.kill("SIGKILL");
    await this.start();
  }

  async stop(): Promise<void> {
    await this.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Starts a Redis on a free port, which keeps nothing on disk. */
export async function startRedis(args: readonly string[] = []): Promise<RedisServer> {
  for (let attempt = 1; ; attempt++) {
    const server = new RedisServer(await freePort(), args);
    try {
      await server.start();
      return server;
    } catch (error) {
      // Somebody else may have taken the port meanwhile.
      await server.stop();
      if (attempt === 5) throw error;
    }
  }
}

/** A Redis that needs no control: the one that `REDIS_URL` names, else one of the test's own. */
export async function anyRedis(): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const url = process.env.REDIS_URL;
  return url ? { url, stop: () => Promise.resolve() } : await startRedis();
}

/** A proxy that can swallow what passes, without a sign to either side, and cut what is connected. */
export class SwallowingProxy {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  /** What is swallowed: what servers say, what clients say, both or nothing. */
  swallows: "answers" | "commands" | "both" | undefined;

  constructor(target: number) {
    this.#server = createServer((client) => {
      const server = connect(target, "127.0.0.1");
      const pair = [client, server] as const;
      this.#pairs.add(pair);
      client.on("data", (data) => this.swallows === "commands" || this.swallows === "both" || server.write(data));
      server.on("data", (data) => this.swallows === "answers" || this.swallows === "both" || client.write(data));
      const over = (): void => {
        this.#pairs.delete(pair);
        client.destroy();
        server.destroy();
      };
      for (const socket of pair) socket.on("error", over).on("close", over);
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

  /** How many clients are connected. */
  get size(): number {
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
