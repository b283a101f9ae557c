import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import type { EventInput } from "../../src/index.ts";
import { type HubOptions, hub } from "../../src/workers/index.ts";
import { Connection, seqOf } from "../support/clients/connection.ts";
import { clientRequest, codeOf, eventRequest, problemOf } from "../support/test-broker.ts";
import { numbers, TestObject, waitUntil, withObject } from "./support/test-object.ts";
import { epochOf, publish, transcriptUntil } from "./support/transcript.ts";

// Calls of an object: through hub(), on its stub, and from inside.

test(
  "hub: publishes to every client, to channels and to one client, and returns the position and the number of clients",
  withObject({}, async (object) => {
    const { broadcast, broadcastTo, stats } = object.hub;
    const [ada, bob] = [await object.join({ id: "ada", channel: "a" }), await object.join({ id: "bob" })];
    const all = await broadcast({ event: "greeting", data: { hello: "all" } });
    const channel = await broadcast("to a", { channels: ["a", "b"] });
    const one = await broadcastTo("bob", new TextEncoder().encode("to bob"));
    expect([all, channel, one]).toEqual([
      { id: expect.stringMatching(/-1$/), clients: 2 },
      { id: expect.stringMatching(/-2$/), clients: 1 },
      { id: expect.stringMatching(/-3$/), clients: 1 },
    ]);
    expect(await ada.nextData()).toEqual({ id: all.id, event: "greeting", data: '{"hello":"all"}' });
    expect(await transcriptUntil(ada, "to a")).toEqual(['{"hello":"all"}', "to a"]);
    expect(await transcriptUntil(bob, "to bob")).toEqual(['{"hello":"all"}', "to bob"]);
    expect(await stats()).toMatchObject({ clients: 2, published: 3, sent: 4, engine: "up", log: { events: 3 } });
  }),
);

test(
  "history: through hub(), on the stub, and after the object has started again",
  withObject({}, async (object) => {
    for (const data of ["1", "2", "3"]) await object.hub.broadcast(data, { channels: "a" });
    const part = await object.hub.history({ channels: "a", limit: 2 });
    expect(part).toMatchObject({ events: [{ data: "1" }, { data: "2" }], gaps: [], more: true });
    await object.crash();
    const rest = await object.hub.history({ channels: "a", after: part.position });
    expect(rest).toMatchObject({ events: [{ data: "3", channels: ["a"] }], gaps: [], more: false });
    expect(await object.stub.history({ channels: "a", limit: 0 })).toEqual({ ...rest, events: [] });
    expect(await codeOf(object.hub.history({ limit: 5_000 }))).toBe("RangeError");
    const served = object.otherHub({ paths: { history: "/history" } });
    const response = await served.fetch(new Request("https://fanwire.test/history?channel=a&limit=1"));
    expect(await response.json()).toMatchObject({ events: [{ data: "1" }], more: true });
  }),
);

test(
  "hub: an event and a connection are refused where the object's option channels throws, and nothing of them is stored",
  withObject(
    {
      channels: (name) => {
        if (name === "bad") throw new Error("no such room");
        return undefined;
      },
      onError: () => undefined,
    },
    async (object) => {
      const client = await object.join({ channel: "good" });
      expect(await codeOf(object.hub.broadcast("x", { channels: ["good", "bad"] }))).toBe("internal");
      const answer = await object.hub.clientHandler(clientRequest({ channel: ["good", "bad"] }));
      expect([answer.status, await problemOf(answer)]).toEqual([500, "internal"]);
      expect(await object.rowCount("events")).toBe(0);
      expect(await object.hub.stats()).toMatchObject({ clients: 1, published: 0, log: { events: 0 } });
      await object.hub.broadcast("y", { channels: "good" });
      expect(await transcriptUntil(client, "y")).toEqual(["y"]);
    },
  ),
);

test(
  "hub: a report arrives, with and without receivers",
  withObject({}, async (object) => {
    await Promise.all([object.join({ id: "ada" }), object.join({ id: "ada" }), object.join({ id: "bob" })]);
    const { report, ...published } = await object.hub.broadcast("x", { report: true });
    expect([published.clients, await report]).toEqual([3, { sent: 3, failed: [] }]);
    const { report: toAda } = await object.hub.broadcastTo("ada", "x", { report: true });
    expect(await toAda).toEqual({ sent: 2, failed: [] });
    const { report: toNobody } = await object.hub.broadcast("x", { channels: "empty", report: true });
    expect(await toNobody).toEqual({ sent: 0, failed: [] });
    expect(await object.hub.broadcast("x")).not.toHaveProperty("report");
  }),
);

