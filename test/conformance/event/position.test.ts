import { expect, test, vi } from "vitest";
import { type Connection, isData, seqOf } from "../../support/clients/connection.ts";
import { scene, turn } from "../../support/test-broker.ts";

// `fanwire-position`: the client of a quiet channel does not come back with an id that nobody can judge any more.

/** The log's clock stands still, so that nothing grows old enough to be dropped. */
async function withoutAge(body: () => Promise<void>): Promise<void> {
  const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now());
  try {
    await body();
  } finally {
    clock.mockRestore();
  }
}

/** With these a client is told a position at the second heartbeat, if there is one to tell. */
const QUICK = { heartbeat: 32, log: { retention: { age: 80 } } };

/** Reads so many heartbeats. */
async function beats(client: Connection, count: number): Promise<void> {
  for (const end = client.comments + count; client.comments < end; ) await client.read();
}

test(
  "fanwire-position: an idle client of a quiet channel is told where the log is, instead of a heartbeat, with data and an id",
  scene(async (stage) => {
    const broker = stage.broker(QUICK);
    const client = await stage.join(broker, { channel: "quiet" });
    const { id } = await broker.broadcast("elsewhere", { channels: "other" });
    const position = await client.next();
    // Half of the retention has passed, so a heartbeat was before it.
    expect(client.comments).toBeGreaterThan(0);
    expect(position).toMatchObject({ event: "fanwire-position", id });
    expect(position.data).not.toBe("");
    expect(JSON.parse(position.data)).toBeTypeOf("object");
    // It comes alone: no comment is in its chunk.
    expect(new TextDecoder().decode(client.chunks.at(-1))).toBe(
      `id: ${id}\nevent: fanwire-position\ndata: ${position.data}\n\n`,
    );
    expect(client.lastEventId).toBe(id);
  }),
);

test(
  "fanwire-position: is told again only when the log went on, and its last id is old again",
  scene(async (stage) => {
    const broker = stage.broker(QUICK);
    const client = await stage.join(broker, { channel: "quiet" });
    await broker.broadcast("elsewhere", { channels: "other" });
    await client.untilControl("position");
    for (let round = 2; round <= 4; round++) {
      const { id } = await broker.broadcast("elsewhere", { channels: "other" });
      // That of the last position is young still.
      const before = client.comments;
      expect((await client.untilControl("position")).id).toBe(id);
      expect(client.comments).toBeGreaterThan(before);
    }
    await beats(client, 4);
    expect(client.control("position")).toHaveLength(4);
  }),
);

const otherwise: readonly (readonly [when: string, options: object])[] = [
  ["its last id is not old", { ...QUICK, log: {} }],
  ["announce is false", { ...QUICK, announce: false }],
];
for (const [when, options] of otherwise) {
  test(
    `fanwire-position: is not told while ${when}`,
    scene(async (stage) => {
      const broker = stage.broker(options);
      const client = await stage.connect(broker, { channel: "quiet" });
      await broker.broadcast("elsewhere", { channels: "other" });
      await beats(client, 6);
      expect(client.control("position")).toEqual([]);
      const next = client.nextData();
      await broker.broadcast("x", { channels: "quiet" });
      expect((await next).data).toBe("x");
    }),
  );
}

test(
  "fanwire-position: is not told while nothing happened in the log, or nothing but what the client was given",
  scene(async (stage) => {
    const broker = stage.broker(QUICK);
    const client = await stage.join(broker, { channel: "own" });
    await beats(client, 6);
    const next = client.nextData();
    await broker.broadcast("x", { channels: "own" });
    await next;
    await beats(client, 6);
    expect(client.control("position")).toEqual([]);
  }),
);

