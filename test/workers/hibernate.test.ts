import { expect, test } from "vitest";
import { codeOf } from "../support/test-broker.ts";
import { after, numbers, pause, room, take, until } from "./support/room.ts";
import { late } from "./support/sockets.ts";
import { publish, story, told } from "./support/story.ts";

// The object hibernates: its instance goes, and the sockets to the Workers that hold the streams stay.

test(
  "a stream goes on over hibernation: the next event comes once, and nothing else",
  room({}, async (room) => {
    const client = await room.join({ id: "ada" });
    await publish(room, ["1"]);
    await client.untilData("1");
    for (let round = 2; round <= 6; round++) {
      await room.evict();
      await publish(room, [`${round}`]);
      await client.untilData(`${round}`);
    }
    expect(told(client)).toEqual(numbers(1, 6));
    expect(client.control("ready")).toHaveLength(1);
    // It was the same socket all the time: nobody left, nobody came.
    expect(await room.stub.stats()).toMatchObject({ clients: 1, disconnects: {}, gaps: 0, replayed: 0 });
  }),
);

test(
  "an object that was never published to hibernates as well",
  room({}, async (room) => {
    const client = await room.join();
    await room.evict();
    await room.evict();
    await publish(room, ["first"]);
    expect(await story(client, "first")).toEqual(["first"]);
  }),
);

test(
  "who resumed and was replayed to hibernates as well",
  room({}, async (room) => {
    const [first = ""] = await publish(room, numbers(1, 5), "a");
    const client = await room.join({ channel: "a", lastEventId: first });
    expect(await take(client, 4)).toEqual(numbers(2, 5));
    await room.evict();
    await publish(room, ["6"], "a");
    expect(await story(client, "6")).toEqual(numbers(2, 6));
  }),
);

test(
  "the first event after hibernation reaches the clients of its channels and of its inbox alone",
  room({}, async (room) => {
    const [a, b, both] = [
      await room.join({ id: "a", channel: "a" }),
      await room.join({ id: "b", channel: "b" }),
      await room.join({ id: "both", channel: ["a", "b"] }),
    ];
    await room.evict();
    expect(await room.hub.broadcast("to a", { channels: "a" })).toMatchObject({ clients: 2 });
    await room.evict();
    expect(await room.hub.broadcast("to a and b", { channels: ["b", "a"] })).toMatchObject({ clients: 3 });
    await room.evict();
    expect(await room.hub.broadcastTo("b", "to one")).toMatchObject({ clients: 1 });
    await room.evict();
    expect(await room.hub.broadcast("to all")).toMatchObject({ clients: 3 });
    expect(await story(a, "to all")).toEqual(["to a", "to a and b", "to all"]);
    expect(await story(b, "to all")).toEqual(["to a and b", "to one", "to all"]);
    expect(await story(both, "to all")).toEqual(["to a", "to a and b", "to all"]);
  }),
);

const LONG = numbers(1, 100, "a channel with a very long name ").map((name) => name.padEnd(250, "…"));

test(
  "a client of few channels is kept by its socket alone, one of 100 with long names by a row, which goes with it",
  room({ inboxLinger: 0 }, async (room) => {
    const few = await room.join({ id: "few", channel: numbers(1, 10) });
    expect(await room.rows("connections")).toBe(0);
    const many = await room.join({ id: "many", channel: LONG });
    const other = await room.join({ id: "other", channel: LONG.slice(50) });
    const kept = await room.rows("connections");
    expect(kept).toBeGreaterThanOrEqual(1);
    for (const channel of [LONG[0] ?? "", LONG[99] ?? ""]) {
      await room.evict();
      await publish(room, [`to ${channel.trim()}`], channel);
      expect((await many.nextData()).data).toBe(`to ${channel.trim()}`);
    }
    expect((await other.nextData()).data).toBe(`to ${LONG[99]}`);
    await room.evict();
    expect(await room.hub.broadcast("end", { channels: [LONG[3] ?? "", "7"] })).toMatchObject({ clients: 2 });
    expect(await story(few, "end")).toEqual(["end"]);
    expect(told(other)).toHaveLength(1);
    await room.evict();
    await many.leave();
    await until("its row is gone", async () => (await room.rows("connections")) === kept - 1);
    await other.leave();
    await until("the other row is gone", async () => (await room.rows("connections")) === 0);
    expect(await room.stub.stats()).toMatchObject({ clients: 1, channels: 12 });
  }),
);

test(
  "the row of a client whose socket was lost together with the object goes as well",
  room({}, async (room) => {
    const many = await room.join({ channel: LONG });
    expect(await room.rows("connections")).toBe(1);
    await room.evict("close");
    await publish(room, ["after"], LONG[42]);
    expect(await story(many, "after")).toEqual(["after"]);
    expect(await room.rows("connections")).toBe(1);
    await many.leave();
    await room.gone();
    await room.evict();
    await room.stub.stats();
    expect(await room.rows("connections")).toBe(0);
  }),
);

