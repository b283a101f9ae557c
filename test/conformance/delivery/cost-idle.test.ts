import { expect, test, vi } from "vitest";
import { StreamConnection } from "../../../src/delivery/stream-connection.ts";
import { crowd } from "../../support/clients/many-clients.ts";
import { countsOf, meter, watchFields } from "../../support/monitoring/cost-meter.ts";
import { scene, turn } from "../../support/test-broker.ts";

// What those cost who are given no event.

test(
  "economy: what is published costs nothing for who does not read it, not even a look",
  scene(async (stage) => {
    const made = vi.spyOn(StreamConnection.prototype, "startAt");
    const broker = stage.broker({ heartbeat: Number.POSITIVE_INFINITY });
    const all = await crowd(stage, broker, 1_000, (index) => ({ channel: ["shared", `own ${index}`] }));
    const clients = [...made.mock.contexts] as StreamConnection[];
    made.mockRestore();
    expect(clients).toHaveLength(1_000);
    const reads = all.map((client) => client.read());
    await turn();
    const touched = new Set<number>();
    for (const [index, client] of clients.entries()) watchFields(client, () => void touched.add(index));

    const unread = await meter(async () => {
      expect(await broker.broadcast("x", { channels: "nobody's" })).toMatchObject({ clients: 0 });
      expect(await broker.broadcast("x", { channels: ["nobody's", "nor this"] })).toMatchObject({ clients: 0 });
      for (let turns = 0; turns < 5; turns++) await turn();
    });
    expect(countsOf(unread)).toEqual({ encodes: 2, joins: 0, chunks: 0, enqueues: 0 });
    expect([...touched]).toEqual([]);

    // The same eyes see the one that is concerned, and no other.
    const read = await meter(async () => {
      void broker.broadcast("x", { channels: "own 500" });
      await reads[500];
    });
    expect(countsOf(read)).toEqual({ encodes: 1, joins: 0, chunks: 1, enqueues: 1 });
    expect([...touched]).toEqual([500]);
  }),
);

/** Does something with a timer that comes again and again when the test says so. */
async function withTicks(work: (tick: () => void) => Promise<void>): Promise<void> {
  const tasks = new Set<() => void>();
  const timers = vi.spyOn(globalThis, "setInterval").mockImplementation(((task: () => void) => {
    tasks.add(task);
    return 0;
  }) as unknown as typeof setInterval);
  try {
    await work(() => {
      for (const task of tasks) task();
    });
  } finally {
    timers.mockRestore();
  }
}

/** The interval of the heartbeat in parts, of which it comes in one. */
const PARTS = 16;

test(
  "economy: a heartbeat is one chunk for all, made before",
  scene((stage) =>
    withTicks(async (tick) => {
      const broker = stage.broker();
      const clients = await crowd(stage, broker, 100);
      for (let round = 1; round <= 2; round++) {
        const reads = clients.map((client) => client.read());
        await turn();
        const early = await meter(async () => {
          for (let part = 1; part < PARTS; part++) tick();
        });
        expect(countsOf(early)).toEqual({ encodes: 0, joins: 0, chunks: 0, enqueues: 0 });
        const due = await meter(async () => {
          tick();
          await Promise.all(reads);
        });
        expect(countsOf(due)).toEqual({ encodes: 0, joins: 0, chunks: 1, enqueues: 100 });
        for (const { comments } of clients) expect(comments).toBe(round);
      }
    }),
  ),
);

test(
  "economy: a position that is told instead of a heartbeat is encoded once for all",
  scene((stage) =>
    withTicks(async (tick) => {
      // Half of it is the interval of the heartbeat, so that all of them are due.
      const broker = stage.broker({ log: { retention: { age: 16_000 } } });
      const clients = await crowd(stage, broker, 100);
      await broker.broadcast("elsewhere", { channels: "other" });
      const told = clients.map((client) => client.untilControl("position"));
      await turn();
      const cost = await meter(async () => {
        for (let part = 1; part <= PARTS; part++) tick();
        await Promise.all(told);
      });
      expect(countsOf(cost)).toEqual({ encodes: 1, joins: 0, chunks: 1, enqueues: 100 });
    }),
  ),
);
