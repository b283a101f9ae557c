// `subscribe` and `unsubscribe`: the channels of an open stream change, without a reconnect, a loss or a repetition.
import { expect, inject, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { type Connection, changesOf } from "../../support/clients/connection.ts";
import { Random } from "../../support/random.ts";
import { type ConnectOptions, clientRequest, codeOf, turn, withBroker } from "../../support/test-broker.ts";

test(
  "subscribe: every connection of the client joins, receives what follows, and is told",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const tabs = [await setup.join(broker, { id: "ann", channel: "a" }), await setup.join(broker, { id: "ann" })];
    const bob = await setup.join(broker, { id: "bob" });
    await broker.broadcast("before", { channels: "b" });
    const { clients, position } = await broker.subscribe("ann", ["b", "c"]);
    expect([clients, position]).toEqual([2, (await broker.history({ limit: 0 })).position]);
    await broker.broadcast("1", { channels: ["b", "c"] });
    await broker.broadcast("2", { channels: "a" });
    await broker.broadcast("end");
    expect(await tabs[0]?.readThrough("end")).toEqual(["1", "2", "end"]);
    expect(await tabs[1]?.readThrough("end")).toEqual(["1", "end"]);
    expect(await bob.readThrough("end")).toEqual(["end"]);
    expect(changesOf(tabs[0] as Connection)).toEqual([{ channels: ["a", "b", "c"], added: ["b", "c"], removed: [] }]);
    expect(changesOf(tabs[1] as Connection)).toEqual([{ channels: ["b", "c"], added: ["b", "c"], removed: [] }]);
    expect(tabs[0]?.control("channels")[0]?.id).toBeUndefined();
    expect(broker.clients().map(({ clientId, channels }) => [clientId, channels])).toEqual([
      ["ann", ["a", "b", "c"]],
      ["ann", ["b", "c"]],
      ["bob", []],
    ]);
  }),
);

test(
  "unsubscribe: nothing of the channel follows, and the reason reaches the page",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ann", channel: ["a", "b"] });
    await broker.broadcast("1", { channels: "b" });
    expect(await broker.unsubscribe("ann", ["b", "never"], { reason: "kicked: \n”é" })).toEqual({ clients: 1 });
    await broker.broadcast("2", { channels: "b" });
    await broker.broadcast("3", { channels: ["a", "b"] });
    expect(await client.readThrough("3")).toEqual(["1", "3"]);
    expect(changesOf(client)).toEqual([{ channels: ["a"], added: [], removed: ["b"], reason: "kicked: \n”é" }]);
    expect(client.events.map(({ event, data }) => event ?? data)).toEqual([
      "fanwire-ready",
      "1",
      "fanwire-channels",
      "3",
    ]);
  }),
);

test(
  "subscribe and unsubscribe: of what is read or not read already nothing changes, and nothing is told",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ann", channel: "a" });
    expect(await broker.subscribe("ann", "a")).toMatchObject({ clients: 1 });
    expect(await broker.unsubscribe("ann", "b")).toEqual({ clients: 1 });
    expect(await broker.subscribe("nobody", "a")).toMatchObject({ clients: 0 });
    await broker.broadcast("end", { channels: "a" });
    expect(await client.readThrough("end")).toEqual(["end"]);
    expect(client.control("channels")).toEqual([]);
  }),
);

test(
  "connectionId: only that connection changes",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const tabs = [await setup.join(broker, { id: "ann" }), await setup.join(broker, { id: "ann" })];
    const connectionId = broker.clients()[1]?.connectionId as string;
    expect(await broker.subscribe("ann", "a", { connectionId })).toMatchObject({ clients: 1 });
    expect(await broker.subscribe("bob", "a", { connectionId })).toMatchObject({ clients: 0 });
    await broker.broadcast("1", { channels: "a" });
    await broker.broadcast("end");
    expect(await tabs[0]?.readThrough("end")).toEqual(["end"]);
    expect(await tabs[1]?.readThrough("end")).toEqual(["1", "end"]);
    expect(await broker.unsubscribe("ann", "a", { connectionId })).toEqual({ clients: 1 });
  }),
);

