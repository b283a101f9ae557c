// Faults of the server, of the connections and of the feed.
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { DiscardingProxy, needsRedis, type RedisServer, startRedis } from "../support/servers/redis.ts";
import { codeOf, Peer } from "./support/peer.ts";

describe("redisLog when something fails", needsRedis, () => {
  let server: RedisServer;
  let proxy: DiscardingProxy;
  let replica: RedisServer | undefined;
  const peers: Peer[] = [];

  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server.stop());
  beforeEach(async () => {
    proxy = await new DiscardingProxy(server.port).listen();
  });
  afterEach(async () => {
    for (const peer of peers.splice(0)) peer.close();
    await proxy.stop();
    await replica?.stop();
    replica = undefined;
    await server.command("CONFIG", "SET", "maxmemory", "0");
    await server.command("FLUSHALL");
  });

  /** Opens a peer whose commands, or whose feed, go through the proxy. */
  async function join(
    through: "commands" | "feed" | "nothing",
    options: ConstructorParameters<typeof Peer>[1] = {},
  ): Promise<Peer> {
    const feedPort = through === "feed" ? proxy.port : server.port;
    const peer = new Peer(through === "commands" ? proxy.port : server.port, {
      subscriber: () => new Redis(feedPort, "127.0.0.1", { lazyConnect: true, retryStrategy: () => null }),
      ...options,
    });
    peers.push(peer);
    await peer.ready();
    return peer;
  }
  const count = (peer: Peer, expected: string): number => peer.calls.filter((call) => call === expected).length;
  const head = async (peer: Peer): Promise<number> => (await peer.checkpoint()).head;

  test("a stopped server: appends are of unknown outcome after the timeout, later ones are refused at once, and it recovers", async () => {
    const peer = await join("nothing", { commandTimeout: 1_000 });
    await peer.append(["#a"], "before");
    await server.kill("SIGSTOP");
    const commands = [peer.append(["#a"], "one"), peer.append(["#a"], "two"), peer.session.isBarred("id")];
    const codes = await Promise.all(commands.map(codeOf));
    expect(codes).toEqual(["publish-outcome-unknown", "publish-outcome-unknown", "engine-down"]);
    expect(peer.hasCommands).toBe(false);
    const refused = peer.append(["#a"], "three");
    await server.kill("SIGCONT");
    expect(await codeOf(refused)).toBe("engine-down");
    await peer.ready();
    // Of unknown outcome does not mean undone: the server executed both when it continued. It never received the refused one.
    expect(await peer.append(["#a"], "four")).toMatchObject({ seq: 4 });
  });

  test("a killed connection: waiting appends are of unknown outcome at once, and commands can be given again", async () => {
    const peer = await join("commands");
    proxy.discards = "answers";
    const codes = [peer.append(["#a"], "one"), peer.session.isBarred("id")].map(codeOf);
    while ((await server.command("EXISTS", "{test}:log")) !== 1);
    proxy.discards = undefined;
    proxy.cut();
    expect(await Promise.all(codes)).toEqual(["publish-outcome-unknown", "engine-down"]);
    await peer.until(() => peer.hasCommands);
    expect(await peer.append(["#a"], "two")).toMatchObject({ seq: 2 });
    await server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    await peer.until(() => count(peer, "commands true") === 3);
    expect(await peer.append(["#a"], "three")).toMatchObject({ seq: 3 });
  });

  test("a command that the library keeps and sends again after it has reconnected is executed once", async () => {
    const peer = await join("commands");
    proxy.discards = "commands";
    const lost = codeOf(peer.append(["#a"], "lost on the way"));
    proxy.discards = undefined;
    proxy.cut();
    expect(await lost).toBe("publish-outcome-unknown");
    // By default ioredis sends unanswered commands again.
    await peer.until(() => peer.hasCommands);
    const before = await head(peer);
    expect(before).toBeLessThanOrEqual(1);
    expect(await peer.append(["#a"], "after")).toMatchObject({ seq: before + 1 });
  });

  test("a lost feed is reported, connected again, and has no subscriptions then", async () => {
    const peer = await join("feed");
    await peer.session.subscribe(["#a"]);
    proxy.cut();
    await peer.until(() => count(peer, "feed false") === 1);
    expect(await codeOf(peer.session.subscribe(["#a"]))).toBe("engine-down");
    await peer.until(() => peer.hasFeed);
    await peer.append(["#a"], "not subscribed");
    await peer.session.subscribe(["#a"]);
    await peer.append(["#a"], "received");
    await peer.checkpoint();
    expect(peer.events.map(({ text }) => text)).toEqual(["received"]);
  });

  test("renewFeed: replaces a feed that swallows everything; swallowed events never arrive", async () => {
    const peer = await join("feed", { commandTimeout: 1_000 });
    await peer.session.subscribe(["#a"]);
    proxy.discards = "both";
    await peer.append(["#a"], "swallowed");
    expect(peer.events).toEqual([]);
    proxy.discards = undefined;
    peer.session.renewFeed();
    expect(peer.hasFeed).toBe(false);
    await peer.until(() => peer.hasFeed);
    await peer.session.subscribe(["#a"]);
    await peer.append(["#a"], "received");
    await peer.checkpoint();
    expect(peer.events.map(({ text }) => text)).toEqual(["received"]);
    expect(proxy.connectionCount).toBe(1);
  });

  test("a command that was sent while the feed swallowed everything is executed once the feed is back, and only once", async () => {
    const [one, two] = [await join("feed"), await join("nothing")];
    await two.session.disconnect("before", 0);
    await one.until(() => one.peerCommands.length === 1);
    proxy.discards = "answers";
    await two.session.disconnect("during", 0);
    proxy.discards = undefined;
    one.session.renewFeed();
    await one.until(() => one.peerCommands.length === 2);
    await two.session.disconnect("after", 0);
    await one.until(() => one.peerCommands.length === 3);
    expect(one.peerCommands.map(({ clientId }) => clientId)).toEqual(["before", "during", "after"]);
    expect(two.peerCommands).toEqual([]);
  });

  test("subscribe: without an answer in time, the feed counts as lost", async () => {
    const peer = await join("feed", { commandTimeout: 1_000 });
    proxy.discards = "answers";
    expect(await codeOf(peer.session.subscribe(["#a"]))).toBe("engine-down");
    expect(peer.hasFeed).toBe(false);
    proxy.discards = undefined;
    await peer.until(() => peer.hasFeed);
  });

  test("maxmemory: an append is refused, and has no effect", async () => {
    const peer = await join("nothing");
    await peer.append(["#a"], "before");
    const { epoch } = await peer.checkpoint();
    const keys = async (): Promise<string[]> => ((await server.command("KEYS", "{test}:*")) as string[]).sort();
    const before = await keys();
    await server.command("CONFIG", "SET", "maxmemory", "1");
    const idempotencyKey = "key";
    expect(await codeOf(peer.append(["#a", "#b"], "text", { idempotencyKey }))).toBe("engine-down");
    expect(await keys()).toEqual(before);
    expect(await peer.session.read(epoch, ["#a", "#b"], 0, 1000)).toMatchObject({
      through: 1,
      records: [{ seq: 1 }],
    });
    await server.command("CONFIG", "SET", "maxmemory", "0");
    expect(await peer.append(["#a", "#b"], "text", { idempotencyKey })).toMatchObject({ seq: 2, repeated: false });
  });

  test("scripts that the server has lost are loaded again, and the order of the calls is kept", async () => {
    const peer = await join("nothing");
    await peer.append(["#a"], "before");
    await server.command("SCRIPT", "FLUSH");
    const codes = await Promise.all([peer.append(["#a"], "1"), peer.append(["#a"], "2")].map(codeOf));
    expect(codes).toEqual(["engine-down", "engine-down"]);
    await peer.until(() => count(peer, "commands true") === 2);
    expect(await peer.append(["#a"], "3")).toMatchObject({ seq: 2 });
  });

  test("a server that accepts no writes counts as away until it accepts them", async () => {
    const peer = await join("nothing");
    await server.command("REPLICAOF", "127.0.0.1", "1");
    expect(await codeOf(peer.append(["#a"], "1"))).toBe("engine-down");
    expect(peer.hasCommands).toBe(false);
    await server.command("REPLICAOF", "NO", "ONE");
    await peer.until(() => peer.hasCommands);
    expect(await codeOf(peer.append(["#a"], "2"))).toBe("resolved");
  });

  test("waitReplicas: an event that too few replicas have is of unknown outcome", async () => {
    const peer = await join("nothing", { waitReplicas: 1, commandTimeout: 1_000 });
    expect(await codeOf(peer.append(["#a"], "1"))).toBe("publish-outcome-unknown");
    replica = await startRedis(["--replicaof", "127.0.0.1", String(server.port)]);
    while (!String(await server.command("INFO", "replication")).includes("state=online"));
    // A replica is online before it has loaded the data that it was sent.
    await server.command("SET", "{test}:any", "1");
    expect(await server.command("WAIT", "1", "20000")).toBe(1);
    expect(await codeOf(peer.append(["#a"], "2"))).toBe("resolved");
  });

  test("a user that may not call a command of the scripts: the error names it, and appends are refused", async () => {
    await server.command("ACL", "SETUSER", "few", "on", ">pass", "~*", "&*", "+@all", "-xadd");
    const client = new Redis(server.port, "127.0.0.1", { username: "few", password: "pass" });
    const peer = new Peer(server.port, { client });
    peers.push(peer);
    await expect.poll(() => peer.errors.map(String).join()).toContain("XADD");
    expect(await codeOf(peer.append(["#a"], "1"))).toBe("engine-down");
    client.disconnect();
    await server.command("ACL", "DELUSER", "few");
  });
});