test(
  "fanwire-position: is not told to one that is given events often enough",
  scene(async (stage) => {
    const broker = stage.broker({ heartbeat: 64, log: { retention: { age: 200 } } });
    const client = await stage.join(broker, { channel: "own" });
    for (let round = 0; round < 6; round++) {
      await beats(client, 1);
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
  "fanwire-position: is not told to a blocked client, with something to receive or without",
  scene(async (stage) => {
    const broker = stage.broker({ ...QUICK, timeout: 60_000 });
    const [behind, still] = [
      await stage.join(broker, { channel: "own" }),
      await stage.join(broker, { channel: "quiet" }),
    ];
    const idle = await stage.join(broker, { channel: "quiet" });
    await withoutAge(async () => {
      await broker.broadcast("x", { channels: "own" });
      for (let round = 0; round < 3; round++) {
        await broker.broadcast("elsewhere", { channels: "other" });
        await idle.untilControl("position");
      }
      // What they read next is what is published for them, and nothing was queued before that.
      await broker.broadcast("y", { channels: ["own", "quiet"] });
      expect([(await behind.next()).data, (await behind.next()).data]).toEqual(["x", "y"]);
      expect((await still.next()).data).toBe("y");
    });
  }),
);

test(
  "fanwire-position: a client that came back with an old id is told a newer one",
  scene(async (stage) => {
    // So slow that no id grows old meanwhile; this one was old before.
    const broker = stage.broker({ heartbeat: 32 });
    const first = await stage.join(broker, { channel: "quiet" });
    const { id } = await broker.broadcast("elsewhere", { channels: "other" });
    const back = await stage.join(broker, { channel: "quiet", lastEventId: first.lastEventId ?? "" });
    expect(back.lastEventId).toBe(first.lastEventId);
    expect((await back.untilControl("position")).id).toBe(id);
  }),
);

test(
  "fanwire-position: all who are told the same one share its chunk",
  scene(async (stage) => {
    const broker = stage.broker(QUICK);
    const clients = [
      await stage.join(broker, { channel: "quiet" }),
      await stage.join(broker, { channel: "quiet too" }),
      await stage.join(broker),
    ];
    await broker.broadcast("elsewhere", { channels: "other" });
    await Promise.all(clients.map((client) => client.untilControl("position")));
    expect(new Set(clients.map(({ chunks }) => chunks.at(-1))).size).toBe(1);
  }),
);

test(
  "fanwire-position: who comes back with it loses nothing and gets nothing twice",
  scene(async (stage) => {
    const broker = stage.broker(QUICK);
    await withoutAge(async () => {
      let client = await stage.join(broker, { id: "one", channel: "quiet" });
      const seen: string[] = [];
      const expected: string[] = [];
      const publish = (data: string, broadcast: (data: string) => Promise<unknown>): Promise<unknown> => {
        expected.push(data);
        return broadcast(data);
      };
      for (let round = 0; round < 8; round++) {
        await broker.broadcast("elsewhere", { channels: "other" });
        const { id } = await client.untilControl("position");
        // In the turn in which it was told, and while it is away.
        void publish(`${round} at once`, (data) => broker.broadcast(data, { channels: "quiet" }));
        if (round % 2 === 0) await turn();
        await client.leave();
        await broker.broadcast("elsewhere", { channels: "other" });
        await publish(`${round} away`, (data) => broker.broadcastTo("one", data));
        client = await stage.connect(broker, { id: "one", channel: "quiet", lastEventId: id ?? "" });
        const ready = await client.untilControl("ready");
        expect([JSON.parse(ready.data), ready.id]).toEqual([{ clientId: "one", resumed: true }, id]);
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
  "fanwire-position: told while a flush is to come, it is not beyond what that will bring",
  scene(async (stage) => {
    let tick = (): void => undefined;
    const timers = vi.spyOn(globalThis, "setInterval").mockImplementation(((task: () => void) => {
      tick = task;
      return 0;
    }) as unknown as typeof setInterval);
    try {
      const broker = stage.broker({ log: { retention: { age: 20 } } });
      const client = await stage.join(broker, { channel: "own" });
      const { id } = await broker.broadcast("elsewhere", { channels: "other" });
      const next = client.next();
      const published = broker.broadcast("x", { channels: "own" });
      // The whole interval of the heartbeat, before the turn is over.
      for (let part = 0; part < 32; part++) tick();
      expect(await next).toMatchObject({ event: "fanwire-position", id });
      expect(await client.next()).toMatchObject({ data: "x", id: (await published).id });
    } finally {
      timers.mockRestore();
    }
  }),
);

test(
  "fanwire-position: is never beyond what the client was given, of its channels, whoever publishes meanwhile",
  scene(async (stage) => {
    // Every heartbeat is a position.
    const engine = stage.engine({ retention: { age: 20 } });
    const [one, two] = [stage.broker({ heartbeat: 16, engine }), stage.broker({ heartbeat: 16, engine })];
    await withoutAge(async () => {
      const clients = await Promise.all(
        Array.from({ length: 8 }, (_, index) => stage.join(one, { channel: `c${index}` })),
      );
      const own = clients.map((): number[] => []);
      const isTold = (client: Connection): boolean => client.control("position").length >= 3;
      const publishing = (async (): Promise<void> => {
        for (let event = 0; !clients.every(isTold); event++) {
          const index = event % 41;
          const { id } = await (event % 2 ? one : two).broadcast("x", { channels: `c${index}` });
          own[index]?.push(seqOf(id));
          await turn();
        }
      })();
      await Promise.all(
        clients.map(async (client) => {
          while (!isTold(client)) await client.read();
        }),
      );
      await publishing;
      for (const [index, { events }] of clients.entries()) {
        for (const [place, { event, id }] of events.entries()) {
          if (event !== "fanwire-position") continue;
          const given = events
            .slice(0, place)
            .filter(isData)
            .map((each) => seqOf(each.id));
          expect(given).toEqual(own[index]?.filter((seq) => seq <= seqOf(id)));
        }
      }
    });
  }),
);
