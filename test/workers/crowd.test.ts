import { expect, test } from "vitest";
import { isData } from "../support/clients/connection.ts";
import { numbers, pause, room, until } from "./support/room.ts";
import { publish, told } from "./support/story.ts";

// Many clients of one object, and a publisher at full speed.

const CLIENTS = 1_000;
const EVENTS = 300;

test(
  `${CLIENTS} bridged clients receive ${EVENTS} events of a publisher at full speed: all of them, in order, and no gap`,
  { timeout: 110_000 },
  room({ logBytes: 32 * 1024 * 1024, timeout: Infinity }, async (room) => {
    const clients = [];
    for (let batch = 0; batch < CLIENTS / 100; batch++)
      clients.push(...(await Promise.all(numbers(1, 100).map((id) => room.join({ id: `${batch} ${id}` })))));
    const before = await room.stub.stats();
    expect(before).toMatchObject({ clients: CLIENTS, ids: CLIENTS, sent: 0 });
    const data = numbers(1, EVENTS, "event ");
    const reading = Promise.all(clients.map((client) => client.untilData(data.at(-1) ?? "")));
    await room.inside(async (object) => {
      for (const each of data) await object.broadcast(each);
    });
    await reading;
    for (const client of clients) expect(client.events.filter(isData).map((event) => event.data)).toEqual(data);
    const after = await room.stub.stats();
    expect(after).toMatchObject({ clients: CLIENTS, sent: EVENTS * CLIENTS, gaps: 0, overruns: 0, disconnects: {} });
    await until("nobody is behind", async () => (await room.stub.stats()).blocked === 0);

    // All of them over hibernation, and over a crash.
    await room.evict();
    await publish(room, ["after hibernation"]);
    await Promise.all(clients.map((client) => client.untilData("after hibernation")));
    await room.abort();
    await publish(room, ["after a crash"]);
    await Promise.all(clients.map((client) => client.untilData("after a crash")));
    await pause(100);
    for (const client of clients) expect(told(client)).toEqual([...data, "after hibernation", "after a crash"]);
    for (const client of clients) await client.leave();
    await room.gone();
  }),
);
