// Replays share a budget of work in each turn of the event loop, so that others are served in between. Nothing here measures time.
import { expect, test, vi } from "vitest";
import { nextTurn } from "../../../src/base/runtime.ts";
import type { Broker } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { type TestSetup, withBroker } from "../../support/test-broker.ts";

const CHANNELS = Array.from({ length: 100 }, (_, index) => `c${index}`);
const EVENTS = 20_000;

/** A broker whose log is full of small events in many channels: the most work for the fewest bytes. */
async function fullBroker(setup: TestSetup): Promise<Broker> {
  const broker = setup.broker({ heartbeat: Infinity });
  for (let index = 0; index < EVENTS; index++)
    void broker.broadcast("12345678", { channels: CHANNELS[index % 100] as string });
  await broker.broadcast("end");
  return broker;
}

/** Reads until the event with this data, as fast as the stream gives it. */
async function readTo(client: Connection, data: string): Promise<void> {
  while (!client.data.includes(data)) await client.read();
}

/** Counts turns of the event loop while `body` runs. */
async function countTurns(body: (turn: () => number) => Promise<void>): Promise<void> {
  let turn = 0;
  let isOver = false;
  const count = (): void => {
    turn++;
    if (!isOver) nextTurn(count);
  };
  count();
  try {
    await body(() => turn);
  } finally {
    isOver = true;
  }
}

test(
  "a replay: takes many turns of a few chunks each, and is complete and in order",
  withBroker(async (setup) => {
    const broker = await fullBroker(setup);
    const enqueue = vi.spyOn(ReadableStreamDefaultController.prototype, "enqueue");
    const chunks = new Map<number, number>();
    await countTurns(async (turn) => {
      const client = await setup.connect(broker, { channel: CHANNELS, query: { from: "earliest" } });
      let last = enqueue.mock.calls.length;
      while (!client.data.includes("end")) {
        await client.read();
        const { length } = enqueue.mock.calls;
        chunks.set(turn(), (chunks.get(turn()) ?? 0) + length - last);
        last = length;
      }
      expect(client.data).toHaveLength(EVENTS + 1);
    });
    enqueue.mockRestore();
    // 64 KiB hold about 1,800 of these events, so a replay is some 11 chunks. The budget is four of them, and the last may exceed it.
    expect(Math.max(...chunks.values())).toBeLessThanOrEqual(5);
  }),
);

test(
  "live delivery and new connections come between the chunks of many replays",
  withBroker(async (setup) => {
    const broker = await fullBroker(setup);
    const live = await setup.join(broker, { channel: "live" });
    const replays: Connection[] = [];
    for (let count = 0; count < 20; count++)
      replays.push(await setup.connect(broker, { channel: CHANNELS, query: { from: "earliest" } }));
    let complete = 0;
    const reading = replays.map(async (client) => {
      await readTo(client, "end");
      complete++;
    });
    await Promise.resolve();
    const { id } = await broker.broadcast("now", { channels: "live" });
    expect((await live.nextData()).id).toBe(id);
    const late = await setup.join(broker, { channel: "live" });
    await broker.broadcast("later", { channels: "live" });
    expect((await late.nextData()).data).toBe("later");
    expect(complete).toBeLessThan(replays.length);
    await Promise.all(reading);
    for (const client of replays) expect(client.data).toHaveLength(EVENTS + 1);
  }),
);

test(
  "a replay that waits for its turn: leaves, closes and comes back without a loss",
  withBroker(async (setup) => {
    const broker = await fullBroker(setup);
    const connect = (): Promise<Connection> =>
      setup.connect(broker, { channel: CHANNELS, query: { from: "earliest" } });
    const clients = await Promise.all(Array.from({ length: 12 }, connect));
    const reading = clients.map((client) => client.read());
    await Promise.all(reading);
    for (const client of clients.slice(0, 6)) await client.leave();
    expect(broker.stats().clients).toBe(6);
    const rest = clients.slice(6).map(async (client) => client.ended());
    await Promise.resolve();
    await broker.close();
    for (const end of await Promise.all(rest)) expect(end).toBe("closed");
    for (const client of clients.slice(6)) {
      expect(client.data).toHaveLength(EVENTS + 1);
    }
  }),
);
