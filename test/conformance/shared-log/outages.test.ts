// A store that is away: requests that wait, requests that are refused, and brokers that close in the meantime.
import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { type SharedLogProcesses, sharedLogTest, TINY } from "../../support/engines/shared-log-processes.ts";
import { clientRequest, codeOf, problemOf } from "../../support/test-broker.ts";

test(
  "connect: while the store is away, 503, or the polite end for an EventSource",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    await processes.join(broker);
    processes.session().setCommands(false);
    const plain = await processes.clock.advanceUntil(
      broker.clientHandler(clientRequest({ headers: { accept: "*/*" } })),
    );
    expect([plain.status, await problemOf(plain)]).toEqual([503, "engine-down"]);
    const client = await processes.connect(broker);
    expect(JSON.parse((await processes.clock.advanceUntil(client.untilControl("end"))).data)).toMatchObject({
      reconnect: true,
    });
    expect([await processes.clock.advanceUntil(client.ended()), client.lastEventId]).toEqual(["closed", undefined]);
    expect(broker.stats().clients).toBe(1);
  }),
);

test(
  "connect: while the feed is lost, waits for it, and is refused if it does not come in time",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    await processes.join(broker);
    processes.session().setFeed(false);
    const waiting = processes.setup.connect(broker);
    const start = processes.clock.time;
    await processes.clock.advanceUntil((await processes.clock.advanceUntil(waiting)).untilControl("end"));
    expect(processes.clock.time - start).toBeGreaterThanOrEqual(4_000);
    const joining = processes.setup.join(broker);
    await processes.clock.advance(1_000);
    processes.session().setFeed(true);
    await processes.clock.advanceUntil(joining);
    expect(broker.stats().clients).toBe(2);
  }),
);

test(
  "listen: receives every event in order while feed and store come and go, and one gap for a new epoch",
  sharedLogTest(
    async (processes) => {
      const [here, there] = [processes.broker({ log: TINY }), processes.broker()];
      await processes.publish(there, ["0"]);
      const listener = here.listen();
      const received: string[] = [];
      const read = async (): Promise<void> => {
        const { value } = await processes.clock.advanceUntil(listener.next());
        received.push(value?.type === "event" ? value.data : `gap ${value?.after} ${value?.through}`);
      };
      await processes.clock.turns(9);
      await processes.publish(there, ["1", "2"]);
      await read();
      processes.session(1).setFeed(false);
      await processes.publish(there, ["3"]);
      const reading = read().then(read);
      processes.session(1).setCommands(false);
      await processes.clock.advance(3_000);
      await processes.publish(there, ["4"]);
      processes.session(1).setCommands(true);
      processes.session(1).setFeed(true);
      await processes.clock.advanceUntil(reading);
      await read();
      processes.store.startNewEpoch();
      await processes.publish(there, ["5"]);
      await read();
      await read();
      expect(received).toEqual(["1", "2", "3", "4", "gap null e2-0", "5"]);
      await listener.return?.();
    },
    { pageSize: 1 },
  ),
);

/** Runs a task. Returns the delays of the timers that keep the process alive after it. */
async function timersAfter(work: () => Promise<void>): Promise<readonly number[]> {
  const active = new Map<unknown, number>();
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  Object.assign(globalThis, {
    setTimeout: (task: () => void, ms = 0) => {
      // A delay of 0 only waits for the next turn.
      if (ms < 1) return set(task, ms);
      const timer: unknown = set(() => {
        active.delete(timer);
        task();
      }, ms);
      active.set(timer, ms);
      return Object.assign(timer as object, { unref: () => active.delete(timer) });
    },
    clearTimeout: (timer: number) => {
      active.delete(timer);
      clear(timer);
    },
  });
  try {
    await work();
    return [...active.values()];
  } finally {
    Object.assign(globalThis, { setTimeout: set, clearTimeout: clear });
  }
}

test(
  "listen: waiting for a store that is away keeps no process alive",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker({ log: TINY }), processes.broker()];
    const lastEventId = await processes.publish(there, ["1"]);
    await processes.publish(there, ["2", "3", "4", "5", "6"]);
    const behind = here.listen({ lastEventId });
    const waiting = [here.listen().next()];
    await processes.clock.turns(9);
    expect(
      await timersAfter(async () => {
        processes.session(1).setCommands(false);
        waiting.push(behind.next(), here.listen().next());
        await processes.clock.turns(9);
      }),
    ).toEqual([]);
    await processes.clock.advanceUntil(here.close());
    await Promise.all(waiting);
  }),
);

/** Lets the first process miss an event, and waits until it reads the event from the store. */
async function startCatchUp(processes: SharedLogProcesses, there: Broker): Promise<void> {
  const { session, store, clock } = processes;
  session().setFeed(false);
  await processes.publish(there, ["5"]);
  const reads = store.reads.length;
  session().delay({ replies: 5 });
  session().setFeed(true);
  while (store.reads.length === reads) await clock.turns(1);
}

const states: Readonly<
  Record<string, (processes: SharedLogProcesses, there: Broker, here: Broker) => Promise<void> | void>
