// Faults of davidsbond/sse that this broker must not have, one test for each.
import { expect, test } from "vitest";
import type { DisconnectReason } from "../../../src/index.ts";
import { clientRequest, eventRequest, Recorder, withBroker } from "../../support/test-broker.ts";

test(
  "timeout: the stream of a removed client ends",
  withBroker(async (setup) => {
    const disconnects = new Recorder<{ reason: DisconnectReason }>();
    const broker = setup.broker({ timeout: 20, tolerance: 2, onDisconnect: disconnects.record });
    const stuck = await setup.connect(broker);
    await broker.broadcast("one");
    expect((await disconnects.next()).reason).toBe("timeout");
    expect(await stuck.ended()).toBe("closed");
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, disconnects: { timeout: 1 } });
  }),
);

test(
  "clientHandler(): the end of an old connection does not remove a new one with the same id",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const old = await setup.join(broker, { id: "one" });
    const replacement = await setup.join(broker, { id: "one" });
    await old.leave();
    old.abort();
    expect(broker.clients()).toHaveLength(1);
    expect(await broker.broadcastTo("one", "still here")).toMatchObject({ clients: 1 });
    expect((await replacement.nextData()).data).toBe("still here");
    await broker.broadcast("for all");
    expect((await replacement.nextData()).data).toBe("for all");
  }),
);

test(
  "broadcast(): a stuck client delays no other client",
  withBroker(async (setup) => {
    const disconnects = new Recorder<{ reason: DisconnectReason }>();
    const broker = setup.broker({ timeout: 60_000, tolerance: 1, onDisconnect: disconnects.record });
    await setup.connect(broker, { id: "stuck" });
    const reading = await setup.join(broker, { id: "reading" });
    for (let event = 0; event < 200; event++) {
      const next = reading.nextData();
      await broker.broadcast(String(event));
      expect((await next).data).toBe(String(event));
    }
    // The stuck client is still within its first timeout.
    expect(disconnects.all).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 2, blocked: 1 });
  }),
);

test(
  "broadcastTo(): removes a stuck client too",
  withBroker(async (setup) => {
    const disconnects = new Recorder<{ reason: DisconnectReason }>();
    const broker = setup.broker({ timeout: 20, tolerance: 2, onDisconnect: disconnects.record });
    const stuck = await setup.connect(broker, { id: "stuck" });
    await broker.broadcastTo("stuck", "one");
    expect((await disconnects.next()).reason).toBe("timeout");
    expect(await stuck.ended()).toBe("closed");
    expect(broker.stats().clients).toBe(0);
  }),
);

test(
  "eventHandler(): an event that some clients missed is answered 200",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 20, tolerance: 1 });
    await setup.connect(broker, { id: "stuck" });
    const reading = await setup.join(broker, { id: "reading" });
    const answer = await broker.eventHandler(eventRequest("one"));
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ clients: 2 });
    expect((await reading.nextData()).data).toBe("one");
  }),
);

test(
  "broadcast(): line breaks in data do not break the framing",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    const injected = "a\nb\r\nc\rd\n\nevent: evil\ndata: e\nid: 666\n\n";
    const { id } = await broker.broadcast(injected);
    await broker.broadcast("after");
    expect(await client.nextData()).toEqual({ id, event: undefined, data: injected.replace(/\r\n?/g, "\n") });
    expect((await client.nextData()).data).toBe("after");
  }),
);

test(
  "clientHandler(): the head and fanwire-ready are sent before the first event",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const answer = await broker.clientHandler(clientRequest());
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    const reader = answer.body?.getReader();
    const { value } = (await reader?.read()) ?? {};
    expect(new TextDecoder().decode(value as Uint8Array)).toMatch(/^retry: \d+\n[\s\S]*event: fanwire-ready\n/);
    await reader?.cancel();
  }),
);

test(
  "clientHandler(): a generated id is sent in a header field and in fanwire-ready",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.connect(broker);
    const ready = await client.untilControl("ready");
    const [info] = broker.clients();
    expect(info?.clientId).toBeTypeOf("string");
    expect(client.clientId).toBe(info?.clientId);
    expect(JSON.parse(ready.data)).toEqual({
      clientId: info?.clientId,
      resumed: false,
      channels: [],
      secret: expect.any(String),
      heartbeat: expect.any(Number),
    });
  }),
);

test(
  "listen(): can be stopped",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const listening = broker.listen();
    const pending = listening.next();
    await listening.return?.();
    expect(await pending).toEqual({ done: true, value: undefined });
    await broker.broadcast("unheard");
    expect(await listening.next()).toEqual({ done: true, value: undefined });
    expect(broker.stats().channels).toBe(0);
  }),
);
