// `close({ force: true })`: ends every stream at once, and cuts short a `close()` that is under way.
import { expect, test } from "vitest";
import type { CloseOptions } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { codeOf, turn, withBroker } from "../../support/test-broker.ts";

/** The test fails by its own time limit if anything waits for this long. */
const TOO_LONG = 3_600_000;
const nothing = { clients: 0, ids: 0, blocked: 0, closing: 0, channels: 0 };

/** Reads a stream to its end. Returns the data of its last event. */
async function lastOf(client: Connection): Promise<unknown> {
  expect(await client.ended()).toBe("closed");
  expect(client.events.at(-1)?.event).toBe("fanwire-end");
  return JSON.parse(client.events.at(-1)?.data ?? "");
}

test(
  "close({ force }): sends pending events and fanwire-end to clients that read, and aborts every other stream",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: TOO_LONG, engine: setup.immediateEngine() });
    const unread = await setup.connect(broker, { id: "unread" });
    const blocked = await setup.join(broker, { id: "blocked" });
    await broker.broadcast("x");
    const reading = [await setup.join(broker), await setup.join(broker)];
    const ends = reading.map(lastOf);
    await turn();
    void broker.broadcast("pending");

    await broker.close({ force: true });

    expect(broker.stats()).toMatchObject({ ...nothing, disconnects: { closing: 4 } });
    for (const end of ends) expect(await end).toEqual({ reason: "closing", reconnect: true });
    for (const client of reading) expect(client.data).toEqual(["pending"]);
    for (const client of [unread, blocked]) {
      expect(await client.ended()).toBe("closed");
      expect(client.control("end")).toEqual([]);
    }
  }),
);

test(
  "close({ force }): cuts short a close() that waits for a client, and resolves the same promise",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: TOO_LONG });
    const unread = await setup.connect(broker, { id: "unread" });
    const closed = broker.close();
    await turn();
    expect(broker.stats().closing).toBe(1);
    expect(broker.close({ force: true })).toBe(closed);
    await closed;
    expect(await unread.ended()).toBe("closed");
    expect(unread.control("end")).toEqual([]);
    expect(broker.stats()).toMatchObject(nothing);
  }),
);

test(
  "close({ force }): cuts short a close({ spreadOver }), and ends the streams whose turn has not come",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: TOO_LONG });
    const ends = [];
    for (let client = 0; client < 5; client++) ends.push(lastOf(await setup.join(broker)));
    await turn();
    const closed = broker.close({ spreadOver: TOO_LONG });
    await turn();
    await turn();
    expect(broker.stats().clients).toBe(4);
    void broker.close({ force: true });
    await closed;
    for (const end of ends) expect(await end).toEqual({ reason: "closing", reconnect: true });
    expect(broker.stats()).toMatchObject(nothing);
  }),
);

test(
  "close({ force }): aborts streams whose end event from disconnect() was not read",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: TOO_LONG });
    const unread = await setup.connect(broker, { id: "unread" });
    await broker.disconnect("unread");
    expect(broker.stats().closing).toBe(1);
    await broker.close({ force: true });
    expect(await unread.ended()).toBe("closed");
    expect(unread.control("end")).toEqual([]);
    expect(broker.stats()).toMatchObject(nothing);
  }),
);

test(
  "close({ force }): does not wait for an engine that answers no append",
  withBroker(async (setup) => {
    const memory = setup.engine();
    let answer = (): void => undefined;
    const engine = slowEngine(memory, () => new Promise<void>((resolve) => (answer = resolve)));
    for (const isUnderWay of [false, true]) {
      const broker = setup.broker({ engine, timeout: TOO_LONG });
      const published = codeOf(broker.broadcast("never answered"));
      await turn();
      if (isUnderWay) void broker.close();
      await turn();
      await broker.close({ force: true });
      answer();
      await published;
    }
  }),
);

test(
  "close({ force }): is refused with a value that is not a boolean, or with spreadOver, and then changes nothing",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    const invalid: unknown[] = [
      { force: 1 },
      { force: "yes" },
      { force: null },
      { force: true, spreadOver: 0 },
      { force: true, spreadOver: 5_000 },
    ];
    for (const options of invalid) expect(await codeOf(broker.close(options as CloseOptions))).toBe("TypeError");
    await broker.broadcast("still open");
    expect((await client.nextData()).data).toBe("still open");
    const end = lastOf(client);
    await broker.close({ force: false, spreadOver: 0 });
    await end;
  }),
);

test(
  "close({ force }): resolves for a broker that was never used, and for one that is closed",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const closed = broker.close({ force: true });
    await closed;
    expect(broker.close({ force: true })).toBe(closed);
    expect(await codeOf(broker.broadcast("x"))).toBe("closed");
  }),
);
