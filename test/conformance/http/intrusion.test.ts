import { expect, test } from "vitest";
import type { AccessRequest, Authorize } from "../../../src/index.ts";
import { type Connection, gapOf } from "../../support/clients/connection.ts";
import { problem, publishing, reading } from "../../support/http/entry-points.ts";
import {
  clientRequest,
  codeOf,
  eventRequest,
  type SceneBrokerOptions,
  scene,
  turn,
  type Wish,
} from "../../support/test-broker.ts";

// Attempts to see, to impersonate or to knock out somebody else. What the tests of single options try is not tried again here.

/** What an object has without having been given it. */
const INHERITED = ["__proto__", "constructor", "prototype", "toString", "valueOf", "hasOwnProperty", "then"];

for (const name of INHERITED) {
  test(
    `names: ${name} is an id, a channel, a type, a key and a subject like any other`,
    scene(async (stage) => {
      const broker = stage.broker({
        duplicateIds: "reject",
        maxClientsPerSubject: 1,
        authorize: ({ request, clientId, channels }) => ({
          subject: request.headers.get("x-subject") ?? undefined,
          clientId,
          channels,
          everybody: true,
        }),
      });
      const mine: Wish = { id: name, channel: name, headers: { "x-subject": name } };
      const one = await stage.join(broker, mine);
      const other = await stage.join(broker, { id: "other", channel: "other" });
      expect([one.clientId, (await broker.clientHandler(clientRequest(mine))).status]).toEqual([name, 409]);

      const event = { event: name, data: "in a channel" };
      const { id } = await broker.broadcast(event, { channels: name, idempotencyKey: name });
      expect((await broker.broadcast(event, { channels: name, idempotencyKey: name })).id).toBe(id);
      await broker.broadcastTo(name, "for one");
      const post = () =>
        broker.fetch(
          eventRequest("by HTTP", `?channel=${name}&type=${name}&${name}=x`, { headers: { "idempotency-key": name } }),
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
      expect((await broker.clientHandler(clientRequest(mine))).status).toBe(204);
      const { clients, disconnects, failures } = broker.stats();
      expect([clients, disconnects, failures]).toEqual([1, { disconnected: 1 }, { "duplicate-id": 1 }]);
    }),
  );
}

test(
  "__proto__: what parsed JSON has under it is refused, and gives nothing",
  scene(async (stage) => {
    const parsed = (text: string): object => JSON.parse(`{"data":"x","__proto__":${text}}`);
    const bare = (text: string): object => JSON.parse(`{"__proto__":${text}}`);
    expect(() => stage.broker(bare('{"publishToken":"x"}'))).toThrow(TypeError);
    const broker = stage.broker({ authorize: () => bare('{"everybody":true,"clientId":"victim"}') });
    expect(await codeOf(broker.broadcast(parsed('{"event":"x"}') as { data: string }))).toBe("TypeError");
    expect(await codeOf(broker.broadcast("x", bare('{"channel":"a"}')))).toBe("TypeError");
    expect(await codeOf(broker.clientHandler(clientRequest(), bare('{"id":"victim"}')))).toBe("TypeError");
    expect(await codeOf(broker.eventHandler(eventRequest("x"), bare('{"id":"victim"}')))).toBe("TypeError");
    expect(await problem(await broker.fetch(clientRequest()))).toEqual([500, "internal"]);
    expect(await problem(await broker.fetch(eventRequest("x")))).toEqual([500, "internal"]);
    expect(broker.stats()).toMatchObject({ clients: 0, published: 0 });
  }),
);

/** Names of options, of overrides and of fields of an event or a grant, none of which a query may set. */
const UNHEARD = [
  ...["key", "event", "data", "retry", "report", "recipient", "nonce", "guarded", "authorize", "context", "subject"],
  ...["clientId", "channels", "expiresAt", "everybody", "errorHandler", "byToken", "idempotency-key", "id[]", "ID"],
  ...INHERITED,
];
const unheard = Object.fromEntries(UNHEARD.map((name) => [name, "victim"]));

publishing("the query: no other parameter than type, channel and id sets anything", async (stage, door) => {
  const attempts: AccessRequest[] = [];
  const broker = stage.broker({ authorize: (attempt) => attempts.push(attempt) > 0 });
  const victim = await stage.join(broker, { id: "victim", channel: "victim" });
  const other = await stage.join(broker);
  // Twice, because the second would be taken for the first if a key were set.
  for (let time = 0; time < 2; time++)
    expect((await door(broker, eventRequest("x", `?${new URLSearchParams(unheard)}`))).status).toBe(200);
  for (const client of [victim, other]) {
    const { length } = client.retries;
    expect(await client.nextData()).toMatchObject({ event: undefined, data: "x" });
    expect(await client.nextData()).toMatchObject({ event: undefined, data: "x" });
    expect(client.retries).toHaveLength(length);
  }
  expect(attempts.at(-1)).toMatchObject({ action: "publish", channels: [], clientId: undefined });
});

reading(
  "the query: no other parameter than id, channel, from and lastEventId sets anything",
  async ({ stage, enter }) => {
    const broker = stage.broker({ authorize: () => true });
    const client = await enter(broker, { query: unheard });
    const [info] = broker.clients();
    expect(info).toMatchObject({ clientId: expect.stringMatching(/^[0-9a-v]{26}$/), channels: [] });
    expect(info).not.toHaveProperty("subject");
    await broker.broadcast("for victim", { channels: "victim" });
    await broker.broadcast("end");
    await client.untilData("end");
    expect(client.data).toEqual(["end"]);
  },
);

// Replay.

/** Who may read channel "a" and nothing else. */
const onlyA: Authorize = ({ request }) => ({ clientId: request.headers.get("x-who") ?? "eve", channels: ["a"] });
const asEve = (more: Wish): Wish => ({ headers: { "x-who": "eve" }, ...more });

reading(
  "Last-Event-ID: the position of an event that one may not read gives what is one's own after it, and no more",
  async ({ stage, enter }) => {
    const broker = stage.broker({ authorize: onlyA });
    await enter(broker, { headers: { "x-who": "ada" } });
    const told: { readonly id: string; readonly data: string }[] = [];
    for (const [data, send] of [
      ["a 1", () => broker.broadcast("a 1", { channels: "a" })],
      ["b 1", () => broker.broadcast("b 1", { channels: "b" })],
      ["to ada", () => broker.broadcastTo("ada", "to ada")],
      ["a 2", () => broker.broadcast("a 2", { channels: ["a", "b"] })],
      ["b 2", () => broker.broadcast("b 2", { channels: "b" })],
      ["all", () => broker.broadcast("all")],
    ] as const)
      told.push({ ...(await send()), data });
    for (const [index, { id }] of told.entries()) {
      const mine = told.slice(index + 1).filter(({ data }) => /^(a|all)\b/.test(data));
      for (const wish of [{ lastEventId: id }, { query: { lastEventId: id } }] satisfies Wish[]) {
        const eve = await enter(broker, asEve(wish));
        const { id: end } = await broker.broadcast("end", { channels: "a" });
        await eve.until((event) => event.id === end);
        // Those of the loop before are in the channel as well.
        expect(eve.data.filter((data) => data !== "end")).toEqual(mine.map(({ data }) => data));
        expect(eve.control("gap")).toEqual([]);
        await eve.leave();
      }
    }
  },
);

reading("Last-Event-ID, from: neither asks for more than the grant has", async ({ stage, door }) => {
  const broker = stage.broker({ authorize: onlyA });
  const { id } = await broker.broadcast("b", { channels: "b" });
  for (const start of [{ query: { from: "earliest" } }, { lastEventId: id }, { lastEventId: "elsewhere-1" }])
    for (const more of [{ channel: "b" }, { channel: ["a", "b"] }, { id: "ada" }] as const)
      expect(await problem(await door(broker, clientRequest(asEve({ ...start, ...more }))))).toEqual([
        403,
        "forbidden",
      ]);
  expect(broker.stats().clients).toBe(0);
});

const holes: readonly (readonly [what: string, isThere: boolean, options: SceneBrokerOptions])[] = [
  ["what retention dropped", true, { log: { retention: { events: 1 } } }],
  ["what maxReplay leaves out", true, { maxReplay: { events: 1 } }],
  ["what logBytes dropped", true, { log: { logBytes: 3_000 } }],
  // Of who is there nothing is forgotten.
  ["channels that were forgotten", false, { log: { maxChannels: 3 } }],
];
for (const [what, isThere, options] of holes) {
  reading(`fanwire-gap: of ${what} names nothing that one may not read`, async ({ stage, enter }) => {
    const broker = stage.broker({ ...options, authorize: onlyA });
    const { id } = await broker.broadcast("first", { channels: "a" });
    await (await enter(broker, { headers: { "x-who": "ada" } })).leave();
    const readers: Connection[] = isThere ? [await enter(broker, asEve({}))] : [];
    for (let time = 0; time < 20; time++) {
      for (const channel of ["a", "b", "secret"]) await broker.broadcast("x".repeat(100), { channels: channel });
      await broker.broadcastTo("ada", "x".repeat(100));
      await broker.broadcast("x", { channels: `channel ${time}` });
      // Nothing is dropped before it was sent on.
      await turn();
    }
    readers.push(await enter(broker, asEve({ lastEventId: id })));
    const { id: end } = await broker.broadcast("end");
    for (const reader of readers) await reader.until((event) => event.id === end);
    expect(readers.at(-1)?.control("gap").length).toBeGreaterThan(0);
    const named = readers.flatMap((reader) => reader.control("gap").flatMap((gap) => gapOf(gap).channels));
    for (const name of named) expect(["a", "fanwire-common", "fanwire-inbox"]).toContain(name);
    for (const { data } of readers.flatMap(({ events }) => events)) expect(data).not.toMatch(/ada|secret|channel \d/);
  });
}

reading("Grant.channels: a name that only looks like a granted one is another one", async ({ stage, door }) => {
  const broker = stage.broker({ authorize: () => ({ clientId: "zo\u00eb", channels: ["caf\u00e9", "a/b", "k"] }) });
  const others = ["cafe\u0301", "CAF\u00c9", "caf\u00e9 ", "caf\u00e9\u200b", "\ufeffk", "\u212a", "K", "\uff4b"];
  others.push("a%2Fb", "a/./b", "a/b/", "a", "a\u2215b", "@zo\u00eb", "#k", "*", "?", "caf\u00e9,k", "[object Object]");
  for (const channel of others)
    expect([channel, await problem(await door(broker, clientRequest({ channel })))]).toEqual([
      channel,
      [403, "forbidden"],
    ]);
  for (const id of ["zoe\u0308", "ZO\u00cb", "zo\u00eb ", "zo%C3%AB", "@zo\u00eb"])
    expect([id, await problem(await door(broker, clientRequest({ id })))]).toEqual([id, [403, "forbidden"]]);
  expect(broker.stats().clients).toBe(0);
});
