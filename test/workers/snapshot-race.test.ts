// Random histories of a client that mirrors the state of an application in an object, which crashes and hibernates at random moments.
import { expect, test } from "vitest";
import { Application, CHANNELS, Mirror } from "../support/mirror.ts";
import { Random } from "../support/random.ts";
import { turn } from "../support/test-broker.ts";
import { waitUntil, withObject } from "./support/test-object.ts";

const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8];

for (const seed of SEEDS)
  test(
    `snapshot: a client's state equals that of its object after crashes, hibernation and drops (seed ${seed})`,
    withObject({}, async (object) => {
      const random = new Random(seed);
      const application = new Application(random.fork());
      application.broker = object.hub;
      object.reconfigure({
        retention: { events: random.pick([1, 3, 100]) },
        snapshot: (request) => application.snapshot(request),
      });
      const mirror = new Mirror((lastEventId) =>
        object.connect({ channel: CHANNELS, ...(lastEventId === undefined ? {} : { lastEventId }) }),
      );
      const change = async (): Promise<void> => {
        for (let burst = random.integer(0, 8); burst > 0; burst--) await application.change();
      };
      let losses = 0;
      await change();
      await mirror.open();
      for (let step = 0; step < 80; step++) {
        const action = random.next();
        if (mirror.hasEnded) await mirror.drop(change);
        else if (action < 0.5) await change();
        else if (action < 0.6) await mirror.drop(change);
        else if (action < 0.7) mirror.isReading = !mirror.isReading;
        else if (action < 0.8) await turn();
        else {
          losses++;
          if (random.chance(0.5)) await object.crash();
          // Waits for the end of a snapshot, in the middle of which an object does not hibernate.
          else await object.evict(random.pick(["hibernate", "close"]));
        }
      }
      mirror.isReading = true;
      await waitUntil("the states are equal", async () => {
        if (mirror.hasEnded) await mirror.drop(async () => undefined);
        return mirror.equals(application);
      });
      expect(Math.min(application.asked.new ?? 0, losses, mirror.drops)).toBeGreaterThan(0);
    }),
  );
