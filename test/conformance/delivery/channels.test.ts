import { expect, test } from "vitest";
import { seqOf } from "../../support/clients/connection.ts";
import { codeOf, eventRequest, withBroker } from "../../support/test-broker.ts";

test(
  "channels: a client receives the events for every client, for its channels and for itself, and nothing else",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "one", channel: ["a", "b"] });
    await broker.broadcast("all");
    await broker.broadcast("a", { channels: "a" });
    await broker.broadcast("c", { channels: "c" });
    await broker.broadcast("b and c", { channels: ["b", "c"] });
    await setup.join(broker, { id: "two" });
    await broker.broadcastTo("two", "for two");
    await broker.broadcastTo("one", "for one");
    await broker.broadcast("end");
    await client.untilData("end");
    expect(client.data).toEqual(["all", "a", "b and c", "for one", "end"]);
  }),
);

test(
  "positions: one total order over all channels, inboxes and the common channel",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "one", channel: ["a", "b"] });
    const ids: string[] = [];
    for (let round = 0; round < 20; round++) {
      ids.push((await broker.broadcast("x", { channels: "b" })).id);
      ids.push((await broker.broadcast("x", { channels: "a" })).id);
      ids.push((await broker.broadcastTo("one", "x")).id);
      ids.push((await broker.broadcast("x")).id);
    }
    const seen: (string | undefined)[] = [];
    for (const _ of ids) seen.push((await client.nextData()).id);
    expect(seen).toEqual(ids);
    expect(ids.map(seqOf)).toEqual(ids.map((_, index) => index + 1));
    expect(new Set(ids.map((id) => id.replace(/-\d+$/, ""))).size).toBe(1);
    for (const id of ids) expect(id).toMatch(/^[A-Za-z0-9-]{1,64}$/);
  }),
);

test(
  "broadcast(): events keep the order of the calls, awaited or not",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "one", channel: "a" });
    const results = [
      broker.broadcast("1"),
      broker.broadcastTo("one", "2"),
      broker.broadcast("3", { channels: "a" }),
      broker.broadcast("4"),
    ];
    await broker.broadcast("5");
    await client.untilData("5");
    expect(client.data).toEqual(["1", "2", "3", "4", "5"]);
    expect((await Promise.all(results)).map(({ id }) => seqOf(id))).toEqual([1, 2, 3, 4]);
  }),
);

test(
  "broadcast(): a client of several of the event's channels receives it once and is counted once",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { channel: ["a", "b", "c"] });
    expect(await broker.broadcast("once", { channels: ["a", "b", "a", "d"] })).toMatchObject({ clients: 1 });
    await broker.broadcast("end");
    await client.untilData("end");
    expect(client.data).toEqual(["once", "end"]);
  }),
);

test(
  "broadcast(): `clients` counts the connections that the event is for",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await setup.join(broker, { id: "one", channel: "a" });
    await setup.join(broker, { id: "one", channel: ["a", "b"] });
    await setup.join(broker, { id: "two" });
    expect((await broker.broadcast("x")).clients).toBe(3);
    expect((await broker.broadcast("x", { channels: "a" })).clients).toBe(2);
    expect((await broker.broadcast("x", { channels: ["a", "b"] })).clients).toBe(2);
    expect((await broker.broadcast("x", { channels: "none" })).clients).toBe(0);
    expect((await broker.broadcastTo("one", "x")).clients).toBe(2);
  }),
);

for (const name of ["@victim", "#a", "@", "#", "@@victim", "#@victim"]) {
  test(
    `inboxes: the channel name "${name}" addresses only the channel of that name`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      const victim = await setup.join(broker, { id: "victim", channel: "a" });
      const spy = await setup.join(broker, { id: "spy", channel: name });
      await broker.broadcast("by channel", { channels: name });
      await broker.broadcastTo("victim", "private");
      await broker.broadcast("in a", { channels: "a" });
      await broker.broadcast("end");
      await victim.untilData("end");
      await spy.untilData("end");
      expect(victim.data).toEqual(["private", "in a", "end"]);
      expect(spy.data).toEqual(["by channel", "end"]);
    }),
  );
}

test(
  "inboxes: a client id that looks like the key of a channel addresses no other client",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const odd = await setup.join(broker, { id: "#a" });
    const common = await setup.join(broker, { id: "@x", channel: "a" });
    await broker.broadcastTo("#a", "for #a");
    await broker.broadcastTo("@x", "for @x");
    await broker.broadcast("in a", { channels: "a" });
    await broker.broadcast("end");
    await odd.untilData("end");
    await common.untilData("end");
    expect(odd.data).toEqual(["for #a", "end"]);
    expect(common.data).toEqual(["for @x", "in a", "end"]);
  }),
);

