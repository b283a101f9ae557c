import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { redisEngine } from "../../src/redis/index.ts";
import { brokerCases, type EngineHarness, engineCases, missing, type Namespace } from "../../src/testing/index.ts";
import {
  hasRedis,
  needsRedis,
  type RedisServer,
  redisVersion,
  SwallowingProxy,
  startRedis,
} from "../support/servers/redis.ts";

if (hasRedis) console.log(`redis on ${redisVersion}`);

const cases = [...engineCases, ...brokerCases];

describe("the engine contract, on Redis", needsRedis, () => {
  let server: RedisServer;
  let spaces = 0;

  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server.stop());

  const harness: EngineHarness = {
    offers: ["presence", "cutFeed", "swallowFeed", "loseReply", "goAway", "comeBack", "beginAnew"],
    patience: 20_000,
    async open({ retention, idempotencyWindow } = {}): Promise<Namespace> {
      const prefix = `contract-${++spaces}`;
      const clients: Redis[] = [];
      const connect = (proxy: SwallowingProxy): Redis => {
        const client = new Redis(proxy.port, "127.0.0.1", { retryStrategy: () => 20, maxRetriesPerRequest: null });
        client.on("error", () => undefined);
        clients.push(client);
        return client;
      };
      // An engine is made at once and a proxy is not, so that there are some in stock.
      const stock = await Promise.all(Array.from({ length: 6 }, () => new SwallowingProxy(server.port).listen()));
      const all = [...stock];
      const commands: SwallowingProxy[] = [];
      const feeds: SwallowingProxy[][] = [];
      const feed = (index: number): SwallowingProxy => feeds[index]?.at(-1) as SwallowingProxy;

      return {
        engine() {
          const proxy = stock.pop();
          if (!proxy) throw new Error("a case makes more engines than there are proxies in stock");
          const mine: SwallowingProxy[] = [];
          commands.push(proxy);
          feeds.push(mine);
          return redisEngine({
            client: connect(proxy),
            subscriber: async () => {
              const through = await new SwallowingProxy(server.port).listen();
              all.push(through);
              mine.push(through);
              return connect(through);
            },
            prefix,
            commandTimeout: 600,
            retention,
            idempotencyWindow,
          });
        },
        faults: {
          cutFeed: (index) => feed(index).cut(),
          swallowFeed: (index) => {
            const proxy = feed(index);
            proxy.swallows = "answers";
            return () => {
              proxy.swallows = undefined;
            };
          },
          // What is swallowed leaves the answers out of step, so that the connection is cut then.
          loseReply: () => {
            for (const proxy of commands) proxy.swallows = "answers";
            setTimeout(() => {
              for (const proxy of commands) {
                proxy.cut();
                proxy.swallows = undefined;
              }
            }, 300);
          },
          goAway: () => {
            for (const proxy of all) {
              proxy.swallows = "both";
              proxy.cut();
            }
          },
          comeBack: () => {
            for (const proxy of all) {
              proxy.swallows = undefined;
              proxy.cut();
            }
          },
          beginAnew: async () => {
            await server.cli("FLUSHALL");
          },
        },
        async close() {
          for (const client of clients) client.disconnect();
          await Promise.all(all.map((proxy) => proxy.stop()));
        },
      };
    },
  };

  for (const each of cases) test(`${each.id}: ${each.title}`, () => each.run(harness));

  test("none of the cases is left out", () => {
    expect(cases.filter((each) => missing(each, harness).length > 0)).toEqual([]);
  });
});
