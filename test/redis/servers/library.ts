import type { RedisOptions } from "../../../src/redis/options.ts";

const { LIBRARY = "ioredis", REDIS_URL = "" } = process.env;

/** A client as an application would make it, what it can be closed with, and whether it is left to the engine to connect it. */
export async function connect(
  isLazy: boolean,
  url: string = REDIS_URL,
): Promise<{ client: RedisOptions["client"]; close(): unknown }> {
  if (LIBRARY === "bun") {
    const client = new (await import("bun")).RedisClient(url);
    if (!isLazy) await client.connect();
    return { client, close: () => client.close() };
  }
  if (LIBRARY === "node-redis") {
    const client = (await import("redis")).createClient({ url });
    client.on("error", () => undefined);
    if (!isLazy) await client.connect();
    return { client, close: () => client.destroy() };
  }
  const client = new (await import("ioredis")).Redis(url, { lazyConnect: isLazy });
  return { client, close: () => client.disconnect() };
}

/** Asks until it holds; nothing else tells of what this waits for. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}
