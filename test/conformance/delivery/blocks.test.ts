import { expect, test } from "vitest";
import type { Connection } from "../../support/clients/connection.ts";
import { withBroker } from "../../support/test-broker.ts";

// The blocks of a stream. Some clients dispatch an empty message for a block without data (fetch-event-source 2.0.1).

/** The blocks that a client has read: the lines before each blank line, without comments. */
function blocksOf({ chunks }: Connection): string[][] {
  const text = chunks.map((chunk) => new TextDecoder().decode(chunk)).join("");
  return text
    .split("\n\n")
    .slice(0, -1)
    .map((block) => block.split("\n").filter((line) => !line.startsWith(":")));
}

/** Fails if a block would be dispatched as an empty message. */
function expectData(connection: Connection): void {
  const blocks = blocksOf(connection);
  expect(blocks.length).toBeGreaterThan(0);
  for (const block of blocks) expect(block.some((line) => line.startsWith("data: "))).toBe(true);
}

for (const announce of [true, false]) {
  test(
    `announce: ${announce}: no block of a stream is without data, heartbeats and the end included`,
    withBroker(async (setup) => {
      const broker = setup.broker({ heartbeat: 20, announce });
      const client = await setup.connect(broker);
      const heartbeats = async (count: number): Promise<void> => {
        for (const seen = client.comments; client.comments < seen + count; ) await client.read();
      };
      await heartbeats(2);
      await broker.broadcast("one");
      await heartbeats(2);
      await broker.broadcast({ event: "typed", data: "two\n\nthree" });
      await heartbeats(1);
      void broker.close();
      await client.ended();
      expectData(client);
      expect(client.retries).toHaveLength(2);
      expect(client.data).toEqual(["one", "two\n\nthree"]);
    }),
  );
}

test(
  "a resume with a gap: no block is without data, and the reconnection time is in the first one",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 1 } } });
    const first = await setup.join(broker);
    const { lastEventId = "" } = first;
    for (const data of ["one", "two", "three"]) await broker.broadcast(data);
    await first.untilData("three");
    const client = await setup.connect(broker, { lastEventId });
    await client.untilData("three");
    expectData(client);
    expect(blocksOf(client)[0]?.[0]).toMatch(/^retry: \d+$/);
    expect(client.control("gap")).toHaveLength(1);
  }),
);