test(
  "subscribe: a client that is behind joins at its position, with the announcement before the first event, and without a gap",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 2 } } });
    const client = await setup.join(broker, { id: "ann", channel: "a" });
    await broker.broadcast("1", { channels: "a" });
    // Dropped before the client joins: nothing of it is its loss.
    for (const data of ["x", "y", "z"]) await broker.broadcast(data, { channels: "b" });
    while (broker.stats().blocked === 0) await turn();
    await broker.subscribe("ann", "b");
    await broker.broadcast("2", { channels: "b" });
    await broker.broadcast("3", { channels: "a" });
    const seen = await client.readThrough("3");
    expect(client.control("gap")).toEqual([]);
    expect(seen.filter((data) => !["y", "z"].includes(data))).toEqual(["1", "2", "3"]);
    const order = client.events.map(({ event, data }) => event ?? data);
    expect(order.indexOf("fanwire-channels")).toBeLessThan(
      Math.min(...["y", "z", "2"].map((data) => (order.indexOf(data) + 1000) % 1000)),
    );
  }),
);

test(
  "subscribe: what is lost after a client has joined is a gap",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 2 } } });
    const client = await setup.join(broker, { id: "ann" });
    await broker.subscribe("ann", "b");
    await client.untilControl("channels");
    const { lastEventId = "" } = client;
    client.abort();
    for (const data of ["1", "2", "3"]) await broker.broadcast(data, { channels: "b" });
    const back = await setup.connect(broker, { id: "ann", channel: "b", lastEventId });
    expect(await back.readThrough("3")).toEqual(["2", "3"]);
    expect(back.control("gap")).toHaveLength(1);
  }),
);

test(
  "unsubscribe: a client that is overrun afterwards receives nothing of the channel either",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { logBytes: 1_000 } });
    const client = await setup.join(broker, { id: "ann", channel: "a" });
    await broker.broadcast("taken", { channels: "a" });
    while (broker.stats().blocked === 0) await turn();
    await broker.subscribe("ann", "b");
    await broker.unsubscribe("ann", "b");
    await broker.broadcast("not for ann", { channels: "b" });
    for (let n = 0; n < 3; n++) await broker.broadcast(`${n}`, { channels: "a" });
    await client.untilData("2");
    expect(client.data).not.toContain("not for ann");
    expect(client.control("gap").length).toBeGreaterThan(0);
  }),
);

test(
  "unsubscribe and subscribe again, while the client is behind: it misses nothing, and is told both times",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ann", channel: "a" });
    await broker.broadcast("1", { channels: "a" });
    while (broker.stats().blocked === 0) await turn();
    await broker.unsubscribe("ann", "a");
    await broker.subscribe("ann", "a");
    await broker.broadcast("2", { channels: "a" });
    expect(await client.readThrough("2")).toEqual(["1", "2"]);
    expect(changesOf(client)).toEqual([
      { channels: [], added: [], removed: ["a"] },
      { channels: ["a"], added: ["a"], removed: [] },
    ]);
    await broker.unsubscribe("ann", "a");
    await broker.broadcast("3", { channels: "a" });
    await broker.broadcast("end");
    expect(await client.readThrough("end")).toEqual(["1", "2", "end"]);
  }),
);

test(
  "unsubscribe: what was published just before reaches a live client and one that is behind",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const reading = await setup.join(broker, { id: "ann", channel: "a" });
    const behind = await setup.join(broker, { id: "ann", channel: "a" });
    // It asks for more, and is live until something comes.
    const live = reading.read();
    await broker.broadcast("you are out", { channels: "a" });
    await broker.unsubscribe("ann", "a");
    await broker.broadcast("behind your back", { channels: "a" });
    await broker.broadcast("end");
    await live;
    for (const client of [reading, behind]) expect(await client.readThrough("end")).toEqual(["you are out", "end"]);
  }),
);

