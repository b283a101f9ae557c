// Creates a client of the library that the environment names, for the scripts of this folder.
import type { RedisOptions } from "../../../src/redis/options.ts";

const { LIBRARY = "ioredis", REDIS_URL = "" } = process.env;

/** Creates a client as an application would. With `isLazy` the client is left to the engine to connect. */
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

/** Polls until `holds` returns `true`, because no event reports it. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}
