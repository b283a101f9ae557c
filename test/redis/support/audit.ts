// Checks that what Redis has in its accounts is what it has in its channels.
import { expect } from "vitest";
import type { RedisServer } from "../../support/servers/redis.ts";

/** What the log needs for an event in each of its channels, in bytes, as documented. */
const ENTRY_COST = 256;

function pairsOf(list: readonly string[]): Map<string, string> {
  const pairs = new Map<string, string>();
  for (let index = 0; index + 1 < list.length; index += 2) pairs.set(list[index] as string, list[index + 1] as string);
  pairs.delete("");
  return pairs;
}

const numbersOf = (text: string | undefined): number[] => (text ?? "").split(" ").map(Number);

/** Adds up all channels of the log, and compares the sums with every account. */
export async function auditLog(server: RedisServer, prefix = "{test}"): Promise<void> {
  // With its third protocol, Redis answers with pairs.
  const call = async (...args: readonly [string, ...string[]]): Promise<string[]> =>
    ((await server.command(...args)) as (string | string[])[]).flat().map(String);
  const log = pairsOf(await call("HGETALL", `${prefix}:log`));
  const key = (name: string): string => `${prefix}:${log.get("epoch")}:${name}`;
  const swept = Number(log.get("swept"));
  const data = pairsOf(await call("HGETALL", key("data")));
  const ofKind = (kind: string): Map<string, string> =>
    new Map([...data].filter(([field]) => field[0] === kind).map(([field, value]) => [field.slice(1), value]));
  const [channels, charges, events] = [ofKind("c"), ofKind("p"), ofKind("e")];
  const last = pairsOf(await call("ZRANGE", key("last"), "0", "-1", "WITHSCORES"));
  const order: string[] = [];
  const records = new Map<string, number>();
  /** How many channels of each owner have an event, by position. */
  const references = new Map<string, Map<string, number>>();
  const sizes = new Map<string, number>();
  last.delete("head");
  expect([...last.keys()].sort()).toEqual([...channels.keys()].map((name) => `c${name}`).sort());
  for (const [name, record] of channels) {
    const [position = 0, , count = 0, total = 0, gone = 0, goneCount = 0, goneTotal = 0] = numbersOf(record);
    const [, owner = "", , , , , , place = "", quiet = ""] = record.split(" ");
    expect(last.get(`c${name}`)).toBe(String(position));
    expect([Number(quiet) <= position, position < Number(quiet) + 1_000]).toEqual([true, true]);
    order.push(`q${owner}${quiet.padStart(16, "0")}${name}`);
    if (place !== "-") order.push(`s${owner}${place}${name}`);
    records.set(owner, (records.get(owner) ?? 0) + 1);
    const headers = await call("ZRANGE", key(`channel:${name}`), "0", "-1");
    const retained = count - goneCount;
    expect(headers, name).toHaveLength(retained);
    const size = Math.floor(Math.log2(retained * ENTRY_COST + total - goneTotal));
    expect(place.slice(0, 2), name).toBe(retained === 0 ? "-" : String(size).padStart(2, "0"));
    let [previous, sum] = [gone, goneTotal];
    for (const header of headers) {
      const [seq = 0, before = 0, , length = 0, , through] = numbersOf(header);
      if (header !== headers[0]) expect(before, name).toBe(previous);
      sum += length;
      expect([seq > previous, through], name).toEqual([true, sum]);
      previous = seq;
      if (seq <= swept) continue;
      const owners = references.get(String(seq)) ?? new Map<string, number>();
      references.set(String(seq), owners.set(owner, (owners.get(owner) ?? 0) + 1));
      sizes.set(String(seq), length);
    }
  }
  let total = 0;
  const bytes = new Map<string, number>();
  for (const [seq, owners] of references) {
    const size = sizes.get(seq) as number;
    total += size;
    const [charged, , ...rest] = (charges.get(seq) ?? "").split(" ");
    const counts = [...pairsOf(rest)].map(([owner, count]) => [owner, Number(count)] as const);
    expect([charged, ...counts.sort()], seq).toEqual([String(size), ...[...owners].sort()]);
    for (const [owner, count] of owners) {
      total += ENTRY_COST * count;
      bytes.set(owner, (bytes.get(owner) ?? 0) + size + ENTRY_COST * count);
    }
  }
  const scored = (map: ReadonlyMap<string, number>): string[][] =>
    [...map].map(([owner, sum]) => [owner, String(sum)]).sort();
  expect([...charges.keys()].sort()).toEqual([...references.keys()].sort());
  expect([...events.keys()].sort()).toEqual([...references.keys()].sort());
  expect([...pairsOf(await call("ZRANGE", key("bytes"), "0", "-1", "WITHSCORES"))].sort()).toEqual(scored(bytes));
  expect([...pairsOf(await call("ZRANGE", key("records"), "0", "-1", "WITHSCORES"))].sort()).toEqual(scored(records));
  expect((await call("ZRANGE", key("order"), "0", "-1")).slice(1).sort()).toEqual(order.sort());
  expect(Number(log.get("bytes"))).toBe(total);
}
