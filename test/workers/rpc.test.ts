import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import type { EventInput } from "../../src/index.ts";
import { type HubOptions, hub } from "../../src/workers/index.ts";
import { Connection, seqOf } from "../support/clients/connection.ts";
import { clientRequest, codeOf, eventRequest, problemOf } from "../support/test-broker.ts";
import { numbers, Room, room, until } from "./support/room.ts";
import { epochOf, publish, story } from "./support/story.ts";

// What is called on an object: through hub(), on its stub, and from inside.

test(
  "hub: events go to everybody, to channels and to one client, and say their position and clients",
  room({}, async (room) => {
    const { broadcast, broadcastTo, stats } = room.hub;
    const [ada, bob] = [await room.join({ id: "ada", channel: "a" }), await room.join({ id: "bob" })];
    const all = await broadcast({ event: "greeting", data: { hello: "all" } });
    const channel = await broadcast("to a", { channels: ["a", "b"] });
    const one = await broadcastTo("bob", new TextEncoder().encode("to bob"));
    expect([all, channel, one]).toEqual([
      { id: expect.stringMatching(/-1$/), clients: 2 },
      { id: expect.stringMatching(/-2$/), clients: 1 },
      { id: expect.stringMatching(/-3$/), clients: 1 },
    ]);
    expect(await ada.nextData()).toEqual({ id: all.id, event: "greeting", data: '{"hello":"all"}' });
    expect(await story(ada, "to a")).toEqual(['{"hello":"all"}', "to a"]);
    expect(await story(bob, "to bob")).toEqual(['{"hello":"all"}', "to bob"]);
    expect(await stats()).toMatchObject({ clients: 2, published: 3, sent: 4, engine: "up", log: { events: 3 } });
  }),
);

test(
  "hub: a report comes through, of those who have it and of nobody",
  room({}, async (room) => {
    await Promise.all([room.join({ id: "ada" }), room.join({ id: "ada" }), room.join({ id: "bob" })]);
    const { report, ...published } = await room.hub.broadcast("x", { report: true });
    expect([published.clients, await report]).toEqual([3, { sent: 3, failed: [] }]);
    const { report: toAda } = await room.hub.broadcastTo("ada", "x", { report: true });
    expect(await toAda).toEqual({ sent: 2, failed: [] });
    const { report: toNobody } = await room.hub.broadcast("x", { channels: "empty", report: true });
    expect(await toNobody).toEqual({ sent: 0, failed: [] });
    expect(await room.hub.broadcast("x")).not.toHaveProperty("report");
  }),
);

