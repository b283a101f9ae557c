import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import type { AppendResult } from "../../src/engine/engine.ts";
import { needsRedis, type RedisServer, startRedis } from "../support/servers/redis.ts";
import { codeOf, Member } from "./support/member.ts";

describe("redisRemote never hands out a position twice", needsRedis, () => {
  const servers: RedisServer[] = [];
  const members: Member[] = [];
  const handedOut = new Map<string, string>();
  let server: RedisServer;

  beforeEach(async () => {
    server = await start();
  });
  afterEach(async () => {
    for (const member of members.splice(0)) member.close();
    handedOut.clear();
    for (const one of servers.splice(0)) await one.stop();
  });
  afterAll(() => expect(servers).toEqual([]));

  async function start(args: readonly string[] = []): Promise<RedisServer> {
    const one = await startRedis(args);
    servers.push(one);
    return one;
  }

  async function join(port: number): Promise<Member> {
    const member = new Member(port, { commandTimeout: 1_000 });
    members.push(member);
    await member.ready();
    return member;
  }

  /** Appends until it works, and remembers what was sent out. */
  async function append(
    member: Member,
    keys: readonly string[],
    text: string,
    seen?: AppendResult,
  ): Promise<AppendResult> {
    for (;;) {
      await member.until(() => member.hasCommands);
      const given = member.session.append(keys, text, seen, undefined, undefined);
      if ((await codeOf(given)) === "engine-down") {
        await member.until(() => !member.hasCommands);
        continue;
      }
      const appended = await given;
      const id = `${appended.epoch}-${appended.seq}`;
      expect(handedOut.get(id), `${id} was sent out for another event`).toBeUndefined();
      handedOut.set(id, text);
      return appended;
    }
  }

  test("after a restart from an older snapshot", async () => {
    const member = await join(server.port);
    const kept = await append(member, ["#a"], "kept");
    await server.cli("SAVE");
    const lost = await append(member, ["#a"], "lost");
    await server.restart();
    await member.until(() => member.told.filter((what) => what === "commands true").length === 2);
    // A process that has seen nothing of it is told as well that it is another log.
    const after = await append(member, ["#a"], "after");
    expect(after.epoch).not.toBe(kept.epoch);
    expect(lost.epoch).toBe(kept.epoch);
    expect(after.seq).toBe(1);
    expect(await member.session.read(kept.epoch, ["#a"], 0, 1000)).toMatchObject({ epoch: after.epoch, records: [] });
  });

  test("after the promotion of a replica that lagged behind", async () => {
    const replica = await start(["--replicaof", "127.0.0.1", String(server.port)]);
    while (!String(await server.cli("INFO", "replication")).includes("state=online"));
    const one = await join(server.port);
    const kept = await append(one, ["#a"], "kept");
    while ((await replica.cli("XLEN", `{test}:${kept.epoch}:s:#a`)) !== 1);
    await replica.cli("REPLICAOF", "NO", "ONE");
    await append(one, ["#a"], "missed");
    await server.kill("SIGKILL");
    expect(await replica.cli("XLEN", `{test}:${kept.epoch}:s:#a`)).toBe(1);
    const two = await join(replica.port);
    const after = await append(two, ["#a"], "after");
    expect(after.epoch).not.toBe(kept.epoch);
    await append(two, ["#a"], "later");
  });

  test("when a server becomes a replica that lags, and then the primary again", async () => {
    const one = await join(server.port);
    const kept = await append(one, ["#a"], "kept");
    const replica = await start(["--replicaof", "127.0.0.1", String(server.port)]);
    while (!String(await server.cli("INFO", "replication")).includes("state=online"));
    // Its first replica changes nothing.
    expect((await append(one, ["#a"], "kept as well")).epoch).toBe(kept.epoch);
    while ((await replica.cli("XLEN", `{test}:${kept.epoch}:s:#a`)) !== 2);
    await replica.cli("REPLICAOF", "NO", "ONE");
    await append(one, ["#a"], "missed");
    await server.cli("REPLICAOF", "127.0.0.1", String(replica.port));
    while (!String(await server.cli("INFO", "replication")).includes("master_link_status:up"));
    await server.cli("REPLICAOF", "NO", "ONE");
    expect(await server.cli("XLEN", `{test}:${kept.epoch}:s:#a`)).toBe(2);
    expect((await append(one, ["#a"], "after")).epoch).not.toBe(kept.epoch);
  });

  test("when a process has seen more than the log knows of", async () => {
    const member = await join(server.port);
    const first = await append(member, ["#a"], "first");
    const behind = { ...first, seq: 7 };
    const marked = await member.mark([], behind);
    expect([marked.epoch === first.epoch, marked.head]).toEqual([false, 0]);
    expect((await member.mark()).epoch).toBe(marked.epoch);
    const next = await append(member, ["#a"], "next", { ...first, seq: 9 });
    expect(next.epoch).toBe(marked.epoch);
    const anew = await append(member, ["#a"], "anew", { ...next, seq: 9 });
    expect(anew).toMatchObject({ seq: 1 });
    expect(anew.epoch).not.toBe(next.epoch);
  });

  test("when the counter was deleted and the streams were left", async () => {
    const member = await join(server.port);
    const { epoch } = await append(member, ["#a"], "before");
    await server.cli("ZREM", `{test}:${epoch}:last`, "head");
    expect((await append(member, ["#a"], "after")).epoch).not.toBe(epoch);
  });

  test("when everything was deleted", async () => {
    const member = await join(server.port);
    await append(member, ["#a"], "before");
    await server.cli("FLUSHALL");
    await append(member, ["#a"], "after");
    expect(handedOut.size).toBe(2);
  });

  test("whichever single key is evicted; and what a read leaves out, it says", async () => {
    const member = await join(server.port);
    await member.session.enter([{ clientId: "c", subject: undefined }], "allow", 60_000);
    const evicted = new Set<string>();
    for (let round = 0; ; round++) {
      const appended = await append(member, ["#a", "@c"], `a ${round}`);
      await append(member, ["#b"], `b ${round}`, appended);
      await member.mark([], appended);
      // A key by what it is for: epochs and processes have other names every time.
      const keys = ((await server.cli("KEYS", "{test}:*")) as string[]).sort();
      const kindOf = (key: string): string => key.replace(/[0-9a-v]{16}/, "*");
      const key = keys.find((name) => !evicted.has(kindOf(name)));
      if (key === undefined) break;
      evicted.add(kindOf(key));
      await server.cli("DEL", key);
      const { epoch } = await member.mark([], appended);
      const { records, droppedThrough } = await member.session.read(epoch, ["#a", "#b"], 0, 1_000_000);
      if (epoch !== appended.epoch) continue;
      // Every event of this epoch is there, or its channel says that it is not.
      for (const [id, text] of handedOut) {
        const [of, seq] = id.split("-");
        if (of !== epoch || records.some((record) => record.text === text)) continue;
        expect(droppedThrough[text.startsWith("a") ? 0 : 1], `${text} after ${key}`).toBeGreaterThanOrEqual(
          Number(seq),
        );
      }
    }
    expect([...evicted].sort()).toEqual([
      "{test}:*:last",
      "{test}:*:s:#a",
      "{test}:*:s:#b",
      "{test}:*:s:@c",
      "{test}:at:*",
      "{test}:log",
      "{test}:n:*",
      "{test}:old",
      "{test}:procs",
      "{test}:stamp",
    ]);
  });

  test("what an epoch before has left is cleared", async () => {
    const member = await join(server.port);
    const { epoch } = await append(member, ["#a"], "before");
    await append(member, ["#b"], "before as well");
    const { epoch: next } = await member.mark([], { epoch, seq: 100 });
    await member.session.renew([]);
    const keys = ((await server.cli("KEYS", "{test}:*")) as string[]).join();
    expect([keys.includes(epoch), keys.includes(next)]).toEqual([false, true]);
  });
});
