import { expect, test } from "vitest";
import { codeOf } from "../support/test-broker.ts";
import { withLatency } from "./support/sockets.ts";
import { numbers, pause, takeData, waitUntil, withClockAhead, withObject } from "./support/test-object.ts";
import { publish, transcript, transcriptUntil } from "./support/transcript.ts";

// Hibernation: the instance ends, and the sockets to the Workers that hold the streams stay open.

test(
  "hibernation: the next event arrives once, and nothing else",
  withObject({}, async (object) => {
    const client = await object.join({ id: "ada" });
    await publish(object, ["1"]);
    await client.untilData("1");
    for (let round = 2; round <= 6; round++) {
      await object.evict();
      await publish(object, [`${round}`]);
      await client.untilData(`${round}`);
    }
    expect(transcript(client)).toEqual(numbers(1, 6));
    expect(client.control("ready")).toHaveLength(1);
    // The socket is the same one all the time: no client left and none connected.
    expect(await object.stub.stats()).toMatchObject({ clients: 1, disconnects: {}, gaps: 0, replayed: 0 });
  }),
);

test(
  "hibernation: an object without events continues",
  withObject({}, async (object) => {
    const client = await object.join();
    await object.evict();
    await object.evict();
    await publish(object, ["first"]);
    expect(await transcriptUntil(client, "first")).toEqual(["first"]);
  }),
);

test(
  "hibernation: a client that resumed and received a replay continues",
  withObject({}, async (object) => {
    const [first = ""] = await publish(object, numbers(1, 5), "a");
    const client = await object.join({ channel: "a", lastEventId: first });
    expect(await takeData(client, 4)).toEqual(numbers(2, 5));
    await object.evict();
    await publish(object, ["6"], "a");
    expect(await transcriptUntil(client, "6")).toEqual(numbers(2, 6));
  }),
);

test(
  "hibernation: the first event afterwards reaches only the clients of its channels or its inbox",
  withObject({}, async (object) => {
    const [a, b, both] = [
      await object.join({ id: "a", channel: "a" }),
      await object.join({ id: "b", channel: "b" }),
      await object.join({ id: "both", channel: ["a", "b"] }),
    ];
    await object.evict();
    expect(await object.hub.broadcast("to a", { channels: "a" })).toMatchObject({ clients: 2 });
    await object.evict();
    expect(await object.hub.broadcast("to a and b", { channels: ["b", "a"] })).toMatchObject({ clients: 3 });
    await object.evict();
    expect(await object.hub.broadcastTo("b", "to one")).toMatchObject({ clients: 1 });
    await object.evict();
    expect(await object.hub.broadcast("to all")).toMatchObject({ clients: 3 });
    expect(await transcriptUntil(a, "to all")).toEqual(["to a", "to a and b", "to all"]);
    expect(await transcriptUntil(b, "to all")).toEqual(["to a and b", "to one", "to all"]);
    expect(await transcriptUntil(both, "to all")).toEqual(["to a", "to a and b", "to all"]);
  }),
);

const LONG = numbers(1, 100, "a channel with a very long name ").map((name) => name.padEnd(250, "…"));

test(
  "hibernation: the socket keeps a client with few channels, a row keeps one with 100 long names and is deleted with it",
  withObject({ inboxLinger: 0 }, async (object) => {
    const few = await object.join({ id: "few", channel: numbers(1, 10) });
    expect(await object.rowCount("connections")).toBe(0);
    const many = await object.join({ id: "many", channel: LONG });
    const other = await object.join({ id: "other", channel: LONG.slice(50) });
    const rowsBefore = await object.rowCount("connections");
    expect(rowsBefore).toBeGreaterThanOrEqual(1);
    for (const channel of [LONG[0] ?? "", LONG[99] ?? ""]) {
      await object.evict();
      await publish(object, [`to ${channel.trim()}`], channel);
      expect((await many.nextData()).data).toBe(`to ${channel.trim()}`);
    }
    expect((await other.nextData()).data).toBe(`to ${LONG[99]}`);
    await object.evict();
    expect(await object.hub.broadcast("end", { channels: [LONG[3] ?? "", "7"] })).toMatchObject({ clients: 2 });
    expect(await transcriptUntil(few, "end")).toEqual(["end"]);
    expect(transcript(other)).toHaveLength(1);
    await object.evict();
    await many.leave();
    await waitUntil("its row is deleted", async () => (await object.rowCount("connections")) === rowsBefore - 1);
    await other.leave();
    await waitUntil("the other row is deleted", async () => (await object.rowCount("connections")) === 0);
    expect(await object.stub.stats()).toMatchObject({ clients: 1, channels: 12 });
  }),
);

test(
  "hibernation: the row of a client whose socket was lost with the object is deleted",
  withObject({}, async (object) => {
    const many = await object.join({ channel: LONG });
    expect(await object.rowCount("connections")).toBe(1);
    await object.evict("close");
    await publish(object, ["after"], LONG[42]);
    expect(await transcriptUntil(many, "after")).toEqual(["after"]);
    expect(await object.rowCount("connections")).toBe(1);
    await many.leave();
    await object.untilNoClients();
    await object.evict();
    await object.stub.stats();
    expect(await object.rowCount("connections")).toBe(0);
  }),
);