test(
  "hub: a report never rejects, also if the object is lost before it is settled",
  room({}, async (room) => {
    const client = await room.join({ id: "ada" });
    await publish(
      room,
      Array.from({ length: 30 }, () => "x".repeat(20_000)),
    );
    const { report } = await room.hub.broadcast("late", { report: true });
    await room.abort();
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
  room({ maxEventBytes: 100 }, async (room) => {
    const { hub } = room;
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
    expect(await room.rows("events")).toBe(1);
  }),
);

test(
  "hub: what is the caller's mistake stays a TypeError or a RangeError",
  room({}, async (room) => {
    const { hub } = room;
    const wrong = { typo: 1 } as unknown as { data: string };
    expect(await codeOf(hub.broadcast(wrong))).toBe("TypeError");
    expect(await codeOf(hub.broadcast(undefined as unknown as EventInput))).toBe("TypeError");
    expect(await codeOf(hub.broadcast("x", { chanel: "a" } as object))).toBe("TypeError");
    expect(await codeOf(hub.disconnect("ada", { blockFor: -1 }))).toBe("RangeError");
    expect((await room.hub.stats()).published).toBe(0);
  }),
);

test(
  "hub: what cannot travel to the object is the caller's mistake, and not an outcome that is unknown",
  room({}, async (room) => {
    class Price {
      readonly value = 5;
    }
    expect(await codeOf(room.hub.broadcast({ data: new Price() }))).toBe("TypeError");
    expect(await codeOf(room.hub.broadcast({ data: Symbol("x") }))).toBe("TypeError");
    expect((await room.hub.stats()).published).toBe(0);
  }),
);

test(
  "stub: broadcast, broadcastTo, disconnect and stats can be called on it as they are",
  room({}, async (room) => {
    const client = await room.join({ id: "ada", channel: "a" });
    const { stub } = room;
    expect(seqOf((await stub.broadcast("x")).id)).toBe(1);
    expect(await stub.broadcast("y", { channels: "a", idempotencyKey: "k" })).toMatchObject({ clients: 1 });
    expect(await stub.broadcastTo("ada", "z")).toMatchObject({ clients: 1 });
    expect(await story(client, "z")).toEqual(["x", "y", "z"]);
    expect((await stub.stats()).clients).toBe(1);
    expect(await stub.disconnect("ada")).toEqual({ clients: 1 });
    expect(await client.ended()).toBe("closed");
  }),
);

test(
  "inside: an object publishes, lists its clients and listens",
  room({}, async (room) => {
    const client = await room.join({ id: "ada", channel: "a" });
    const heard = await room.inside(async (object) => {
      const listening = object.listen({ channels: "a" });
      await object.broadcast("for all");
      await object.broadcast("for a", { channels: "a" });
      const { report } = await object.broadcastTo("ada", "for one", { report: true });
      const { value } = await listening.next();
      await listening.return?.();
      return { value, report: await report, clients: object.clients().map(({ clientId }) => clientId) };
    });
    expect(heard).toMatchObject({
      value: { type: "event", data: "for a" },
      report: { sent: 1, failed: [] },
      clients: ["ada"],
    });
    expect(await story(client, "for one")).toEqual(["for all", "for a", "for one"]);
  }),
);

test(
  "hub: its own bounds of names hold, and the object has none that are narrower",
  room({ hub: { maxNameLength: 1_000, maxChannelsPerEvent: 200, maxChannelsPerClient: 200 } }, async (room) => {
    const long = "x".repeat(1_000);
    const channels = numbers(1, 200);
    const client = await room.join({ id: long, channel: channels });
    expect(await room.hub.broadcast("to 200", { channels: channels, idempotencyKey: long })).toMatchObject({
      clients: 1,
    });
    expect(await room.hub.broadcastTo(long, "to one")).toMatchObject({ clients: 1 });
    expect(await story(client, "to one")).toEqual(["to 200", "to one"]);
    expect(await room.hub.disconnect(long)).toEqual({ clients: 1 });
    expect(await codeOf(room.hub.broadcast("x", { channels: `${long}x` }))).toBe("bad-channel");
  }),
);

for (const mode of ["bridge", "direct"] as const)
  test(`${mode}: onConnect of the object is given the visitor's address, and nothing of the hub's own request`, async () => {
    const seen: unknown[] = [];
    const onConnect = ({ request: { url, method, headers } }: { request: Request }) =>
      void seen.push([url, method, headers.get("authorization")]);
    await room({ hub: { mode }, onConnect }, async (room) => {
      await room.join({ id: "ada" });
      await until("it is told", () => seen.length > 0);
    })();
    expect(seen).toEqual([[clientRequest({ id: "ada" }).url, "GET", null]]);
  });

const namespace = env.HUB;
const MISTAKES: readonly (readonly [string, () => unknown])[] = [
  ["no namespace", () => hub(undefined as unknown as typeof namespace)],
  ["something else as a namespace", () => hub({} as unknown as typeof namespace)],
  ["an empty name", () => hub(namespace, { name: "" })],
  ["a name that is a number", () => hub(namespace, { name: 5 } as unknown as HubOptions)],
  ["an unknown mode", () => hub(namespace, { mode: "relay" } as unknown as HubOptions)],
  ["an option with a typo", () => hub(namespace, { authorise: () => true } as HubOptions)],
  ["an option of the object", () => hub(namespace, { heartbeat: 5 } as HubOptions)],
  ["an engine", () => hub(namespace, { engine: {} } as HubOptions)],
  ["an authorize that is none", () => hub(namespace, { authorize: true } as unknown as HubOptions)],
];
for (const [what, make] of MISTAKES)
  test(`hub: ${what} is a TypeError at the call`, () => {
    expect(make).toThrow(TypeError);
  });

test("hub: a name that is a function shards: clients and events of two names never meet", async () => {
  const sharded = hub(namespace, {
    name: (request) => `shard ${new URL(request.url).searchParams.get("tenant")}`,
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
  expect(await story(one, "of 1")).toEqual(["of 1", "of 1"]);
  expect(await story(two, "end")).toEqual(["of 2", "end"]);
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

test("hub: a name function that gives none, or throws, is an error of the request and opens nothing", async () => {
  const errors: unknown[] = [];
  for (const name of [() => "", () => undefined as unknown as string, () => JSON.parse("{") as string]) {
    const { clientHandler } = hub(namespace, { name, onError: ({ error }) => errors.push(error) });
    const answer = await clientHandler(clientRequest({ headers: { accept: "*/*" } }));
    expect([answer.status, await problemOf(answer)]).toEqual([500, "internal"]);
  }
  await until("all are told", () => errors.length === 3);
});

test("hub: an object that cannot be reached is engine-down to who connects, and unknown to who publishes", async () => {
  const lost = () => Promise.reject(new Error("The Durable Object's isolate exceeded its memory limit and was reset."));
  const away = hub({ getByName: () => ({ fetch: lost, serve: lost }) });
  const answer = await away.clientHandler(clientRequest({ headers: { accept: "*/*" } }));
  expect([answer.status, await problemOf(answer)]).toEqual([503, "engine-down"]);
  expect(await codeOf(away.broadcast("x"))).toBe("publish-outcome-unknown");
  expect(await codeOf(away.stats())).toBe("engine-down");
  const full = () => Promise.reject(Object.assign(new Error("overloaded"), { overloaded: true }));
  const overloaded = hub({ getByName: () => ({ fetch: full, serve: full }) });
  expect(await codeOf(overloaded.broadcast("x"))).toBe("engine-down");
});

for (const [what, headers] of [
  ["a visitor's request", {}],
  ["a visitor's request for a socket", { upgrade: "websocket" }],
  ["a visitor's request with a token of its own", { authorization: "Bearer x" }],
  ["a visitor's request for a socket with an empty token", { upgrade: "websocket", authorization: "Bearer " }],
] as const)
  test(
    `stub: ${what} that is passed on is 401, and opens nothing`,
    room({}, async (room) => {
      const client = await room.join();
      for (const { url, ...init } of [
        { url: "https://site.test/connect" },
        { url: "https://site.test/", method: "POST" },
      ]) {
        const answer = await room.stub.fetch(new Request(url, { ...init, headers }));
        expect([answer.status, answer.webSocket ?? null, await problemOf(answer)]).toEqual([401, null, "unauthorized"]);
      }
      expect(await room.stub.stats()).toMatchObject({ clients: 1, published: 0 });
      expect(await room.inside((_, ctx) => ctx.getWebSockets().length)).toBe(1);
      await client.leave();
    }),
  );

for (const mode of ["bridge", "direct"] as const)
  test(`${mode}: a hub takes the new secret of an object that began anew`, async () => {
    const room = new Room({ hub: { mode } });
    const client = await room.join();
    await client.leave();
    await room.gone();
    await room.inside((_, { storage }) => storage.deleteAll());
    await room.abort();
    const again = await room.join();
    await publish(room, ["anew"]);
    expect(await story(again, "anew")).toEqual(["anew"]);
    await room.end();
  });
