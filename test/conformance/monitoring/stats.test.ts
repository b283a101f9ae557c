import { expect, test } from "vitest";
import type { Connection } from "../../support/clients/connection.ts";
import { clientRequest, eventRequest, scene } from "../../support/test-broker.ts";

// `stats()`: what each member counts, and what it does not.

/** The bytes of what a client was given after the first chunk, which tells who and where it is. */
const bytesOf = ({ chunks }: Connection): number => chunks.slice(1).reduce((sum, { length }) => sum + length, 0);
test(
  "stats: the names are single lower-case words, and all is 0 before the first use",
  scene(async (stage) => {
    const broker = stage.broker();
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
  "stats: what it gives is what was at the call, and the caller's own",
  scene(async (stage) => {
    const broker = stage.broker();
    await (await stage.join(broker)).leave();
    await broker.fetch(new Request("https://fanwire.test/nothing"));
    const before = broker.stats();
    const copy = structuredClone(before);
    Object.assign(before.disconnects, { "client-left": 100 });
    Object.assign(before.failures, { "not-found": 100 });
    Object.assign(before.log, { events: 100 });
    expect(broker.stats()).toEqual(copy);
    await (await stage.join(broker)).leave();
    await broker.broadcast("x");
    expect(copy).toMatchObject({ published: 0, disconnects: { "client-left": 1 }, failures: { "not-found": 1 } });
  }),
);

test(
  "stats().clients, ids, channels: connections, ids, and what somebody reads, listeners that wait included",
  scene(async (stage) => {
    const broker = stage.broker();
    const one = [await stage.join(broker, { id: "one", channel: "a" }), await stage.join(broker, { id: "one" })];
    const two = await stage.join(broker, { id: "two", channel: ["a", "b"] });
    // The common one, two inboxes, a and b.
    expect(broker.stats()).toMatchObject({ clients: 3, ids: 2, channels: 5 });
    const listener = broker.listen({ channels: ["a", "c"] });
    expect(broker.stats()).toMatchObject({ clients: 3, channels: 5 });
    const heard = listener.next();
    expect(broker.stats()).toMatchObject({ clients: 3, channels: 6 });
    await listener.return?.();
    await heard;
    await two.leave();
    expect(broker.stats()).toMatchObject({ clients: 2, ids: 1, channels: 3 });
    for (const client of one) await client.leave();
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0 });
  }),
);

test(
  "stats().blocked, closing: who has something to receive and does not take it, and whose end is not read",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 60_000 });
    const idle = await stage.join(broker, { id: "idle" });
    const blocked = await stage.join(broker, { id: "blocked" });
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
  "stats().pending: those who wait for authorize, to read or to publish",
  scene(async (stage) => {
    const verdicts: ((verdict: boolean) => void)[] = [];
    const broker = stage.broker({ authorize: () => new Promise((answer) => verdicts.push(answer)) });
    const answers = [broker.clientHandler(clientRequest()), broker.eventHandler(eventRequest("x"))];
    expect(broker.stats()).toMatchObject({ pending: 2, clients: 0 });
    verdicts[1]?.(true);
    await answers[1];
    expect(broker.stats()).toMatchObject({ pending: 1, clients: 0, published: 1 });
    verdicts[0]?.(true);
    await (await answers[0])?.body?.cancel();
    expect(broker.stats()).toMatchObject({ pending: 0, disconnects: { "client-left": 1 } });
  }),
);

test(
  "stats().sent, bytes: each event and each byte that each client was given, live or behind, and none of a listener",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 60_000 });
    const listener = broker.listen({ channels: "a" });
    const live = await stage.join(broker, { id: "live", channel: "a" });
    const behind = await stage.join(broker, { id: "behind", channel: ["a", "b"] });
    const reading = live.untilData("end");
    for (let event = 0; event < 100; event++) {
      await broker.broadcast(`${event} €${"x".repeat(event * 30)}`, { channels: "a" });
      await broker.broadcast({ event: "type", data: "1\n2\n3", retry: 5 }, { channels: "b" });
    }
    const heard = await listener.next();
    expect(heard.done).toBe(false);
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
  "stats().bytes: heartbeats, positions and ends are not counted",
  scene(async (stage) => {
    const broker = stage.broker({ heartbeat: 16, log: { retention: { age: 30 } } });
    const client = await stage.join(broker, { id: "one" });
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
  "stats().gaps, bytes: of gaps that stand among events, each that a client was told",
  scene(async (stage) => {
    const broker = stage.broker({ log: { retention: { events: 1 } } });
    const start = (await stage.join(broker)).lastEventId ?? "";
    // Holes of two channels, with an event inside of one of them.
    for (const channel of ["a", "a", "b", "b", "a"]) await broker.broadcast("x", { channels: channel });
    await broker.broadcast("last");
    const clients = [];
    for (let client = 0; client < 2; client++) {
      const back = await stage.join(broker, { id: `${client}`, channel: ["a", "b"], lastEventId: start });
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
  ["of a foreign id", {}, () => "elsewhere-1"],
  ["that maxReplay makes", { maxReplay: { events: 0 } }, (start: string) => start],
] as const) {
  test(
    `stats().gaps, bytes: a gap ${what}, which is told before all else, is counted like any other`,
    scene(async (stage) => {
      const broker = stage.broker(options);
      const start = (await stage.join(broker)).lastEventId ?? "";
      await broker.broadcast("x", { channels: "a" });
      const before = broker.stats();
      const client = await stage.connect(broker, { channel: "a", lastEventId: lastEventId(start) });
      const gap = await client.untilControl("gap");
      const told = `id: ${gap.id}\nevent: fanwire-gap\ndata: ${gap.data}\n\n`;
      const text = new TextDecoder().decode(client.chunks[0]);
      expect(text).toContain(told.slice(told.indexOf("event")));
      const { gaps, bytes } = broker.stats();
      expect(gaps - before.gaps).toBe(1);
      // The gap is in the first chunk here, whose other part is not counted.
      expect(bytes - before.bytes).toBe(new TextEncoder().encode(told).length + bytesOf(client));
    }),
  );
}

test(
  "stats().replayed: those that came from the log, to who came back or was behind, and not what was sent live",
  scene(async (stage) => {
    const broker = stage.broker();
    const first = await stage.join(broker);
    const start = first.lastEventId ?? "";
    for (const data of ["1", "2", "3"]) {
      const next = first.nextData();
      await broker.broadcast(data);
      await next;
    }
    expect(broker.stats()).toMatchObject({ sent: 3, replayed: 0 });
    const back = await stage.join(broker, { lastEventId: start });
    await back.untilData("3");
    expect(broker.stats()).toMatchObject({ sent: 6, replayed: 3 });
    const earliest = await stage.join(broker, { query: { from: "earliest" } });
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
