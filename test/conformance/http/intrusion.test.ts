// Attempts to read, impersonate or remove another client. Tests of single options are elsewhere and are not repeated here.
import { expect, test } from "vitest";
import type { AccessRequest, Authorize } from "../../../src/index.ts";
import { type Connection, gapOf } from "../../support/clients/connection.ts";
import { statusAndCode, testPublishing, testReading } from "../../support/http/entry-points.ts";
import {
  type ConnectOptions,
  clientRequest,
  codeOf,
  eventRequest,
  type TestBrokerOptions,
  turn,
  withBroker,
} from "../../support/test-broker.ts";

/** Names that every object inherits. */
const INHERITED = ["__proto__", "constructor", "prototype", "toString", "valueOf", "hasOwnProperty", "then"];

for (const name of INHERITED) {
  test(
    `names: ${name} is an ordinary id, channel, event type, idempotency key and subject`,
    withBroker(async (setup) => {
      const broker = setup.broker({
        duplicateIds: "reject",
        maxClientsPerSubject: 1,
        authorize: ({ request, clientId, channels }) => ({
          subject: request.headers.get("x-subject") ?? undefined,
          clientId,
          channels,
          everybody: true,
        }),
      });
      const own: ConnectOptions = { id: name, channel: name, headers: { "x-subject": name } };
      const one = await setup.join(broker, own);
      const other = await setup.join(broker, { id: "other", channel: "other" });
      const again = clientRequest({ ...own, headers: { ...own.headers, accept: "*/*" } });
      expect([one.clientId, (await broker.clientHandler(again)).status]).toEqual([name, 409]);

      const event = { event: name, data: "in a channel" };
      const { id } = await broker.broadcast(event, { channels: name, idempotencyKey: name });
      expect((await broker.broadcast(event, { channels: name, idempotencyKey: name })).id).toBe(id);
      await broker.broadcastTo(name, "for one");
      const post = () =>
        broker.fetch(
          eventRequest("by HTTP", `?channel=${name}&type=${name}`, { headers: { "idempotency-key": name } }),
        );
      expect(await (await post()).json()).toEqual(await (await post()).json());
      await broker.broadcast("end");
      for (const client of [one, other]) await client.untilData("end");
      expect(one.events.slice(1).map((seen) => [seen.event, seen.data])).toEqual([
        [name, "in a channel"],
        [undefined, "for one"],
        [name, "by HTTP"],
        [undefined, "end"],
      ]);
      expect(other.data).toEqual(["end"]);

      await broker.disconnect(name, { blockFor: 60_000 });
      expect(await one.ended()).toBe("closed");
      expect((await broker.clientHandler(clientRequest(own))).status).toBe(204);
      const { clients, disconnects, failures } = broker.stats();
      expect([clients, disconnects, failures]).toEqual([1, { disconnected: 1 }, { "duplicate-id": 1 }]);
    }),
  );
}

test(
  "__proto__: as a key of parsed JSON it is refused, and its content has no effect",
  withBroker(async (setup) => {
    const parsed = (text: string): object => JSON.parse(`{"data":"x","__proto__":${text}}`);
    const bare = (text: string): object => JSON.parse(`{"__proto__":${text}}`);
    expect(() => setup.broker(bare('{"publishToken":"x"}'))).toThrow(TypeError);
    const broker = setup.broker({ authorize: () => bare('{"everybody":true,"clientId":"victim"}') });
    expect(await codeOf(broker.broadcast(parsed('{"event":"x"}') as { data: string }))).toBe("TypeError");
    expect(await codeOf(broker.broadcast("x", bare('{"channel":"a"}')))).toBe("TypeError");
    expect(await codeOf(broker.clientHandler(clientRequest(), bare('{"id":"victim"}')))).toBe("TypeError");
    expect(await codeOf(broker.eventHandler(eventRequest("x"), bare('{"id":"victim"}')))).toBe("TypeError");
    expect(await statusAndCode(await broker.fetch(clientRequest()))).toEqual([500, "internal"]);
    expect(await statusAndCode(await broker.fetch(eventRequest("x")))).toEqual([500, "internal"]);
    expect(broker.stats()).toMatchObject({ clients: 0, published: 0 });
  }),
);

