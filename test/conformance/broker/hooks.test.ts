// The hooks `onConnect`, `onDisconnect` and `onError`: when they are called, with what, and what happens if they fail.
import { expect, test } from "vitest";
import type { Broker, ClientInfo, DisconnectReason, ErrorStage } from "../../../src/index.ts";
import { clientRequest, Recorder, turn, withBroker } from "../../support/test-broker.ts";

interface Reported {
  readonly stage: ErrorStage;
  readonly error: unknown;
}

test(
  "onConnect: receives the client and its request, when the client is registered",
  withBroker(async (setup) => {
    const seen: unknown[] = [];
    let broker: Broker | undefined;
    broker = setup.broker({
      onConnect({ client, request }) {
        seen.push(client, new URL(request.url).searchParams.get("x"), broker?.clients().includes(client));
      },
    });
    const before = Date.now();
    await setup.join(broker, { id: "one", channel: ["a", "b"], query: { x: "y" } });
    const [client, x, registered] = seen as [ClientInfo, string, boolean];
    expect(client).toMatchObject({ clientId: "one", channels: ["a", "b"] });
    expect(client.connectedAt).toBeGreaterThanOrEqual(before);
    expect([x, registered]).toEqual(["y", true]);
    expect(() => Object.assign(client, { clientId: "two" })).toThrow(TypeError);
  }),
);

test(
  "onConnect: its events for the client come after the replay and before later events",
  withBroker(async (setup) => {
    let broker: Broker | undefined;
    broker = setup.broker({ onConnect: ({ client }) => broker?.broadcastTo(client.clientId, "welcome") });
    const start = (await setup.join(broker, { id: "first" })).lastEventId ?? "";
    for (const data of ["1", "2", "3"]) await broker.broadcast(data);
    const client = await setup.join(broker, { id: "second", lastEventId: start });
    await broker.broadcast("later");
    await client.untilData("later");
    expect(client.data).toEqual(["1", "2", "3", "welcome", "later"]);
  }),
);

test(
  "onConnect: its event reaches a client that has nothing to replay",
  withBroker(async (setup) => {
    let broker: Broker | undefined;
    broker = setup.broker({ onConnect: ({ client }) => broker?.broadcastTo(client.clientId, "welcome") });
    const client = await setup.join(broker, { id: "one" });
    expect((await client.nextData()).data).toBe("welcome");
  }),
);

test(
  "onConnect: is not awaited",
  withBroker(async (setup) => {
    const broker = setup.broker({ onConnect: () => new Promise(() => undefined) });
    const client = await setup.join(broker);
    await broker.broadcast("x");
    expect((await client.nextData()).data).toBe("x");
  }),
);

test(
  "onConnect: may disconnect the client, whose stream ends with fanwire-end",
  withBroker(async (setup) => {
    let broker: Broker | undefined;
    broker = setup.broker({ onConnect: ({ client }) => broker?.disconnect(client.clientId) });
    const client = await setup.connect(broker, { id: "unwanted" });
    expect(await client.ended()).toBe("closed");
    expect(client.control("end")).toHaveLength(1);
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 0 });
  }),
);

test(
  "onConnect: if the client leaves during the call, nothing is left and its stream ends",
  withBroker(async (setup) => {
    const abort = new AbortController();
    const reasons: DisconnectReason[] = [];
    const broker = setup.broker({
      onConnect: () => abort.abort(),
      onDisconnect: ({ reason }) => reasons.push(reason),
    });
    const answer = await broker.clientHandler(clientRequest({}, abort.signal));
    expect(reasons).toEqual(["client-left"]);
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0 });
    const reader = answer.body?.getReader();
    // The read must not hang: the stream has ended or failed, because nothing will be written to it.
    for (let end = !reader; !end; ) end = (await reader?.read().catch(() => ({ done: true })))?.done ?? true;
  }),
);

for (const [how, fail] of [
  [
    "throws",
    () => {
      throw new Error("hook failed");
    },
  ],
  ["rejects", () => Promise.reject(new Error("hook failed"))],
] as const) {
  test(
    `onConnect: if it ${how}, onError is called and the client stays connected`,
    withBroker(async (setup) => {
      const errors = new Recorder<Reported>();
      const broker = setup.broker({ onConnect: fail, onError: errors.record });
      const client = await setup.join(broker);
      expect(await errors.next()).toMatchObject({ stage: "on-connect", error: { message: "hook failed" } });
      await broker.broadcast("x");
      expect((await client.nextData()).data).toBe("x");
    }),
  );

  test(
    `onDisconnect: if it ${how}, onError is called and nothing is left`,
    withBroker(async (setup) => {
      const errors = new Recorder<Reported>();
      const broker = setup.broker({ onDisconnect: fail, onError: errors.record });
      await (await setup.join(broker)).leave();
      expect(await errors.next()).toMatchObject({ stage: "on-disconnect", error: { message: "hook failed" } });
      expect(broker.stats()).toMatchObject({ clients: 0, channels: 0 });
    }),
  );

  test(
    `onError: if it ${how} itself, clients are not affected`,
    withBroker(async (setup) => {
      const broker = setup.broker({ onConnect: fail, onDisconnect: fail, onError: fail });
      const client = await setup.join(broker);
      await broker.broadcast("x");
      expect((await client.nextData()).data).toBe("x");
      await client.leave();
      await turn();
      expect(broker.stats().clients).toBe(0);
    }),
  );
}

test(
  "onDisconnect: is called once for each connection, with its reason",
  withBroker(async (setup) => {
    const disconnects = new Recorder<{ client: ClientInfo; reason: DisconnectReason }>();
    const broker = setup.broker({ timeout: 20, tolerance: 1, onDisconnect: disconnects.record });
    const cancelled = await setup.join(broker, { id: "cancelled" });
    const aborted = await setup.join(broker, { id: "aborted" });
    await setup.join(broker, { id: "disconnected" });
    await cancelled.leave();
    cancelled.abort();
    aborted.abort();
    await aborted.leave();
    await broker.disconnect("disconnected");
    await broker.disconnect("disconnected");
    await setup.join(broker, { id: "stuck" });
    await broker.broadcastTo("stuck", "x");
    while (disconnects.all.length < 4) await disconnects.next();
    await setup.join(broker, { id: "closing" });
    await broker.close();
    expect(disconnects.all.map(({ client, reason }) => [client.clientId, reason])).toEqual([
      ["cancelled", "client-left"],
      ["aborted", "client-left"],
      ["disconnected", "disconnected"],
      ["stuck", "timeout"],
      ["closing", "closing"],
    ]);
    expect(broker.stats().disconnects).toEqual({ "client-left": 2, disconnected: 1, timeout: 1, closing: 1 });
  }),
);

test(
  "onDisconnect: is called when the client is no longer registered, and may publish",
  withBroker(async (setup) => {
    const counts: number[] = [];
    let broker: Broker | undefined;
    broker = setup.broker({
      onDisconnect({ client }) {
        counts.push(broker?.clients().length ?? -1);
        return broker?.broadcast(`${client.clientId} left`);
      },
    });
    const stays = await setup.join(broker, { id: "stays" });
    await (await setup.join(broker, { id: "visitor" })).leave();
    expect(counts).toEqual([1]);
    expect((await stays.nextData()).data).toBe("visitor left");
  }),
);
