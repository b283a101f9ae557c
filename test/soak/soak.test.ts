// The soak test: memory and handles must not grow with the number of connections.
import { expect, test } from "vitest";
import { type Platform, platforms } from "../support/servers/server.ts";
import { growth, type Measurement } from "./measurement.ts";
import { type SoakResult, soak } from "./soak.ts";

const minutes = Number(process.env.SOAK_MINUTES ?? 3);
const seed = Number(process.env.SOAK_SEED ?? 1);
const only = (process.env.SOAK_ONLY ?? "").split(",").filter(Boolean);
const MIB = 1024 * 1024;

/**
 * The most that the heap may grow in a run. In 3 minutes there are 7,000 connections between the first and the last measurement, and each may
 * leave 150 bytes behind; in 30 minutes 15 bytes.
 */
const MAX_HEAP_GROWTH = MIB;
/** The most that handles may grow. A few more may exist by chance, such as sockets of the publisher; a leak of one per thousand connections is more. */
const MAX_HANDLE_GROWTH = 4;
/** The share of ended connections that has to be collected. */
const MIN_COLLECTED = 0.99;

// `deno serve` is the same runtime and the same server as `Deno.serve`.
const isWanted = (platform: Platform): boolean =>
  only.length > 0 ? only.includes(platform) : platform !== "deno-serve";

test.concurrent.for(platforms.filter(isWanted))(
  "%s: releases everything that clients used",
  { timeout: minutes * 60_000 + 300_000 },
  async (platform) => {
    const result = await soak({ platform, minutes, seed });
    console.log(summary(platform, result));
    const { tally, measurements, bounds } = result;
    expect(tally.faults).toEqual([]);
    const last = measurements.at(-1) as Measurement;
    expect(last.state.errors).toEqual([]);
    expect(growth(measurements, ({ heap }) => heap)).toBeLessThan(MAX_HEAP_GROWTH);
    const handles = ["files", "timers", ...(platform.startsWith("node") ? ["resources" as const] : [])] as const;
    for (const { resources } of measurements) expect(resources > 0).toBe(handles.length === 3);
    for (const handle of handles)
      expect(
        growth(measurements, (measurement) => measurement[handle]),
        handle,
      ).toBeLessThan(MAX_HANDLE_GROWTH);
    for (const { ended, uncollected, state } of measurements) {
      expect(uncollected).toBeLessThanOrEqual(ended * (1 - MIN_COLLECTED));
      const { blocked, closing, pending, channels, log } = state.stats;
      expect({ blocked, closing, pending }).toEqual({ blocked: 0, closing: 0, pending: 0 });
      expect(channels).toBe(measurements[0]?.state.stats.channels);
      expect(log.bytes).toBeLessThanOrEqual(bounds.logBytes);
      expect(log.channels).toBeLessThanOrEqual(bounds.channels);
    }
    // A run in which something never happened proves nothing about it.
    for (const kind of ["fins", "resets", "early", "returns", "stalledOut", "overruns", "repeated"] as const)
      expect(tally[kind], kind).toBeGreaterThan(0);
    expect(tally.events).toBeGreaterThan(tally.connects);
  },
);

function summary(platform: Platform, { agent, tally, measurements }: SoakResult): string {
  const first = measurements[0];
  const last = measurements.at(-1);
  const mib = (bytes = Number.NaN): string => (bytes / MIB).toFixed(2);
  const series = measurements.map(({ heap }) => mib(heap)).join(" ");
  const ended = measurements.reduce((sum, measurement) => sum + measurement.ended, 0);
  const uncollected = measurements.reduce((sum, measurement) => sum + measurement.uncollected, 0);
  return (
    `${platform} (${agent}): ${tally.connects} connects in ${minutes} min, ${tally.resets} resets (${tally.early} before the answer), ` +
    `${tally.returns} with Last-Event-ID, ${tally.stalledOut} disconnected after a stall, ${tally.overruns} overrun, ` +
    `${tally.published} events published, ${tally.events} checked; ` +
    `heap ${mib(first?.heap)} → ${mib(last?.heap)} MiB (${mib(growth(measurements, ({ heap }) => heap))}: ${series}), ` +
    `process ${mib(first?.resident)} → ${mib(last?.resident)} MiB, files ${first?.files} → ${last?.files}, ` +
    `timers ${first?.timers} → ${last?.timers}, collected ${((1 - uncollected / ended) * 100).toFixed(2)} %`
  );
}
