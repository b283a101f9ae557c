// `subscribe` and `unsubscribe`: the channels of an open stream change, without a reconnect, a loss or a repetition.
import { expect, inject, test } from "vitest";
import { brokerOf } from "../../../src/broker/broker.ts";
import { BrokerCore } from "../../../src/broker/broker-core.ts";
import { resolveOptions } from "../../../src/broker/options.ts";
import type { Broker } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { Random } from "../../support/random.ts";
import { type ConnectOptions, codeOf, type TestSetup, turn, withBroker } from "../../support/test-broker.ts";

async function transcript(client: Connection, last: string): Promise<string[]> {
  await client.untilData(last);
  return client.data;
}

const changesOf = (client: Connection): unknown[] => client.control("channels").map(({ data }) => JSON.parse(data));

const secretOf = (client: Connection): string =>
  (JSON.parse(client.control("ready")[0]?.data ?? "{}") as { secret: string }).secret;

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
    expect(await transcript(tabs[0] as Connection, "end")).toEqual(["1", "2", "end"]);
    expect(await transcript(tabs[1] as Connection, "end")).toEqual(["1", "end"]);
    expect(await transcript(bob, "end")).toEqual(["end"]);
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
    expect(await transcript(client, "3")).toEqual(["1", "3"]);
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
    expect(await transcript(client, "end")).toEqual(["end"]);
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
    expect(await transcript(tabs[0] as Connection, "end")).toEqual(["end"]);
    expect(await transcript(tabs[1] as Connection, "end")).toEqual(["1", "end"]);
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
    const seen = await transcript(client, "3");
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
    expect(await transcript(back, "3")).toEqual(["2", "3"]);
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
    await transcript(client, "2");
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
    expect(await transcript(client, "2")).toEqual(["1", "2"]);
    expect(changesOf(client)).toEqual([
      { channels: [], added: [], removed: ["a"] },
      { channels: ["a"], added: ["a"], removed: [] },
    ]);
    await broker.unsubscribe("ann", "a");
    await broker.broadcast("3", { channels: "a" });
    await broker.broadcast("end");
    expect(await transcript(client, "end")).toEqual(["1", "2", "end"]);
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
    for (const client of [reading, behind]) expect(await transcript(client, "end")).toEqual(["you are out", "end"]);
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
      const seen = await transcript(member.client, "end");
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

async function post(
  broker: Broker,
  path: string,
  body: Record<string, string | string[]> | string,
  init: RequestInit = {},
) {
  const form =
    typeof body === "string"
      ? body
      : new URLSearchParams(Object.entries(body).flatMap(([k, v]) => [v].flat().map((x) => [k, x])));
  const response = await broker.fetch(
    new Request(`https://fanwire.test${path}`, { method: "POST", body: form, ...init }),
  );
  return [response.status, (await response.json()) as { code?: string; position?: string }] as const;
}

test(
  "POST /subscribe and /unsubscribe: a page that presents its stream's secret changes this stream",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [tab, other] = [await setup.join(broker, { id: "ann" }), await setup.join(broker, { id: "ann" })];
    const secret = secretOf(tab);
    expect(secret).toMatch(/^[0-9a-v]{26}$/);
    expect(secretOf(other)).not.toBe(secret);
    const [status, answer] = await post(broker, "/subscribe", { secret, channel: ["a", "b"] });
    expect([status, answer]).toEqual([200, { position: (await broker.history({ limit: 0 })).position }]);
    expect(await post(broker, "/unsubscribe?channel=b", { secret })).toEqual([200, {}]);
    await broker.broadcast("1", { channels: "a" });
    await broker.broadcast("2", { channels: "b" });
    await broker.broadcast("end");
    expect(await transcript(tab, "end")).toEqual(["1", "end"]);
    expect(await transcript(other, "end")).toEqual(["end"]);
    expect(changesOf(tab)).toEqual([
      { channels: ["a", "b"], added: ["a", "b"], removed: [] },
      { channels: ["a"], added: [], removed: ["b"] },
    ]);
  }),
);

test(
  "POST /subscribe: authorize is asked about the channels that are added, and the secret counts for its subject only",
  withBroker(async (setup) => {
    const asked: unknown[] = [];
    const broker = setup.broker({
      authorize: ({ request, action, channels, clientId }) => {
        const subject = request.headers.get("x-user") ?? "";
        asked.push([action, channels, clientId]);
        return { subject, clientId: subject, channels: subject === "ann" ? ["a", "b"] : ["a"] };
      },
    });
    const ann = await setup.join(broker, { channel: "a", headers: { "x-user": "ann" } });
    const secret = secretOf(ann);
    const as = (user: string): RequestInit => ({ headers: { "x-user": user } });
    expect((await post(broker, "/subscribe", { secret, channel: "b" }, as("ann")))[0]).toBe(200);
    expect(asked).toEqual([
      ["connect", ["a"], undefined],
      ["connect", ["b"], undefined],
    ]);
    expect(await post(broker, "/subscribe", { secret, channel: "c" }, as("ann"))).toMatchObject([
      403,
      { code: "forbidden" },
    ]);
    expect(await post(broker, "/subscribe", { secret, channel: "a" }, as("bob"))).toMatchObject([
      404,
      { code: "unknown-stream" },
    ]);
    expect(await post(broker, "/unsubscribe", { secret, channel: "a" }, as("bob"))).toMatchObject([
      404,
      { code: "unknown-stream" },
    ]);
    await broker.broadcast("end", { channels: "b" });
    expect(await transcript(ann, "end")).toEqual(["end"]);
    // A channel that is no longer granted can still be left.
    expect((await post(broker, "/unsubscribe", { secret, channel: "c" }, as("ann")))[0]).toBe(200);
  }),
);