test(
  "who leaves while the object is asleep is noticed, and the inbox lingers",
  room({}, async (room) => {
    const gone: unknown[] = [];
    room.reconfigure({ onDisconnect: ({ client, reason }) => gone.push([client.clientId, reason]) });
    const client = await room.join({ id: "ada" });
    await room.evict();
    await client.leave();
    await until("it is told", () => gone.length > 0, 2_000);
    expect(gone).toEqual([["ada", "client-left"]]);
    expect(await room.stub.stats()).toMatchObject({ clients: 0, channels: 0 });
    expect(await room.hub.broadcastTo("ada", "while away")).toMatchObject({ clients: 0 });
    expect(await room.nextAlarm(), "it looks whether it is empty").not.toBeNull();
  }),
);

test(
  "who connects while the object is asleep is let in, and those who were there before stay",
  room({}, async (room) => {
    const first = await room.join({ id: "first" });
    await room.evict();
    const second = await room.join({ id: "second" });
    expect(await room.stub.stats()).toMatchObject({ clients: 2, ids: 2 });
    await room.evict();
    await publish(room, ["both"]);
    for (const client of [first, second]) expect(await story(client, "both")).toEqual(["both"]);
  }),
);

test(
  "an event that was not sent on yet when the instance went is not lost",
  room({}, async (room) => {
    const client = await room.join();
    for (let round = 1; round <= 10; round++) {
      await publish(room, [`${round} a`, `${round} b`]);
      await room.evict();
      // Nothing is published that could make up for it.
      await room.stub.stats();
      await client.untilData(`${round} b`);
    }
    expect(told(client)).toEqual(numbers(1, 10).flatMap((round) => [`${round} a`, `${round} b`]));
  }),
);

test(
  "what an instance counts for bounds and duplicate ids is counted again by the next one",
  room({ maxClients: 2, duplicateIds: "reject" }, async (room) => {
    await room.join({ id: "ada" });
    await room.evict();
    expect((await room.ask({ id: "ada" })).status).toBe(409);
    await room.join({ id: "bob" });
    await room.evict();
    const full = await room.connect({ id: "eve" });
    expect(JSON.parse((await full.untilControl("end")).data)).toMatchObject({ reason: "at-capacity" });
  }),
);

test(
  "who has not read for a while and then reads on after hibernation has everything, and goes on",
  room({}, async (room) => {
    const client = await room.join();
    const data = numbers(1, 10).map((number) => number.padEnd(10_000));
    await publish(room, data);
    await pause(100);
    await room.evict();
    expect(await take(client, 10)).toEqual(data);
    await pause(100);
    await publish(room, ["after"]);
    await client.untilData("after");
    await room.evict();
    await publish(room, ["and after"]);
    expect(await story(client, "and after")).toEqual([...data, "after", "and after"]);
    expect(await room.stub.stats()).toMatchObject({ clients: 1, blocked: 0, disconnects: {} });
  }),
);

test(
  "who was behind when the object fell asleep has everything once it reads on",
  room({ timeout: Infinity }, async (room) => {
    const client = await room.join();
    const data = numbers(1, 60).map((number) => number.padEnd(10_000));
    await publish(room, data);
    await pause(100);
    expect(await room.stub.stats()).toMatchObject({ blocked: 1 });
    await room.evict();
    await publish(room, ["after"]);
    await client.untilData("after");
    expect(told(client)).toEqual([...data, "after"]);
    expect(await codeOf(room.hub.broadcastTo("nobody", "x"))).toBe("unknown-client");
  }),
);

test(
  "a quiet client is told where the log is once what it knows is older than half the retention, and not sooner",
  room({ retention: { age: 600_000 } }, async (room) => {
    const quiet = await room.join({ channel: "quiet" });
    const { lastEventId } = quiet;
    const [id] = await publish(room, ["1", "2"], "busy");
    await pause(50);
    await after(100_000, () => room.alarm());
    await publish(room, ["3"], "busy");
    await room.evict();
    await after(299_000, () => room.alarm());
    expect(quiet.control("position")).toEqual([]);
    const [last] = await publish(room, ["4"], "busy");
    await room.evict();
    await after(301_000, async () => {
      await room.alarm();
      const position = await quiet.untilControl("position");
      expect(position.id).toBe(last);
    });
    expect([id === lastEventId, quiet.data]).toEqual([false, []]);
  }),
);

test(
  "with announce: false nobody is told a position",
  room({ retention: { age: 600_000 }, announce: false }, async (room) => {
    const quiet = await room.connect({ channel: "quiet" });
    await publish(room, ["1"], "busy");
    await pause(50);
    await after(599_000, () => room.alarm());
    await publish(room, ["end"]);
    expect(await story(quiet, "end")).toEqual(["end"]);
    expect(quiet.events).toHaveLength(1);
  }),
);

test(
  "what is on its way to a client while the object falls asleep is not doubled by what the next instance sends",
  room({ timeout: Infinity }, async (room) => {
    const client = await late(250, () => room.connect());
    await client.untilControl("ready");
    const data = numbers(1, 7).map((number) => number.padEnd(10_000));
    const reading = client.untilData("third");
    // So much that an acknowledgement is asked for, and something behind the ask.
    await publish(room, data);
    await pause(100);
    await publish(room, ["second"]);
    await pause(30);
    await room.evict();
    await publish(room, ["third"]);
    await reading;
    await publish(room, ["end"]);
    expect(await story(client, "end")).toEqual([...data, "second", "third", "end"]);
  }),
);
