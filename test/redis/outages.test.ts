import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { needsRedis, type RedisServer, SwallowingProxy, startRedis } from "../support/servers/redis.ts";
import { codeOf, Member } from "./support/member.ts";

describe("redisRemote, when something fails", needsRedis, () => {
  let server: RedisServer;
  let proxy: SwallowingProxy;
  let replica: RedisServer | undefined;
  const members: Member[] = [];

  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server.stop());
  beforeEach(async () => {
    proxy = await new SwallowingProxy(server.port).listen();
  });
  afterEach(async () => {
    for (const member of members.splice(0)) member.close();
    await proxy.stop();
    await replica?.stop();
    replica = undefined;
    await server.cli("CONFIG", "SET", "maxmemory", "0");
    await server.cli("FLUSHALL");
  });

  /** A member whose commands, or feed, go through the proxy. */
  async function join(
    through: "commands" | "feed" | "nothing",
    options: ConstructorParameters<typeof Member>[1] = {},
  ): Promise<Member> {
    const feedPort = through === "feed" ? proxy.port : server.port;
    const member = new Member(through === "commands" ? proxy.port : server.port, {
      subscriber: () => new Redis(feedPort, "127.0.0.1", { lazyConnect: true, retryStrategy: () => null }),
      ...options,
    });
    members.push(member);
    await member.ready();
    return member;
  }
  const count = (member: Member, what: string): number => member.told.filter((told) => told === what).length;
  const head = async (member: Member): Promise<number> => (await member.mark()).head;

  test("a stopped server: what was given is unknown when its time is up, what comes then is refused at once, and it heals", async () => {
    const member = await join("nothing", { commandTimeout: 200 });
    await member.append(["#a"], "before");
    await server.kill("SIGSTOP");
    const given = [member.append(["#a"], "one"), member.append(["#a"], "two"), member.session.isBarred("id")];
    const codes = await Promise.all(given.map(codeOf));
    expect(codes).toEqual(["publish-outcome-unknown", "publish-outcome-unknown", "engine-down"]);
    expect(member.hasCommands).toBe(false);
    const refused = member.append(["#a"], "three");
    await server.kill("SIGCONT");
    expect(await codeOf(refused)).toBe("engine-down");
    await member.ready();
    // Unknown is not undone: the server found both when it went on. What was refused it never got.
    expect(await member.append(["#a"], "four")).toMatchObject({ seq: 4 });
  });

  test("a killed connection: what waits is unknown at once, and commands come back", async () => {
    const member = await join("commands");
    proxy.swallows = "answers";
    const given = [member.append(["#a"], "one"), member.session.isBarred("id")].map(codeOf);
    while ((await server.cli("EXISTS", "{test}:log")) !== 1);
    proxy.swallows = undefined;
    proxy.cut();
    expect(await Promise.all(given)).toEqual(["publish-outcome-unknown", "engine-down"]);
    await member.until(() => member.hasCommands);
    expect(await member.append(["#a"], "two")).toMatchObject({ seq: 2 });
    await server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    await member.until(() => count(member, "commands true") === 3);
    expect(await member.append(["#a"], "three")).toMatchObject({ seq: 3 });
  });

  test("what the library keeps and sends again when it is connected is executed once", async () => {
    const member = await join("commands");
    proxy.swallows = "commands";
    const lost = codeOf(member.append(["#a"], "lost on the way"));
    proxy.swallows = undefined;
    proxy.cut();
    expect(await lost).toBe("publish-outcome-unknown");
    // ioredis sends again what was not answered, as its default is.
    await member.until(() => member.hasCommands);
    const before = await head(member);
    expect(before).toBeLessThanOrEqual(1);
    expect(await member.append(["#a"], "after")).toMatchObject({ seq: before + 1 });
  });

  test("a lost feed is told, made again, and nothing is subscribed to then", async () => {
    const member = await join("feed");
    await member.session.subscribe(["#a"]);
    proxy.cut();
    await member.until(() => count(member, "feed false") === 1);
    expect(await codeOf(member.session.subscribe(["#a"]))).toBe("engine-down");
    await member.until(() => member.hasFeed);
    await member.append(["#a"], "unheard");
    await member.session.subscribe(["#a"]);
    await member.append(["#a"], "heard");
    await member.mark();
    expect(member.messages.map(({ text }) => text)).toEqual(["heard"]);
  });

  test("a feed that swallows everything is made anew when asked, and what it kept back never comes", async () => {
    const member = await join("feed", { commandTimeout: 1_000 });
    await member.session.subscribe(["#a"]);
    proxy.swallows = "both";
    await member.append(["#a"], "swallowed");
    expect(member.messages).toEqual([]);
    proxy.swallows = undefined;
    member.session.renewFeed();
    expect(member.hasFeed).toBe(false);
    await member.until(() => member.hasFeed);
    await member.session.subscribe(["#a"]);
    await member.append(["#a"], "heard");
    await member.mark();
    expect(member.messages.map(({ text }) => text)).toEqual(["heard"]);
    expect(proxy.size).toBe(1);
  });

  test("an order that was given while the feed swallowed everything is carried out when it is back, once", async () => {
    const [one, two] = [await join("feed"), await join("nothing")];
    await two.session.disconnect("before", 0);
    await one.until(() => one.orders.length === 1);
    proxy.swallows = "answers";
    await two.session.disconnect("during", 0);
    proxy.swallows = undefined;
    one.session.renewFeed();
    await one.until(() => one.orders.length === 2);
    await two.session.disconnect("after", 0);
    await one.until(() => one.orders.length === 3);
    expect(one.orders.map(({ clientId }) => clientId)).toEqual(["before", "during", "after"]);
    expect(two.orders).toEqual([]);
  });

  test("a subscription that is not answered in time loses the feed", async () => {
    const member = await join("feed", { commandTimeout: 200 });
    proxy.swallows = "answers";
    expect(await codeOf(member.session.subscribe(["#a"]))).toBe("engine-down");
    expect(member.hasFeed).toBe(false);
    proxy.swallows = undefined;
    await member.until(() => member.hasFeed);
  });

  test("at maxmemory an append is refused, and had no effect whatever", async () => {
    const member = await join("nothing");
    await member.append(["#a"], "before");
    const { epoch } = await member.mark();
    const keys = async (): Promise<string[]> => ((await server.cli("KEYS", "{test}:*")) as string[]).sort();
    const before = await keys();
    await server.cli("CONFIG", "SET", "maxmemory", "1");
    const nonce = "key";
    expect(await codeOf(member.append(["#a", "#b"], "text", { nonce }))).toBe("engine-down");
    expect(await keys()).toEqual(before);
    expect(await member.session.read(epoch, ["#a", "#b"], 0, 1000)).toMatchObject({
      through: 1,
      records: [{ seq: 1 }],
    });
    await server.cli("CONFIG", "SET", "maxmemory", "0");
    expect(await member.append(["#a", "#b"], "text", { nonce })).toMatchObject({ seq: 2, repeated: false });
  });

  test("scripts that the server forgot are loaded again, and the order of the calls is kept", async () => {
    const member = await join("nothing");
    await member.append(["#a"], "before");
    await server.cli("SCRIPT", "FLUSH");
    const given = await Promise.all([member.append(["#a"], "1"), member.append(["#a"], "2")].map(codeOf));
    expect(given).toEqual(["engine-down", "engine-down"]);
    await member.until(() => count(member, "commands true") === 2);
    expect(await member.append(["#a"], "3")).toMatchObject({ seq: 2 });
  });

  test("a server that takes no writes is away until it takes them", async () => {
    const member = await join("nothing");
    await server.cli("REPLICAOF", "127.0.0.1", "1");
    expect(await codeOf(member.append(["#a"], "1"))).toBe("engine-down");
    expect(member.hasCommands).toBe(false);
    await server.cli("REPLICAOF", "NO", "ONE");
    await member.until(() => member.hasCommands);
    expect(await codeOf(member.append(["#a"], "2"))).toBe("resolved");
  });

  test("an event that too few replicas have is of unknown outcome", async () => {
    const member = await join("nothing", { waitReplicas: 1, commandTimeout: 1_000 });
    expect(await codeOf(member.append(["#a"], "1"))).toBe("publish-outcome-unknown");
    replica = await startRedis(["--replicaof", "127.0.0.1", String(server.port)]);
    while (!String(await server.cli("INFO", "replication")).includes("state=online"));
    // It is online before it has loaded what it was sent.
    await server.cli("SET", "{test}:any", "1");
    expect(await server.cli("WAIT", "1", "20000")).toBe(1);
    expect(await codeOf(member.append(["#a"], "2"))).toBe("resolved");
  });

  test("a user that may not call what scripts call is told so, and never gets to append", async () => {
    await server.cli("ACL", "SETUSER", "few", "on", ">pass", "~*", "&*", "+@all", "-xadd");
    const client = new Redis(server.port, "127.0.0.1", { username: "few", password: "pass" });
    const member = new Member(server.port, { client });
    members.push(member);
    await expect.poll(() => member.failures.map(String).join()).toContain("XADD");
    expect(await codeOf(member.append(["#a"], "1"))).toBe("engine-down");
    client.disconnect();
    await server.cli("ACL", "DELUSER", "few");
  });
});