test(
  "subscribe: random changes, events, stalls and drops: each client receives what its channels had, once and in order",
  withBroker(async (setup) => {
    const random = new Random(20261130);
    const broker = setup.broker();
    const rooms = ["a", "b", "c", "d"];
    /** What each client must receive, in order. */
    interface Member {
      client: Connection;
      channels: Set<string>;
      expected: string[];
      received: string[];
    }
    const open = async (id: string, options: ConnectOptions): Promise<Connection> =>
      setup.join(broker, { id, ...options });
    const members: Member[] = [];
    for (const id of ["0", "1", "2"])
      members.push({ client: await open(id, {}), channels: new Set(), expected: [], received: [] });
    let published = 0;
    // More of them where a turn of the event loop is short.
    const steps = inject("part") === "node" ? 2_000 : 400;
    for (let step = 0; step < steps; step++) {
      const index = random.integer(0, 2);
      const member = members[index] as Member;
      const names = rooms.filter(() => random.integer(0, 1) === 1);
      const kind = random.integer(0, 9);
      if (kind < 5 && names.length > 0) {
        const data = `${++published}`;
        await broker.broadcast(data, { channels: names });
        for (const each of members) if (names.some((name) => each.channels.has(name))) each.expected.push(data);
      } else if (kind === 5 && names.length > 0) {
        // Joins when it has read everything, so that the test knows where its position is.
        await drain(member);
        await broker.subscribe(`${index}`, names);
        for (const name of names) member.channels.add(name);
      } else if (kind === 6 && names.length > 0) {
        await drain(member);
        await broker.unsubscribe(`${index}`, names);
        for (const name of names) member.channels.delete(name);
      } else if (kind === 7) {
        await drain(member);
      } else if (kind === 8) {
        await turn();
      } else if (random.integer(0, 4) === 0) {
        const { lastEventId = "" } = member.client;
        member.received.push(...member.client.data.slice(0, taken(member.client)));
        await member.client.leave();
        member.client = await setup.connect(broker, { id: `${index}`, channel: [...member.channels], lastEventId });
        await member.client.untilControl("ready");
      }
    }
    await broker.broadcast("end");
    for (const member of members) {
      const seen = await member.client.readThrough("end");
      expect(member.client.control("gap")).toEqual([]);
      expect([...member.received, ...seen]).toEqual([...member.expected, "end"]);
    }

    async function drain({ client }: Member): Promise<void> {
      const mark = `mark ${published}`;
      // An ephemeral mark would be dropped for a client that is behind.
      await broker.broadcastTo(clientIdOf(client), mark);
      await client.untilData(mark);
      for (const member of members) if (member.client === client) member.expected.push(mark);
    }
    function clientIdOf(client: Connection): string {
      return client.clientId;
    }
    /** How many events a client has taken, of those that it has read. */
    function taken(client: Connection): number {
      const last = client.events.findIndex(({ id }) => id !== undefined && id === client.lastEventId);
      return client.events.slice(0, last + 1).filter(({ event }) => !event?.startsWith("fanwire-")).length;
    }
  }),
);

test(
  "bounds: maxChannelsPerClient and maxSubscriptions count joined channels, all or none, and leaving makes room",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxChannelsPerClient: 3, maxSubscriptions: 4 });
    await setup.join(broker, { id: "ann", channel: "a" });
    const full = await setup.join(broker, { id: "ann", channel: ["a", "b"] });
    expect(await codeOf(broker.subscribe("ann", ["c", "d"]))).toBe("bad-channel");
    expect(await codeOf(broker.subscribe("ann", "c"))).toBe("at-capacity");
    expect(broker.clients().map(({ channels }) => channels)).toEqual([["a"], ["a", "b"]]);
    await broker.unsubscribe("ann", "b");
    expect(await broker.subscribe("ann", "c")).toMatchObject({ clients: 2 });
    const refused = await broker.fetch(clientRequest({ id: "bob", channel: "a" }));
    expect(await refused.text()).toContain('fanwire-end\ndata: {"reason":"at-capacity","reconnect":true}');
    await full.leave();
    while (broker.stats().clients > 1) await turn();
    await setup.join(broker, { id: "bob", channel: "a" });
  }),
);

test(
  "announce: false: the channels change, and nothing is told",
  withBroker(async (setup) => {
    const broker = setup.broker({ announce: false });
    const client = await setup.connect(broker, { id: "ann" });
    await client.read();
    await broker.subscribe("ann", "a");
    await broker.broadcast("end", { channels: "a" });
    expect(await client.readThrough("end")).toEqual(["end"]);
    expect(client.events.map(({ event }) => event)).toEqual([undefined]);
  }),
);

for (const [call, error] of [
  [(broker: Broker) => broker.subscribe("", "a"), "bad-id"],
  [(broker: Broker) => broker.subscribe("ann", ""), "bad-channel"],
  [(broker: Broker) => broker.subscribe("ann", []), "bad-channel"],
  [(broker: Broker) => broker.subscribe("ann", "a", { connectionId: "" }), "TypeError"],
  [(broker: Broker) => broker.subscribe("ann", "a", { connectionID: "x" } as object), "TypeError"],
  [(broker: Broker) => broker.unsubscribe("ann", "a", { reason: 1 } as object), "TypeError"],
  [(broker: Broker) => broker.unsubscribe("ann", "a", { reason: "x".repeat(1_025) }), "TypeError"],
  [(broker: Broker) => broker.disconnect("ann", { reason: "x".repeat(1_025) }), "TypeError"],
] as const) {
  test(
    `bad arguments: ${String(call).replace(/\s+/g, " ").slice(0, 90)} is ${error}`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      await setup.join(broker, { id: "ann" });
      expect(await codeOf(call(broker))).toBe(error);
      expect(broker.clients()[0]?.channels).toEqual([]);
    }),
  );
}
