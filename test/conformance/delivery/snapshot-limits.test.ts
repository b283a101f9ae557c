// The bounds of the option `snapshot`: how far one gets ahead of its client, how much of a turn it takes, and how many run at a time.
import { expect, test } from "vitest";
import type { ErrorStage } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { Clock } from "../../support/clock.ts";
import { Recorder, turn, withBroker } from "../../support/test-broker.ts";

test(
  "snapshot: a client that does not read makes the application wait, one event ahead at most, and then counts as blocked",
  withBroker(async (setup) => {
    let yielded = 0;
    const broker = setup.broker({
      snapshot: function* () {
        for (; yielded < 1_000; yielded++) yield "x".repeat(1_000);
      },
    });
    const client = await setup.connect(broker);
    for (let read = 1; read <= 5; read++) {
      await client.nextData();
      for (let turns = 0; turns < 5; turns++) await turn();
      expect(yielded).toBeLessThanOrEqual(read + 2);
    }
    expect(broker.stats().blocked).toBe(1);
    expect(yielded).toBeGreaterThanOrEqual(4);
  }),
);

test(
  "snapshot: a generator that has everything at hand does not take the whole turn of the event loop",
  withBroker(async (setup) => {
    let yielded = 0;
    const broker = setup.broker({
      snapshot: function* () {
        for (; yielded < 5_000; yielded++) yield "x";
      },
    });
    const client = await setup.connect(broker);
    const reading = client.untilControl("snapshot");
    let most = 0;
    for (let before = yielded; yielded < 5_000; before = yielded) {
      await turn();
      most = Math.max(most, yielded - before);
    }
    await reading;
    expect(client.data).toHaveLength(5_000);
    expect(most).toBeLessThan(5_000);
  }),
);

test(
  "maxSnapshots: no more run at a time, the others wait in order, also when one is over early",
  withBroker(async (setup) => {
    const running = new Map<string, () => void>();
    const order: string[] = [];
    const broker = setup.broker({
      maxSnapshots: 2,
      snapshot: async function* ({ client }) {
        order.push(client.clientId);
        try {
          const { promise, resolve } = Promise.withResolvers<void>();
          running.set(client.clientId, resolve);
          await promise;
          yield client.clientId;
        } finally {
          running.delete(client.clientId);
        }
      },
    });
    const clients: Connection[] = [];
    for (const id of ["a", "b", "c", "d"]) {
      const client = await setup.connect(broker, { id });
      clients.push(client);
      void client.ended();
      await turn();
    }
    expect(order).toEqual(["a", "b"]);
    // One is complete, and one leaves.
    running.get("b")?.();
    while (order.length < 3) await turn();
    expect([...running.keys()]).toEqual(["a", "c"]);
    clients[0]?.abort();
    while (order.length < 4) await turn();
    expect(order).toEqual(["a", "b", "c", "d"]);
    running.get("d")?.();
    running.get("c")?.();
    while (clients.slice(1).some((client) => client.control("snapshot").length < 1)) await turn();
    expect(clients.map(({ data }) => data)).toEqual([[], ["b"], ["c"], ["d"]]);
  }),
);

test(
  "maxSnapshots: a client that waits for its turn and leaves is not asked for",
  withBroker(async (setup) => {
    const order: string[] = [];
    const first = Promise.withResolvers<void>();
    const broker = setup.broker({
      maxSnapshots: 1,
      snapshot: async ({ client }) => {
        order.push(client.clientId);
        if (client.clientId === "a") await first.promise;
        return [client.clientId];
      },
    });
    const clients: Connection[] = [];
    for (const id of ["a", "b", "c"]) {
      const client = await setup.connect(broker, { id });
      clients.push(client);
      void client.ended();
      await turn();
    }
    clients[1]?.abort();
    while (broker.clients().length > 2) await turn();
    first.resolve();
    while ((clients[2]?.control("snapshot").length ?? 0) < 1) await turn();
    expect(order).toEqual(["a", "c"]);
  }),
);

test.each(["before", "after"])(
  "maxSnapshots: a client that does not read keeps its place for 5 seconds at most, if another one comes %s that",
  (time) =>
    withBroker(async (setup) => {
      const clock = new Clock();
      await clock.run(async () => {
        const failed = new Recorder<{ readonly stage: ErrorStage }>();
        const broker = setup.broker({
          heartbeat: Infinity,
          maxSnapshots: 1,
          onError: failed.record,
          snapshot: function* ({ client }) {
            for (let event = 0; event < 5; event++) yield client.clientId;
          },
        });
        const slow = await setup.connect(broker, { id: "slow" });
        await slow.nextData();
        await clock.turns();
        if (time === "after") await clock.advance(6_000);
        expect(broker.stats().clients).toBe(1);
        const other = await setup.connect(broker, { id: "other" });
        const reading = other.untilControl("snapshot");
        if (time === "before") {
          await clock.advance(4_900);
          expect(other.data).toEqual([]);
          await clock.advance(200);
        }
        await clock.advanceUntil(reading, 50);
        expect(other.data).toEqual(Array.from({ length: 5 }, () => "other"));
        expect(failed.all).toMatchObject([{ stage: "snapshot" }]);
        await clock.advanceUntil(slow.ended());
        expect(slow.control("end").map(({ data }) => JSON.parse(data).reason)).toEqual(["snapshot-failed"]);
      });
    })(),
);
