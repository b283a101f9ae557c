// fanwire on Bun with its log in Redis: the server that REDIS_URL names, else one that it starts.
import { RedisClient } from "bun";
import { createBroker } from "../../../src/index.ts";
import { redisEngine } from "../../../src/redis/index.ts";
import { startRedis } from "../redis.ts";
import { announcePort, isUsageRequest, usage } from "../usage.ts";

const client = new RedisClient(process.env.REDIS_URL ?? (await startRedis()));
const broker = createBroker({ publishToken: "bench", engine: redisEngine({ client, prefix: "bench" }) });

const server = Bun.serve({
  fetch: (request, server) =>
    isUsageRequest(request.url) ? Response.json(usage(request.url)) : broker.fetch(request, server),
  hostname: "127.0.0.1",
  port: 0,
});
announcePort(server.port);
