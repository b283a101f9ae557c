import { expect, test } from "vitest";
import type { Broker, ClientInfo, DisconnectReason, ErrorStage } from "../../../src/index.ts";
import { clientRequest, scene, turn, Witness } from "../../support/test-broker.ts";

interface Reported {
  readonly stage: ErrorStage;
  readonly error: unknown;
}

test(
  "onConnect: has the client and its request, and the client is registered by then",
  scene(async (stage) => {
    const seen: unknown[] = [];
    let broker: Broker | undefined;
    broker = stage.broker({
      onConnect({ client, request }) {
        seen.push(client, new URL(request.url).searchParams.get("x"), broker?.clients().includes(client));
      },
    });
    const before = Date.now();
    await stage.join(broker, { id: "one", channel: ["a", "b"], query: { x: "y" } });
    const [client, x, registered] = seen as [ClientInfo, string, boolean];
    expect(client).toMatchObject({ clientId: "one", channels: ["a", "b"] });
    expect(client.connectedAt).toBeGreaterThanOrEqual(before);
    expect([x, registered]).toEqual(["y", true]);
    expect(() => Object.assign(client, { clientId: "two" })).toThrow(TypeError);
  }),
);

test(
  "onConnect: what it sends to the client comes after the replay and before what is published later",
  scene(async (stage) => {
    let broker: Broker | undefined;
    broker = stage.broker({ onConnect: ({ client }) => broker?.broadcastTo(client.clientId, "welcome") });
    const start = (await stage.join(broker, { id: "first" })).lastEventId ?? "";
    for (const data of ["1", "2", "3"]) await broker.broadcast(data);
    const client = await stage.join(broker, { id: "second", lastEventId: start });
    await broker.broadcast("later");
    await client.untilData("later");
    expect(client.data).toEqual(["1", "2", "3", "welcome", "later"]);
  }),
);

test(
  "onConnect: what it sends reaches a client that is live at once",
  scene(async (stage) => {
    let broker: Broker | undefined;
    broker = stage.broker({ onConnect: ({ client }) => broker?.broadcastTo(client.clientId, "welcome") });
    const client = await stage.join(broker, { id: "one" });
    expect((await client.nextData()).data).toBe("welcome");
  }),
);

test(
  "onConnect: is not awaited",
  scene(async (stage) => {
    const broker = stage.broker({ onConnect: () => new Promise(() => undefined) });
    const client = await stage.join(broker);
    await broker.broadcast("x");
    expect((await client.nextData()).data).toBe("x");
  }),
);

test(
  "onConnect: that disconnects the client ends its stream with fanwire-end",
  scene(async (stage) => {
    let broker: Broker | undefined;
    broker = stage.broker({ onConnect: ({ client }) => broker?.disconnect(client.clientId) });
    const client = await stage.connect(broker, { id: "unwanted" });
    expect(await client.ended()).toBe("closed");
    expect(client.control("end")).toHaveLength(1);
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 0 });
  }),
);

test(
  "onConnect: during which the client leaves, leaves nothing and ends its stream",
  scene(async (stage) => {
    const abort = new AbortController();
    const left: DisconnectReason[] = [];
    const broker = stage.broker({
      onConnect: () => abort.abort(),
      onDisconnect: ({ reason }) => left.push(reason),
    });
    const answer = await broker.clientHandler(clientRequest({}, abort.signal));
    expect(left).toEqual(["client-left"]);
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0 });
    const reader = answer.body?.getReader();
    // It must not hang: a stream that nothing will ever be written to has ended or failed.
    for (let end = !reader; !end; ) end = (await reader?.read().catch(() => ({ done: true })))?.done ?? true;
  }),
);

for (const [how, fail] of [
  [
    "throws",
    () => {
      throw new Error("hook broke");
    },
  ],
  ["rejects", () => Promise.reject(new Error("hook broke"))],
] as const) {
  test(
    `onConnect: that ${how} is reported to onError, and the client stays`,
    scene(async (stage) => {
      const errors = new Witness<Reported>();
      const broker = stage.broker({ onConnect: fail, onError: errors.see });
      const client = await stage.join(broker);
      expect(await errors.next()).toMatchObject({ stage: "on-connect", error: { message: "hook broke" } });
      await broker.broadcast("x");
      expect((await client.nextData()).data).toBe("x");
    }),
  );

  test(
    `onDisconnect: that ${how} is reported to onError, and nothing is left`,
    scene(async (stage) => {
      const errors = new Witness<Reported>();
      const broker = stage.broker({ onDisconnect: fail, onError: errors.see });
      await (await stage.join(broker)).leave();
      expect(await errors.next()).toMatchObject({ stage: "on-disconnect", error: { message: "hook broke" } });
      expect(broker.stats()).toMatchObject({ clients: 0, channels: 0 });
    }),
  );

  test(
    `onError: that ${how} itself harms nobody`,
    scene(async (stage) => {
      const broker = stage.broker({ onConnect: fail, onDisconnect: fail, onError: fail });
      const client = await stage.join(broker);
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
  scene(async (stage) => {
    const left = new Witness<{ client: ClientInfo; reason: DisconnectReason }>();
    const broker = stage.broker({ timeout: 20, tolerance: 1, onDisconnect: left.see });
    const cancelled = await stage.join(broker, { id: "cancelled" });
    const aborted = await stage.join(broker, { id: "aborted" });
    await stage.join(broker, { id: "disconnected" });
    await cancelled.leave();
    cancelled.abort();
    aborted.abort();
    await aborted.leave();
    await broker.disconnect("disconnected");
    await broker.disconnect("disconnected");
    await stage.join(broker, { id: "stuck" });
    await broker.broadcastTo("stuck", "x");
    while (left.all.length < 4) await left.next();
    await stage.join(broker, { id: "closing" });
    await broker.close();
    expect(left.all.map(({ client, reason }) => [client.clientId, reason])).toEqual([
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
  "onDisconnect: the client is not registered any more when it is called, and may publish",
  scene(async (stage) => {
    const counts: number[] = [];
    let broker: Broker | undefined;
    broker = stage.broker({
      onDisconnect({ client }) {
        counts.push(broker?.clients().length ?? -1);
        return broker?.broadcast(`${client.clientId} left`);
      },
    });
    const stays = await stage.join(broker, { id: "stays" });
    await (await stage.join(broker, { id: "goes" })).leave();
    expect(counts).toEqual([1]);
    expect((await stays.nextData()).data).toBe("goes left");
  }),
);
