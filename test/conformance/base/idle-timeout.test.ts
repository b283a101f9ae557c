// The idle timeout that the broker asks Bun for, with `server.timeout(request, seconds)`.
import { expect, test } from "vitest";
import { clientRequest, withBroker } from "../../support/test-broker.ts";

/** Bun looks at its sockets every 4 s, and may close one up to 4 s early. */
const PERIOD_SECONDS = 4;
const MAX_SECONDS = 255;

test.each([
  { heartbeat: 500, timeout: 500, tolerance: 1, seconds: 10 },
  { heartbeat: 1, timeout: 1, tolerance: 0, seconds: 9 },
  { heartbeat: 3_900, timeout: 1_000, tolerance: 1, seconds: 20 },
  { heartbeat: 1_000, timeout: 10_000, tolerance: 1, seconds: 19 },
  { heartbeat: 1_000, timeout: 10_000, tolerance: 3, seconds: 39 },
  { heartbeat: 8_000, timeout: 30_000, tolerance: 3, seconds: 106 },
  { heartbeat: 8_000, timeout: 300_000, tolerance: 3, seconds: MAX_SECONDS },
  { heartbeat: 500, timeout: Infinity, tolerance: 1, seconds: MAX_SECONDS },
  { heartbeat: Infinity, timeout: 500, tolerance: 1, seconds: MAX_SECONDS },
])(
  "server.timeout: $seconds s with heartbeat $heartbeat, timeout $timeout and tolerance $tolerance",
  ({ seconds, ...options }) =>
    withBroker(async (setup) => {
      const broker = setup.broker(options);
      const request = clientRequest();
      const calls: unknown[] = [];
      const server = { timeout: (...args: unknown[]) => calls.push(args) };

      const { body } = await broker.fetch(request, server);
      await body?.cancel();

      expect(calls).toEqual([[request, seconds]]);
      if (seconds === MAX_SECONDS) return;
      // The shortest silence after which Bun may close the stream.
      const silenceMs = (Math.ceil(seconds / PERIOD_SECONDS) - 1) * PERIOD_SECONDS * 1_000;
      expect(silenceMs).toBeGreaterThan(options.heartbeat);
      expect(silenceMs).toBeGreaterThan(options.timeout * Math.max(1, options.tolerance));
    })(),
);
