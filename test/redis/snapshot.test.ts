// The option `snapshot` in two processes on one Redis: a client that drops at random moments, and comes back to either of them.
import { describe, expect, test } from "vitest";
import { Connection } from "../support/clients/connection.ts";
import { Application, CHANNELS, Mirror } from "../support/mirror.ts";
import { Random } from "../support/random.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { clientRequest, turn } from "../support/test-broker.ts";
import { useRedis } from "./support/use-redis.ts";

const SEEDS = [1, 2, 3, 4, 5];

describe("snapshot", needsRedis, () => {
  const redis = useRedis();

  test.each(SEEDS)(
    "a client's state equals that of the application, whichever process it comes back to (seed %i)",
    async (seed) => {
      const random = new Random(seed);
      const application = new Application(random.fork());
      const open = () =>
        redis.open(
          // Few enough that clients have gaps, in this process and in the store.
          { prefix: `snapshot-${seed}`, retention: { events: 3 } },
          { snapshot: (request) => application.snapshot(request) },
        );
      const brokers = [open(), open()];
      const connections: Connection[] = [];
      const mirror = new Mirror(async (lastEventId) => {
        const abort = new AbortController();
        const request = clientRequest(
          { channel: CHANNELS, ...(lastEventId === undefined ? {} : { lastEventId }) },
          abort.signal,
        );
        const connection = new Connection(await random.pick(brokers).clientHandler(request), abort);
        connections.push(connection);
        return connection;
      });
      const change = async (): Promise<void> => {
        application.broker = random.pick(brokers);
        for (let burst = random.integer(0, 8); burst > 0; burst--) await application.change();
      };
      await change();
      await mirror.open();
      for (let step = 0; step < 100; step++) {
        const action = random.next();
        if (action < 0.5) await change();
        else if (action < 0.7) await mirror.drop(change);
        else if (action < 0.8) mirror.isReading = !mirror.isReading;
        else await turn();
      }
      mirror.isReading = true;
      // The last changes come from the store.
      for (const end = Date.now() + 30_000; Date.now() < end && !mirror.equals(application); ) await turn();
      expect([seed, Object.fromEntries(mirror.versions)]).toEqual([seed, Object.fromEntries(application.versions)]);
      expect(Math.min(application.asked.new ?? 0, application.asked.gap ?? 0, mirror.drops)).toBeGreaterThan(0);
      for (const connection of connections) await connection.leave();
    },
  );
});
