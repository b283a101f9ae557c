import { expect, test } from "vitest";
import { isData } from "../support/clients/connection.ts";
import { numbers, pause, waitUntil, withObject } from "./support/test-object.ts";
import { publish, transcript } from "./support/transcript.ts";

// Many clients of one object, and a publisher at full speed.

const CLIENTS = 1_000;
const EVENTS = 300;

test(
  `bridge: ${CLIENTS} clients receive ${EVENTS} events of a publisher at full speed, in order and without a gap`,
  { timeout: 110_000 },
  withObject({ logBytes: 32 * 1024 * 1024, timeout: Infinity }, async (object) => {
    const clients = [];
    for (let batch = 0; batch < CLIENTS / 100; batch++)
      clients.push(...(await Promise.all(numbers(1, 100).map((id) => object.join({ id: `${batch} ${id}` })))));
    const before = await object.stub.stats();
    expect(before).toMatchObject({ clients: CLIENTS, ids: CLIENTS, sent: 0 });
    const data = numbers(1, EVENTS, "event ");
    const reading = Promise.all(clients.map((client) => client.untilData(data.at(-1) ?? "")));
    await object.inside(async (instance) => {
      for (const each of data) await instance.broadcast(each);
    });
    await reading;
    for (const client of clients) expect(client.events.filter(isData).map((event) => event.data)).toEqual(data);
    const after = await object.stub.stats();
    expect(after).toMatchObject({ clients: CLIENTS, sent: EVENTS * CLIENTS, gaps: 0, overruns: 0, disconnects: {} });
    await waitUntil("no client is blocked", async () => (await object.stub.stats()).blocked === 0);

    // All clients continue after hibernation, and after a crash.
    await object.evict();
    await publish(object, ["after hibernation"]);
    await Promise.all(clients.map((client) => client.untilData("after hibernation")));
    await object.crash();
    await publish(object, ["after a crash"]);
    await Promise.all(clients.map((client) => client.untilData("after a crash")));
    await pause(100);
    for (const client of clients) expect(transcript(client)).toEqual([...data, "after hibernation", "after a crash"]);
    for (const client of clients) await client.leave();
    await object.untilNoClients();
  }),
);
