// `subscribe` with the option `snapshot`: a stream receives the state of the channels that it joins.
import { expect, test } from "vitest";
import { labelOf } from "../../support/clients/connection.ts";
import { Random } from "../../support/random.ts";
import { turn, withBroker } from "../../support/test-broker.ts";

for (const kind of ["reads", "is behind"] as const) {
  test(
    `snapshot: a client that ${kind} receives the state of the channels that it joins, behind the announcement and what it had before`,
    withBroker(async (setup) => {
      const asked: unknown[] = [];
      let price = 0;
      const broker = setup.broker({
        snapshot: ({ channels, reason, client }) => {
          asked.push([reason, [...channels], client.channels]);
          return channels.map((channel) => ({ event: "state", data: `${channel} ${price}` }));
        },
      });
      const client = await setup.join(broker, { id: "ann", channel: "a" });
      await client.untilControl("snapshot");
      const before = client.read();
      await broker.broadcast("1", { channels: "a" });
      if (kind === "is behind") while (broker.stats().blocked === 0 && broker.stats().sent === 0) await turn();
      price = 1;
      await broker.broadcast("too early", { channels: "b" });
      await broker.subscribe("ann", ["b", "c"]);
      price = 2;
      await broker.broadcast("2", { channels: "b" });
      await before;
      await client.untilData("2");
      expect(client.events.map(labelOf)).toEqual([
        "ready",
        "a 0",
        "snapshot",
        "1",
        "channels",
        expect.stringMatching(/^b [12]$/),
        expect.stringMatching(/^c [12]$/),
        "snapshot",
        "2",
      ]);
      expect(asked).toEqual([
        ["new", ["a"], ["a"]],
        ["joined", ["b", "c"], ["a", "b", "c"]],
      ]);
      const ids = client.events.flatMap(({ id }) => (id === undefined ? [] : [Number(id.split("-")[1])]));
      expect(ids).toEqual([...ids].sort((x, y) => x - y));
    }),
  );
}

test(
  "snapshot: changes of channels while a snapshot is sent, by many clients, leave each with the state and every later event",
  withBroker(async (setup) => {
    const random = new Random(7);
    const values = new Map<string, number>();
    const broker = setup.broker({
      snapshot: async function* ({ channels }) {
        for (const channel of channels) {
          await turn();
          yield { event: "state", data: `${channel} ${values.get(channel) ?? 0}` };
        }
      },
    });
    const rooms = ["a", "b", "c", "d", "e"];
    const clients = await Promise.all(["0", "1", "2", "3"].map((id) => setup.connect(broker, { id, channel: "a" })));
    const joined = clients.map(() => new Set(["a"]));
    let isOver = false;
    const reading = Promise.all(
      clients.map(async (client) => {
        while (!isOver || !client.data.includes("end")) await client.read();
      }),
    );
    for (let step = 0; step < 300; step++) {
      const room = random.pick(rooms);
      const index = random.integer(0, 3);
      const kind = random.integer(0, 5);
      if (kind === 0) {
        await broker.subscribe(`${index}`, room);
        joined[index]?.add(room);
      } else if (kind === 1) {
        await broker.unsubscribe(`${index}`, room);
        joined[index]?.delete(room);
      } else if (kind === 2) {
        await turn();
      } else {
        values.set(room, step + 1);
        await broker.broadcast({ event: "state", data: `${room} ${step + 1}` }, { channels: room });
      }
    }
    while (clients.some((client) => client.control("snapshot").length === 0)) await turn();
    await broker.broadcast("end");
    isOver = true;
    await reading;
    for (const [index, client] of clients.entries()) {
      const state = new Map<string, number>();
      for (const { event, data } of client.events)
        if (event === "state") state.set(data.slice(0, 1), Number(data.slice(2)));
      // Of a room that it is in, a client has the newest value.
      for (const room of joined[index] ?? [])
        expect([index, room, state.get(room) ?? 0]).toEqual([index, room, values.get(room) ?? 0]);
    }
  }),
);
