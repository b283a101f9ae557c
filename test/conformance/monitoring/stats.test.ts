// `stats()`: what each number counts, and what it does not.
import { expect, test } from "vitest";
import type { Connection } from "../../support/clients/connection.ts";
import { clientRequest, eventRequest, withBroker } from "../../support/test-broker.ts";

/** Returns how many bytes a client received after its first chunk, which is `fanwire-ready`. */
const bytesOf = ({ chunks }: Connection): number => chunks.slice(1).reduce((sum, { length }) => sum + length, 0);

test(
  "stats(): names are single lower-case words, and every number is 0 before the first use",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const stats = broker.stats();
    expect(stats).toEqual({
      clients: 0,
      ids: 0,
      blocked: 0,
      closing: 0,
      pending: 0,
      channels: 0,
      published: 0,
      sent: 0,
      bytes: 0,
      replayed: 0,
      gaps: 0,
      overruns: 0,
      disconnects: {},
      failures: {},
      engine: "idle",
      log: { events: 0, bytes: 0, channels: 0 },
    });
    for (const name of [...Object.keys(stats), ...Object.keys(stats.log)]) expect(name).toMatch(/^[a-z]+$/);
  }),
);

test(
  "stats(): returns a copy of the numbers at the call, which the caller may change",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await (await setup.join(broker)).leave();
    await broker.fetch(new Request("https://fanwire.test/nothing"));
    const before = broker.stats();
    const copy = structuredClone(before);
    Object.assign(before.disconnects, { "client-left": 100 });
    Object.assign(before.failures, { "not-found": 100 });
    Object.assign(before.log, { events: 100 });
    expect(broker.stats()).toEqual(copy);
    await (await setup.join(broker)).leave();
    await broker.broadcast("x");
    expect(copy).toMatchObject({ published: 0, disconnects: { "client-left": 1 }, failures: { "not-found": 1 } });
  }),
);

test(
  "stats().clients, ids, channels: count connections, client ids, and channels with a subscriber, including waiting listeners",
  withBroker(async (setup) => {
    const broker = setup.broker({ engine: setup.immediateEngine() });
    const one = [await setup.join(broker, { id: "one", channel: "a" }), await setup.join(broker, { id: "one" })];
    const two = await setup.join(broker, { id: "two", channel: ["a", "b"] });
    // The common channel, two inboxes, a and b.
    expect(broker.stats()).toMatchObject({ clients: 3, ids: 2, channels: 5 });
    const listener = broker.listen({ channels: ["a", "c"] });
    expect(broker.stats()).toMatchObject({ clients: 3, channels: 5 });
    const next = listener.next();
    expect(broker.stats()).toMatchObject({ clients: 3, channels: 6 });
    await listener.return?.();
    await next;
    await two.leave();
    expect(broker.stats()).toMatchObject({ clients: 2, ids: 1, channels: 3 });
    for (const client of one) await client.leave();
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0 });
  }),
);

test(
  "stats().blocked, closing: count connections that do not take their events, and those whose end event is unread",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 60_000 });
    const idle = await setup.join(broker, { id: "idle" });
    const blocked = await setup.join(broker, { id: "blocked" });
    expect(broker.stats()).toMatchObject({ blocked: 0, closing: 0 });
    const read = idle.nextData();
    await broker.broadcast("x");
    await read;
    expect(broker.stats()).toMatchObject({ clients: 2, blocked: 1, closing: 0 });
    await blocked.untilData("x");
    const next = blocked.nextData();
    expect(broker.stats().blocked).toBe(0);
    await broker.broadcastTo("blocked", "y");
    await next;
    await broker.disconnect("blocked");
    expect(broker.stats()).toMatchObject({ clients: 1, blocked: 0, closing: 1 });
    await blocked.ended();
    expect(broker.stats()).toMatchObject({ clients: 1, blocked: 0, closing: 0 });
  }),
);

test(
  "stats().pending: counts requests that wait for authorize, to read or to publish",
  withBroker(async (setup) => {
    const decide: ((result: boolean) => void)[] = [];
    const broker = setup.broker({ authorize: () => new Promise((resolve) => decide.push(resolve)) });
    const answers = [broker.clientHandler(clientRequest()), broker.eventHandler(eventRequest("x"))];
    expect(broker.stats()).toMatchObject({ pending: 2, clients: 0 });
    decide[1]?.(true);
    await answers[1];
    expect(broker.stats()).toMatchObject({ pending: 1, clients: 0, published: 1 });
    decide[0]?.(true);
    await (await answers[0])?.body?.cancel();
    expect(broker.stats()).toMatchObject({ pending: 0, disconnects: { "client-left": 1 } });
  }),
);

