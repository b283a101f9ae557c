/**
 * One broker process, on the runtime that runs this file. Environment: PORT; ENGINE, `redis` or `memory`; LIBRARY, the Redis client
 * (`ioredis`, `node-redis`, `bun`); REDIS_URL for commands and REDIS_FEED_URL for the feed; PREFIX. Prints `listening` once it listens.
 */
import { createBroker, type Engine, memoryEngine } from "../../../src/index.ts";
import { redisEngine } from "../../../src/redis/index.ts";

type Handler = (request: Request, context?: unknown) => Promise<Response>;
type Client = Parameters<typeof redisEngine>[0]["client"];

const {
  PORT,
  ENGINE = "redis",
  LIBRARY = "ioredis",
  REDIS_URL = "",
  REDIS_FEED_URL = REDIS_URL,
  PREFIX = "chaos",
} = process.env;

/** Creates a client as an application would, with the defaults of its library. */
async function connect(url: string): Promise<Client> {
  if (LIBRARY === "bun") return new (await import("bun")).RedisClient(url);
  if (LIBRARY === "node-redis") {
    const client = (await import("redis")).createClient({ url });
    client.on("error", (error) => logError("client", error));
    await client.connect();
    return client;
  }
  const client = new (await import("ioredis")).Redis(url);
  client.on("error", (error) => logError("client", error));
  return client;
}

async function createEngine(): Promise<Engine> {
  if (ENGINE === "memory") return memoryEngine({ retention: { age: Infinity }, logBytes: 256 * 1024 * 1024 });
  const [client, subscriber] = await Promise.all([connect(REDIS_URL), connect(REDIS_FEED_URL)]);
  return redisEngine({ client, subscriber, prefix: PREFIX, commandTimeout: 2_000, retention: { age: 300_000 } });
}

function logError(stage: string, error: unknown): void {
  console.error(`${Date.now() % 1_000_000} ${stage}: ${String(error)}`);
}

const broker = createBroker({
  paths: { history: "/history" },
  engine: await createEngine(),
  publishToken: "chaos",
  heartbeat: 2_000,
  onError: ({ stage, error }) => logError(stage, error),
});

const fetch: Handler = async (request, context) => {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname === "/stats") return Response.json(broker.stats());
  if (pathname === "/disconnect")
    return Response.json(
      await broker.disconnect(searchParams.get("id") ?? "", { blockFor: Number(searchParams.get("for")) }),
    );
  return broker.fetch(request, context);
};

const address = { hostname: "127.0.0.1", port: Number(PORT) };
// Written as users of each runtime would write it.
const { Bun, Deno } = globalThis as {
  readonly Bun?: { serve(options: typeof address & { readonly fetch: Handler }): unknown };
  readonly Deno?: { serve(options: typeof address & { onListen(): void }, handler: Handler): unknown };
};
if (Bun) Bun.serve({ ...address, fetch });
else if (Deno) Deno.serve({ ...address, onListen: () => undefined }, fetch);
else await (await import("srvx")).serve({ ...address, fetch, silent: true }).ready();
console.log("listening");
