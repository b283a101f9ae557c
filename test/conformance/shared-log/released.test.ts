// An engine over a shared log: what it takes from the store is given back, and what it tries again has a pause.
import { expect, test } from "vitest";
import { sharedLogTest } from "../../support/engines/shared-log-processes.ts";

/** The longest time that a channel stays subscribed without a subscriber: 10 seconds, and the 5 until the next check. */
const IDLE_MS = 16_000;

test(
  "listen: the channels of a listener that has ended are unsubscribed, however it has ended",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const { clock } = processes;
    // Without a client the process would not check what is idle.
    await processes.join(broker);
    const { subscribed } = processes.session();
    const abort = new AbortController();
    const read = broker.listen({ channels: "read" });
    const stopped = broker.listen({ channels: "stopped", signal: abort.signal });
    const left = broker.listen({ channels: "left" });
    const unread = broker.listen({ channels: "unread" });
    const waiting = [read.next(), stopped.next(), left.next()];
    await clock.advance(IDLE_MS);
    expect([...subscribed].sort()).toEqual(["", "#left", "#read", "#stopped"]);

    await processes.publish(broker, ["1"], "read");
    expect(await waiting[0]).toMatchObject({ done: false, value: { data: "1" } });
    abort.abort();
    await left.return?.();
    await Promise.all([waiting[1], waiting[2]]);
    await clock.advance(IDLE_MS);
    // The first one waits for no event at the moment, and continues where it was.
    expect([...subscribed]).toEqual([""]);
    await processes.publish(broker, ["2"], "read");
    expect(await clock.advanceUntil(read.next())).toMatchObject({ value: { data: "2" } });
    await read.return?.();
    await unread.return?.();
    await clock.advance(IDLE_MS);
    expect([...subscribed]).toEqual([""]);
  }),
);

test(
  "listen: the channels of a listener that ends while the store is slow are unsubscribed",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    await processes.join(broker);
    const session = processes.session();
    const listener = broker.listen({ channels: "a" });
    await processes.clock.advance(IDLE_MS);
    session.delay({ requests: 10, replies: 10 });
    const waiting = listener.next();
    await processes.clock.turns(3);
    await listener.return?.();
    expect(await waiting).toEqual({ done: true, value: undefined });
    await processes.clock.turns(200);
    expect([...session.subscribed].sort()).toEqual(["", "#a"]);
    await processes.clock.advance(IDLE_MS);
    expect([...session.subscribed]).toEqual([""]);
  }),
);

test(
  "subscribe: a store that refuses is asked again after a pause",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    await processes.join(broker);
    const session = processes.session();
    const listener = broker.listen({ channels: "a" });
    await processes.clock.advance(IDLE_MS);
    const ENOUGH = 10_000;
    session.commandsToRefuse = ENOUGH;
    const waiting = listener.next();
    await processes.clock.advance(10_000);
    const asked = ENOUGH - session.commandsToRefuse;
    // Four times in a second, and a few checks of the feed.
    expect(asked).toBeGreaterThan(30);
    expect(asked).toBeLessThan(60);
    session.commandsToRefuse = 0;
    await processes.clock.advance(1_000);
    await processes.publish(broker, ["1"], "a");
    expect(await waiting).toMatchObject({ value: { data: "1" } });
    await listener.return?.();
  }),
);

test(
  "presence: registrations that the store has lost are there again after the lease that the session names, and not earlier",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    await processes.join(broker, { id: "ann" });
    const session = processes.session();
    const { lease } = session;
    // Up to a renewal.
    await processes.clock.advance(lease - (processes.clock.time % lease));
    for (let turn = 0; turn < 3; turn++) {
      session.presences = [];
      await processes.clock.advance(lease - 1);
      expect(session.presences).toEqual([]);
      await processes.clock.advance(1);
      expect(session.presences.map(({ clientId }) => clientId)).toEqual(["ann"]);
    }
  }),
);

test(
  "subscribe: a channel that no stream reads any more is unsubscribed: it was left, left and joined again, or its stream has ended",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const { clock } = processes;
    await processes.join(broker);
    const client = await processes.join(broker, { id: "ann", channel: "asked" });
    const { subscribed } = processes.session();
    const connectionId = broker.clients().find(({ clientId }) => clientId === "ann")?.connectionId as string;
    const change = (kind: "subscribe" | "unsubscribe", channels: string[]): Promise<unknown> =>
      clock.advanceUntil(broker[kind]("ann", channels, { connectionId }));
    await change("subscribe", ["left", "again", "ended"]);
    expect([...subscribed].sort()).toEqual(["", "#again", "#asked", "#ended", "#left"]);
    await change("unsubscribe", ["left", "again", "asked"]);
    await change("subscribe", ["again"]);
    await client.untilControl("channels");
    await clock.advance(IDLE_MS);
    expect([...subscribed].sort()).toEqual(["", "#again", "#ended"]);
    await client.leave();
    await clock.advance(IDLE_MS);
    expect([...subscribed]).toEqual([""]);
  }),
);
