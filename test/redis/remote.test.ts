import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { needsRedis, type RedisServer, startRedis } from "../support/servers/redis.ts";
import { codeOf, Member } from "./support/member.ts";

describe("redisRemote", needsRedis, () => {
  let server: RedisServer;
  const members: Member[] = [];

  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server.stop());
  afterEach(async () => {
    for (const member of members.splice(0)) member.close();
    await server.cli("FLUSHALL");
  });

  async function join(options: ConstructorParameters<typeof Member>[1] = {}): Promise<Member> {
    const member = new Member(server.port, options);
    members.push(member);
    await member.ready();
    return member;
  }

  test("append gives positions in the order of the calls, and each event comes over the feed with what was before it", async () => {
    const member = await join();
    await member.session.subscribe(["", "#a"]);
    const answers = await Promise.all([
      member.append([""], "one"),
      member.append(["#a"], "two\n\nä€😀"),
      member.append(["", "#a"], "three"),
      member.append(["#other"], "four"),
    ]);
    expect(answers.map(({ seq }) => seq)).toEqual([1, 2, 3, 4]);
    await member.mark();
    const { epoch } = member.marks[0] ?? {};
    expect(member.messages).toEqual([
      { epoch, seq: 1, keys: [""], previous: [0], text: "one" },
      { epoch, seq: 2, keys: ["#a"], previous: [0], text: "two\n\nä€😀" },
      { epoch, seq: 3, keys: ["", "#a"], previous: [1, 2], text: "three" },
    ]);
  });

  test("a mark is in its place among the messages", async () => {
    const [one, two] = [await join(), await join()];
    await one.session.subscribe([""]);
    await two.append([""], "1");
    const [mark] = await Promise.all([one.mark(["", "#none"]), two.append([""], "2")]);
    await one.until(() => one.messages.length === 2);
    const before = one.told
      .slice(0, one.told.indexOf(`mark ${mark.token}`))
      .filter((what) => what.startsWith("message"));
    expect(before).toHaveLength(mark.head);
    expect(mark.last).toEqual([mark.head, 0]);
  });

  test("read pages several channels in order, each event once, and is complete up to where it says", async () => {
    const member = await join();
    for (let index = 1; index <= 40; index++) {
      const keys = index % 3 === 0 ? ["#a", "#b"] : [index % 3 === 1 ? "#a" : "#b"];
      await member.append(index % 5 === 0 ? ["#c"] : keys, `text ${index}`);
    }
    const { epoch } = await member.mark();
    const seqs: number[] = [];
    for (let at = 0; at < 40; ) {
      const page = await member.session.read(epoch, ["#a", "#b"], at, 200);
      expect(page.droppedThrough).toEqual([0, 0]);
      expect(page.through).toBeGreaterThan(at);
      for (const { seq, text } of page.records) {
        expect(text).toBe(`text ${seq}`);
        seqs.push(seq);
      }
      at = page.through;
    }
    expect(seqs).toEqual(Array.from({ length: 40 }, (_, index) => index + 1).filter((seq) => seq % 5 !== 0));
    expect(await codeOf(member.session.read("elsewhere", ["#a"], 0, 1))).toBe("resolved");
    expect(await member.session.read("elsewhere", ["#a"], 0, 1)).toMatchObject({ epoch, records: [] });
  });

  test("a key answers a second append with the first position, and refuses another event", async () => {
    const member = await join();
    const first = await member.append(["#a"], "text", { nonce: "key" });
    expect(await member.append(["#a"], "text", { nonce: "key" })).toEqual({ ...first, repeated: true });
    expect(await codeOf(member.append(["#a"], "other", { nonce: "key" }))).toBe("key-reused");
    expect((await member.mark()).head).toBe(1);
  });

  test("retention keeps so many events of a channel, and says how far the others went", async () => {
    const member = await join({ retention: { events: 3 } });
    for (let index = 1; index <= 5; index++) await member.append(["#a"], String(index));
    await member.append(["#b"], "6");
    const { epoch } = await member.mark();
    const page = await member.session.read(epoch, ["#a", "#b", "#none"], 0, 1000);
    expect(page).toMatchObject({ through: 6, dropped: [2, 0, 0] });
    expect(page.records.map(({ seq }) => seq)).toEqual([3, 4, 5, 6]);
    expect(await member.session.historyBounds(epoch, ["#a", "#b", "#none"], 3, {})).toEqual({
      epoch,
      head: 6,
      floor: 0,
      channels: [
        { dropped: 2, oldest: 3, next: 4 },
        { dropped: 0, oldest: 6, next: 6 },
        { dropped: 0, oldest: undefined, next: undefined },
      ],
    });
  });

  test("retention counts bytes as they go over the wire, and keeps no event that is over them by itself", async () => {
    const member = await join({ retention: { bytes: 100 } });
    await member.append(["#a"], "x".repeat(30));
    await member.append(["#a"], "y".repeat(30));
    const { epoch } = await member.mark();
    // Each is 30 bytes and the line of its id, which is 23: "id: ", 16 of the epoch, "-", the position and a line feed.
    expect(`id: ${epoch}-1\n`).toHaveLength(23);
    expect(await member.session.read(epoch, ["#a"], 0, 1000)).toMatchObject({ records: [{ seq: 2 }], dropped: [1] });
    await member.append(["#a"], "z".repeat(200));
    expect(await member.session.read(epoch, ["#a"], 0, 1000)).toMatchObject({ records: [], dropped: [3], through: 3 });
  });

  test("what is too old is dropped when the channel is read, and its keys expire", async () => {
    const member = await join({ retention: { age: 50 } });
    await member.append(["#a"], "old");
    const { epoch } = await member.mark();
    const seen = () => member.session.read(epoch, ["#a"], 0, 1000);
    while ((await seen()).records.length > 0);
    expect(await seen()).toMatchObject({ dropped: [1], through: 1 });
    expect(Number(await server.cli("PTTL", `{test}:${epoch}:s:#a`))).toBeGreaterThan(0);
  });

  test("beyond maxChannels the quietest channel is forgotten, and what had no record counts as having had events up to there", async () => {
    const member = await join({ maxChannels: 2 });
    await member.append(["#a"], "1");
    await member.append(["#b"], "2");
    await member.append(["#c"], "3");
    const mark = await member.mark(["#a", "#b", "#c", "#new"]);
    expect(mark.last).toEqual([1, 2, 3, 1]);
    expect((await member.session.read(mark.epoch, ["#a", "#new", "#b"], 0, 1000)).droppedThrough).toEqual([1, 1, 0]);
    expect(await server.cli("EXISTS", `{test}:${mark.epoch}:s:#a`)).toBe(0);
  });

  test("survey finds the floor of the newest events by count and by bytes", async () => {
    const member = await join();
    for (let index = 1; index <= 30; index++) await member.append(index % 2 ? ["#a"] : ["#b"], "x".repeat(10));
    await member.append(["#a", "#b"], "x".repeat(10));
    const { epoch } = await member.mark();
    const floor = async (max: object): Promise<number> =>
      (await member.session.historyBounds(epoch, ["#a", "#b"], 0, max)).floor;
    expect(await floor({ events: 5 })).toBe(26);
    expect(await floor({ events: 0 })).toBe(31);
    expect(await floor({ events: 31 })).toBe(0);
    expect(await floor({ events: 30 })).toBe(1);
    const size = 10 + `id: ${epoch}-31\n`.length;
    expect(await floor({ bytes: size * 3 })).toBe(28);
    expect(await floor({ bytes: size * 3 - 1 })).toBe(29);
    expect(await floor({ bytes: size * 3, events: 2 })).toBe(29);
  });

  test("a command that the client library sends twice, or late, appends nothing more", async () => {
    const member = await join();
    const { client } = member;
    const call = client.call.bind(client);
    const sent: string[][] = [];
    Object.assign(client, {
      call(...args: [string, ...string[]]): Promise<unknown> {
        sent.push(args);
        return call(...args);
      },
    });
    const first = await member.append(["#a"], "one");
    await member.append(["#a"], "two");
    const appends = sent.filter(([command, , , , , , , number]) => command === "EVALSHA" && number !== undefined);
    const [one, two] = appends.filter((args) => args.includes("one") || args.includes("two"));
    expect(await call(...(two as [string]))).toEqual(["ok", first.epoch, "2", "0"]);
    expect(await call(...(one as [string]))).toEqual(["stale"]);
    expect((await member.mark()).head).toBe(2);
    // Nor after a connection was lost and commands are there again.
    await server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    await member.until(() => member.told.filter((what) => what === "commands true").length === 2);
    expect(await call(...(two as [string]))).toEqual(["gone"]);
  });

  test("an event for a recipient that is nowhere is refused; one that lately was can be written to", async () => {
    const [one, two] = [await join({ lease: 500 }), await join()];
    const recipient = "client";
    const write = (): Promise<string> => codeOf(one.append(["@client"], "text", { recipient }));
    expect(await write()).toBe("unknown-client");
    expect(await two.session.enter([{ clientId: recipient, subject: undefined }], "allow", 60_000)).toEqual([
      expect.any(Number),
    ]);
    expect(await write()).toBe("resolved");
    await one.until(() => one.messages.length === 1);
    expect(one.messages[0]?.keys).toEqual(["@client"]);
    await two.session.leave({ clientId: recipient, subject: undefined }, 60_000);
    await two.mark();
    expect(await write()).toBe("resolved");
    await server.cli("DEL", "{test}:lingering");
    expect(await write()).toBe("unknown-client");
  });

  test("enter refuses who is barred, or there already with the same subject", async () => {
    const [one, two] = [await join(), await join()];
    const ann = { clientId: "id", subject: "ann" };
    const bob = { clientId: "id", subject: "bob" };
    expect(await one.session.enter([ann], "reject", 60_000)).toEqual([expect.any(Number)]);
    expect(await two.session.enter([ann, bob, ann, bob], "reject", 60_000)).toEqual([
      "taken",
      expect.any(Number),
      "taken",
      "taken",
    ]);
    await one.session.leave(ann, 0);
    await one.mark();
    expect(await two.session.enter([ann], "reject", 60_000)).toEqual([expect.any(Number)]);
    expect(await one.session.enter([ann], "replace", 60_000)).toEqual([expect.any(Number)]);
    await two.until(() => two.orders.length === 1);
    expect(two.orders).toEqual([{ do: "replace", ...ann, barFor: 0, at: expect.any(Number) }]);
    expect(await one.session.disconnect("id", 60_000)).toBe(2);
    await two.until(() => two.orders.length === 2);
    expect(two.orders[1]).toEqual({
      do: "disconnect",
      clientId: "id",
      subject: undefined,
      barFor: 60_000,
      at: expect.any(Number),
    });
    expect([await two.session.isBarred("id"), await two.session.isBarred("other")]).toEqual([true, false]);
    expect(await two.session.enter([ann], "allow", 60_000)).toEqual(["barred"]);
    await one.mark();
    expect(one.orders).toEqual([]);
  });

  test("what a process had that died counts until its lease is over, and lingers then", async () => {
    const [one, two] = [await join(), await join({ lease: 200 })];
    const ids = Array.from({ length: 2500 }, (_, index) => ({ clientId: `c${index}`, subject: "s" }));
    await two.session.renew(ids);
    expect(await one.session.disconnect("c2499", 0)).toBe(1);
    two.client.disconnect();
    while ((await one.session.disconnect("c2499", 0)) > 0);
    expect(await codeOf(one.append(["@c2499"], "text", { recipient: "c2499" }))).toBe("resolved");
    // Others clear up behind it, a part at a time.
    while ((await server.cli("ZCARD", "{test}:procs")) !== 1) await one.session.renew([]);
    expect(await server.cli("KEYS", "{test}:at:*")).toHaveLength(1);
    expect(await server.cli("ZCARD", "{test}:lingering")).toBe(2500);
    expect(await codeOf(one.append(["@c0"], "text", { recipient: "c0" }))).toBe("resolved");
  });

  test("what a process has lingers for as long as its clients were entered with, whoever left it before", async () => {
    const [one, two] = [await join(), await join({ lease: 200 })];
    const presence = (clientId: string) => ({ clientId, subject: undefined });
    await two.session.enter([presence("left"), presence("stays")], "allow", 30_000);
    await two.session.leave(presence("left"), 0);
    two.client.disconnect();
    while ((await one.session.disconnect("stays", 0)) > 0);
    expect(await codeOf(one.append(["@stays"], "text", { recipient: "stays" }))).toBe("resolved");
    expect(await codeOf(one.append(["@left"], "text", { recipient: "left" }))).toBe("unknown-client");
  });

  test("renew sets right what went wrong: it is all that the process has", async () => {
    const [one, two] = [await join(), await join()];
    const presence = { clientId: "c", subject: undefined };
    await two.session.enter([presence, presence, presence], "allow", 60_000);
    await two.session.renew([presence]);
    expect(await one.session.disconnect("c", 0)).toBe(1);
    await two.session.renew([]);
    expect(await one.session.disconnect("c", 0)).toBe(0);
  });

  test("a mark of very many channels comes once, in parts, while others append", async () => {
    const [one, two] = [await join(), await join()];
    const keys = Array.from({ length: 12_000 }, (_, index) => `#${index}`);
    await one.session.subscribe(keys);
    for (const key of ["#0", "#6000", "#11999"]) await two.append([key], key);
    const appends: Promise<unknown>[] = [];
    const marking = one.mark(keys);
    for (let index = 0; index < 300; index++) appends.push(two.append([`#${(index * 40) % 12_000}`], "text"));
    const mark = await marking;
    await Promise.all(appends);
    await one.until(() => one.messages.length === 303);
    const before = one.messages.filter(({ seq }) => seq <= mark.head);
    const place = one.told
      .slice(0, one.told.indexOf(`mark ${mark.token}`))
      .filter((what) => what.startsWith("message"));
    expect(place).toHaveLength(before.length);
    const last = new Map<string, number>();
    for (const { seq, keys } of before) for (const key of keys) last.set(key, seq);
    expect(mark.last).toEqual(keys.map((key) => last.get(key) ?? 0));
    expect(one.marks).toHaveLength(1);
  });

  test("what is foreign on the feed is reported and ignored", async () => {
    const member = await join();
    await member.session.subscribe(["#a"]);
    for (const text of ["", "nonsense", "epoch\n1\n1\n0", "epoch\nx\n0\n", "a b\n1\n0\ntext"])
      await server.cli("PUBLISH", "{test}:f:#a", text);
    await server.cli("PUBLISH", "{test}:inbox", "!disconnect\nx");
    await member.mark();
    expect(member.failures).toHaveLength(6);
    expect([member.messages, member.orders]).toEqual([[], []]);
  });

  test("close leaves nothing of the process behind, and the client to its owner", async () => {
    const member = await join();
    await member.session.enter([{ clientId: "c", subject: undefined }], "allow", 60_000);
    const listeners = (): number =>
      member.client.eventNames().reduce((sum, name) => sum + member.client.listenerCount(name), 0);
    const during = listeners();
    member.session.close(0);
    expect(listeners()).toBeLessThan(during);
    expect(await member.client.ping()).toBe("PONG");
    expect(await server.cli("KEYS", "{test}:*")).toEqual(["{test}:stamp"]);
    await expect.poll(() => server.cli("PUBSUB", "CHANNELS")).toEqual([]);
  });
});
