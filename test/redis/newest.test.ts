// What the Redis engine cannot do yet is refused, and never done in another way.
import { describe, expect, test } from "vitest";
import { redisEngine } from "../../src/redis/index.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { clientRequest, codeOf, problemOf } from "../support/test-broker.ts";
import { useRedis } from "./support/use-redis.ts";

describe("the newest events of each channel, on Redis", needsRedis, () => {
  const redis = useRedis();

  test("last, from=latest: are bad-request for clients and listeners, and an id or from=earliest still works", async () => {
    const broker = redis.open();
    const { id } = await broker.broadcast("1", { channels: "a" });
    await broker.broadcast("2", { channels: "a" });
    for (const start of [{ last: 5 }, { from: "latest" }] as const) {
      const answer = await broker.clientHandler(clientRequest({ channel: "a" }), start);
      expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-request"]);
      expect(await codeOf(broker.listen({ channels: "a", ...start }).next())).toBe("bad-request");
      const resumed = await broker.clientHandler(clientRequest({ channel: "a", lastEventId: id }), start);
      expect(resumed.status).toBe(200);
      await resumed.body?.cancel();
    }
    const { value } = await broker.listen({ channels: "a", from: "earliest" }).next();
    expect(value).toMatchObject({ data: "1" });
  });
});

test("redisEngine(): the option channels is a TypeError", () => {
  const options = { client: {}, prefix: "x", channels: () => undefined } as never;
  expect(() => redisEngine(options)).toThrow(/there is no option "channels"/);
});
