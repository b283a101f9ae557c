// Events for one connection: `broadcastTo(…, { connectionId })`, and `send` of `onConnect`.
import { expect, test } from "vitest";
import type { Broker, ConnectEvent, SendOptions } from "../../../src/index.ts";
import { type Connection, isData } from "../../support/clients/connection.ts";
import { codeOf, Recorder, turn, withBroker } from "../../support/test-broker.ts";

test(
  "connectionId: only that connection receives the event, in order with the others, without an id, and it is not stored",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const tabs = [await setup.join(broker, { id: "ann" }), await setup.join(broker, { id: "ann" })];
    const { connectionId } = broker.clients()[1] as { connectionId: string };
    await broker.broadcast("1");
    expect(await broker.broadcastTo("ann", { event: "state", data: "2" }, { connectionId })).toEqual({ clients: 1 });
    await broker.broadcast("3");
    expect(await tabs[0]?.readThrough("3")).toEqual(["1", "3"]);
    const second = tabs[1] as Connection;
    expect(await second.readThrough("3")).toEqual(["1", "2", "3"]);
    expect(second.events.filter(isData).map(({ id }) => id !== undefined)).toEqual([true, false, true]);
    expect(broker.stats().log.events).toBe(2);
  }),
);

test(
  "connectionId: an event waits for a client that is behind, in its place",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ann" });
    const { connectionId } = broker.clients()[0] as { connectionId: string };
    await broker.broadcast("1");
    while (broker.stats().blocked === 0) await turn();
    await broker.broadcastTo("ann", "2", { connectionId });
    await broker.broadcast("3");
    await turn();
    expect(await client.readThrough("3")).toEqual(["1", "2", "3"]);
  }),
);

test(
  "connectionId: 64 events may wait; one more is at-capacity, and none of them is lost",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ann" });
    const other = await setup.join(broker, { id: "bob" });
    const { connectionId } = broker.clients()[0] as { connectionId: string };
    await broker.broadcast("first");
    while (broker.stats().blocked === 0) await turn();
    const sent: string[] = [];
    for (let n = 0; n < 64; n++) {
      sent.push(`${n}`);
      await broker.broadcastTo("ann", `${n}`, { connectionId });
    }
    expect(await codeOf(broker.broadcastTo("ann", "65", { connectionId }))).toBe("at-capacity");
    // Ephemeral events never take the place of these.
    for (let n = 0; n < 10; n++) await broker.broadcast("typing", { ephemeral: true });
    await broker.broadcast("end");
    // Everything was offered to both.
    await other.untilData("end");
    const seen = await client.readThrough("end");
    expect(seen.filter((data) => data !== "typing")).toEqual(["first", ...sent, "end"]);
    expect(await broker.broadcastTo("ann", "again", { connectionId })).toEqual({ clients: 1 });
  }),
);

test(
  "connectionId: an unknown connection, another client's, and one that has ended are unknown-client",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ann" });
    const { connectionId } = broker.clients()[0] as { connectionId: string };
    expect(await codeOf(broker.broadcastTo("ann", "x", { connectionId: "none" }))).toBe("unknown-client");
    expect(await codeOf(broker.broadcastTo("bob", "x", { connectionId }))).toBe("unknown-client");
    await client.leave();
    expect(await codeOf(broker.broadcastTo("ann", "x", { connectionId }))).toBe("unknown-client");
  }),
);

for (const options of [
  { connectionId: "" },
  { connectionId: 1 },
  { connectionId: null },
  { connectionId: "x", report: true },
  { connectionId: "x", idempotencyKey: "k" },
  { connectionId: "x", ephemeral: true },
]) {
  test(
    `connectionId: ${JSON.stringify(options)} is a TypeError`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      await setup.join(broker, { id: "ann" });
      await expect(broker.broadcastTo("ann", "x", options as SendOptions)).rejects.toThrow(TypeError);
    }),
  );
}

test(
  "onConnect: send() writes to its own connection, behind the replay and before what follows: three tabs receive one each",
  withBroker(async (setup) => {
    let opened = 0;
    const broker: Broker = setup.broker({
      onConnect: ({ send, client }) => {
        opened++;
        send({ event: "welcome", data: `${opened} ${client.channels}` });
        send(`second for ${opened}`);
      },
    });
    const { position } = await broker.history({ limit: 0 });
    await broker.broadcast("missed", { channels: "a" });
    const tabs: Connection[] = [];
    for (let n = 0; n < 3; n++)
      tabs.push(await setup.join(broker, { id: "ann", channel: "a", ...(n === 2 ? { lastEventId: position } : {}) }));
    await broker.broadcast("end");
    expect(await tabs[0]?.readThrough("end")).toEqual(["1 a", "second for 1", "end"]);
    expect(await tabs[1]?.readThrough("end")).toEqual(["2 a", "second for 2", "end"]);
    expect(await tabs[2]?.readThrough("end")).toEqual(["missed", "3 a", "second for 3", "end"]);
  }),
);

test(
  "onConnect: send() refuses what is not an event, throws beyond 64 items, and does nothing once the connection has ended",
  withBroker(async (setup) => {
    const connects = new Recorder<ConnectEvent>();
    const broker = setup.broker({ onConnect: connects.record });
    const client = await setup.join(broker, { id: "ann" });
    const { send } = await connects.next();
    expect(() => send({ data: undefined } as never)).toThrow(TypeError);
    expect(() => send({ event: "fanwire-x", data: "x" })).toThrow(/reserved/);
    await broker.broadcast("first");
    while (broker.stats().blocked === 0) await turn();
    for (let n = 0; n < 64; n++) send(`${n}`);
    expect(() => send("65")).toThrow(/64 items/);
    await client.leave();
    send("gone");
    expect(broker.stats().clients).toBe(0);
  }),
);
