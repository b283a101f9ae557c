/**
 * One of several instances on one Redis, with the live page: what is published at any of them is on the page of each. PORT, HOST, PUBLISH_TOKEN,
 * REDIS_URL and PREFIX come from the environment, or have defaults. Start two, on ports 3001 and 3002 and with the same PUBLISH_TOKEN, and
 * nginx.conf puts a load balancer in front of them.
 */
import { RedisClient } from "bun";
import { type Broker, createBroker } from "fanwire";
import { redisEngine } from "fanwire/redis";
import { serve } from "./serve.ts";

const { PUBLISH_TOKEN, REDIS_URL = "redis://127.0.0.1:6379", PREFIX = "fanwire-example" } = process.env;
const token = (process.env.PUBLISH_TOKEN ||= crypto.randomUUID());

// `bun --hot` loads this file again when it changes. The broker and its streams stay, with the options and the token that they began with.
declare global {
  var fanwire: Broker | undefined;
}
const broker = (globalThis.fanwire ??= createBroker({
  engine: redisEngine({ client: new RedisClient(REDIS_URL), prefix: PREFIX }),
  publishToken: token,
  // close() waits that long for a client that does not read, so it is short; one that is only slow may stay for 20 of them.
  timeout: 3_000,
  tolerance: 20,
  onError: ({ stage, error }) => console.error(`${stage}: ${error instanceof Error ? error.message : error}`),
}));

serve(broker, token, Boolean(PUBLISH_TOKEN));
