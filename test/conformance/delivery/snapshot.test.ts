// The option `snapshot`: who receives the application's state, when, and what happens to the ids meanwhile.
import { expect, test } from "vitest";
import { brokerOf } from "../../../src/broker/broker.ts";
import { BrokerCore } from "../../../src/broker/broker-core.ts";
import { resolveOptions } from "../../../src/broker/options.ts";
import type { EventInput } from "../../../src/index.ts";
import { seen } from "../../support/clients/connection.ts";
import { Clock } from "../../support/clock.ts";
import { recording } from "../../support/snapshots.ts";
import { turn, withBroker } from "../../support/test-broker.ts";

test(
  "snapshot: a new client receives the state between fanwire-ready and the events after it, and its id only with fanwire-snapshot",
  withBroker(async (setup) => {
    const { asked, snapshot } = recording(async function* () {
      yield "state 1";
      // Published in the middle of the snapshot.
      await broker.broadcast("live", { channels: "news" });
      yield { event: "state", data: "state 2" };
    });
    const broker = setup.broker({ snapshot });
    const { id } = await broker.broadcast("before", { channels: "news" });
    const client = await setup.connect(broker, { id: "ann", channel: "news" });
    await client.untilData("live");
    expect(seen(client)).toEqual(["ready", "state 1", "state 2", "snapshot +id", "live +id"]);
    expect(client.events[2]?.event).toBe("state");
    expect(client.control("snapshot").map(({ data }) => JSON.parse(data))).toEqual([
      { channels: ["news"], reason: "new", end: true },
    ]);
    expect(client.control("snapshot")[0]?.id).toBe(id);
    expect(asked).toHaveLength(1);
    expect(asked[0]).toMatchObject({ channels: ["news"], reason: "new", position: id });
    expect(asked[0]?.client).toEqual(broker.clients()[0]);
    expect(asked[0]?.request?.url).toContain("/connect");
    expect(asked[0]?.signal.aborted).toBe(false);
  }),
);

test(
  "snapshot: lists, generators and promises of them are taken, and undefined is no snapshot",
  withBroker(async (setup) => {
    const answers: (() => unknown)[] = [
      () => ["one", { data: { two: 2 } }],
      () => Promise.resolve(new Set(["one", { data: { two: 2 } }])),
      function* () {
        yield "one";
        yield { data: { two: 2 } };
      },
      () => undefined,
      async () => undefined,
      () => [],
    ];
    const received: string[][] = [];
    for (const answer of answers) {
      const broker = setup.broker({ snapshot: answer as () => EventInput[] });
      const client = await setup.connect(broker);
      await client.untilControl("snapshot");
      received.push(client.data);
      expect(seen(client).at(-1)).toBe("snapshot +id");
    }
    const both = ["one", '{"two":2}'];
    expect(received).toEqual([both, both, both, [], [], []]);
  }),
);

test(
  "snapshot: is not called for a client that resumes without a gap, or asks for the history with from=earliest",
  withBroker(async (setup) => {
    const { asked, snapshot } = recording(() => ["state"]);
    const broker = setup.broker({ snapshot });
    const client = await setup.connect(broker, { id: "ann" });
    await client.untilControl("snapshot");
    await broker.broadcast("one");
    await client.untilData("one");
    await client.leave();
    await broker.broadcast("two");
    const back = await setup.connect(broker, { id: "ann", lastEventId: client.lastEventId ?? "" });
    await back.untilData("two");
    expect(seen(back)).toEqual(["ready +id", "two +id"]);
    const historian = await setup.connect(broker, { query: { from: "earliest" } });
    await historian.untilData("two");
    expect(seen(historian)).toEqual(["ready +id", "one +id", "two +id"]);
    expect(asked).toHaveLength(1);
  }),
);

test(
  "snapshot: a client that drops in the middle comes back without the id, and receives it whole again",
  withBroker(async (setup) => {
    const signals: AbortSignal[] = [];
    let returned = 0;
    const broker = setup.broker({
      snapshot: async function* ({ signal }) {
        signals.push(signal);
        try {
          for (const part of ["one", "two", "three"]) yield part;
        } finally {
          returned++;
        }
      },
    });
    const client = await setup.connect(broker, { id: "ann" });
    await client.untilData("two");
    expect(client.lastEventId).toBeUndefined();
    await client.leave();
    while (!signals[0]?.aborted || returned < 1) await turn();
    await broker.broadcast("live");
    const back = await setup.connect(broker, { id: "ann" });
    await back.untilControl("snapshot");
    expect(back.data).toEqual(["one", "two", "three"]);
    expect([signals[1]?.aborted, returned]).toEqual([false, 2]);
  }),
);

