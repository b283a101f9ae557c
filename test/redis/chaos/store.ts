import { rmSync } from "node:fs";
import { join } from "node:path";
import { type RedisServer, startRedis } from "../../support/servers/redis.ts";

const running = new Set<RedisServer>();
process.once("exit", () => {
  for (const { pid } of running) process.kill(pid, "SIGKILL");
});

/** A Redis server that can be paused, killed, and started again with what it saved or with nothing. */
export class Store {
  readonly #server: RedisServer;
  readonly #folder: string;

  private constructor(server: RedisServer, folder: string) {
    this.#server = server;
    this.#folder = folder;
    running.add(server);
  }

  static async start(): Promise<Store> {
    const server = await startRedis(["--enable-debug-command", "yes", "--maxmemory-policy", "noeviction"]);
    const [, folder] = (await server.cli("CONFIG", "GET", "dir")) as [string, string];
    return new Store(server, folder);
  }

  get port(): number {
    return this.#server.port;
  }

  cli(...args: readonly [string, ...string[]]): Promise<unknown> {
    return this.#server.cli(...args);
  }

  /** Stops it where it is; whoever waits for it goes on waiting. */
  pause(): Promise<void> {
    return this.#server.kill("SIGSTOP");
  }

  resume(): Promise<void> {
    return this.#server.kill("SIGCONT");
  }

  async kill(): Promise<void> {
    running.delete(this.#server);
    await this.#server.kill("SIGKILL");
  }

  /** Starts it again, with what it had saved. */
  async revive(): Promise<void> {
    await this.#server.start();
    running.add(this.#server);
  }

  /** Has it start from nothing the next time. */
  forget(): void {
    rmSync(join(this.#folder, "dump.rdb"), { force: true });
  }

  async close(): Promise<void> {
    running.delete(this.#server);
    await this.#server.stop();
  }
}
