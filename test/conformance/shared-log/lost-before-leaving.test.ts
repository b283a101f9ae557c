// A process that lost a message, and a client that left it before the loss was found. No process knows what that client has received.
import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { type Connection, gapOf, isData } from "../../support/clients/connection.ts";
import { numbers, type SharedLogProcesses, sharedLogTest } from "../../support/engines/shared-log-processes.ts";
import type { ConnectOptions } from "../../support/test-broker.ts";

const CHANNELS = { channel: ["a", "b"] };
/** The time after which a lost message is found in any case. */
const FOUND_MS = 6_000;
const GAP = { channels: ["a"], after: "e1-0", through: "e1-1" };

/** Makes the first process lose `1` in `a`, and a client read `2` in `b` there and leave. Returns the client's last id. */
async function leaveAfterLoss(
  processes: SharedLogProcesses,
  here: Broker,
  there: Broker,
  options: ConnectOptions = CHANNELS,
): Promise<string> {
  const client = await processes.join(here, options);
  processes.session().messagesToSwallow = 1;
  await processes.publish(there, ["1"], "a");
  await processes.publish(there, ["2"], "b");
  expect(await processes.readThrough(client, "2")).toEqual(["2"]);
  await client.leave();
  return client.lastEventId as string;
}

/** Returns what a client has received: the data of events, and its gaps. */
const received = (client: Connection): readonly unknown[] =>
  client.events
    .filter((event) => isData(event) || event.event === "fanwire-gap")
    .map((event) => (isData(event) ? event.data : gapOf(event)));

test(
  "lost message: a client that has moved to another process before it is found receives a gap there",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const lastEventId = await leaveAfterLoss(processes, here, there);
    const moved = await processes.join(there, { ...CHANNELS, lastEventId });
    await processes.publish(there, ["3"], "b");
    await processes.clock.advance(FOUND_MS);
    await processes.publish(there, ["4"], "b");
    await processes.readThrough(moved, "4");
    expect(received(moved)).toEqual(["3", GAP, "4"]);
  }),
);

test.for(["the same", "another"])(
  "lost message: a client that comes back to %s process after it was found receives a gap",
  (which) =>
    sharedLogTest(async (processes) => {
      const [here, there] = [processes.broker(), processes.broker()];
      const lastEventId = await leaveAfterLoss(processes, here, there);
      await processes.clock.advance(FOUND_MS);
      const back = await processes.join(which === "the same" ? here : there, { ...CHANNELS, lastEventId });
      await processes.publish(there, ["3"], "b");
      await processes.readThrough(back, "3");
      expect(received(back)).toEqual([GAP, "3"]);
    })(),
);

test(
  "lost message: a client that leaves without its gap receives it where it comes back",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const client = await processes.join(here, CHANNELS);
    processes.session().messagesToSwallow = 1;
    await processes.publish(there, ["1"], "a");
    await processes.publish(there, ["2"], "b");
    await processes.readThrough(client, "2");
    await processes.clock.advance(FOUND_MS);
    await client.leave();
    const back = await processes.join(there, { ...CHANNELS, lastEventId: client.lastEventId as string });
    await processes.publish(there, ["3"], "b");
    await processes.readThrough(back, "3");
    expect(received(back)).toEqual([GAP, "3"]);
  }),
);

test(
  "lost message of an inbox: it is found although its only client has left",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const client = await processes.join(here, { id: "one" });
    await processes.join(there, { id: "two" });
    processes.session().messagesToSwallow = 1;
    await processes.clock.advanceUntil(there.broadcastTo("one", "1"));
    await processes.publish(there, ["2"]);
    expect(await processes.readThrough(client, "2")).toEqual(["2"]);
    await client.leave();
    const moved = await processes.join(there, { id: "one", lastEventId: client.lastEventId as string });
    await processes.clock.advance(FOUND_MS);
    await processes.publish(there, ["3"]);
    await processes.readThrough(moved, "3");
    expect(received(moved)).toEqual([{ channels: ["fanwire-inbox"], after: "e1-0", through: "e1-1" }, "3"]);
  }),
);

test(
  "lost message: no gap for a client that came before it, is new, or reads other channels",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    // The process that is used first has the first session.
    const client = await processes.join(here, CHANNELS);
    const before = await processes.publish(there, ["0"], "b");
    const early = await processes.join(there, { ...CHANNELS, lastEventId: before });
    processes.session().messagesToSwallow = 1;
    await processes.publish(there, ["1"], "a");
    const last = await processes.publish(there, ["2"], "b");
    expect(await processes.readThrough(client, "2")).toEqual(["0", "2"]);
    const fresh = await processes.join(there, CHANNELS);
    const other = await processes.join(there, { channel: "b", lastEventId: last });
    const late = await processes.join(there, { ...CHANNELS, lastEventId: before });
    await processes.clock.advance(FOUND_MS);
    const end = await processes.publish(there, ["3"], "b");
    const after = await processes.join(there, { ...CHANNELS, lastEventId: end });
    await processes.publish(there, ["4"], "b");
    for (const each of [early, fresh, other, late, after]) await processes.readThrough(each, "4");
    expect([early, fresh, other, late, after].map(received)).toEqual([
      numbers(1, 4),
      ["3", "4"],
      ["3", "4"],
      numbers(1, 4),
      ["4"],
    ]);
  }),
);

test(
  "lost message: the store is told of it as soon as it answers again",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const lastEventId = await leaveAfterLoss(processes, here, there);
    const moved = await processes.join(there, { ...CHANNELS, lastEventId });
    // The checkpoint and the read that find the loss pass. The notice of it is refused, and then a checkpoint or the notice again.
    const reads = processes.store.reads.length;
    processes.session().delay({ requests: 20 });
    while (processes.store.reads.length === reads) await processes.clock.advance(10);
    processes.session().commandsToRefuse = 2;
    await processes.clock.advance(FOUND_MS);
    expect(processes.session().commandsToRefuse).toBe(0);
    await processes.publish(there, ["3"], "b");
    await processes.readThrough(moved, "3");
    expect(received(moved)).toEqual([GAP, "3"]);
  }),
);

test(
  "lost message: history() and listen() report it, and nothing else",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const iterator = here.listen({ channels: ["a", "b"] });
    // A listener is subscribed only while it waits.
    const waiting = iterator.next();
    const lastEventId = await leaveAfterLoss(processes, here, there);
    await processes.clock.advanceUntil(waiting);
    await processes.clock.advance(FOUND_MS);
    await processes.publish(there, ["3"], "b");
    const next = [];
    for (let count = 0; count < 2; count++) {
      const { value } = await processes.clock.advanceUntil(iterator.next());
      next.push(value?.type === "gap" ? value.channels : value?.data);
    }
    await iterator.return?.();
    expect(next).toEqual([["a"], "3"]);

    const { events, gaps } = await processes.clock.advanceUntil(
      there.history({ channels: ["a", "b"], after: lastEventId }),
    );
    expect([events.map(({ data }) => data), gaps.map(({ channels }) => channels)]).toEqual([["3"], [["a"]]]);
    const all = await processes.clock.advanceUntil(there.history({ channels: ["a", "b"] }));
    expect([all.events.map(({ data }) => data), all.gaps]).toEqual([numbers(1, 3), []]);
  }),
);