test(
  "hibernation: a client that leaves wakes the object, is removed, and its id lingers",
  withObject({}, async (object) => {
    const left: unknown[] = [];
    object.reconfigure({ onDisconnect: ({ client, reason }) => left.push([client.clientId, reason]) });
    const client = await object.join({ id: "ada" });
    await object.evict();
    await client.leave();
    await waitUntil("onDisconnect is called", () => left.length > 0);
    expect(left).toEqual([["ada", "client-left"]]);
    expect(await object.stub.stats()).toMatchObject({ clients: 0, channels: 0 });
    expect(await object.hub.broadcastTo("ada", "while away")).toMatchObject({ clients: 0 });
    expect(await object.nextAlarm(), "the object checks whether it is empty").not.toBeNull();
  }),
);

test(
  "hibernation: a new client connects, and the earlier ones stay",
  withObject({}, async (object) => {
    const first = await object.join({ id: "first" });
    await object.evict();
    const second = await object.join({ id: "second" });
    expect(await object.stub.stats()).toMatchObject({ clients: 2, ids: 2 });
    await object.evict();
    await publish(object, ["both"]);
    for (const client of [first, second]) expect(await transcriptUntil(client, "both")).toEqual(["both"]);
  }),
);

test(
  "hibernation: an event that was not sent before the instance ended is not lost",
  withObject({}, async (object) => {
    const client = await object.join();
    for (let round = 1; round <= 10; round++) {
      await publish(object, [`${round} a`, `${round} b`]);
      await object.evict();
      // No later event may trigger its delivery.
      await object.stub.stats();
      await client.untilData(`${round} b`);
    }
    expect(transcript(client)).toEqual(numbers(1, 10).flatMap((round) => [`${round} a`, `${round} b`]));
  }),
);

test(
  "hibernation: the next instance counts connections again for maxClients and duplicateIds",
  withObject({ maxClients: 2, duplicateIds: "reject" }, async (object) => {
    await object.join({ id: "ada" });
    await object.evict();
    const taken = await object.connect({ id: "ada" });
    expect(JSON.parse((await taken.untilControl("end")).data)).toMatchObject({ reason: "duplicate-id" });
    await object.join({ id: "bob" });
    await object.evict();
    const full = await object.connect({ id: "eve" });
    expect(JSON.parse((await full.untilControl("end")).data)).toMatchObject({ reason: "at-capacity" });
  }),
);

test(
  "hibernation: a client with unread events at its Worker receives all of them, and continues",
  withObject({}, async (object) => {
    const client = await object.join();
    const data = numbers(1, 10).map((number) => number.padEnd(10_000));
    await publish(object, data);
    await pause(100);
    await object.evict();
    expect(await takeData(client, 10)).toEqual(data);
    await pause(100);
    await publish(object, ["after"]);
    await client.untilData("after");
    await object.evict();
    await publish(object, ["and after"]);
    expect(await transcriptUntil(client, "and after")).toEqual([...data, "after", "and after"]);
    expect(await object.stub.stats()).toMatchObject({ clients: 1, blocked: 0, disconnects: {} });
  }),
);

test(
  "hibernation: a blocked client receives everything once it reads again",
  withObject({ timeout: Infinity }, async (object) => {
    const client = await object.join();
    const data = numbers(1, 60).map((number) => number.padEnd(10_000));
    await publish(object, data);
    await waitUntil("it is blocked", async () => (await object.stub.stats()).blocked === 1);
    await object.evict();
    await publish(object, ["after"]);
    await client.untilData("after");
    expect(transcript(client)).toEqual([...data, "after"]);
    expect(await codeOf(object.hub.broadcastTo("nobody", "x"))).toBe("unknown-client");
  }),
);

test(
  "fanwire-position: a quiet client receives it when its position is older than half of retention.age, and not sooner",
  withObject({ retention: { age: 600_000 } }, async (object) => {
    const quiet = await object.join({ channel: "quiet" });
    const { lastEventId } = quiet;
    const [id] = await publish(object, ["1", "2"], "busy");
    await pause(50);
    await withClockAhead(100_000, () => object.runAlarm());
    await publish(object, ["3"], "busy");
    await object.evict();
    await withClockAhead(299_000, () => object.runAlarm());
    expect(quiet.control("position")).toEqual([]);
    const [last] = await publish(object, ["4"], "busy");
    await object.evict();
    await withClockAhead(301_000, async () => {
      await object.runAlarm();
      const position = await quiet.untilControl("position");
      expect(position.id).toBe(last);
    });
    expect([id === lastEventId, quiet.data]).toEqual([false, []]);
  }),
);

test(
  "announce false: no client receives fanwire-position",
  withObject({ retention: { age: 600_000 }, announce: false }, async (object) => {
    const quiet = await object.connect({ channel: "quiet" });
    await publish(object, ["1"], "busy");
    await pause(50);
    await withClockAhead(599_000, () => object.runAlarm());
    await publish(object, ["end"]);
    expect(await transcriptUntil(quiet, "end")).toEqual(["end"]);
    expect(quiet.events).toHaveLength(1);
  }),
);

test(
  "hibernation: frames on their way to the Worker are not duplicated by the next instance",
  withObject({ timeout: Infinity }, async (object) => {
    const client = await withLatency(250, () => object.connect());
    await client.untilControl("ready");
    const data = numbers(1, 7).map((number) => number.padEnd(10_000));
    const reading = client.untilData("third");
    // Enough bytes for an acknowledgement request, and one event after it.
    await publish(object, data);
    await pause(100);
    await publish(object, ["second"]);
    await pause(30);
    await object.evict();
    await publish(object, ["third"]);
    await reading;
    await publish(object, ["end"]);
    expect(await transcriptUntil(client, "end")).toEqual([...data, "second", "third", "end"]);
  }),
);