/** Names of options, of overrides, and of fields of an event or a grant. A query must not set any of them. */
const FOREIGN_NAMES = [
  ...["key", "event", "data", "retry", "report", "recipient", "nonce", "guarded", "authorize", "context", "subject"],
  ...["expiresAt", "everybody", "errorHandler", "byToken", "idempotency-key", "allowQuery"],
  ...INHERITED,
];
const foreignQuery = Object.fromEntries(FOREIGN_NAMES.map((name) => [name, "victim"]));

testPublishing("the query: only type, channel and id have an effect", async (setup, entryPoint) => {
  const accesses: AccessRequest[] = [];
  const broker = setup.broker({ authorize: (access) => accesses.push(access) > 0, allowQuery: FOREIGN_NAMES });
  const victim = await setup.join(broker, { id: "victim", channel: "victim" });
  const other = await setup.join(broker);
  // Twice: if the query set an idempotency key, the second event would count as a repeat of the first.
  for (let time = 0; time < 2; time++)
    expect((await entryPoint(broker, eventRequest("x", `?${new URLSearchParams(foreignQuery)}`))).status).toBe(200);
  for (const client of [victim, other]) {
    const { length } = client.retries;
    expect(await client.nextData()).toMatchObject({ event: undefined, data: "x" });
    expect(await client.nextData()).toMatchObject({ event: undefined, data: "x" });
    expect(client.retries).toHaveLength(length);
  }
  expect(accesses.at(-1)).toMatchObject({ action: "publish", channels: [], clientId: undefined });
});

testReading("the query: only id, channel, from and lastEventId have an effect", async ({ setup, connect }) => {
  const broker = setup.broker({ authorize: () => true });
  const client = await connect(broker, { query: foreignQuery });
  const [info] = broker.clients();
  expect(info).toMatchObject({ clientId: expect.stringMatching(/^[0-9a-v]{26}$/), channels: [] });
  expect(info).not.toHaveProperty("subject");
  await broker.broadcast("for victim", { channels: "victim" });
  await broker.broadcast("end");
  await client.untilData("end");
  expect(client.data).toEqual(["end"]);
});

// Replay.

/** Grants channel "a" and nothing else. */
const onlyA: Authorize = ({ request }) => ({ clientId: request.headers.get("x-who") ?? "eve", channels: ["a"] });
const asEve = (more: ConnectOptions): ConnectOptions => ({ headers: { "x-who": "eve" }, ...more });

testReading(
  "Last-Event-ID: with the position of an event that is not granted, a client receives its own events after it, and no others",
  async ({ setup, connect }) => {
    const broker = setup.broker({ authorize: onlyA });
    await connect(broker, { headers: { "x-who": "ada" } });
    const published: { readonly id: string; readonly data: string }[] = [];
    for (const [data, send] of [
      ["a 1", () => broker.broadcast("a 1", { channels: "a" })],
      ["b 1", () => broker.broadcast("b 1", { channels: "b" })],
      ["to ada", () => broker.broadcastTo("ada", "to ada")],
      ["a 2", () => broker.broadcast("a 2", { channels: ["a", "b"] })],
      ["b 2", () => broker.broadcast("b 2", { channels: "b" })],
      ["all", () => broker.broadcast("all")],
    ] as const)
      published.push({ ...(await send()), data });
    for (const [index, { id }] of published.entries()) {
      const granted = published.slice(index + 1).filter(({ data }) => /^(a|all)\b/.test(data));
      for (const start of [{ lastEventId: id }, { query: { lastEventId: id } }] satisfies ConnectOptions[]) {
        const eve = await connect(broker, asEve(start));
        const { id: end } = await broker.broadcast("end", { channels: "a" });
        await eve.until((event) => event.id === end);
        // The channel also has the "end" events of earlier rounds.
        expect(eve.data.filter((data) => data !== "end")).toEqual(granted.map(({ data }) => data));
        expect(eve.control("gap")).toEqual([]);
        await eve.leave();
      }
    }
  },
);

