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

/**
 * Fails if a block would be dispatched as an empty message, or if an id is not the last line of its block. Some clients store an id as soon as its
 * line arrives (fetch-event-source 2.0.1, Datastar): they would lose an event whose data breaks off after it.
 */
function expectBlocks(connection: Connection): void {
  const blocks = blocksOf(connection);
  expect(blocks.length).toBeGreaterThan(0);
  for (const block of blocks) {
    expect(block.some((line) => line.startsWith("data: "))).toBe(true);
    expect(block.slice(0, -1).filter((line) => line.startsWith("id: "))).toEqual([]);
  }
}

for (const announce of [true, false]) {
  test(
    `announce: ${announce}: every block of a stream has data and its id last, heartbeats and the end included`,
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
      expectBlocks(client);
      expect(client.retries).toHaveLength(2);
      expect(client.data).toEqual(["one", "two\n\nthree"]);
    }),
  );
}

test(
  "a resume with a gap: every block has data and its id last, and the reconnection time is in the first one",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 1 } } });
    const first = await setup.join(broker);
    const { lastEventId = "" } = first;
    for (const data of ["one", "two", "three"]) await broker.broadcast(data);
    await first.untilData("three");
    const client = await setup.connect(broker, { lastEventId });
    await client.untilData("three");
    expectBlocks(client);
    expect(blocksOf(client)[0]?.[0]).toMatch(/^retry: \d+$/);
    expect(client.control("gap")).toHaveLength(1);
  }),
);