test(
  "client ids: two connections may share one, and each receives the events",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [left, right] = [await setup.join(broker, { id: "tab" }), await setup.join(broker, { id: "tab" })];
    expect(await broker.broadcastTo("tab", "both")).toMatchObject({ clients: 2 });
    expect((await left.nextData()).data).toBe("both");
    expect((await right.nextData()).data).toBe("both");
    expect(broker.stats()).toMatchObject({ clients: 2, ids: 1 });
    expect(new Set(broker.clients().map(({ connectionId }) => connectionId)).size).toBe(2);
    await left.leave();
    expect(await broker.broadcastTo("tab", "one")).toMatchObject({ clients: 1 });
    expect((await right.nextData()).data).toBe("one");
  }),
);

test(
  "client ids: ids that the broker creates have at least 128 random bits and never repeat",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const ids: string[] = [];
    for (let client = 0; client < 200; client++) ids.push((await setup.connect(broker)).clientId);
    expect(new Set(ids).size).toBe(ids.length);
    // Five bits per character: an alphabet of 32, and each place uses most of it.
    for (const id of ids) expect(id).toMatch(/^[0-9a-v]{26,}$/);
    for (let place = 0; place < 26; place++) expect(new Set(ids.map((id) => id[place])).size).toBeGreaterThan(20);
  }),
);

test(
  "inboxLinger: an event that is sent during a reconnect is stored, answered with clients: 0, and delivered on resume",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "one" });
    await broker.broadcast("seen");
    await client.untilData("seen");
    await client.leave();
    expect(await broker.broadcastTo("one", "while away")).toMatchObject({ clients: 0 });
    const byHttp = await broker.eventHandler(eventRequest("while away, by HTTP", "?id=one"));
    expect([byHttp.status, await byHttp.json()]).toMatchObject([200, { clients: 0 }]);
    const back = await setup.join(broker, { id: "one", lastEventId: client.lastEventId ?? "" });
    expect((await back.nextData()).data).toBe("while away");
    expect((await back.nextData()).data).toBe("while away, by HTTP");
    expect(back.control("gap")).toEqual([]);
  }),
);

test(
  "inboxLinger: 0 forgets a client id with its last connection, and not before",
  withBroker(async (setup) => {
    const broker = setup.broker({ inboxLinger: 0 });
    const [one, two] = [await setup.join(broker, { id: "tab" }), await setup.join(broker, { id: "tab" })];
    await one.leave();
    expect(await codeOf(broker.broadcastTo("tab", "x"))).toBe("none");
    await two.leave();
    expect(await codeOf(broker.broadcastTo("tab", "x"))).toBe("unknown-client");
  }),
);

test(
  "broadcastTo(): a client id that never connected is unknown-client, and nothing is stored",
  withBroker(async (setup) => {
    const broker = setup.broker();
    expect(await codeOf(broker.broadcastTo("nobody", "x"))).toBe("unknown-client");
    expect(broker.stats().log.events).toBe(0);
  }),
);

test(
  "checkChannel(): returns a name that can be a channel, and throws bad-channel for any other; may be called detached",
  withBroker(async (setup) => {
    const { checkChannel } = setup.broker({ maxChannelsPerClient: 0 });
    for (const name of ["a", "room 7", "fanwire", "x".repeat(256), "@ann", "日本"])
      expect(checkChannel(name)).toBe(name);
    const check = async (name: unknown): Promise<string> => checkChannel(name as string);
    for (const name of ["", "x".repeat(257), "a\nb", "a\0", "\x7f", "\uD800", "fanwire-common", "fanwire-"])
      expect(await codeOf(check(name))).toBe("bad-channel");
    for (const name of [undefined, 7, ["a"], null]) expect(await codeOf(check(name))).toBe("TypeError");
  }),
);

test(
  "bad-channel, bad-id: empty, too long, control characters, lone surrogates, and the reserved prefix",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (const name of ["", "x".repeat(257), "a\nb", "a\0", "\x7f", "\uD800", "fanwire-common", "fanwire-"]) {
      expect(await codeOf(broker.broadcast("x", { channels: name }))).toBe("bad-channel");
      expect(await codeOf(broker.broadcast("x", { channels: ["fine", name] }))).toBe("bad-channel");
    }
    for (const id of ["", "x".repeat(257), "a\nb", "a\0", "\x7f", "\uD800"]) {
      expect(await codeOf(broker.broadcastTo(id, "x"))).toBe("bad-id");
    }
    expect(await codeOf(broker.broadcast("x", { channels: "x".repeat(256) }))).toBe("none");
    expect(await codeOf(broker.broadcast("x", { channels: 7 as unknown as string }))).toBe("TypeError");
  }),
);

test(
  "bad-channel: an empty list does not mean every client, and more than 100 channels are too many",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const many = Array.from({ length: 101 }, (_, index) => `channel ${index}`);
    for (const channel of [[], many]) {
      expect(await codeOf(broker.broadcast("x", { channels: channel }))).toBe("bad-channel");
      expect(await codeOf((async () => broker.listen({ channels: channel }))())).toBe("bad-channel");
      const answer = await broker.eventHandler(eventRequest("x"), { channels: channel });
      expect(answer.status).toBe(400);
    }
    expect(await codeOf(setup.connect(broker, { overrides: { channels: many } }))).not.toBe("none");
    expect(broker.stats()).toMatchObject({ clients: 0, published: 0 });
  }),
);