test(
  "hub: a report never rejects, even if the object is lost before it is complete",
  withObject({}, async (object) => {
    const client = await object.join({ id: "ada" });
    await publish(
      object,
      Array.from({ length: 30 }, () => "x".repeat(20_000)),
    );
    const { report } = await object.hub.broadcast("late", { report: true });
    await object.crash();
    const settled = await report.then(
      ({ sent, failed }) => ({ sent, failed: failed.length }),
      (error: unknown) => String(error),
    );
    expect(settled).toEqual({ sent: 0, failed: expect.any(Number) });
    await client.leave();
  }),
);

test(
  "hub: an error keeps its code, its status and its message",
  withObject({ maxEventBytes: 100 }, async (object) => {
    const { hub } = object;
    await hub.broadcast("x", { idempotencyKey: "k" });
    const codes = await Promise.all([
      codeOf(hub.broadcastTo("nobody", "x")),
      codeOf(hub.broadcast("x", { channels: "" })),
      codeOf(hub.broadcast("x", { channels: "fanwire-x" })),
      codeOf(hub.broadcast("y", { idempotencyKey: "k" })),
      codeOf(hub.broadcast("x".repeat(101))),
      codeOf(hub.broadcast({ event: "a\nb", data: "x" })),
      codeOf(hub.broadcastTo("", "x")),
      codeOf(hub.disconnect("")),
    ]);
    expect(codes).toEqual([
      "unknown-client",
      "bad-channel",
      "bad-channel",
      "key-reused",
      "event-too-large",
      "bad-event-type",
      "bad-id",
      "bad-id",
    ]);
    const error = await hub.broadcastTo("nobody", "x").catch((error: unknown) => error);
    expect(error).toMatchObject({ name: "BrokerError", status: 404, message: expect.stringContaining("nobody") });
    expect(await object.rowCount("events")).toBe(1);
  }),
);

test(
  "hub: checkChannel() returns a name that can be a channel, by the hub's options",
  withObject({ maxNameLength: 300 }, async (object) => {
    const { checkChannel } = object.hub;
    expect(checkChannel("room 7")).toBe("room 7");
    for (const name of ["", "fanwire-x", "x".repeat(257)])
      expect(await codeOf((async () => checkChannel(name))())).toBe("bad-channel");
  }),
);

test(
  "hub: a wrong argument is a TypeError or a RangeError",
  withObject({}, async (object) => {
    const { hub } = object;
    const wrong = { typo: 1 } as unknown as { data: string };
    expect(await codeOf(hub.broadcast(wrong))).toBe("TypeError");
    expect(await codeOf(hub.broadcast(undefined as unknown as EventInput))).toBe("TypeError");
    expect(await codeOf(hub.broadcast("x", { chanel: "a" } as object))).toBe("TypeError");
    expect(await codeOf(hub.disconnect("ada", { blockFor: -1 }))).toBe("RangeError");
    expect((await object.hub.stats()).published).toBe(0);
  }),
);

test(
  "hub: an argument that RPC cannot send is a TypeError, and not an unknown outcome",
  withObject({}, async (object) => {
    class Price {
      readonly value = 5;
    }
    expect(await codeOf(object.hub.broadcast({ data: new Price() }))).toBe("TypeError");
    expect(await codeOf(object.hub.broadcast({ data: Symbol("x") }))).toBe("TypeError");
    expect((await object.hub.stats()).published).toBe(0);
  }),
);

test(
  "stub: broadcast, broadcastTo, disconnect and stats can be called directly",
  withObject({}, async (object) => {
    const client = await object.join({ id: "ada", channel: "a" });
    const { stub } = object;
    expect(seqOf((await stub.broadcast("x")).id)).toBe(1);
    expect(await stub.broadcast("y", { channels: "a", idempotencyKey: "k" })).toMatchObject({ clients: 1 });
    expect(await stub.broadcastTo("ada", "z")).toMatchObject({ clients: 1 });
    expect(await transcriptUntil(client, "z")).toEqual(["x", "y", "z"]);
    expect((await stub.stats()).clients).toBe(1);
    expect(await stub.disconnect("ada")).toEqual({ clients: 1 });
    expect(await client.ended()).toBe("closed");
  }),
);