> = {
  "no fault": () => undefined,
  "no feed": ({ session }) => session().setFeed(false),
  "no commands": ({ session }) => session().setCommands(false),
  "neither feed nor commands": ({ session }) => {
    session().setFeed(false);
    session().setCommands(false);
  },
  "a feed that is silent": ({ session }) => {
    session().messagesToSwallow = Infinity;
  },
  "a page that is being read": (processes, there) => startCatchUp(processes, there),
  "a page that could not be read": async (processes, there) => {
    await startCatchUp(processes, there);
    processes.session().setCommands(false);
    processes.session().setCommands(true);
    await processes.clock.turns(1);
  },
  "a page that nobody waits for": async (processes, there, here) => {
    await processes.publish(there, ["5"], "b");
    const client = await processes.join(here, { channel: "b", query: { from: "earliest" } });
    const reads = processes.store.reads.length;
    processes.session().delay({ replies: 10_000 });
    void client.read();
    while (processes.store.reads.length === reads) await processes.clock.turns(1);
    await client.leave();
  },
  "a checkpoint that was refused": async ({ session, clock }) => {
    session().delay({ requests: 5 });
    session().setFeed(false);
    session().setFeed(true);
    await clock.turns(1);
    session().setCommands(false);
    session().setCommands(true);
  },
};

for (const [state, prepare] of [["nothing connected yet", undefined] as const, ...Object.entries(states)]) {
  test(
    `close(): settles, and leaves no timer, with ${state}`,
    sharedLogTest(
      async (processes) => {
        const [here, there] = [processes.broker({ log: TINY }), processes.broker()];
        const waiting: Promise<unknown>[] = [here.listen().next(), codeOf(here.broadcast("0"))];
        if (prepare) {
          processes.session().setCommands(true);
          processes.session().setFeed(true);
          const client = await processes.join(here);
          waiting.push(codeOf(there.broadcast("1")));
          processes.session(1).setCommands(true);
          processes.session(1).setFeed(true);
          await processes.publish(here, ["2", "3", "4"]);
          waiting.push(client.ended());
        }
        const listener = here.listen();
        await processes.clock.turns(5);
        await prepare?.(processes, there, here);
        waiting.push(
          processes.setup.connect(here, { channel: "a" }).then(
            (client) => client.ended(),
            () => "refused",
          ),
        );
        waiting.push(listener.next(), here.listen().next(), codeOf(here.broadcast("late")));
        await processes.clock.turns(2);
        await processes.clock.advanceUntil(Promise.all([here.close(), there.close()]));
        const start = processes.clock.time;
        await processes.clock.advanceUntil(Promise.all(waiting));
        expect([processes.clock.pending, processes.clock.time - start < 100]).toEqual([[], true]);
      },
      { isAway: true, pageSize: 1 },
    ),
  );
}

test(
  "subscribe: a channel is subscribed once for all clients, an inbox never; unsubscribed some time after the last client has left",
  sharedLogTest(async (processes) => {
    const broker = processes.broker();
    const clients = [];
    for (let client = 0; client < 3; client++)
      clients.push(await processes.join(broker, { id: `${client}`, channel: "a" }));
    const { subscribed, subscriptionCalls } = processes.session();
    expect([[...subscribed].sort(), subscriptionCalls.flatMap(({ keys }) => keys).sort()]).toEqual([
      ["", "#a"],
      ["", "#a"],
    ]);
    for (const client of clients) await client.leave();
    await processes.clock.advance(9_000);
    expect([...subscribed].sort()).toEqual(["", "#a"]);
    await processes.join(broker);
    await processes.clock.advance(16_000);
    expect([...subscribed]).toEqual([""]);
    const client = await processes.join(broker, { channel: "a" });
    await processes.publish(broker, ["1"], "a");
    expect(await processes.readThrough(client, "1")).toEqual(["1"]);
  }),
);

test(
  "broadcastTo: reaches an inbox in another process, and refuses an unknown client",
  sharedLogTest(async (processes) => {
    const [here, there] = [processes.broker(), processes.broker()];
    const client = await processes.join(there, { id: "one" });
    expect(await processes.clock.advanceUntil(codeOf(here.broadcastTo("two", "x")))).toBe("unknown-client");
    await processes.clock.advanceUntil(here.broadcastTo("one", "1"));
    expect(await processes.readThrough(client, "1")).toEqual(["1"]);
  }),
);

test(
  "inboxLinger: a client that leaves while the store is away still accepts events when the store is back",
  sharedLogTest(async (processes) => {
    const [broker, other] = [processes.broker({ inboxLinger: 60_000 }), processes.broker()];
    const client = await processes.join(broker, { id: "ann" });
    await processes.publish(other, ["first"]);
    processes.session().setCommands(false);
    await client.leave();
    await processes.clock.advance(1_000);
    processes.session().setCommands(true);
    await processes.clock.advance(1_000);
    expect(processes.session().presences).toEqual([]);
    expect(await processes.clock.advanceUntil(other.broadcastTo("ann", "text"))).toMatchObject({ clients: 0 });
    expect(await codeOf(processes.clock.advanceUntil(other.broadcastTo("nobody", "text")))).toBe("unknown-client");
  }),
);
