// Ephemeral events: in order with the others, at most once, without an id, and never stored.
import { afterEach, expect, test, vi } from "vitest";
import type { BroadcastOptions, Broker } from "../../../src/index.ts";
import { isData } from "../../support/clients/connection.ts";
import { codeOf, eventRequest, type TestSetup, turn, withBroker } from "../../support/test-broker.ts";

const typing = (broker: Broker, data: string, channels?: BroadcastOptions["channels"]) =>
  broker.broadcast({ event: "typing", data }, { ephemeral: true, ...(channels ? { channels } : {}) });

test(
  "ephemeral: in order with stored events, without an id, and answered without one",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { channel: "room" });
    // Read as it comes: an ephemeral event waits for 250 ms only.
    const read = client.readThrough("6");
    await typing(broker, "1", "room");
    await broker.broadcast("2", { channels: "room" });
    expect(await typing(broker, "3", "room")).toEqual({ clients: 1 });
    await typing(broker, "4");
    const { id } = await broker.broadcast("5");
    await typing(broker, "6", "room");
    expect(await read).toEqual(["1", "2", "3", "4", "5", "6"]);
    expect(client.events.filter(isData).map((event) => event.id !== undefined)).toEqual([
      false,
      true,
      false,
      false,
      true,
      false,
    ]);
    expect(client.lastEventId).toBe(id);
    expect(client.events.filter(isData)[0]).toMatchObject({ event: "typing", data: "1" });
  }),
);

test(
  "ephemeral: events of one turn keep the order of the calls",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const clients = [await setup.join(broker, { channel: "a" }), await setup.join(broker, { channel: ["a", "b"] })];
    const reads = clients.map((client) => client.readThrough("59"));
    const sent: string[] = [];
    for (let n = 0; n < 60; n++) {
      const options = { channels: n % 3 ? "a" : ["a", "b"] };
      sent.push(`${n}`);
      void (n % 2 ? broker.broadcast(`${n}`, { ...options, ephemeral: true }) : broker.broadcast(`${n}`, options));
    }
    for (const read of reads) expect(await read).toEqual(sent);
  }),
);

test(
  "ephemeral: a client of several of its channels receives it once, others not at all",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const both = await setup.join(broker, { channel: ["a", "b"] });
    const other = await setup.join(broker, { channel: "c" });
    const [read, readOther] = [both.readThrough("end"), other.readThrough("end")];
    expect(await typing(broker, "once", ["a", "b"])).toEqual({ clients: 1 });
    await broker.broadcast("end");
    expect(await read).toEqual(["once", "end"]);
    expect(await readOther).toEqual(["end"]);
  }),
);

test(
  "ephemeral: 10,000 in a channel that retains 100 events evict nothing, and are never replayed or reported as a gap",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 100 } } });
    const client = await setup.join(broker, { channel: "room" });
    const { lastEventId = "" } = client;
    const messages = Array.from({ length: 100 }, (_, n) => `message ${n}`);
    for (const data of messages) await broker.broadcast(data, { channels: "room" });
    for (let n = 0; n < 10_000; n++) await typing(broker, `${n}`, "room");
    expect(broker.stats().log).toMatchObject({ events: 100 });
    const { events, gaps } = await broker.history({ channels: "room" });
    expect([events.map(({ data }) => data), gaps]).toEqual([messages, []]);
    const back = await setup.connect(broker, { channel: "room", lastEventId });
    await broker.broadcast("end", { channels: "room" });
    // Only 100 are retained, so the first message left when "end" came.
    expect(await back.readThrough("end")).toEqual(
      [...messages, "end"].filter((_, n) => n > 0 || back.control("gap").length === 0),
    );
  }),
);

afterEach(() => void vi.restoreAllMocks());

/**
 * Connects a client that takes nothing while an event waits for it. Time stands still from then on. `untilFlushed` resolves when everything that
 * was published before was flushed: another client has it.
 */
async function block(setup: TestSetup) {
  const broker = setup.broker();
  const client = await setup.join(broker, { channel: "room" });
  await broker.broadcast("waits", { channels: "room" });
  while (broker.stats().blocked === 0) await turn();
  moveTimeTo(Date.now());
  const watcher = await setup.join(broker, { channel: "watched" });
  let count = 0;
  const untilFlushed = async (): Promise<void> => {
    await broker.broadcast(`mark ${++count}`, { channels: "watched" });
    await watcher.untilData(`mark ${count}`);
  };
  return { broker, client, untilFlushed };
}

const moveTimeTo = (time: number): void => void vi.spyOn(Date, "now").mockReturnValue(time);

