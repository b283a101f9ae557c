// The Redis server of a run.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { type RedisServer, startRedis } from "../../support/servers/redis.ts";

const running = new Set<RedisServer>();
process.once("exit", () => {
  for (const { pid } of running) process.kill(pid, "SIGKILL");
});

/** A Redis server that can be paused, killed, and started again from its snapshot or empty. */
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
    const [, folder] = (await server.command("CONFIG", "GET", "dir")) as [string, string];
    return new Store(server, folder);
  }

  get port(): number {
    return this.#server.port;
  }

  command(...args: readonly [string, ...string[]]): Promise<unknown> {
    return this.#server.command(...args);
  }

  /** Stops the process without ending it. Clients keep waiting for answers. */
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

  /** Starts the killed server again, from its snapshot. */
  async restart(): Promise<void> {
    await this.#server.start();
    running.add(this.#server);
  }

  /** Deletes the snapshot, so that the next start is empty. */
  deleteSnapshot(): void {
    rmSync(join(this.#folder, "dump.rdb"), { force: true });
  }

  async close(): Promise<void> {
    running.delete(this.#server);
    await this.#server.stop();
  }
}