test(
  "snapshot: three tabs of one client id each receive their own",
  withBroker(async (setup) => {
    const broker = setup.broker({
      snapshot: ({ client: { connectionId } }) => [connectionId, `${connectionId} again`],
    });
    const tabs = await Promise.all([1, 2, 3].map(() => setup.connect(broker, { id: "ann" })));
    for (const tab of tabs) await tab.untilControl("snapshot");
    const ids = broker.clients().map(({ connectionId }) => connectionId);
    expect(tabs.map(({ data }) => data)).toEqual(ids.map((id) => [id, `${id} again`]));
  }),
);

test(
  "heartbeat: goes on while the application has no event, and the client does not count as blocked by what is published meanwhile",
  withBroker(async (setup) => {
    const clock = new Clock();
    const ready = Promise.withResolvers<void>();
    await clock.run(async () => {
      const broker = setup.broker({
        heartbeat: 1_000,
        timeout: 2_000,
        tolerance: 1,
        snapshot: async () => {
          await ready.promise;
          return ["state"];
        },
      });
      const client = await setup.connect(broker);
      const reading = client.untilControl("snapshot");
      await clock.advance(100);
      await clock.advanceUntil(broker.broadcast("live"));
      await clock.advance(10_000);
      expect(client.comments).toBeGreaterThanOrEqual(8);
      expect(broker.stats()).toMatchObject({ clients: 1, blocked: 0, disconnects: {} });
      ready.resolve();
      await clock.advanceUntil(reading);
      await clock.advanceUntil(client.untilData("live"));
      expect(seen(client)).toEqual(["ready", "state", "snapshot +id", "live +id"]);
    });
  }),
);

test.each(["live", "blocked", "in a snapshot"])(
  "snapshot: channels that are added to an open stream which is %s are asked for at the client's position, and the log goes on behind them",
  (state) =>
    withBroker(async (setup) => {
      const first = Promise.withResolvers<void>();
      const { asked, snapshot } = recording(async ({ channels, reason }) => {
        if (reason === "new") await first.promise;
        return [`${reason} ${channels}`];
      });
      const core = new BrokerCore(resolveOptions({ engine: setup.engine(), snapshot }));
      const broker = brokerOf(core);
      const client = await setup.connect(broker, { channel: "a" });
      const reading = client.untilControl("snapshot");
      while (asked.length === 0) await turn();
      if (state !== "in a snapshot") {
        first.resolve();
        await reading;
      }
      if (state === "live") void client.read();
      await turn();
      const [connection] = core.connections;
      connection?.snapshots?.join(["b", "c"]);
      connection?.snapshots?.join(["d"]);
      const { id } = await broker.broadcast("live", { channels: "a" });
      first.resolve();
      await reading;
      await client.untilData("live");
      const added = state === "in a snapshot" ? [["b", "c", "d"]] : [["b", "c"], ["d"]];
      const joined = added.flatMap((channels) => [`joined ${channels}`, "snapshot +id"]);
      expect(seen(client)).toEqual(["ready", "new a", "snapshot +id", ...joined, "live +id"]);
      expect(asked.slice(1)).toMatchObject(
        added.map((channels) => ({ channels, reason: "joined", request: undefined })),
      );
      const [position, ...others] = client.control("snapshot").map((event) => event.id);
      expect(new Set(others)).toEqual(new Set([position]));
      expect(position).not.toBe(id);
      await client.leave();
      await broker.close();
    })(),
);

test(
  "announce: false sends no fanwire-ready, and fanwire-snapshot still brings the id",
  withBroker(async (setup) => {
    const broker = setup.broker({ announce: false, snapshot: () => ["state"] });
    const client = await setup.connect(broker);
    await client.untilControl("snapshot");
    expect(seen(client)).toEqual(["state", "snapshot +id"]);
  }),
);
