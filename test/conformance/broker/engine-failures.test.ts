import { expect, test } from "vitest";
import type { DisconnectReason } from "../../../src/index.ts";
import { clientRequest, eventRequest, scene, Witness } from "../../support/test-broker.ts";

// What is wrong in davidsbond/sse and must be right here, one test for each fault.

test(
  "a removed client's stream ends",
  scene(async (stage) => {
    const left = new Witness<{ reason: DisconnectReason }>();
    const broker = stage.broker({ timeout: 20, tolerance: 2, onDisconnect: left.see });
    const stuck = await stage.connect(broker);
    await broker.broadcast("one");
    expect((await left.next()).reason).toBe("timeout");
    expect(await stuck.ended()).toBe("errored");
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, disconnects: { timeout: 1 } });
  }),
);

test(
  "the old connection's close does not delete the new client of the same id",
  scene(async (stage) => {
    const broker = stage.broker();
    const old = await stage.join(broker, { id: "one" });
    const fresh = await stage.join(broker, { id: "one" });
    await old.leave();
    old.abort();
    expect(broker.clients()).toHaveLength(1);
    expect(await broker.broadcastTo("one", "still here")).toMatchObject({ clients: 1 });
    expect((await fresh.nextData()).data).toBe("still here");
    await broker.broadcast("for all");
    expect((await fresh.nextData()).data).toBe("for all");
  }),
);

test(
  "one stuck client delays nobody",
  scene(async (stage) => {
    const left = new Witness<{ reason: DisconnectReason }>();
    const broker = stage.broker({ timeout: 60_000, tolerance: 1, onDisconnect: left.see });
    await stage.connect(broker, { id: "stuck" });
    const reading = await stage.join(broker, { id: "reading" });
    for (let event = 0; event < 200; event++) {
      const next = reading.nextData();
      await broker.broadcast(String(event));
      expect((await next).data).toBe(String(event));
    }
    // All this came while the stuck one was within its first timeout.
    expect(left.all).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 2, blocked: 1 });
  }),
);

test(
  "broadcastTo removes a stuck client too",
  scene(async (stage) => {
    const left = new Witness<{ reason: DisconnectReason }>();
    const broker = stage.broker({ timeout: 20, tolerance: 2, onDisconnect: left.see });
    const stuck = await stage.connect(broker, { id: "stuck" });
    await broker.broadcastTo("stuck", "one");
    expect((await left.next()).reason).toBe("timeout");
    expect(await stuck.ended()).toBe("errored");
    expect(broker.stats().clients).toBe(0);
  }),
);

test(
  "a partly delivered event answers 200",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 20, tolerance: 1 });
    await stage.connect(broker, { id: "stuck" });
    const reading = await stage.join(broker, { id: "reading" });
    const answer = await broker.eventHandler(eventRequest("one"));
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ clients: 2 });
    expect((await reading.nextData()).data).toBe("one");
  }),
);

test(
  "newline in data keeps the framing",
  scene(async (stage) => {
    const broker = stage.broker();
    const client = await stage.join(broker);
    const injected = "a\nb\r\nc\rd\n\nevent: evil\ndata: e\nid: 666\n\n";
    const { id } = await broker.broadcast(injected);
    await broker.broadcast("after");
    expect(await client.nextData()).toEqual({ id, event: undefined, data: injected.replace(/\r\n?/g, "\n") });
    expect((await client.nextData()).data).toBe("after");
  }),
);

test(
  "headers and ready leave before the first event",
  scene(async (stage) => {
    const broker = stage.broker();
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
  "a generated id is told, in a header and in fanwire-ready",
  scene(async (stage) => {
    const broker = stage.broker();
    const client = await stage.connect(broker);
    const ready = await client.untilControl("ready");
    const [info] = broker.clients();
    expect(info?.clientId).toBeTypeOf("string");
    expect(client.clientId).toBe(info?.clientId);
    expect(JSON.parse(ready.data)).toEqual({ clientId: info?.clientId, resumed: false });
  }),
);

test(
  "listen can be stopped",
  scene(async (stage) => {
    const broker = stage.broker();
    const listening = broker.listen();
    const pending = listening.next();
    await listening.return?.();
    expect(await pending).toEqual({ done: true, value: undefined });
    await broker.broadcast("nobody hears");
    expect(await listening.next()).toEqual({ done: true, value: undefined });
    expect(broker.stats().channels).toBe(0);
  }),
);
