// The log begins a new epoch whenever Redis may have lost something.
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import type { AppendResult } from "../../src/engine/engine.ts";
import { needsRedis, type RedisServer, startRedis } from "../support/servers/redis.ts";
import { codeOf, Peer } from "./support/peer.ts";

describe("redisLog assigns no position twice", needsRedis, () => {
  const servers: RedisServer[] = [];
  const peers: Peer[] = [];
  const assigned = new Map<string, string>();
  let server: RedisServer;

  beforeEach(async () => {
    server = await start();
  });
  afterEach(async () => {
    for (const peer of peers.splice(0)) peer.close();
    assigned.clear();
    for (const started of servers.splice(0)) await started.stop();
  });
  afterAll(() => expect(servers).toEqual([]));

  async function start(args: readonly string[] = []): Promise<RedisServer> {
    const started = await startRedis(args);
    servers.push(started);
    return started;
  }

  async function join(port: number): Promise<Peer> {
    const peer = new Peer(port, { commandTimeout: 1_000 });
    peers.push(peer);
    await peer.ready();
    return peer;
  }

  /** Appends until it works, and checks that the position is new. */
  async function append(peer: Peer, keys: readonly string[], text: string, seen?: AppendResult): Promise<AppendResult> {
    for (;;) {
      await peer.until(() => peer.hasCommands);
      const appending = peer.session.append(keys, text, seen, undefined, undefined);
      if ((await codeOf(appending)) === "engine-down") {
        await peer.until(() => !peer.hasCommands);
        continue;
      }
      const appended = await appending;
      const id = `${appended.epoch}-${appended.seq}`;
      expect(assigned.get(id), `${id} is the position of another event`).toBeUndefined();
      assigned.set(id, text);
      return appended;
    }
  }

  test("after a restart from an older snapshot", async () => {
    const peer = await join(server.port);
    const kept = await append(peer, ["#a"], "kept");
    await server.command("SAVE");
    const lost = await append(peer, ["#a"], "lost");
    await server.restart();
    await peer.until(() => peer.calls.filter((call) => call === "commands true").length === 2);
    // A peer that has seen no event of the new log learns of the new epoch, too.
    const after = await append(peer, ["#a"], "after");
    expect(after.epoch).not.toBe(kept.epoch);
    expect(lost.epoch).toBe(kept.epoch);
    expect(after.seq).toBe(1);
    expect(await peer.session.read(kept.epoch, ["#a"], 0, 1000)).toMatchObject({ epoch: after.epoch, records: [] });
  });

  test("after the promotion of a replica that lagged", async () => {
    const replica = await start(["--replicaof", "127.0.0.1", String(server.port)]);
    while (!String(await server.command("INFO", "replication")).includes("state=online"));
    const one = await join(server.port);
    const kept = await append(one, ["#a"], "kept");
    while ((await replica.command("ZCARD", `{test}:${kept.epoch}:channel:#a`)) !== 1);
    await replica.command("REPLICAOF", "NO", "ONE");
    await append(one, ["#a"], "missed");
    await server.kill("SIGKILL");
    expect(await replica.command("ZCARD", `{test}:${kept.epoch}:channel:#a`)).toBe(1);
    const two = await join(replica.port);
    const after = await append(two, ["#a"], "after");
    expect(after.epoch).not.toBe(kept.epoch);
    await append(two, ["#a"], "later");
  });

  test("when a server becomes a replica that lags, and then the primary again", async () => {
    const one = await join(server.port);
    const kept = await append(one, ["#a"], "kept");
    const replica = await start(["--replicaof", "127.0.0.1", String(server.port)]);
    while (!String(await server.command("INFO", "replication")).includes("state=online"));
    // The first replica of a server changes nothing.
    expect((await append(one, ["#a"], "kept, too")).epoch).toBe(kept.epoch);
    while ((await replica.command("ZCARD", `{test}:${kept.epoch}:channel:#a`)) !== 2);
    await replica.command("REPLICAOF", "NO", "ONE");
    await append(one, ["#a"], "missed");
    await server.command("REPLICAOF", "127.0.0.1", String(replica.port));
    while (!String(await server.command("INFO", "replication")).includes("master_link_status:up"));
    await server.command("REPLICAOF", "NO", "ONE");
    expect(await server.command("ZCARD", `{test}:${kept.epoch}:channel:#a`)).toBe(2);
    expect((await append(one, ["#a"], "after")).epoch).not.toBe(kept.epoch);
  });

  test("when a process knows a position that the log has not reached", async () => {
    const peer = await join(server.port);
    const first = await append(peer, ["#a"], "first");
    const ahead = { ...first, seq: 7 };
    const checkpoint = await peer.checkpoint([], ahead);
    expect([checkpoint.epoch === first.epoch, checkpoint.head]).toEqual([false, 0]);
    expect((await peer.checkpoint()).epoch).toBe(checkpoint.epoch);
    const next = await append(peer, ["#a"], "next", { ...first, seq: 9 });
    expect(next.epoch).toBe(checkpoint.epoch);
    const restarted = await append(peer, ["#a"], "restarted", { ...next, seq: 9 });
    expect(restarted).toMatchObject({ seq: 1 });
    expect(restarted.epoch).not.toBe(next.epoch);
  });

  test("when the head was deleted and the streams were not", async () => {
    const peer = await join(server.port);
    const { epoch } = await append(peer, ["#a"], "before");
    await server.command("ZREM", `{test}:${epoch}:last`, "head");
    expect((await append(peer, ["#a"], "after")).epoch).not.toBe(epoch);
  });

  test("when everything was deleted", async () => {
    const peer = await join(server.port);
    await append(peer, ["#a"], "before");
    await server.command("FLUSHALL");
    await append(peer, ["#a"], "after");
    expect(assigned.size).toBe(2);
  });

  test("whichever single key is evicted; and a read reports every event that it leaves out", async () => {
    const peer = await join(server.port);
    await peer.session.enter([{ clientId: "c", subject: undefined }], "allow", 60_000);
    const evicted = new Set<string>();
    for (let round = 0; ; round++) {
      const appended = await append(peer, ["#a", "@c"], `a ${round}`);
      await append(peer, ["#b"], `b ${round}`, appended);
      await peer.checkpoint([], appended);
      // One key of each kind: the names of epochs and processes are random.
      const keys = ((await server.command("KEYS", "{test}:*")) as string[]).sort();
      const kindOf = (key: string): string => key.replace(/[0-9a-v]{16}/, "*");
      const key = keys.find((name) => !evicted.has(kindOf(name)));
      if (key === undefined) break;
      evicted.add(kindOf(key));
      await server.command("DEL", key);
      const { epoch } = await peer.checkpoint([], appended);
      const { records, droppedThrough } = await peer.session.read(epoch, ["#a", "#b"], 0, 1_000_000);
      if (epoch !== appended.epoch) continue;
      // Every event of this epoch can be read, or its channel reports it as dropped.
      for (const [id, text] of assigned) {
        const [epochOfId, seq] = id.split("-");
        if (epochOfId !== epoch || records.some((record) => record.text === text)) continue;
        expect(droppedThrough[text.startsWith("a") ? 0 : 1], `${text} after ${key}`).toBeGreaterThanOrEqual(
          Number(seq),
        );
      }
    }
    expect([...evicted].sort()).toEqual([
      "{test}:*:bytes",
      "{test}:*:channel:#a",
      "{test}:*:channel:#b",
      "{test}:*:channel:@c",
      "{test}:*:data",
      "{test}:*:last",
      "{test}:*:order",
      "{test}:*:records",
      "{test}:appends:*",
      "{test}:log",
      "{test}:old-epochs",
      "{test}:process:*",
      "{test}:processes",
      "{test}:stamp",
    ]);
  });

  test("renew: deletes the keys of a past epoch", async () => {
    const peer = await join(server.port);
    const { epoch } = await append(peer, ["#a"], "before");
    await append(peer, ["#b"], "before, too");
    const { epoch: next } = await peer.checkpoint([], { epoch, seq: 100 });
    await peer.session.renew([]);
    const keys = ((await server.command("KEYS", "{test}:*")) as string[]).join();
    expect([keys.includes(epoch), keys.includes(next)]).toEqual([false, true]);
  });
});
