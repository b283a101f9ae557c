// The option `snapshot` where processes share a log: lost messages, history that this process does not hold, and a log that is replaced.
import { expect, test } from "vitest";
import { type Connection, gapOf, seen } from "../../support/clients/connection.ts";
import { numbers, type SharedLogProcesses, sharedLogTest, TINY } from "../../support/engines/shared-log-processes.ts";
import { recording } from "../../support/snapshots.ts";

const CHANNELS = { channel: ["a", "b"] };
/** The time after which a lost message is found in any case. */
const FOUND_MS = 6_000;

const seenWithIds = (client: Connection): string[] => seen(client, (id) => id);

/** Returns a snapshot of one event, and the requests that it has received so far. */
const recordingState = () => recording(({ channels }) => [`state of ${channels}`]);

/** Connects a client to a process that then loses the message of event 1, in channel a, and receives that of event 2, in channel b. */
async function loseMessage(processes: SharedLogProcesses) {
  const { snapshot, asked } = recordingState();
  const [here, there] = [processes.broker({ snapshot }), processes.broker({ snapshot })];
  const client = await processes.connect(here, CHANNELS);
  await processes.clock.advanceUntil(client.untilControl("snapshot"));
  processes.session().messagesToSwallow = 1;
  await processes.publish(there, ["1"], "a");
  await processes.publish(there, ["2"], "b");
  await processes.readThrough(client, "2");
  return { asked, there, client };
}

/** Publishes 6 events in channel a, and connects a client that has the first one to a process that holds one or two of them. */
async function resumeFromStore(processes: SharedLogProcesses) {
  const { snapshot, asked } = recordingState();
  const [here, there] = [processes.broker({ log: TINY, snapshot }), processes.broker({ log: TINY, snapshot })];
  await processes.publish(here, numbers(1, 6), "a");
  const client = await processes.connect(there, { ...CHANNELS, lastEventId: "e1-1" });
  await processes.readThrough(client, "6");
  return { asked, there, client };
}

test(
  "snapshot: a client starts at the position of its process, and receives what another process publishes after it",
  sharedLogTest(async (processes) => {
    const { snapshot, asked } = recordingState();
    const [here, there] = [processes.broker({ snapshot }), processes.broker({ snapshot })];
    await processes.publish(there, ["1", "2"], "a");
    const client = await processes.connect(here, CHANNELS);
    await processes.clock.advanceUntil(client.untilControl("snapshot"));
    await processes.publish(there, ["3"], "a");
    await processes.readThrough(client, "3");
    expect(seenWithIds(client)).toEqual(["ready", "state of a,b", "snapshot e1-2", "3 e1-3"]);
    // A client that comes back to another process, without a gap, needs no state.
    await client.leave();
    await processes.publish(there, ["4"], "a");
    const moved = await processes.connect(there, { ...CHANNELS, lastEventId: "e1-3" });
    await processes.readThrough(moved, "4");
    expect(seenWithIds(moved)).toEqual(["ready e1-3", "4 e1-4"]);
    expect(asked).toHaveLength(1);
  }),
);

test(
  "snapshot: a message that is lost is a gap inside the open stream, and its channel is asked for",
  sharedLogTest(async (processes) => {
    const { asked, there, client } = await loseMessage(processes);
    const reading = client.untilControl("gap");
    await processes.clock.advance(FOUND_MS);
    await processes.clock.advanceUntil(reading);
    await processes.publish(there, ["3"], "b");
    await processes.readThrough(client, "3");
    expect(seenWithIds(client).slice(3)).toEqual(["2 e1-2", "gap", "state of a", "snapshot e1-2", "3 e1-4"]);
    expect(asked.map(({ reason }) => reason)).toEqual(["new", "gap"]);
  }),
);

test(
  "snapshot: a notice that another process has lost a message is a gap for a client that came from there",
  sharedLogTest(async (processes) => {
    const { asked, there, client } = await loseMessage(processes);
    await client.leave();
    const moved = await processes.connect(there, { ...CHANNELS, lastEventId: client.lastEventId as string });
    await processes.publish(there, ["3"], "b");
    const reading = processes.readThrough(moved, "4");
    await processes.clock.advance(FOUND_MS);
    await processes.publish(there, ["4"], "b");
    await processes.clock.advanceUntil(reading);
    const [, gap] = moved.events.filter(({ event }) => event?.startsWith("fanwire-"));
    expect(gapOf(gap as never)).toMatchObject({ channels: ["a"], through: "e1-1" });
    const order = seenWithIds(moved);
    expect(order.map((item) => item.split(" e1-")[0])).toEqual(["ready", "3", "gap", "state of a", "snapshot", "4"]);
    expect(order[2]).toBe("gap");
    expect(asked.map(({ reason }) => reason)).toEqual(["new", "gap"]);
  }),
);

test(
  "snapshot: none is needed for history that only the store has; after an id of another log it comes before that history",
  sharedLogTest(
    async (processes) => {
      const { asked, there, client } = await resumeFromStore(processes);
      expect(client.data.filter((data) => !data.startsWith("state"))).toEqual(numbers(2, 6));
      expect(asked).toEqual([]);
      const lost = await processes.connect(there, { ...CHANNELS, lastEventId: "e0-1" });
      await processes.readThrough(lost, "6");
      expect(seenWithIds(lost).slice(0, 4)).toEqual(["ready", "gap", "state of a,b", "snapshot e1-0"]);
      expect(lost.data.slice(1)).toEqual(numbers(1, 6));
    },
    { pageSize: 2 },
  ),
);

test(
  "snapshot: what the store has dropped is a gap, and its channel is asked for",
  sharedLogTest(
    async (processes) => {
      const { asked, client } = await resumeFromStore(processes);
      expect(seenWithIds(client)).toEqual(["ready", "gap", "state of a", "snapshot e1-4", "5 e1-5", "6 e1-6"]);
      expect(asked).toMatchObject([{ reason: "gap", position: "e1-4" }]);
    },
    { pageSize: 2, retention: 2 },
  ),
);

test(
  "new epoch: in the middle of a snapshot it ends that one, and a gap and a whole snapshot follow",
  sharedLogTest(async (processes) => {
    const { asked, snapshot } = recording(async function* ({ reason }) {
      yield `${reason} 1`;
      // The first one never ends by itself.
      if (asked.length === 1) await new Promise(() => undefined);
      yield `${reason} 2`;
    });
    const [here, there] = [processes.broker({ snapshot }), processes.broker({ snapshot })];
    const client = await processes.connect(here, CHANNELS);
    await processes.readThrough(client, "new 1");
    const reading = client.untilData("2");
    await processes.clock.turns(5);
    await processes.publish(there, ["1"], "a");
    processes.store.startNewEpoch();
    await processes.publish(there, ["2"], "a");
    await processes.clock.advanceUntil(reading);
    expect(seenWithIds(client)).toEqual(["ready", "new 1", "gap", "gap 1", "gap 2", "snapshot e2-0", "2 e2-1"]);
    expect(asked.map(({ reason, signal }) => [reason, signal.aborted])).toEqual([
      ["new", true],
      ["gap", false],
    ]);
    expect(asked[1]?.channels).toEqual(["a", "b"]);
  }),
);
