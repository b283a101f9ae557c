import { expect, test, vi } from "vitest";
import { type Connection, isData, seqOf } from "../../support/clients/connection.ts";
import { turn, withBroker } from "../../support/test-broker.ts";

// `fanwire-position`: a client of quiet channels does not come back with an id so old that nobody can prove that nothing is missing.

/** Stops the clock of the log while `body` runs, so that no event gets old enough to be dropped. */
async function withoutAge(body: () => Promise<void>): Promise<void> {
  const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now());
  try {
    await body();
  } finally {
    clock.mockRestore();
  }
}

/** Options with which a client receives a position at the second heartbeat, if there is a newer one. */
const QUICK = { heartbeat: 32, log: { retention: { age: 80 } } };

/** Reads `count` heartbeats. */
async function readHeartbeats(client: Connection, count: number): Promise<void> {
  for (const end = client.comments + count; client.comments < end; ) await client.read();
}

test(
  "fanwire-position: an idle client of a quiet channel receives the position of the log in place of a heartbeat, with data and an id",
  withBroker(async (setup) => {
    const broker = setup.broker(QUICK);
    const client = await setup.join(broker, { channel: "quiet" });
    const { id } = await broker.broadcast("elsewhere", { channels: "other" });
    const position = await client.next();
    // A heartbeat came first, because the position is due after half of the retention age.
    expect(client.comments).toBeGreaterThan(0);
    expect(position).toMatchObject({ event: "fanwire-position", id });
    expect(position.data).not.toBe("");
    expect(JSON.parse(position.data)).toBeTypeOf("object");
    // Its chunk contains nothing else, not even a comment.
    expect(new TextDecoder().decode(client.chunks.at(-1))).toBe(
      `event: fanwire-position\ndata: ${position.data}\nid: ${id}\n\n`,
    );
    expect(client.lastEventId).toBe(id);
  }),
);

test(
  "fanwire-position: is sent again only when the log has moved on and the last id is old again",
  withBroker(async (setup) => {
    const broker = setup.broker(QUICK);
    const client = await setup.join(broker, { channel: "quiet" });
    await broker.broadcast("elsewhere", { channels: "other" });
    await client.untilControl("position");
    for (let round = 2; round <= 4; round++) {
      const { id } = await broker.broadcast("elsewhere", { channels: "other" });
      // The id of the last position is still young.
      const before = client.comments;
      expect((await client.untilControl("position")).id).toBe(id);
      expect(client.comments).toBeGreaterThan(before);
    }
    await readHeartbeats(client, 4);
    expect(client.control("position")).toHaveLength(4);
  }),
);

test(
  "fanwire-position: the shortest age of the client's channels counts",
  withBroker(async (setup) => {
    const broker = setup.broker({
      heartbeat: 32,
      log: { channels: (name) => (name === "short" ? { retention: { age: 80 } } : undefined) },
    });
    const [short, long] = [
      await setup.join(broker, { channel: "short" }),
      await setup.join(broker, { channel: "long" }),
    ];
    const { id } = await broker.broadcast("elsewhere", { channels: "other" });
    const reading = readHeartbeats(long, 4);
    expect((await short.untilControl("position")).id).toBe(id);
    await reading;
    expect(long.control("position")).toEqual([]);
  }),
);

const withoutPosition: readonly (readonly [when: string, options: object])[] = [
  ["the last id is not old", { ...QUICK, log: {} }],
  ["announce is false", { ...QUICK, announce: false }],
];
for (const [when, options] of withoutPosition) {
  test(
    `fanwire-position: is not sent while ${when}`,
    withBroker(async (setup) => {
      const broker = setup.broker(options);
      const client = await setup.connect(broker, { channel: "quiet" });
      await broker.broadcast("elsewhere", { channels: "other" });
      await readHeartbeats(client, 6);
      expect(client.control("position")).toEqual([]);
      const next = client.nextData();
      await broker.broadcast("x", { channels: "quiet" });
      expect((await next).data).toBe("x");
    }),
  );
}

test(
  "fanwire-position: is not sent while the log has no new events, or only events that the client received",
  withBroker(async (setup) => {
    const broker = setup.broker(QUICK);
    const client = await setup.join(broker, { channel: "own" });
    await readHeartbeats(client, 6);
    const next = client.nextData();
    await broker.broadcast("x", { channels: "own" });
    await next;
    await readHeartbeats(client, 6);
    expect(client.control("position")).toEqual([]);
  }),
);

test(
  "fanwire-position: is not sent to a client that receives events often enough",
  withBroker(async (setup) => {
    const broker = setup.broker({ heartbeat: 64, log: { retention: { age: 200 } } });
    const client = await setup.join(broker, { channel: "own" });
    for (let round = 0; round < 6; round++) {
      await readHeartbeats(client, 1);
      const next = client.nextData();
      await broker.broadcast("elsewhere", { channels: "other" });
      await broker.broadcast("x", { channels: "own" });
      await next;
      await broker.broadcast("elsewhere", { channels: "other" });
    }
    expect(client.control("position")).toEqual([]);
  }),
);

test(
  "fanwire-position: is not sent to a blocked client, whether it has something to receive or not",
  withBroker(async (setup) => {
    const broker = setup.broker({ ...QUICK, timeout: 60_000 });
    const [behind, still] = [
      await setup.join(broker, { channel: "own" }),
      await setup.join(broker, { channel: "quiet" }),
    ];
    const idle = await setup.join(broker, { channel: "quiet" });
    await withoutAge(async () => {
      await broker.broadcast("x", { channels: "own" });
      for (let round = 0; round < 3; round++) {
        await broker.broadcast("elsewhere", { channels: "other" });
        await idle.untilControl("position");
      }
      // Nothing was queued before the events that are published for them.
      await broker.broadcast("y", { channels: ["own", "quiet"] });
      expect([(await behind.next()).data, (await behind.next()).data]).toEqual(["x", "y"]);
      expect((await still.next()).data).toBe("y");
    });
  }),
);

