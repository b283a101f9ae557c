import { expect, test } from "vitest";
import { type Platform, platforms } from "../support/servers/server.ts";
import { growth, type Mark } from "./marks.ts";
import { type Outcome, soak } from "./soak.ts";

const minutes = Number(process.env.SOAK_MINUTES ?? 3);
const seed = Number(process.env.SOAK_SEED ?? 1);
const only = (process.env.SOAK_ONLY ?? "").split(",").filter(Boolean);
const MIB = 1024 * 1024;

/**
 * What the heap may grow by in all: of the 7,000 connections between the first and the last mark of 3 minutes each may leave 150 bytes
 * behind, of those of 30 minutes 15.
 */
const HEAP = MIB;
/** What else may be a few more by chance: the publisher's sockets, say. A handle that only one connection of a thousand leaves is more. */
const HANDLES = 4;
/** Of those that have gone so many are collected. */
const COLLECTED = 0.99;

// `deno serve` is the same runtime and the same server as `Deno.serve`.
const isWanted = (platform: Platform): boolean =>
  only.length > 0 ? only.includes(platform) : platform !== "deno-serve";

test.concurrent.for(platforms.filter(isWanted))(
  "%s gives back all that clients took who came and went",
  { timeout: minutes * 60_000 + 300_000 },
  async (platform) => {
    const outcome = await soak({ platform, minutes, seed });
    console.log(summary(platform, outcome));
    const { tally, marks, bounds } = outcome;
    expect(tally.faults).toEqual([]);
    const last = marks.at(-1) as Mark;
    expect(last.state.errors).toEqual([]);
    expect(growth(marks, ({ heap }) => heap)).toBeLessThan(HEAP);
    const handles = ["files", "timers", ...(platform.startsWith("node-") ? ["resources" as const] : [])] as const;
    for (const { resources } of marks) expect(resources > 0).toBe(handles.length === 3);
    for (const handle of handles)
      expect(
        growth(marks, (mark) => mark[handle]),
        handle,
      ).toBeLessThan(HANDLES);
    for (const { gone, kept, state } of marks) {
      expect(kept).toBeLessThanOrEqual(gone * (1 - COLLECTED));
      const { blocked, closing, pending, channels, log } = state.stats;
      expect({ blocked, closing, pending }).toEqual({ blocked: 0, closing: 0, pending: 0 });
      expect(channels).toBe(marks[0]?.state.stats.channels);
      expect(log.bytes).toBeLessThanOrEqual(bounds.logBytes);
      expect(log.channels).toBeLessThanOrEqual(bounds.channels);
    }
    // A run in which nothing happened proves nothing.
    for (const kind of ["polite", "resets", "hasty", "returns", "stalledOut", "overruns", "repeated"] as const)
      expect(tally[kind], kind).toBeGreaterThan(0);
    expect(tally.events).toBeGreaterThan(tally.connects);
  },
);

function summary(platform: Platform, { agent, tally, marks }: Outcome): string {
  const first = marks[0];
  const last = marks.at(-1);
  const mib = (bytes = Number.NaN): string => (bytes / MIB).toFixed(2);
  const series = marks.map(({ heap }) => mib(heap)).join(" ");
  const gone = marks.reduce((sum, mark) => sum + mark.gone, 0);
  const kept = marks.reduce((sum, mark) => sum + mark.kept, 0);
  return (
    `${platform} (${agent}): ${tally.connects} connects in ${minutes} min, ${tally.resets} resets (${tally.hasty} before the answer), ` +
    `${tally.returns} with Last-Event-ID, ${tally.stalledOut} stalled out, ${tally.overruns} overrun, ` +
    `${tally.published} events published, ${tally.events} checked; ` +
    `heap ${mib(first?.heap)} → ${mib(last?.heap)} MiB (${mib(growth(marks, ({ heap }) => heap))}: ${series}), ` +
    `process ${mib(first?.resident)} → ${mib(last?.resident)} MiB, files ${first?.files} → ${last?.files}, ` +
    `timers ${first?.timers} → ${last?.timers}, collected ${((1 - kept / gone) * 100).toFixed(2)} %`
  );
}