test(
  "inside: an object publishes, lists its clients and listens",
  withObject({}, async (object) => {
    const client = await object.join({ id: "ada", channel: "a" });
    const result = await object.inside(async (instance) => {
      const listening = instance.listen({ channels: "a" });
      await instance.broadcast("for all");
      await instance.broadcast("for a", { channels: "a" });
      const { report } = await instance.broadcastTo("ada", "for one", { report: true });
      const { value } = await listening.next();
      await listening.return?.();
      return { value, report: await report, clients: instance.clients().map(({ clientId }) => clientId) };
    });
    expect(result).toMatchObject({
      value: { type: "event", data: "for a" },
      report: { sent: 1, failed: [] },
      clients: ["ada"],
    });
    expect(await transcriptUntil(client, "for one")).toEqual(["for all", "for a", "for one"]);
  }),
);

test(
  "hub: its own bounds for names apply, and the object does not apply narrower ones",
  withObject({ hub: { maxNameLength: 1_000, maxChannelsPerEvent: 200, maxChannelsPerClient: 200 } }, async (object) => {
    const long = "x".repeat(1_000);
    const channels = numbers(1, 200);
    const client = await object.join({ id: long, channel: channels });
    expect(await object.hub.broadcast("to 200", { channels, idempotencyKey: long })).toMatchObject({
      clients: 1,
    });
    expect(await object.hub.broadcastTo(long, "to one")).toMatchObject({ clients: 1 });
    expect(await transcriptUntil(client, "to one")).toEqual(["to 200", "to one"]);
    expect(await object.hub.disconnect(long)).toEqual({ clients: 1 });
    expect(await codeOf(object.hub.broadcast("x", { channels: `${long}x` }))).toBe("bad-channel");
  }),
);

for (const mode of ["bridge", "direct"] as const)
  test(`${mode}: onConnect in the object receives the visitor's URL, and nothing of the hub's own request`, async () => {
    const seen: unknown[] = [];
    const onConnect = ({ request: { url, method, headers } }: { request: Request }) =>
      void seen.push([url, method, headers.get("authorization")]);
    await withObject({ hub: { mode }, onConnect }, async (object) => {
      await object.join({ id: "ada" });
      await waitUntil("onConnect is called", () => seen.length > 0);
    })();
    expect(seen).toEqual([[clientRequest({ id: "ada" }).url, "GET", null]]);
  });

const namespace = env.HUB;
const WRONG_ARGUMENTS: readonly (readonly [string, () => unknown])[] = [
  ["no namespace", () => hub(undefined as unknown as typeof namespace)],
  ["a namespace of another kind", () => hub({} as unknown as typeof namespace)],
  ["an empty name", () => hub(namespace, { name: "" })],
  ["a name that is a number", () => hub(namespace, { name: 5 } as unknown as HubOptions)],
  ["an unknown mode", () => hub(namespace, { mode: "relay" } as unknown as HubOptions)],
  ["an option with a typo", () => hub(namespace, { authorise: () => true } as HubOptions)],
  ["an option of the object", () => hub(namespace, { heartbeat: 5 } as HubOptions)],
  ["an engine", () => hub(namespace, { engine: {} } as HubOptions)],
  ["an authorize that is not a function", () => hub(namespace, { authorize: true } as unknown as HubOptions)],
];
for (const [fault, make] of WRONG_ARGUMENTS)
  test(`hub: ${fault} is a TypeError at once`, () => {
    expect(make).toThrow(TypeError);
  });

