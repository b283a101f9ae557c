import { expect, test } from "vitest";
import { numbers, pause, type Room, room, take, until } from "./support/room.ts";
import { publish, story, told } from "./support/story.ts";

// The object is gone together with its sockets, at a deploy or a crash. The Workers that hold the streams dial again.

type Loss = readonly [how: string, lose: (room: Room) => Promise<void>];
const LOSSES: readonly Loss[] = [
  ["an eviction that closes the sockets", (room) => room.evict("close")],
  ["a crash", (room) => room.abort()],
];

for (const [how, lose] of LOSSES) {
  test(
    `over ${how} a stream goes on: nothing is lost, doubled or gapped, and there is no second ready`,
    room({}, async (room) => {
      const clients = [
        await room.join({ channel: "a" }),
        await room.join({ channel: ["a", "b"] }),
        await room.join({ id: "ada", channel: "b" }),
      ];
      for (let round = 1; round <= 4; round++) {
        await publish(room, [`a${round}`], "a");
        await lose(room);
        await publish(room, [`b${round}`], "b");
        await publish(room, [`both ${round}`], ["a", "b"]);
      }
      await publish(room, ["end"]);
      const stories = await Promise.all(clients.map((client) => story(client, "end")));
      const rounds = (kinds: readonly string[]): string[] => [
        ...numbers(1, 4).flatMap((round) => kinds.map((kind) => `${kind}${round}`)),
        "end",
      ];
      expect(stories).toEqual([rounds(["a", "both "]), rounds(["a", "b", "both "]), rounds(["b", "both "])]);
      for (const client of clients) expect(client.control("ready")).toHaveLength(1);
      expect(await room.stub.stats()).toMatchObject({ clients: 3 });
    }),
  );

  test(
    `over ${how} what retention did not keep is told as a gap, once, on the same stream`,
    room({ retention: { events: 2 } }, async (room) => {
      const client = await room.join({ channel: "a" });
      await publish(room, ["1"], "a");
      await client.untilData("1");
      await lose(room);
      await room.inside(async (object) => {
        for (const data of numbers(2, 7)) await object.broadcast(data, { channels: "a" });
      });
      await client.untilData("7");
      expect(told(client)).toEqual(["1", "a: (1, 5]", "6", "7"]);
    }),
  );

  test(
    `over ${how} an event for one client that is published at once is kept for it`,
    room({}, async (room) => {
      const client = await room.join({ id: "ada" });
      await lose(room);
      await room.hub.broadcastTo("ada", "for you");
      expect(await story(client, "for you")).toEqual(["for you"]);
    }),
  );

  test(
    `over ${how} who left meanwhile does not come back`,
    room({}, async (room) => {
      const [staying, leaving] = [await room.join({ id: "staying" }), await room.join({ id: "leaving" })];
      await lose(room);
      await leaving.leave();
      await publish(room, ["end"]);
      await story(staying, "end");
      await pause(300);
      expect(await room.inside((object) => object.clients().map(({ clientId }) => clientId))).toEqual(["staying"]);
    }),
  );

  test(
    `over ${how} who is barred by then is told that it is over, for good`,
    room({}, async (room) => {
      const client = await room.join({ id: "eve" });
      await lose(room);
      await room.hub.disconnect("eve", { blockFor: 60_000 });
      expect(await client.ended()).toBe("closed");
      const [end] = client.control("end");
      expect(JSON.parse(end?.data ?? "{}")).toEqual({ reason: "disconnected", reconnect: false });
      expect((await room.ask({ id: "eve" })).status).toBe(204);
    }),
  );
}

test(
  "over crashes while a publisher goes on nothing is lost, doubled or gapped",
  room({}, async (room) => {
    const clients = await Promise.all(numbers(1, 20).map((id) => room.join({ id })));
    const published: string[] = [];
    let isOver = false;
    const publisher = (async () => {
      for (let event = 1; !isOver; event++) {
        try {
          await room.hub.broadcast(`${event}`);
          published.push(`${event}`);
        } catch (error) {
          // What the crash met on its way may have been published, or not.
          expect((error as { code?: string }).code).toBe("publish-outcome-unknown");
          published.push(`${event}?`);
        }
        await pause(2);
      }
    })();
    for (let loss = 0; loss < 4; loss++) {
      await pause(150);
      await room.abort();
    }
    isOver = true;
    await publisher;
    await publish(room, ["end"]);
    const stories = await Promise.all(clients.map((client) => story(client, "end")));
    const [first = []] = stories;
    for (const each of stories) expect(each).toEqual(first);
    expect(first.filter((data) => published.includes(data))).toEqual(published.filter((data) => !data.endsWith("?")));
    for (const data of first.slice(0, -1))
      expect([data, `${data}?`].some((name) => published.includes(name))).toBe(true);
    expect(new Set(first).size).toBe(first.length);
    for (const client of clients) expect(client.control("ready")).toHaveLength(1);
    await until("all are there", async () => (await room.stub.stats()).clients === 20);
  }),
);

test(
  "over a crash who reads nothing meanwhile has everything once it reads on",
  room({}, async (room) => {
    const client = await room.join();
    const data = numbers(1, 60).map((number) => number.padEnd(10_000));
    await publish(room, data.slice(0, 30));
    await pause(50);
    await room.abort();
    await pause(300);
    await publish(room, data.slice(30));
    expect(await take(client, 60)).toEqual(data);
    await publish(room, ["end"]);
    expect(await story(client, "end")).toEqual([...data, "end"]);
  }),
);

test(
  "an object that was emptied while its client dialled is another one: the client is told of a gap, on the same stream",
  room({}, async (room) => {
    const client = await room.join({ channel: "a" });
    await publish(room, ["1", "2"], "a");
    await client.untilData("2");
    await room.evict("close");
    await room.inside((_, { storage }) => storage.deleteAll());
    await room.evict("close");
    await until("it is there again", async () => (await room.stub.stats()).clients === 1);
    await publish(room, ["anew"], "a");
    const parts = await story(client, "anew");
    expect(parts).toEqual(["1", "2", "fanwire-common fanwire-inbox a: (?, 0]", "anew"]);
    expect(client.control("ready")).toHaveLength(1);
    // Resumes by the new epoch from here on.
    await room.evict("close");
    await publish(room, ["end"], "a");
    expect(await story(client, "end")).toEqual([...parts, "end"]);
  }),
);
