// Random histories of owners that share one log in Redis. A failure prints the smallest history that shows the fault, and its seed.
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { Redis } from "ioredis";
import { describe, expect, inject, test } from "vitest";
import { logOptionsOf, type OwnersLog, ownersHistories, playOwners } from "../support/model/owners.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { auditLog } from "./support/audit.ts";
import type { Peer } from "./support/peer.ts";
import { useRedis } from "./support/use-redis.ts";

const seed = Number.parseInt(inject("seed") || "1", 10);
const numRuns = Number(inject("histories") || 200);

/** The user of the guide, who may give the commands of all scripts, and no others. */
const [, acl = ""] = /^redis-cli (ACL SETUSER .*?)\n```/ms.exec(
  readFileSync(new URL("../../src/redis/README.md", import.meta.url), "utf8"),
) as RegExpExecArray;
const [command = "", ...user] = acl
  .replaceAll("\\\n", " ")
  .replaceAll("'", "")
  .replaceAll("{shop}", "{test}")
  .split(/\s+/);

describe("redisEngine: histories of owners", needsRedis, () => {
  const redis = useRedis();

  /** Returns the log of a process, in an epoch that has just begun. */
  async function logOf(peer: Peer): Promise<OwnersLog> {
    const { epoch } = await peer.checkpoint();
    return {
      async append(keys, text, subject) {
        const { seq } = await peer.append(keys, text, { subject });
        return { seq, bytes: `id: ${epoch}-${seq}\n${text}`.length };
      },
      async states(keys) {
        const held = new Map<string, number[]>(keys.map((key) => [key, []]));
        const { head } = await peer.session.historyBounds(epoch, [], 0, {});
        let dropped: readonly number[] | undefined;
        for (let cursor = 0; cursor < head || !dropped; ) {
          const page = await peer.session.read(epoch, keys, cursor, 1e9);
          for (const record of page.records) for (const key of record.keys) held.get(key)?.push(record.seq);
          dropped ??= page.droppedThrough;
          cursor = page.through;
        }
        const members = keys.map((key) => `c${key}`);
        const scores = (await redis.server.command("ZMSCORE", `{test}:${epoch}:last`, ...members)) as unknown[];
        return keys.map((key, index) => ({
          held: held.get(key) as number[],
          droppedThrough: dropped[index] as number,
          isForgotten: scores[index] === null,
        }));
      },
    };
  }

  test("owners: one that keeps within an equal part of the bounds never loses an event, and has no gap, because of others", {
    timeout: 600_000,
  }, async () => {
    const total = { lost: 0, forgotten: 0, checks: 0 };
    await redis.server.command(command as "ACL", ...user);
    const property = fc.asyncProperty(ownersHistories, async (history) => {
      const { logBytes, ...options } = logOptionsOf(history);
      await redis.server.command("FLUSHALL");
      const client = new Redis(redis.server.port, "127.0.0.1", { username: "fanwire", password: "secret" });
      const peer = await redis.join({ ...options, redisBytes: logBytes, client });
      const { faults, ...outcome } = await playOwners(history, await logOf(peer));
      await auditLog(redis.server);
      peer.close();
      client.disconnect();
      for (const name of ["lost", "forgotten", "checks"] as const) total[name] += outcome[name];
      if (faults.length > 0) throw new Error(faults.join("\n"));
    });
    await fc.assert(property, { seed, numRuns });
    // Owners lost events and channels, while others had something to lose.
    expect(total.lost).toBeGreaterThan(numRuns);
    expect(total.forgotten).toBeGreaterThan(numRuns);
    expect(total.checks).toBeGreaterThan(numRuns);
  });
});