testReading("Last-Event-ID, from: neither one widens a grant", async ({ setup, entryPoint }) => {
  const broker = setup.broker({ authorize: onlyA });
  const { id } = await broker.broadcast("b", { channels: "b" });
  for (const start of [{ query: { from: "earliest" } }, { lastEventId: id }, { lastEventId: "elsewhere-1" }])
    for (const more of [{ channel: "b" }, { channel: ["a", "b"] }, { id: "ada" }] as const)
      expect(await statusAndCode(await entryPoint(broker, clientRequest(asEve({ ...start, ...more }))))).toEqual([
        403,
        "forbidden",
      ]);
  expect(broker.stats().clients).toBe(0);
});

const missingRanges: readonly (readonly [what: string, isConnected: boolean, options: TestBrokerOptions])[] = [
  ["events that retention dropped", true, { log: { retention: { events: 1 } } }],
  ["events that maxReplay leaves out", true, { maxReplay: { events: 1 } }],
  ["events that logBytes evicted", true, { log: { logBytes: 3_000 } }],
  // The log does not forget channels of a connected client.
  ["channels that were forgotten", false, { log: { maxChannels: 3 } }],
];
for (const [what, isConnected, options] of missingRanges) {
  testReading(`fanwire-gap: for ${what}, it names no channel that is not granted`, async ({ setup, connect }) => {
    const broker = setup.broker({ ...options, authorize: onlyA });
    const { id } = await broker.broadcast("first", { channels: "a" });
    await (await connect(broker, { headers: { "x-who": "ada" } })).leave();
    const readers: Connection[] = isConnected ? [await connect(broker, asEve({}))] : [];
    for (let time = 0; time < 20; time++) {
      for (const channel of ["a", "b", "hidden"]) await broker.broadcast("x".repeat(100), { channels: channel });
      await broker.broadcastTo("ada", "x".repeat(100));
      await broker.broadcast("x", { channels: `channel ${time}` });
      // The log drops an event only after it was sent.
      await turn();
    }
    readers.push(await connect(broker, asEve({ lastEventId: id })));
    const { id: end } = await broker.broadcast("end");
    for (const reader of readers) await reader.until((event) => event.id === end);
    expect(readers.at(-1)?.control("gap").length).toBeGreaterThan(0);
    const named = readers.flatMap((reader) => reader.control("gap").flatMap((gap) => gapOf(gap).channels));
    for (const name of named) expect(["a", "fanwire-common", "fanwire-inbox"]).toContain(name);
    for (const { data } of readers.flatMap(({ events }) => events))
      expect(data.replace(/"secret":"\w+"/, "")).not.toMatch(/ada|hidden|channel \d/);
  });
}

testReading(
  "Grant.channels: a name that only looks like a granted one is not granted",
  async ({ setup, entryPoint }) => {
    const broker = setup.broker({ authorize: () => ({ clientId: "zo\u00eb", channels: ["caf\u00e9", "a/b", "k"] }) });
    const others = ["cafe\u0301", "CAF\u00c9", "caf\u00e9 ", "caf\u00e9\u200b", "\ufeffk", "\u212a", "K", "\uff4b"];
    others.push(
      "a%2Fb",
      "a/./b",
      "a/b/",
      "a",
      "a\u2215b",
      "@zo\u00eb",
      "#k",
      "*",
      "?",
      "caf\u00e9,k",
      "[object Object]",
    );
    for (const channel of others)
      expect([channel, await statusAndCode(await entryPoint(broker, clientRequest({ channel })))]).toEqual([
        channel,
        [403, "forbidden"],
      ]);
    for (const id of ["zoe\u0308", "ZO\u00cb", "zo\u00eb ", "zo%C3%AB", "@zo\u00eb"])
      expect([id, await statusAndCode(await entryPoint(broker, clientRequest({ id })))]).toEqual([
        id,
        [403, "forbidden"],
      ]);
    expect(broker.stats().clients).toBe(0);
  },
);
