// The operations of a log in Redis, on one server without faults.
import { describe, expect, test } from "vitest";
import { needsRedis } from "../support/servers/redis.ts";
import { codeOf } from "./support/peer.ts";
import { useRedis } from "./support/use-redis.ts";

describe("redisLog", needsRedis, () => {
  const redis = useRedis();

  test("append: assigns positions in the order of the calls; the feed delivers each event with its previous positions", async () => {
    const peer = await redis.join();
    await peer.session.subscribe(["", "#a"]);
    const answers = await Promise.all([
      peer.append([""], "one"),
      peer.append(["#a"], "two\n\nä€😀"),
      peer.append(["", "#a"], "three"),
      peer.append(["#other"], "four"),
    ]);
    expect(answers.map(({ seq }) => seq)).toEqual([1, 2, 3, 4]);
    await peer.checkpoint();
    const { epoch } = peer.checkpoints[0] ?? {};
    expect(peer.events).toEqual([
      { epoch, seq: 1, keys: [""], previous: [0], text: "one" },
      { epoch, seq: 2, keys: ["#a"], previous: [0], text: "two\n\nä€😀" },
      { epoch, seq: 3, keys: ["", "#a"], previous: [1, 2], text: "three" },
    ]);
  });

  test("append: a large event of many channels is sent once to each process, and not once for each channel", async () => {
    const keys = Array.from({ length: 100 }, (_, index) => `#${index}`);
    const [writer, reader, other] = [await redis.join(), await redis.join(), await redis.join()];
    await reader.session.subscribe(keys);
    await redis.server.command("CONFIG", "RESETSTAT");
    const { epoch, seq } = await writer.append(keys, "x".repeat(60_000));
    expect(String(await redis.server.command("INFO", "commandstats"))).toContain("cmdstat_publish:calls=1,");
    for (const peer of [reader, other]) {
      await peer.until(() => peer.events.length === 1);
      expect(peer.events).toMatchObject([{ epoch, seq, keys, text: "x".repeat(60_000) }]);
    }
    // Small events, and those of few channels, go only where they are wanted.
    await writer.append(keys.slice(0, 10), "x".repeat(60_000));
    await writer.append(keys.slice(0, 20), "x");
    await reader.until(() => reader.events.length === 3);
    await other.checkpoint();
    expect(other.events).toHaveLength(1);
  });

  test("requestCheckpoint: the checkpoint has its place among the events", async () => {
    const [one, two] = [await redis.join(), await redis.join()];
    await one.session.subscribe([""]);
    await two.append([""], "1");
    const [checkpoint] = await Promise.all([one.checkpoint(["", "#none"]), two.append([""], "2")]);
    await one.until(() => one.events.length === 2);
    const before = one.calls
      .slice(0, one.calls.indexOf(`checkpoint ${checkpoint.token}`))
      .filter((call) => call.startsWith("event"));
    expect(before).toHaveLength(checkpoint.head);
    expect(checkpoint.last).toEqual([checkpoint.head, 0]);
  });

  test("read: pages through several channels in order, each event once, and is complete up to `through`", async () => {
    const peer = await redis.join();
    for (let index = 1; index <= 40; index++) {
      const keys = index % 3 === 0 ? ["#a", "#b"] : [index % 3 === 1 ? "#a" : "#b"];
      await peer.append(index % 5 === 0 ? ["#c"] : keys, `text ${index}`);
    }
    const { epoch } = await peer.checkpoint();
    const seqs: number[] = [];
    for (let cursor = 0; cursor < 40; ) {
      const page = await peer.session.read(epoch, ["#a", "#b"], cursor, 200);
      expect(page.droppedThrough).toEqual([0, 0]);
      expect(page.through).toBeGreaterThan(cursor);
      for (const { seq, text } of page.records) {
        expect(text).toBe(`text ${seq}`);
        seqs.push(seq);
      }
      cursor = page.through;
    }
    expect(seqs).toEqual(Array.from({ length: 40 }, (_, index) => index + 1).filter((seq) => seq % 5 !== 0));
    expect(await codeOf(peer.session.read("elsewhere", ["#a"], 0, 1))).toBe("resolved");
    expect(await peer.session.read("elsewhere", ["#a"], 0, 1)).toMatchObject({ epoch, records: [] });
  });

  test("append: an idempotency key answers a second append with the first position, and refuses another event", async () => {
    const peer = await redis.join();
    const first = await peer.append(["#a"], "text", { idempotencyKey: "key" });
    expect(await peer.append(["#a"], "text", { idempotencyKey: "key" })).toEqual({ ...first, repeated: true });
    expect(await codeOf(peer.append(["#a"], "other", { idempotencyKey: "key" }))).toBe("key-reused");
    expect((await peer.checkpoint()).head).toBe(1);
  });

  test("retention.events: keeps the newest events of each channel, and reports the others as dropped", async () => {
    const peer = await redis.join({ retention: { events: 3 } });
    for (let index = 1; index <= 5; index++) await peer.append(["#a"], String(index));
    await peer.append(["#b"], "6");
    const { epoch } = await peer.checkpoint();
    const page = await peer.session.read(epoch, ["#a", "#b", "#none"], 0, 1000);
    expect(page).toMatchObject({ through: 6, droppedThrough: [2, 0, 0] });
    expect(page.records.map(({ seq }) => seq)).toEqual([3, 4, 5, 6]);
    expect(await peer.session.historyBounds(epoch, ["#a", "#b", "#none"], 3, {})).toEqual({
      epoch,
      head: 6,
      floor: 0,
      channels: [
        { droppedThrough: 2, oldest: 3, next: 4 },
        { droppedThrough: 0, oldest: 6, next: 6 },
        { droppedThrough: 0, oldest: undefined, next: undefined },
      ],
    });
  });

  test("retention.bytes: counts bytes on the wire, and keeps no event that is larger by itself", async () => {
    const peer = await redis.join({ retention: { bytes: 100 } });
    await peer.append(["#a"], "x".repeat(30));
    await peer.append(["#a"], "y".repeat(30));
    const { epoch } = await peer.checkpoint();
    // Each event has 30 bytes of text and 23 of its id: "id: ", 16 of the epoch, "-", the position and a line feed.
    expect(`id: ${epoch}-1\n`).toHaveLength(23);
    expect(await peer.session.read(epoch, ["#a"], 0, 1000)).toMatchObject({
      records: [{ seq: 2 }],
      droppedThrough: [1],
    });
    await peer.append(["#a"], "z".repeat(200));
    expect(await peer.session.read(epoch, ["#a"], 0, 1000)).toMatchObject({
      records: [],
      droppedThrough: [3],
      through: 3,
    });
  });

  test("retention.age: drops old events when the channel is read, and lets the keys expire", async () => {
    const peer = await redis.join({ retention: { age: 50 } });
    await peer.append(["#a"], "old");
    const { epoch } = await peer.checkpoint();
    const read = () => peer.session.read(epoch, ["#a"], 0, 1000);
    while ((await read()).records.length > 0);
    expect(await read()).toMatchObject({ droppedThrough: [1], through: 1 });
    expect(Number(await redis.server.command("PTTL", `{test}:${epoch}:channel:#a`))).toBeGreaterThan(0);
  });

  test("maxChannels: forgets the quietest channel; a channel without a record may have had events up to there", async () => {
    const peer = await redis.join({ maxChannels: 2 });
    await peer.append(["#a"], "1");
    await peer.append(["#b"], "2");
    await peer.append(["#c"], "3");
    const checkpoint = await peer.checkpoint(["#a", "#b", "#c", "#new"]);
    expect(checkpoint.last).toEqual([1, 2, 3, 1]);
    expect((await peer.session.read(checkpoint.epoch, ["#a", "#new", "#b"], 0, 1000)).droppedThrough).toEqual([
      1, 1, 0,
    ]);
    expect(await redis.server.command("EXISTS", `{test}:${checkpoint.epoch}:channel:#a`)).toBe(0);
  });

  test("historyBounds: finds the floor of the newest events by count and by bytes", async () => {
    const peer = await redis.join();
    for (let index = 1; index <= 30; index++) await peer.append(index % 2 ? ["#a"] : ["#b"], "x".repeat(10));
    await peer.append(["#a", "#b"], "x".repeat(10));
    const { epoch } = await peer.checkpoint();
    const floor = async (max: object): Promise<number> =>
      (await peer.session.historyBounds(epoch, ["#a", "#b"], 0, max)).floor;
    expect(await floor({ events: 5 })).toBe(26);
    expect(await floor({ events: 0 })).toBe(31);
    expect(await floor({ events: 31 })).toBe(0);
    expect(await floor({ events: 30 })).toBe(1);
    const size = 10 + `id: ${epoch}-31\n`.length;
    expect(await floor({ bytes: size * 3 })).toBe(28);
    expect(await floor({ bytes: size * 3 - 1 })).toBe(29);
    expect(await floor({ bytes: size * 3, events: 2 })).toBe(29);
  });

  test("append: a command that the client library sends twice, or late, has no second effect", async () => {
    const peer = await redis.join();
    const { client } = peer;
    const call = client.call.bind(client);
    const sent: string[][] = [];
    Object.assign(client, {
      call(...args: [string, ...string[]]): Promise<unknown> {
        sent.push(args);
        return call(...args);
      },
    });
    const first = await peer.append(["#a"], "one");
    await peer.append(["#a"], "two");
    const appends = sent.filter(([command, , , , , , , number]) => command === "EVALSHA" && number !== undefined);
    const [one, two] = appends.filter((args) => args.includes("one") || args.includes("two"));
    expect(await call(...(two as [string]))).toEqual(["ok", first.epoch, "2", "0"]);
    expect(await call(...(one as [string]))).toEqual(["stale"]);
    expect((await peer.checkpoint()).head).toBe(2);
    // Nor does it after a connection was lost and commands can be given again.
    await redis.server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    await peer.until(() => peer.calls.filter((call) => call === "commands true").length === 2);
    expect(await call(...(two as [string]))).toEqual(["no-counter"]);
  });

  test("append: refuses an event for an unknown recipient; a recipient that left lately is known", async () => {
    const [one, two] = [await redis.join({ lease: 500 }), await redis.join()];
    const recipient = "client";
    const send = (): Promise<string> => codeOf(one.append(["@client"], "text", { recipient }));
    expect(await send()).toBe("unknown-client");
    expect(await two.session.enter([{ clientId: recipient, subject: undefined }], "allow", 60_000)).toEqual([
      expect.any(Number),
    ]);
    expect(await send()).toBe("resolved");
    await one.until(() => one.events.length === 1);
    expect(one.events[0]?.keys).toEqual(["@client"]);
    await two.session.leave({ clientId: recipient, subject: undefined }, 60_000);
    await two.checkpoint();
    expect(await send()).toBe("resolved");
    await redis.server.command("DEL", "{test}:lingering");
    expect(await send()).toBe("unknown-client");
  });

  test("enter: refuses a barred id, and an id that is connected with the same subject", async () => {
    const [one, two] = [await redis.join(), await redis.join()];
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
    await one.checkpoint();
    expect(await two.session.enter([ann], "reject", 60_000)).toEqual([expect.any(Number)]);
    expect(await one.session.enter([ann], "replace", 60_000)).toEqual([expect.any(Number)]);
    await two.until(() => two.peerCommands.length === 1);
    expect(two.peerCommands).toEqual([{ type: "replace", ...ann, barFor: 0, at: expect.any(Number) }]);
    expect(await one.session.disconnect("id", 60_000)).toBe(2);
    await two.until(() => two.peerCommands.length === 2);
    expect(two.peerCommands[1]).toEqual({
      type: "disconnect",
      clientId: "id",
      subject: undefined,
      barFor: 60_000,
      at: expect.any(Number),
    });
    expect([await two.session.isBarred("id"), await two.session.isBarred("other")]).toEqual([true, false]);
    expect(await two.session.enter([ann], "allow", 60_000)).toEqual(["barred"]);
    await one.checkpoint();
    expect(one.peerCommands).toEqual([]);
  });

  test("lease: connections of a dead process count until it ends, and then their ids linger", async () => {
    const [one, two] = [await redis.join(), await redis.join({ lease: 200 })];
    const ids = Array.from({ length: 2500 }, (_, index) => ({ clientId: `c${index}`, subject: "s" }));
    await two.session.renew(ids);
    expect(await one.session.disconnect("c2499", 0)).toBe(1);
    two.client.disconnect();
    while ((await one.session.disconnect("c2499", 0)) > 0);
    expect(await codeOf(one.append(["@c2499"], "text", { recipient: "c2499" }))).toBe("resolved");
    // The other process clears them away, a part at a time.
    while ((await redis.server.command("ZCARD", "{test}:processes")) !== 1) await one.session.renew([]);
    expect(await redis.server.command("KEYS", "{test}:process:*")).toHaveLength(1);
    expect(await redis.server.command("ZCARD", "{test}:lingering")).toBe(2500);
    expect(await codeOf(one.append(["@c0"], "text", { recipient: "c0" }))).toBe("resolved");
  });

  test("lease: ids of a dead process linger as long as its clients entered with; an id that left before does not", async () => {
    const [one, two] = [await redis.join(), await redis.join({ lease: 200 })];
    const presence = (clientId: string) => ({ clientId, subject: undefined });
    await two.session.enter([presence("left"), presence("stays")], "allow", 30_000);
    await two.session.leave(presence("left"), 0);
    two.client.disconnect();
    while ((await one.session.disconnect("stays", 0)) > 0);
    expect(await codeOf(one.append(["@stays"], "text", { recipient: "stays" }))).toBe("resolved");
    expect(await codeOf(one.append(["@left"], "text", { recipient: "left" }))).toBe("unknown-client");
  });

  test("renew: replaces everything that is registered for the process", async () => {
    const [one, two] = [await redis.join(), await redis.join()];
    const presence = { clientId: "c", subject: undefined };
    await two.session.enter([presence, presence, presence], "allow", 60_000);
    await two.session.renew([presence]);
    expect(await one.session.disconnect("c", 0)).toBe(1);
    await two.session.renew([]);
    expect(await one.session.disconnect("c", 0)).toBe(0);
  });

  test("requestCheckpoint: a checkpoint of very many channels arrives once, in parts, while others append", async () => {
    const [one, two] = [await redis.join(), await redis.join()];
    const keys = Array.from({ length: 12_000 }, (_, index) => `#${index}`);
    await one.session.subscribe(keys);
    for (const key of ["#0", "#6000", "#11999"]) await two.append([key], key);
    const appends: Promise<unknown>[] = [];
    const requested = one.checkpoint(keys);
    for (let index = 0; index < 300; index++) appends.push(two.append([`#${(index * 40) % 12_000}`], "text"));
    const checkpoint = await requested;
    await Promise.all(appends);
    await one.until(() => one.events.length === 303);
    const before = one.events.filter(({ seq }) => seq <= checkpoint.head);
    const arrived = one.calls
      .slice(0, one.calls.indexOf(`checkpoint ${checkpoint.token}`))
      .filter((call) => call.startsWith("event"));
    expect(arrived).toHaveLength(before.length);
    const last = new Map<string, number>();
    for (const { seq, keys } of before) for (const key of keys) last.set(key, seq);
    expect(checkpoint.last).toEqual(keys.map((key) => last.get(key) ?? 0));
    expect(one.checkpoints).toHaveLength(1);
  });

  test("onError: reports foreign messages on the feed; they have no other effect", async () => {
    const peer = await redis.join();
    await peer.session.subscribe(["#a"]);
    for (const text of ["", "nonsense", "epoch\n1\n1\n0", "epoch\nx\n0\n", "a b\n1\n0\ntext"])
      await redis.server.command("PUBLISH", "{test}:feed:#a", text);
    await redis.server.command("PUBLISH", "{test}:inbox", "!disconnect\nx");
    await peer.checkpoint();
    expect(peer.errors).toHaveLength(6);
    expect([peer.events, peer.peerCommands]).toEqual([[], []]);
  });

  test("close: leaves no key of the process behind, and the client usable", async () => {
    const peer = await redis.join();
    await peer.session.enter([{ clientId: "c", subject: undefined }], "allow", 60_000);
    const listeners = (): number =>
      peer.client.eventNames().reduce((sum, name) => sum + peer.client.listenerCount(name), 0);
    const during = listeners();
    peer.session.close(0);
    expect(listeners()).toBeLessThan(during);
    expect(await peer.client.ping()).toBe("PONG");
    expect(await redis.server.command("KEYS", "{test}:*")).toEqual(["{test}:stamp"]);
    await expect.poll(() => redis.server.command("PUBSUB", "CHANNELS")).toEqual([]);
  });
});
