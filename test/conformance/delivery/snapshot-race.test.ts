// Random histories of a client that mirrors a state: snapshots, events, gaps, and drops at random moments. Its state always equals the server's.
import { expect, inject, test } from "vitest";
import { Flushes } from "../../support/flushes.ts";
import { Application, CHANNELS, Mirror } from "../../support/mirror.ts";
import { Random } from "../../support/random.ts";
import { runtime } from "../../support/runtime.ts";
import { turn, withBroker } from "../../support/test-broker.ts";

/** More of them on one runtime: a turn of the event loop takes a millisecond on the others. */
const HISTORIES = Number(inject("histories") || (runtime === "node" ? 300 : 50));
/** Histories in one test, so that a failure names its seed, and no test takes long. */
const PER_TEST = runtime === "node" ? 50 : 10;

/** What has happened in all histories. */
const total = { new: 0, gap: 0, drops: 0 };

for (let first = 1; first <= HISTORIES; first += PER_TEST) {
  test(`snapshot: the client's state equals the server's after drops at random moments (seeds ${first} to ${first + PER_TEST - 1})`, () =>
    withBroker(async (setup) => {
      for (let seed = first; seed < first + PER_TEST; seed++) {
        const random = new Random(seed);
        const application = new Application(random.fork());
        const events = random.pick([1, 1, 2, 100]);
        const broker = setup.broker({
          log: { retention: { events } },
          maxSnapshots: random.pick([1, 100]),
          snapshot: (request) => application.snapshot(request),
        });
        application.broker = broker;
        const flushes = new Flushes(broker, CHANNELS);
        const mirror = new Mirror((lastEventId) =>
          setup.connect(broker, { channel: CHANNELS, ...(lastEventId === undefined ? {} : { lastEventId }) }),
        );
        if (random.chance(0.5)) await application.change();
        await mirror.open();
        for (let step = 0; step < 20; step++) {
          const action = random.next();
          const change = async (): Promise<void> => {
            let last: string | undefined;
            for (let burst = random.integer(0, 8); burst > 0; burst--) last = await application.change();
            // Then the log has dropped what it does not retain.
            if (last && random.chance(0.5)) await flushes.reach(last);
          };
          if (action < 0.5) await change();
          else if (action < 0.7) await mirror.drop(change);
          else if (action < 0.8) mirror.isReading = !mirror.isReading;
          else await turn();
        }
        mirror.isReading = true;
        for (let turns = 0; turns < 500 && !mirror.equals(application); turns++) await turn();
        // Also where the state is one that nobody changed, which the client knows from the snapshot.
        expect([seed, Object.fromEntries(mirror.versions)]).toEqual([
          seed,
          Object.fromEntries(CHANNELS.map((channel) => [channel, application.versions.get(channel)])),
        ]);
        await broker.close();
        total.new += application.asked.new ?? 0;
        total.gap += application.asked.gap ?? 0;
        total.drops += mirror.drops;
      }
    })());
}

test("snapshot: the histories have new snapshots, snapshots after a gap, and drops", () => {
  // Histories in which nothing happened show nothing.
  expect(Math.min(total.new, total.gap, total.drops)).toBeGreaterThan(5);
});