test(
  "stats().sent, bytes: count the events and bytes sent to each connection, live or behind, and none sent to a listener",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 60_000 });
    const listener = broker.listen({ channels: "a" });
    const live = await setup.join(broker, { id: "live", channel: "a" });
    const behind = await setup.join(broker, { id: "behind", channel: ["a", "b"] });
    const reading = live.untilData("end");
    for (let event = 0; event < 100; event++) {
      await broker.broadcast(`${event} €${"x".repeat(event * 30)}`, { channels: "a" });
      await broker.broadcast({ event: "type", data: "1\n2\n3", retry: 5 }, { channels: "b" });
    }
    const first = await listener.next();
    expect(first.done).toBe(false);
    await broker.broadcastTo("behind", "own");
    await broker.broadcast("end");
    await reading;
    await behind.untilData("end");
    expect(broker.stats()).toMatchObject({
      published: 202,
      sent: live.data.length + behind.data.length,
      bytes: bytesOf(live) + bytesOf(behind),
      gaps: 0,
    });
    expect([live.data.length, behind.data.length]).toEqual([101, 202]);
  }),
);

test(
  "stats().bytes: does not count heartbeats, fanwire-position and fanwire-end",
  withBroker(async (setup) => {
    const broker = setup.broker({ heartbeat: 16, log: { retention: { age: 30 } } });
    const client = await setup.join(broker, { id: "one" });
    while (client.comments < 2) await client.read();
    await broker.broadcast("elsewhere", { channels: "other" });
    await client.untilControl("position");
    await broker.disconnect("one");
    expect(await client.ended()).toBe("closed");
    expect(client.control("end")).toHaveLength(1);
    expect(broker.stats()).toMatchObject({ sent: 0, bytes: 0, replayed: 0, gaps: 0 });
  }),
);

test(
  "stats().gaps, bytes: count every gap among events, for each connection",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 1 } } });
    const start = (await setup.join(broker)).lastEventId ?? "";
    // Missing ranges of two channels, with an event inside one of them.
    for (const channel of ["a", "a", "b", "b", "a"]) await broker.broadcast("x", { channels: channel });
    await broker.broadcast("last");
    const clients = [];
    for (let client = 0; client < 2; client++) {
      const back = await setup.join(broker, { id: `${client}`, channel: ["a", "b"], lastEventId: start });
      await back.untilData("last");
      clients.push(back);
    }
    const gaps = clients.flatMap((client) => client.control("gap"));
    expect(gaps.length).toBeGreaterThanOrEqual(4);
    expect(broker.stats()).toMatchObject({
      gaps: gaps.length,
      bytes: clients.map(bytesOf).reduce((a, b) => a + b),
      sent: 6,
      overruns: 0,
    });
  }),
);

for (const [what, options, lastEventId] of [
  ["for an unknown id", {}, () => "elsewhere-1"],
  ["that maxReplay makes", { maxReplay: { events: 0 } }, (start: string) => start],
] as const) {
  test(
    `stats().gaps, bytes: a gap ${what}, which comes before everything else, is counted like any other`,
    withBroker(async (setup) => {
      const broker = setup.broker(options);
      const start = (await setup.join(broker)).lastEventId ?? "";
      await broker.broadcast("x", { channels: "a" });
      const before = broker.stats();
      const client = await setup.connect(broker, { channel: "a", lastEventId: lastEventId(start) });
      const gap = await client.untilControl("gap");
      const gapText = `event: fanwire-gap\ndata: ${gap.data}\nid: ${gap.id}\n\n`;
      const text = new TextDecoder().decode(client.chunks[0]);
      expect(text).toContain(gapText);
      const { gaps, bytes } = broker.stats();
      expect(gaps - before.gaps).toBe(1);
      // Here the gap is in the first chunk; the rest of that chunk is not counted.
      expect(bytes - before.bytes).toBe(new TextEncoder().encode(gapText).length + bytesOf(client));
    }),
  );
}

test(
  "stats().replayed: counts events from the log, for connections that resumed or were behind, and no live event",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const first = await setup.join(broker);
    const start = first.lastEventId ?? "";
    for (const data of ["1", "2", "3"]) {
      const next = first.nextData();
      await broker.broadcast(data);
      await next;
    }
    expect(broker.stats()).toMatchObject({ sent: 3, replayed: 0 });
    const back = await setup.join(broker, { lastEventId: start });
    await back.untilData("3");
    expect(broker.stats()).toMatchObject({ sent: 6, replayed: 3 });
    const earliest = await setup.join(broker, { query: { from: "earliest" } });
    await earliest.untilData("3");
    expect(broker.stats()).toMatchObject({ sent: 9, replayed: 6 });
    // The two others are live, and the first is blocked.
    const live = [back.nextData(), earliest.nextData()];
    await broker.broadcast("4");
    await Promise.all(live);
    expect(broker.stats()).toMatchObject({ sent: 11, replayed: 6, blocked: 1 });
    expect((await first.nextData()).data).toBe("4");
    expect(broker.stats()).toMatchObject({ sent: 12, replayed: 7 });
    const listener = broker.listen({ from: "earliest" });
    await listener.next();
    expect(broker.stats()).toMatchObject({ sent: 12, replayed: 7 });
  }),
);
