// The option `snapshot` and gaps: which channels are asked for, and when the id of a gap is sent.
import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { gapOf, seen } from "../../support/clients/connection.ts";
import { Flushes } from "../../support/flushes.ts";
import { recording } from "../../support/snapshots.ts";
import { turn, withBroker } from "../../support/test-broker.ts";

/** Publishes more than the log retains. A client that does not read takes the first event, and what follows is dropped. */
async function overrun(broker: Broker): Promise<void> {
  const flushes = new Flushes(broker, "a");
  for (let event = 0; event < 8; event++)
    await flushes.reach((await broker.broadcast(`${event}`, { channels: "a" })).id);
}

test.each([
  ["nonsense", "nonsense"],
  ["of another log", "other-5"],
])("snapshot: an id that is %s is a gap, whose id is held back until fanwire-snapshot", (_, lastEventId) =>
  withBroker(async (setup) => {
    const { asked, snapshot } = recording(() => ["state"]);
    const broker = setup.broker({ snapshot });
    await broker.broadcast("kept", { channels: "a" });
    const client = await setup.connect(broker, { channel: ["a", "b"], lastEventId });
    await client.untilData("kept");
    expect(seen(client)).toEqual(["ready", "gap", "state", "snapshot +id", "kept +id"]);
    expect(gapOf(client.control("gap")[0] as never).after).toBeNull();
    expect(asked).toHaveLength(1);
    expect(asked[0]).toMatchObject({ channels: ["a", "b"], reason: "gap" });
    expect(asked[0]?.position).toBe(client.control("snapshot")[0]?.id);
  })(),
);

test(
  "snapshot: a resume with a gap asks for the channels of the gap, at the place of the gap, and events of other channels keep their order",
  withBroker(async (setup) => {
    const { asked, snapshot } = recording(({ channels, reason }) => (reason === "new" ? [] : [`state of ${channels}`]));
    const broker = setup.broker({ log: { retention: { events: 1 } }, snapshot });
    const client = await setup.connect(broker, { channel: ["a", "b", "c"] });
    await client.untilControl("snapshot");
    await client.leave();
    const lastEventId = client.lastEventId ?? "";
    for (const [text, channels] of [
      ["a1", "a"],
      ["a2", "a"],
      ["b3", "b"],
      ["a4", "a"],
      ["a5", "a"],
      ["a6", "a"],
    ] as const)
      await broker.broadcast(text, { channels });
    const back = await setup.connect(broker, { channel: ["a", "b", "c"], lastEventId });
    await back.untilData("a6");
    expect(seen(back)).toEqual(["ready", "gap +id", "b3 +id", "gap", "state of a", "snapshot +id", "a6 +id"]);
    expect(back.control("snapshot")[0]?.id).toBe(gapOf(back.control("gap")[1] as never).through);
    expect(asked.slice(1)).toMatchObject([{ channels: ["a"], reason: "gap" }]);
  }),
);

test(
  "snapshot: one of all channels covers the gaps that end before it was called, which then have their id",
  withBroker(async (setup) => {
    const { asked, snapshot } = recording(() => ["state"]);
    const broker = setup.broker({ log: { retention: { events: 1 } }, snapshot });
    for (const channels of ["b", "a", "a", "a"]) await broker.broadcast(channels, { channels });
    const client = await setup.connect(broker, { channel: ["a", "b"], lastEventId: "unknown-1" });
    await client.untilData("a");
    expect(seen(client)).toEqual(["ready", "gap", "state", "snapshot +id", "gap +id", "b +id", "gap +id", "a +id"]);
    expect(asked).toHaveLength(1);
  }),
);

test(
  "snapshot: a gap of events to every client asks for all channels",
  withBroker(async (setup) => {
    const { asked, snapshot } = recording(() => []);
    const broker = setup.broker({ log: { retention: { events: 1 } }, snapshot });
    const client = await setup.connect(broker, { channel: ["a", "b"] });
    await client.untilControl("snapshot");
    await client.leave();
    for (let event = 0; event < 3; event++) await broker.broadcast(`${event}`);
    const back = await setup.connect(broker, { channel: ["a", "b"], lastEventId: client.lastEventId ?? "" });
    await back.untilData("2");
    expect(seen(back)).toEqual(["ready", "gap", "snapshot +id", "2 +id"]);
    expect(asked[1]).toMatchObject({ channels: ["a", "b"], reason: "gap" });
  }),
);

test(
  "snapshot: a gap inside an open stream holds its id back, and the log goes on behind the snapshot",
  withBroker(async (setup) => {
    const { asked, snapshot } = recording(({ reason }) => (reason === "new" ? [] : ["state"]));
    const broker = setup.broker({ log: { retention: { events: 2 } }, snapshot });
    const client = await setup.connect(broker, { channel: "a" });
    await client.untilControl("snapshot");
    const position = client.lastEventId;
    await overrun(broker);
    await client.untilData("7");
    const [gap] = client.control("gap");
    expect(gap?.id).toBeUndefined();
    const order = seen(client).slice(2);
    expect(order.slice(order.indexOf("gap"))).toEqual(["gap", "state", "snapshot +id", "6 +id", "7 +id"]);
    expect(asked).toHaveLength(2);
    expect(asked[1]).toMatchObject({ reason: "gap", channels: ["a"], request: undefined });
    expect(asked[1]?.position).toBe(gapOf(gap as never).through);
    expect(position).not.toBe(asked[1]?.position);
  }),
);

test(
  "close(): a client that has a gap to come ends before the id of the gap",
  withBroker(async (setup) => {
    const { asked, snapshot } = recording(() => []);
    const broker = setup.broker({ log: { retention: { events: 2 } }, snapshot });
    const client = await setup.connect(broker, { channel: "a" });
    await client.untilControl("snapshot");
    await overrun(broker);
    const closing = broker.close();
    while (broker.stats().closing === 0) await turn();
    await client.ended();
    await closing;
    const order = seen(client);
    expect(order.slice(-2)).toEqual(["gap", "end"]);
    expect(asked).toHaveLength(1);
  }),
);
