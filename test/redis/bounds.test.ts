// The Redis engine where a bound is reached, is infinite, or is passed by two processes at a time.
import { describe, expect, test } from "vitest";
import type { Broker } from "../../src/index.ts";
import type { RedisEngineOptions } from "../../src/redis/index.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { codeOf } from "./support/peer.ts";
import { useRedis } from "./support/use-redis.ts";

describe("redisEngine at its bounds", needsRedis, () => {
  const redis = useRedis();

  const open = (options: Partial<RedisEngineOptions> = {}): Broker => redis.open(options, { heartbeat: 60_000 });

  test("maxChannels, idempotencyWindow: Infinity sets no bound", async () => {
    const peer = await redis.join({ maxChannels: Infinity, idempotencyWindow: Infinity });
    const first = await peer.append(["#a"], "one", { idempotencyKey: "key" });
    expect(await peer.append(["#a"], "one", { idempotencyKey: "key" })).toEqual({ ...first, repeated: true });
    expect(await peer.append(["#b"], "two")).toMatchObject({ epoch: first.epoch, seq: 2 });
    expect((await peer.session.read(first.epoch, ["#a", "#b"], 0, 1_000)).records).toHaveLength(2);
  });

  test("renew: a process that publishes nothing for a day can still publish", async () => {
    const peer = await redis.join();
    await peer.append(["#a"], "one");
    const [counter = ""] = (await redis.server.command("KEYS", "{test}:appends:*")) as string[];
    await redis.server.command("PEXPIRE", counter, "60000");
    await peer.session.renew([]);
    expect(Number(await redis.server.command("PTTL", counter))).toBeGreaterThan(80_000_000);
  });

  test("an error in one script does not affect other commands", async () => {
    const peer = await redis.join();
    await redis.server.command("SET", "{test}:barred", "of another type");
    const [barred, appended] = await Promise.all([
      codeOf(peer.session.isBarred("id")),
      codeOf(peer.append(["#a"], "text")),
    ]);
    expect([barred, appended, peer.hasCommands]).toEqual(["engine-down", "resolved", true]);
  });

  test("requestCheckpoint: two checkpoints of very many channels at a time are both correct", async () => {
    const [one, two] = [await redis.join(), await redis.join()];
    const keys = (name: string): string[] => Array.from({ length: 6_000 }, (_, index) => `#${name}${index}`);
    await two.append([""], "for all");
    for (let round = 0; round < 10; round++) {
      const events = Array.from({ length: 20 }, () => two.append([""], "for all"));
      const checkpoints = await Promise.all([one.checkpoint(keys("a")), one.checkpoint(keys("b"))]);
      await Promise.all(events);
      for (const { last } of checkpoints) expect(last.every((seq) => seq === 0)).toBe(true);
    }
  });

  test("a command does not concern a connection that entered after it was sent", async () => {
    const [one, two, three] = [await redis.join(), await redis.join(), await redis.join()];
    const id = { clientId: "id", subject: "s" };
    await one.session.enter([id], "replace", 0);
    const [entered] = await two.session.enter([id], "replace", 0);
    await one.until(() => one.peerCommands.length === 1);
    expect(one.peerCommands[0]?.at).toBeGreaterThan(Number(entered));
    const [last] = await three.session.enter([id], "replace", 0);
    await one.until(() => one.peerCommands.length === 2);
    expect(Number(last)).toBeGreaterThan(Number(one.peerCommands[0]?.at));
    // No other connection has to be ended.
    await three.session.enter([{ ...id, clientId: "other" }], "replace", 0);
    await one.checkpoint();
    expect(one.peerCommands).toHaveLength(2);
  });

  test("maxChannels: channels that Redis has forgotten are no gap for clients that were subscribed all the time", async () => {
    const [broker, writer] = [open({ maxChannels: 20 }), open({ maxChannels: 20 })];
    const write = async (first: number, count: number): Promise<void> => {
      for (let n = first; n < first + count; n++) await writer.broadcast("text", { channels: `channel-${n}` });
    };
    await write(0, 30);
    const received = new Map<string, string>();
    for (const id of ["a", "b", "c", "d", "e"])
      void readStream(broker, id, (text) => received.set(id, (received.get(id) ?? "") + text));
    await expect.poll(() => broker.clients().length).toBe(5);
    // The inboxes have no record. As far as Redis knows, they may have had events since the clients connected.
    await write(30, 8);
    for (const id of ["a", "b", "c", "d", "e"]) await writer.broadcastTo(id, `for ${id}`);
    for (const id of ["a", "b", "c", "d", "e"]) await expect.poll(() => received.get(id)).toContain(`data: for ${id}`);
    expect(broker.stats().gaps).toBe(0);
  });
});

/** Connects a client, and reads its stream to the end. */
async function readStream(broker: Broker, id: string, onText: (text: string) => void): Promise<void> {
  const { body } = await broker.clientHandler(new Request(`http://broker/connect?id=${id}`));
  const decoder = new TextDecoder();
  for await (const chunk of body ?? []) onText(decoder.decode(chunk));
}