test(
  "ephemeral: a client that does not read in time receives none, and no gap",
  withBroker(async (setup) => {
    const { broker, client, untilFlushed } = await block(setup);
    await typing(broker, "missed", "room");
    await untilFlushed();
    moveTimeTo(Date.now() + 251);
    expect(await client.readThrough("waits")).toEqual(["waits"]);
    await typing(broker, "seen", "room");
    expect(await client.readThrough("seen")).toEqual(["waits", "seen"]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "ephemeral: a client that takes something else at the moment receives it in its place",
  withBroker(async (setup) => {
    const { broker, client, untilFlushed } = await block(setup);
    await typing(broker, "typing", "room");
    await broker.broadcast("end", { channels: "room" });
    await untilFlushed();
    expect(await client.readThrough("end")).toEqual(["waits", "typing", "end"]);
  }),
);

test(
  "ephemeral: of a flood only the newest wait for a blocked client",
  withBroker(async (setup) => {
    const { broker, client, untilFlushed } = await block(setup);
    for (let n = 0; n < 1_000; n++) await typing(broker, `${n}`, "room");
    await broker.broadcast("end", { channels: "room" });
    await untilFlushed();
    const data = await client.readThrough("end");
    expect(data.length).toBeLessThan(100);
    const kept = data.filter((text) => /^\d+$/.test(text)).map(Number);
    expect(kept).toEqual([...kept].sort((a, b) => a - b));
    expect(data.filter((text) => !/^\d+$/.test(text))).toEqual(["waits", "end"]);
  }),
);

test(
  "ephemeral: broadcastTo reaches the client's connections, and listen() and history() never see it",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const tabs = [await setup.join(broker, { id: "ann" }), await setup.join(broker, { id: "ann" })];
    const bob = await setup.join(broker, { id: "bob" });
    const reads = tabs.map((tab) => tab.readThrough("end"));
    const readOfBob = bob.readThrough("end");
    const heard = broker.listen();
    expect(await broker.broadcastTo("ann", "for ann", { ephemeral: true })).toEqual({ clients: 2 });
    await typing(broker, "for all");
    await broker.broadcast("end");
    for (const read of reads) expect(await read).toEqual(["for ann", "for all", "end"]);
    expect(await readOfBob).toEqual(["for all", "end"]);
    expect((await heard.next()).value).toMatchObject({ data: "end" });
    expect((await broker.history()).events.map(({ data }) => data)).toEqual(["end"]);
    expect(await codeOf(broker.broadcastTo("nobody", "x", { ephemeral: true }))).toBe("unknown-client");
  }),
);

test(
  "ephemeral: brokers that share an engine all deliver it",
  withBroker(async (setup) => {
    const engine = setup.engine();
    const [one, two] = [setup.broker({ engine }), setup.broker({ engine })];
    const clients = [await setup.join(one, { channel: "a" }), await setup.join(two, { channel: "a" })];
    const reads = clients.map((client) => client.readThrough("end"));
    await typing(one, "typing", "a");
    await two.broadcast("end", { channels: "a" });
    for (const read of reads) expect(await read).toEqual(["typing", "end"]);
  }),
);

test(
  "ephemeral: ?ephemeral=true publishes one over HTTP, and the override wins",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { channel: "a" });
    const post = (query: string, overrides = {}) => broker.eventHandler(eventRequest("text", query), overrides);
    expect(await (await post("?channel=a&ephemeral=true")).json()).toEqual({ clients: 1 });
    expect(await (await post("?channel=a&ephemeral=false")).json()).toMatchObject({ id: expect.any(String) });
    expect(await (await post("?channel=a&ephemeral=false", { ephemeral: true })).json()).toEqual({ clients: 1 });
    await broker.broadcast("end");
    await client.untilData("end");
    expect(client.events.filter(isData).map(({ id }) => id !== undefined)).toEqual([false, true, false, true]);
  }),
);

for (const [query, headers] of [
  ["?ephemeral=yes", {}],
  ["?ephemeral=TRUE", {}],
  ["?ephemeral=true&ephemeral=true", {}],
  ["?ephemral=true", {}],
  ["?ephemeral=true", { "idempotency-key": "k" }],
] as const) {
  test(
    `ephemeral: ${query} with ${JSON.stringify(headers)} is refused, and reaches nobody`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      const client = await setup.join(broker);
      const response = await broker.eventHandler(eventRequest("text", query, { headers }));
      expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([400, "bad-request"]);
      await broker.broadcast("end");
      expect(await client.readThrough("end")).toEqual(["end"]);
    }),
  );
}

test(
  "ephemeral: not together with report or idempotencyKey, and nothing but true or false",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (const options of [
      { ephemeral: true, report: true },
      { ephemeral: true, idempotencyKey: "k" },
      { ephemeral: "true" },
      { ephemeral: 1 },
      { ephemeral: null },
    ])
      await expect(broker.broadcast("x", options as BroadcastOptions)).rejects.toThrow(TypeError);
    expect(broker.stats().published).toBe(0);
  }),
);
