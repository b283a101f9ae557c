import { expect, test, vi } from "vitest";
import { StreamConnection } from "../../../src/delivery/stream-connection.ts";
import { connectMany } from "../../support/clients/many-clients.ts";
import { countsOf, measureCost, watchFields } from "../../support/monitoring/cost-meter.ts";
import { turn, withBroker } from "../../support/test-broker.ts";

// The cost of connections that receive no event.

test(
  "cost: a publish does not touch connections that do not read its channels",
  withBroker(async (setup) => {
    const made = vi.spyOn(StreamConnection.prototype, "startAt");
    const broker = setup.broker({ heartbeat: Number.POSITIVE_INFINITY });
    const all = await connectMany(setup, broker, 1_000, (index) => ({ channel: ["shared", `own ${index}`] }));
    const clients = [...made.mock.contexts] as StreamConnection[];
    made.mockRestore();
    expect(clients).toHaveLength(1_000);
    const reads = all.map((client) => client.read());
    await turn();
    const touched = new Set<number>();
    for (const [index, client] of clients.entries()) watchFields(client, () => void touched.add(index));

    const unread = await measureCost(async () => {
      expect(await broker.broadcast("x", { channels: "nobody's" })).toMatchObject({ clients: 0 });
      expect(await broker.broadcast("x", { channels: ["nobody's", "nobody's either"] })).toMatchObject({ clients: 0 });
      for (let turns = 0; turns < 5; turns++) await turn();
    });
    expect(countsOf(unread)).toEqual({ encodes: 2, joins: 0, chunks: 0, enqueues: 0 });
    expect([...touched]).toEqual([]);

    // The same observation sees the one connection that receives an event, and no other.
    const read = await measureCost(async () => {
      void broker.broadcast("x", { channels: "own 500" });
      await reads[500];
    });
    expect(countsOf(read)).toEqual({ encodes: 1, joins: 0, chunks: 1, enqueues: 1 });
    expect([...touched]).toEqual([500]);
  }),
);

/** Runs `work` with repeating timers that fire only when it calls `tick`. */
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

/** The parts of a heartbeat interval. A connection is due in one of them. */
const PARTS = 16;

test(
  "cost: a heartbeat is one chunk for all connections, built in advance",
  withBroker((setup) =>
    withTicks(async (tick) => {
      const broker = setup.broker();
      const clients = await connectMany(setup, broker, 100);
      for (let round = 1; round <= 2; round++) {
        const reads = clients.map((client) => client.read());
        await turn();
        const early = await measureCost(async () => {
          for (let part = 1; part < PARTS; part++) tick();
        });
        expect(countsOf(early)).toEqual({ encodes: 0, joins: 0, chunks: 0, enqueues: 0 });
        const due = await measureCost(async () => {
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
  "cost: a position that replaces a heartbeat is encoded once for all connections",
  withBroker((setup) =>
    withTicks(async (tick) => {
      // Half of the age is the heartbeat interval, so a position is due for all of them.
      const broker = setup.broker({ log: { retention: { age: 16_000 } } });
      const clients = await connectMany(setup, broker, 100);
      await broker.broadcast("elsewhere", { channels: "other" });
      const positions = clients.map((client) => client.untilControl("position"));
      await turn();
      const cost = await measureCost(async () => {
        for (let part = 1; part <= PARTS; part++) tick();
        await Promise.all(positions);
      });
      expect(countsOf(cost)).toEqual({ encodes: 1, joins: 0, chunks: 1, enqueues: 100 });
    }),
  ),
);
