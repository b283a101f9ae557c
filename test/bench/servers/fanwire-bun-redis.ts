/** fanwire on Bun with its log in Redis: the one that REDIS_URL names, else one of its own. */
import { RedisClient } from "bun";
import { createBroker } from "../../../src/index.ts";
import { redisEngine } from "../../../src/redis/index.ts";
import { startRedis } from "../redis.ts";
import { announce, asksUsage, usage } from "../usage.ts";

const client = new RedisClient(process.env.REDIS_URL ?? (await startRedis()));
const broker = createBroker({ publishToken: "bench", engine: redisEngine({ client, prefix: "bench" }) });

const server = Bun.serve({
  fetch: (request, server) =>
    asksUsage(request.url) ? Response.json(usage(request.url)) : broker.fetch(request, server),
  hostname: "127.0.0.1",
  port: 0,
});
announce(server.port);
