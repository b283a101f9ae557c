// The public cases of the engine contract, with the faults that they ask for.
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { redisEngine } from "../../src/redis/index.ts";
import { brokerCases, type EngineHarness, engineCases, missingNeeds, type Namespace } from "../../src/testing/index.ts";
import {
  DiscardingProxy,
  hasRedis,
  needsRedis,
  type RedisServer,
  redisVersion,
  startRedis,
} from "../support/servers/redis.ts";

if (hasRedis) console.log(`redis on ${redisVersion}`);

const cases = [...engineCases, ...brokerCases];

describe("redisEngine: the engine contract", needsRedis, () => {
  let server: RedisServer;
  let namespaces = 0;

  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server.stop());

  const harness: EngineHarness = {
    offers: ["ephemeral", "presence", "cutFeed", "swallowFeed", "loseReply", "goAway", "comeBack", "beginAnew"],
    timeout: 20_000,
    async open({ retention, idempotencyWindow } = {}): Promise<Namespace> {
      const prefix = `contract-${++namespaces}`;
      const clients: Redis[] = [];
      const connect = (proxy: DiscardingProxy): Redis => {
        const client = new Redis(proxy.port, "127.0.0.1", { retryStrategy: () => 20, maxRetriesPerRequest: null });
        client.on("error", () => undefined);
        clients.push(client);
        return client;
      };
      // `engine()` has to return at once, so proxies are opened in advance.
      const spare = await Promise.all(Array.from({ length: 6 }, () => new DiscardingProxy(server.port).listen()));
      const proxies = [...spare];
      const commands: DiscardingProxy[] = [];
      const feeds: DiscardingProxy[][] = [];
      const feed = (index: number): DiscardingProxy => feeds[index]?.at(-1) as DiscardingProxy;

      return {
        engine() {
          const proxy = spare.pop();
          if (!proxy) throw new Error("contract test: a case opens more engines than there are spare proxies");
          const feedProxies: DiscardingProxy[] = [];
          commands.push(proxy);
          feeds.push(feedProxies);
          return redisEngine({
            client: connect(proxy),
            subscriber: async () => {
              const feedProxy = await new DiscardingProxy(server.port).listen();
              proxies.push(feedProxy);
              feedProxies.push(feedProxy);
              return connect(feedProxy);
            },
            prefix,
            commandTimeout: 2_000,
            retention,
            idempotencyWindow,
          });
        },
        faults: {
          cutFeed: (index) => feed(index).cut(),
          swallowFeed: (index) => {
            const proxy = feed(index);
            proxy.discards = "answers";
            return () => {
              proxy.discards = undefined;
            };
          },
          // After a swallowed reply, the client would match later replies to the wrong commands. So the connection is cut.
          loseReply: () => {
            for (const proxy of commands) proxy.discards = "answers";
            setTimeout(() => {
              for (const proxy of commands) {
                proxy.cut();
                proxy.discards = undefined;
              }
            }, 300);
          },
          goAway: () => {
            for (const proxy of proxies) {
              proxy.discards = "both";
              proxy.cut();
            }
          },
          comeBack: () => {
            for (const proxy of proxies) {
              proxy.discards = undefined;
              proxy.cut();
            }
          },
          beginAnew: async () => {
            await server.command("FLUSHALL");
          },
        },
        async close() {
          for (const client of clients) client.disconnect();
          await Promise.all(proxies.map((proxy) => proxy.stop()));
        },
      };
    },
  };

  for (const contractCase of cases) test(`${contractCase.id}: ${contractCase.title}`, () => contractCase.run(harness));

  test("no case is skipped", () => {
    expect(cases.filter((contractCase) => missingNeeds(contractCase, harness).length > 0)).toEqual([]);
  });
});
