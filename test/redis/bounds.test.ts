import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Broker, createBroker } from "../../src/index.ts";
import { type RedisEngineOptions, redisEngine } from "../../src/redis/index.ts";
import { needsRedis, type RedisServer, startRedis } from "../support/servers/redis.ts";
import { codeOf, Member } from "./support/member.ts";

// What only shows where a bound is reached, is none, or is passed by two at a time.
describe("the Redis engine at its bounds", needsRedis, () => {
  let server: RedisServer;
  const members: Member[] = [];
  const brokers: Broker[] = [];
  const clients: Redis[] = [];

  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server.stop());
  afterEach(async () => {
    for (const member of members.splice(0)) member.close();
    await Promise.all(brokers.splice(0).map((broker) => broker.close()));
    for (const client of clients.splice(0)) client.disconnect();
    await server.cli("FLUSHALL");
  });

  async function join(options: ConstructorParameters<typeof Member>[1] = {}): Promise<Member> {
    const member = new Member(server.port, options);
    members.push(member);
    await member.ready();
    return member;
  }
  function open(options: Partial<RedisEngineOptions> = {}): Broker {
    const client = new Redis(server.port, "127.0.0.1");
    clients.push(client);
    const broker = createBroker({ engine: redisEngine({ client, prefix: "test", ...options }), heartbeat: 60_000 });
    brokers.push(broker);
    return broker;
  }

  test("Infinity is no bound: neither of channels nor of how long a key is remembered", async () => {
    const member = await join({ maxChannels: Infinity, idempotencyWindow: Infinity });
    const first = await member.append(["#a"], "one", { nonce: "key" });
    expect(await member.append(["#a"], "one", { nonce: "key" })).toEqual({ ...first, repeated: true });
    expect(await member.append(["#b"], "two")).toMatchObject({ epoch: first.epoch, seq: 2 });
    expect((await member.session.read(first.epoch, ["#a", "#b"], 0, 1_000)).records).toHaveLength(2);
  });

  test("a process that publishes nothing for a day can publish after it", async () => {
    const member = await join();
    await member.append(["#a"], "one");
    const [counter = ""] = (await server.cli("KEYS", "{test}:n:*")) as string[];
    await server.cli("PEXPIRE", counter, "1000");
    await member.session.renew([]);
    expect(Number(await server.cli("PTTL", counter))).toBeGreaterThan(80_000_000);
  });

  test("an error that one script ends with costs the others nothing", async () => {
    const member = await join();
    await server.cli("SET", "{test}:barred", "of another kind");
    const [barred, appended] = await Promise.all([
      codeOf(member.session.isBarred("id")),
      codeOf(member.append(["#a"], "text")),
    ]);
    expect([barred, appended, member.hasCommands]).toEqual(["engine-down", "resolved", true]);
  });

  test("two marks of very many channels at a time say each what is so", async () => {
    const [one, two] = [await join(), await join()];
    const some = (name: string): string[] => Array.from({ length: 6_000 }, (_, index) => `#${name}${index}`);
    await two.append([""], "for all");
    for (let round = 0; round < 10; round++) {
      const events = Array.from({ length: 20 }, () => two.append([""], "for all"));
      const marks = await Promise.all([one.mark(some("a")), one.mark(some("b"))]);
      await Promise.all(events);
      for (const { last } of marks) expect(last.every((seq) => seq === 0)).toBe(true);
    }
  });

  test("an order is not for who entered after it was given", async () => {
    const [one, two, three] = [await join(), await join(), await join()];
    const id = { clientId: "id", subject: "s" };
    await one.session.enter([id], "replace", 0);
    const [entered] = await two.session.enter([id], "replace", 0);
    await one.until(() => one.orders.length === 1);
    expect(one.orders[0]?.at).toBeGreaterThan(Number(entered));
    const [last] = await three.session.enter([id], "replace", 0);
    await one.until(() => one.orders.length === 2);
    expect(Number(last)).toBeGreaterThan(Number(one.orders[0]?.at));
    // Of nobody else's there is nothing to be ended.
    await three.session.enter([{ ...id, clientId: "other" }], "replace", 0);
    await one.mark();
    expect(one.orders).toHaveLength(2);
  });

  test("channels that Redis has forgotten are no gap for who followed them throughout", async () => {
    const [broker, writer] = [open({ maxChannels: 20 }), open({ maxChannels: 20 })];
    const write = async (first: number, count: number): Promise<void> => {
      for (let n = first; n < first + count; n++) await writer.broadcast("text", { channels: `channel-${n}` });
    };
    await write(0, 30);
    const got = new Map<string, string>();
    for (const id of ["a", "b", "c", "d", "e"])
      void follow(broker, id, (text) => got.set(id, (got.get(id) ?? "") + text));
    await expect.poll(() => broker.clients().length).toBe(5);
    // Their inboxes have no record, and by now they could have had more than when the clients came, for all that Redis knows.
    await write(30, 8);
    for (const id of ["a", "b", "c", "d", "e"]) await writer.broadcastTo(id, `for ${id}`);
    for (const id of ["a", "b", "c", "d", "e"]) await expect.poll(() => got.get(id)).toContain(`data: for ${id}`);
    expect(broker.stats().gaps).toBe(0);
  });
});

/** Reads a client's stream to its end. */
async function follow(broker: Broker, id: string, take: (text: string) => void): Promise<void> {
  const { body } = await broker.clientHandler(new Request(`http://broker/connect?id=${id}`));
  const decoder = new TextDecoder();
  for await (const chunk of body ?? []) take(decoder.decode(chunk));
}