test("hub name(): objects with different names share no clients and no events", async () => {
  const sharded = hub(namespace, {
    name: (request) => `shard ${new URL(request.url).searchParams.get("tenant")}`,
    allowQuery: ["tenant"],
    retry: 50,
  });
  const connect = async (tenant: string): Promise<Connection> => {
    const abort = new AbortController();
    const request = clientRequest({ id: "ada", query: { tenant } }, abort.signal);
    return new Connection(await sharded.clientHandler(request), abort);
  };
  const [one, two] = [await connect("1"), await connect("2")];
  for (const tenant of ["1", "2", "1"]) {
    const answer = await sharded.eventHandler(eventRequest(`of ${tenant}`, `?tenant=${tenant}`));
    expect(await answer.json()).toMatchObject({ clients: 1 });
  }
  await sharded.eventHandler(eventRequest("end", "?tenant=2"));
  await one.untilData("of 1");
  expect(await transcriptUntil(one, "of 1")).toEqual(["of 1", "of 1"]);
  expect(await transcriptUntil(two, "end")).toEqual(["of 2", "end"]);
  expect([epochOf(one.lastEventId) === epochOf(two.lastEventId)]).toEqual([false]);
  for (const call of [
    () => sharded.broadcast("x"),
    () => sharded.broadcastTo("ada", "x"),
    () => sharded.disconnect("ada"),
    () => sharded.stats(),
  ])
    expect(await codeOf(call())).toBe("TypeError");
  for (const client of [one, two]) await client.leave();
});

test("hub name(): an empty result, no result or an error is an error of the request, and opens no stream", async () => {
  const errors: unknown[] = [];
  for (const name of [() => "", () => undefined as unknown as string, () => JSON.parse("{") as string]) {
    const { clientHandler } = hub(namespace, { name, onError: ({ error }) => errors.push(error) });
    const answer = await clientHandler(clientRequest({ headers: { accept: "*/*" } }));
    expect([answer.status, await problemOf(answer)]).toEqual([500, "internal"]);
  }
  await waitUntil("onError is called for each", () => errors.length === 3);
});

test("hub: an unreachable object is engine-down for a client and publish-outcome-unknown for a publisher", async () => {
  const lost = () => Promise.reject(new Error("The Durable Object's isolate exceeded its memory limit and was reset."));
  const unreachable = hub({ getByName: () => ({ fetch: lost, serve: lost }) });
  const answer = await unreachable.clientHandler(clientRequest({ headers: { accept: "*/*" } }));
  expect([answer.status, await problemOf(answer)]).toEqual([503, "engine-down"]);
  expect(await codeOf(unreachable.broadcast("x"))).toBe("publish-outcome-unknown");
  expect(await codeOf(unreachable.stats())).toBe("engine-down");
  const overload = () => Promise.reject(Object.assign(new Error("overloaded"), { overloaded: true }));
  const overloaded = hub({ getByName: () => ({ fetch: overload, serve: overload }) });
  expect(await codeOf(overloaded.broadcast("x"))).toBe("engine-down");
});

for (const [kind, headers] of [
  ["a visitor's request", {}],
  ["a visitor's request for a socket", { upgrade: "websocket" }],
  ["a visitor's request with a token of its own", { authorization: "Bearer x" }],
  ["a visitor's request for a socket with an empty token", { upgrade: "websocket", authorization: "Bearer " }],
] as const)
  test(
    `stub: ${kind} that a Worker passed on is 401, and opens nothing`,
    withObject({}, async (object) => {
      const client = await object.join();
      for (const { url, ...init } of [
        { url: "https://site.test/connect" },
        { url: "https://site.test/", method: "POST" },
      ]) {
        const answer = await object.stub.fetch(new Request(url, { ...init, headers }));
        expect([answer.status, answer.webSocket ?? null, await problemOf(answer)]).toEqual([401, null, "unauthorized"]);
      }
      expect(await object.stub.stats()).toMatchObject({ clients: 1, published: 0 });
      expect(await object.inside((_, ctx) => ctx.getWebSockets().length)).toBe(1);
      await client.leave();
    }),
  );

for (const mode of ["bridge", "direct"] as const)
  test(`${mode}: a hub fetches the new secret of an object that was emptied`, async () => {
    const object = new TestObject({ hub: { mode } });
    const client = await object.join();
    await client.leave();
    await object.untilNoClients();
    await object.inside((_, { storage }) => storage.deleteAll());
    await object.crash();
    const returned = await object.join();
    await publish(object, ["again"]);
    expect(await transcriptUntil(returned, "again")).toEqual(["again"]);
    await object.disconnectClients();
  });