test(
  "POST /subscribe: no secret of a stream that has ended is kept",
  withBroker(async (setup) => {
    const core = new BrokerCore(resolveOptions({ engine: setup.engine() }));
    const broker = brokerOf(core);
    const clients = [await setup.join(broker), await setup.join(broker)];
    const { bySecret } = core.open().registry;
    expect([...bySecret.keys()]).toEqual(clients.map(secretOf));
    for (const client of clients) await client.leave();
    expect(bySecret.size).toBe(0);
    await broker.close();
  }),
);

test(
  "POST /subscribe: a secret counts no longer when its stream has ended",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ann" });
    const secret = secretOf(client);
    await client.leave();
    expect(await post(broker, "/subscribe", { secret, channel: "a" })).toMatchObject([404, { code: "unknown-stream" }]);
    await broker.close();
    expect(await post(broker, "/subscribe", { secret, channel: "a" })).toMatchObject([503, { code: "closed" }]);
  }),
);

for (const [name, path, body, status, code] of [
  ["no secret", "/subscribe", { channel: "a" }, 400, "bad-request"],
  ["an unknown secret", "/subscribe", { secret: "x".repeat(26), channel: "a" }, 404, "unknown-stream"],
  ["two secrets", "/subscribe", { secret: ["x", "y"], channel: "a" }, 400, "bad-request"],
  ["the secret in the URL", "/subscribe?secret=x", { channel: "a" }, 400, "bad-request"],
  ["no channel", "/subscribe", { secret: "x" }, 400, "bad-channel"],
  ["no channel", "/unsubscribe", { secret: "x" }, 400, "bad-channel"],
  ["a bad channel", "/subscribe", { secret: "x", channel: "fanwire-common" }, 400, "bad-channel"],
  ["too many channels", "/subscribe", { secret: "x", channel: ["a", "b", "c", "d"] }, 400, "bad-channel"],
  ["an unknown parameter", "/subscribe", { secret: "x", channel: "a", chanel: "b" }, 400, "bad-request"],
] as const) {
  test(
    `POST ${path}: ${name} is ${status} ${code}`,
    withBroker(async (setup) => {
      const broker = setup.broker({ maxChannelsPerClient: 3 });
      await setup.join(broker, { id: "ann" });
      expect(await post(broker, path, body as Record<string, string>)).toMatchObject([status, { code }]);
      expect(broker.clients()[0]?.channels).toEqual([]);
    }),
  );
}

test(
  "POST /subscribe: a body that is no form is 415, another method 405, and a path that is turned off 404",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const json = { headers: { "content-type": "application/json" } };
    expect(await post(broker, "/subscribe", "{}", json)).toMatchObject([415, { code: "unsupported-media-type" }]);
    const get = await broker.fetch(new Request("https://fanwire.test/subscribe"));
    expect([get.status, get.headers.get("allow")]).toEqual([405, "POST, OPTIONS"]);
    const closed = setup.broker({ paths: { subscribe: false, unsubscribe: false } });
    const client = await setup.join(closed, { id: "ann" });
    expect(JSON.parse(client.control("ready")[0]?.data ?? "")).not.toHaveProperty("secret");
    expect(await post(closed, "/subscribe", { secret: "x", channel: "a" })).toMatchObject([404, { code: "not-found" }]);
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
    expect(await codeOf(setup.join(broker, { id: "bob", channel: "a" }))).not.toBe("");
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
    expect(await transcript(client, "end")).toEqual(["end"]);
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

async function readyTab(setup: TestSetup, broker: Broker): Promise<Connection> {
  return setup.join(broker, { id: "ann" });
}

test(
  "disconnect: the application's reason reaches the page",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await readyTab(setup, broker);
    await broker.disconnect("ann", { blockFor: 1_000, reason: "spam\n\ud800" });
    await client.ended();
    expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({
      reason: "disconnected",
      reconnect: false,
      detail: "spam\n\ufffd",
    });
  }),
);

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
      await transcript(client, "2");
      const names = client.events.map(({ event, data }) => (event?.startsWith("fanwire-") ? event.slice(8) : data));
      expect(names).toEqual([
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