test(
  "fanwire-position: a client that came back with an old id receives a newer one",
  withBroker(async (setup) => {
    // No id gets old during this test, because the retention age is long. This one counts as old from the start.
    const broker = setup.broker({ heartbeat: 32 });
    const first = await setup.join(broker, { channel: "quiet" });
    const { id } = await broker.broadcast("elsewhere", { channels: "other" });
    const back = await setup.join(broker, { channel: "quiet", lastEventId: first.lastEventId ?? "" });
    expect(back.lastEventId).toBe(first.lastEventId);
    expect((await back.untilControl("position")).id).toBe(id);
  }),
);

test(
  "fanwire-position: all clients that receive the same position share its chunk",
  withBroker(async (setup) => {
    const broker = setup.broker(QUICK);
    const clients = [
      await setup.join(broker, { channel: "quiet" }),
      await setup.join(broker, { channel: "quiet too" }),
      await setup.join(broker),
    ];
    await broker.broadcast("elsewhere", { channels: "other" });
    await Promise.all(clients.map((client) => client.untilControl("position")));
    expect(new Set(clients.map(({ chunks }) => chunks.at(-1))).size).toBe(1);
  }),
);

test(
  "fanwire-position: a client that comes back with it loses nothing and receives nothing twice",
  withBroker(async (setup) => {
    const broker = setup.broker(QUICK);
    await withoutAge(async () => {
      let client = await setup.join(broker, { id: "one", channel: "quiet" });
      const seen: string[] = [];
      const expected: string[] = [];
      const publish = (data: string, broadcast: (data: string) => Promise<unknown>): Promise<unknown> => {
        expected.push(data);
        return broadcast(data);
      };
      for (let round = 0; round < 8; round++) {
        await broker.broadcast("elsewhere", { channels: "other" });
        const { id } = await client.untilControl("position");
        // In the turn in which the client received the position, and while the client is away.
        void publish(`${round} at once`, (data) => broker.broadcast(data, { channels: "quiet" }));
        if (round % 2 === 0) await turn();
        await client.leave();
        await broker.broadcast("elsewhere", { channels: "other" });
        await publish(`${round} away`, (data) => broker.broadcastTo("one", data));
        client = await setup.connect(broker, { id: "one", channel: "quiet", lastEventId: id ?? "" });
        const ready = await client.untilControl("ready");
        expect([JSON.parse(ready.data), ready.id]).toEqual([
          {
            clientId: "one",
            resumed: true,
            channels: ["quiet"],
            secret: expect.any(String),
            heartbeat: expect.any(Number),
          },
          id,
        ]);
        seen.push((await client.nextData()).data, (await client.nextData()).data);
        await publish(`${round} there`, (data) => broker.broadcast(data));
        seen.push((await client.nextData()).data);
        expect(client.control("gap")).toEqual([]);
      }
      expect(seen).toEqual(expected);
    });
  }),
);

test(
  "fanwire-position: is not beyond events that the next flush will send",
  withBroker(async (setup) => {
    let tick = (): void => undefined;
    const timers = vi.spyOn(globalThis, "setInterval").mockImplementation(((task: () => void) => {
      tick = task;
      return 0;
    }) as unknown as typeof setInterval);
    try {
      const broker = setup.broker({ log: { retention: { age: 20 } } });
      const client = await setup.join(broker, { channel: "own" });
      const { id } = await broker.broadcast("elsewhere", { channels: "other" });
      const next = client.next();
      const published = broker.broadcast("x", { channels: "own" });
      // The whole heartbeat interval passes before the turn ends.
      for (let part = 0; part < 32; part++) tick();
      expect(await next).toMatchObject({ event: "fanwire-position", id });
      expect(await client.next()).toMatchObject({ data: "x", id: (await published).id });
    } finally {
      timers.mockRestore();
    }
  }),
);

test(
  "fanwire-position: is never beyond the events of its channels that the client received, whichever broker publishes",
  withBroker(async (setup) => {
    // Every heartbeat is replaced by a position.
    const engine = setup.engine({ retention: { age: 20 } });
    const [one, two] = [setup.broker({ heartbeat: 16, engine }), setup.broker({ heartbeat: 16, engine })];
    await withoutAge(async () => {
      const clients = await Promise.all(
        Array.from({ length: 8 }, (_, index) => setup.join(one, { channel: `c${index}` })),
      );
      const own = clients.map((): number[] => []);
      const isDone = (client: Connection): boolean => client.control("position").length >= 3;
      const publishing = (async (): Promise<void> => {
        for (let event = 0; !clients.every(isDone); event++) {
          const index = event % 41;
          const { id } = await (event % 2 ? one : two).broadcast("x", { channels: `c${index}` });
          own[index]?.push(seqOf(id));
          await turn();
        }
      })();
      await Promise.all(
        clients.map(async (client) => {
          while (!isDone(client)) await client.read();
        }),
      );
      await publishing;
      for (const [index, { events }] of clients.entries()) {
        for (const [place, { event, id }] of events.entries()) {
          if (event !== "fanwire-position") continue;
          const received = events
            .slice(0, place)
            .filter(isData)
            .map((each) => seqOf(each.id));
          expect(received).toEqual(own[index]?.filter((seq) => seq <= seqOf(id)));
        }
      }
    });
  }),
);
