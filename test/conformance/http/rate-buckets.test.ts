// The buckets of `rateLimits()`: their number, and exact counts.
import fc from "fast-check";
import { afterEach, expect, test, vi } from "vitest";
import { type Rate, type RateLimiter, type RateOptions, rateLimits } from "../../../src/http/rate-limits.ts";
import { byAddress, stopClock } from "../../support/http/rates.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

/** Creates the limiter of a broker. */
const limiterOf = (rate: RateOptions): RateLimiter =>
  rateLimits(rate)({
    serialize: JSON.stringify,
    maxNameLength: 256,
    maxChannelsPerClient: 100,
    maxChannelsPerEvent: 100,
  });

/** Returns a function that says how long a key has to wait to publish: 0 if it may now. */
function limitBy(publishes: Rate): (key: string) => number {
  const limiter = limiterOf({ publishes, by: byAddress });
  return (key) => waitOf(() => limiter("publishes", { headers: new Map([["x-real-ip", key]]) } as never));
}

/** Returns the seconds that an error says to wait, 0 without an error. */
function waitOf(count: () => void): number {
  try {
    count();
  } catch (error) {
    return Number((error as { headers: Record<string, string> }).headers["retry-after"]);
  }
  return 0;
}

test("rate: 100,000 buckets in use stay as they are, others are not limited, and full buckets make room", () => {
  const pass = stopClock();
  const wait = limitBy({ perSecond: 0.1, burst: 2 });
  // One that is empty and one that is half full, before somebody makes up keys.
  expect([wait("empty"), wait("empty"), wait("half")]).toEqual([0, 0, 0]);
  for (let n = 0; n < 99_998; n++) if (wait(`made up ${n}`) !== 0) throw new Error(`the key ${n} was limited`);
  for (let n = 0; n < 5; n++) expect(wait("one more")).toBe(0);
  expect(wait("empty")).toBe(10);
  expect([wait("half"), wait("half")]).toEqual([0, 10]);
  expect([wait("made up 0"), wait("made up 0")]).toEqual([0, 10]);
  pass(9_999);
  expect([wait("one more"), wait("one more"), wait("one more")]).toEqual([0, 0, 0]);
  // Now nearly all of them are full. The room is found a second later at the latest.
  pass(1_000);
  expect([wait("one more"), wait("one more"), wait("one more")]).toEqual([0, 0, 10]);
  // Those that are not full are kept.
  expect([wait("empty"), wait("empty")]).toEqual([0, 10]);
  expect([wait("half"), wait("half")]).toEqual([0, 10]);
});

test("rate: random requests are answered as an exact count of thousandths says", () => {
  const KEYS = ["a", "b", "c"] as const;
  const step = fc.record({
    ms: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 50 }), fc.integer({ min: 0, max: 2_000 })),
    key: fc.constantFrom(...KEYS),
    cost: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 60 })),
  });
  const run = fc.record({
    start: fc.double({ min: 0, max: 1e9, noNaN: true }),
    perSecond: fc.integer({ min: 1, max: 40 }),
    burst: fc.option(fc.integer({ min: 1, max: 50 }), { nil: undefined }),
    steps: fc.array(step, { minLength: 20, maxLength: 100 }),
  });
  let [accepted, refused] = [0, 0];
  fc.assert(
    fc.property(run, ({ start, perSecond, burst, steps }) => {
      const pass = stopClock(start);
      const limiter = limiterOf({ bytes: burst ? { perSecond, burst } : perSecond });
      const most = (burst ?? perSecond) * 1_000;
      const levels = Object.fromEntries(KEYS.map((key) => [key, most]));
      for (const { ms, key, cost } of steps) {
        pass(ms);
        for (const each of KEYS) levels[each] = Math.min(most, (levels[each] ?? 0) + ms * perSecond);
        const lacks = Math.min(cost * 1_000, most) - (levels[key] ?? 0);
        const grant = { subject: key, clientId: undefined, channels: [], expiresAt: Infinity };
        const wait = waitOf(() => limiter("bytes", undefined as never, grant, "x".repeat(cost)));
        if (lacks <= 0) {
          levels[key] = (levels[key] ?? 0) - cost * 1_000;
          accepted++;
          expect(wait).toBe(0);
        } else {
          refused++;
          // The clock's own fractions may add or take a hair at a whole second.
          const exact = lacks / perSecond / 1_000;
          expect(wait).toBeGreaterThanOrEqual(Math.max(1, Math.ceil(exact - 1e-6)));
          expect(wait).toBeLessThanOrEqual(Math.max(1, Math.ceil(exact + 1e-6)));
        }
      }
    }),
    { seed: 7, numRuns: 300 },
  );
  expect(Math.min(accepted, refused)).toBeGreaterThan(1_000);
});
