import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { type Replicas, replicas, TINY } from "../../support/engines/shared-log-processes.ts";
import { clientRequest, codeOf, problemOf } from "../../support/test-broker.ts";

// A store that is away: who waits, who is refused, and what is left when a broker closes meanwhile.

test(
  "connecting while the store is away: 503, or the polite end for an EventSource",
  replicas(async (world) => {
    const broker = world.broker();
    await world.join(broker);
    world.session().commands(false);
    const plain = await world.clock.until(broker.clientHandler(clientRequest({ headers: { accept: "*/*" } })));
    expect([plain.status, await problemOf(plain)]).toEqual([503, "engine-down"]);
    const client = await world.connect(broker);
    expect(JSON.parse((await world.clock.until(client.untilControl("end"))).data)).toMatchObject({ reconnect: true });
    expect([await world.clock.until(client.ended()), client.lastEventId]).toEqual(["closed", undefined]);
    expect(broker.stats().clients).toBe(1);
  }),
);

test(
  "connecting while the feed is lost: waits for it, and is turned away when it does not come in time",
  replicas(async (world) => {
    const broker = world.broker();
    await world.join(broker);
    world.session().feed(false);
    const waiting = world.stage.connect(broker);
    const began = world.clock.time;
    await world.clock.until((await world.clock.until(waiting)).untilControl("end"));
    expect(world.clock.time - began).toBeGreaterThanOrEqual(4_000);
    const joining = world.stage.join(broker);
    await world.clock.pass(1_000);
    world.session().feed(true);
    await world.clock.until(joining);
    expect(broker.stats().clients).toBe(2);
  }),
);

test(
  "listen: everything, in order, though feed and store come and go, and one gap for a new epoch",
  replicas(
    async (world) => {
      const [here, there] = [world.broker({ log: TINY }), world.broker()];
      await world.publish(there, ["0"]);
      const listener = here.listen();
      const seen: string[] = [];
      const read = async (): Promise<void> => {
        const { value } = await world.clock.until(listener.next());
        seen.push(value?.type === "event" ? value.data : `gap ${value?.after} ${value?.through}`);
      };
      await world.clock.turns(9);
      await world.publish(there, ["1", "2"]);
      await read();
      world.session(1).feed(false);
      await world.publish(there, ["3"]);
      const reading = read().then(read);
      world.session(1).commands(false);
      await world.clock.pass(3_000);
      await world.publish(there, ["4"]);
      world.session(1).commands(true);
      world.session(1).feed(true);
      await world.clock.until(reading);
      await read();
      world.store.beginAnew();
      await world.publish(there, ["5"]);
      await read();
      await read();
      expect(seen).toEqual(["1", "2", "3", "4", "gap null e2-0", "5"]);
      await listener.return?.();
    },
    { page: 1 },
  ),
);

/** Does something, and gives the delays of the timers that kept the process alive when it was done. */
async function heldAlive(work: () => Promise<void>): Promise<readonly number[]> {
  const held = new Map<unknown, number>();
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  Object.assign(globalThis, {
    setTimeout: (task: () => void, ms = 0) => {
      // The next turn, however it is had here.
      if (ms < 1) return set(task, ms);
      const timer: unknown = set(() => {
        held.delete(timer);
        task();
      }, ms);
      held.set(timer, ms);
      return Object.assign(timer as object, { unref: () => held.delete(timer) });
    },
    clearTimeout: (timer: number) => {
      held.delete(timer);
      clear(timer);
    },
  });
  try {
    await work();
    return [...held.values()];
  } finally {
    Object.assign(globalThis, { setTimeout: set, clearTimeout: clear });
  }
}

test(
  "listen: who waits for a store that is away keeps no process alive",
  replicas(async (world) => {
    const [here, there] = [world.broker({ log: TINY }), world.broker()];
    const lastEventId = await world.publish(there, ["1"]);
    await world.publish(there, ["2", "3", "4", "5", "6"]);
    const behind = here.listen({ lastEventId });
    const waiting = [here.listen().next()];
    await world.clock.turns(9);
    expect(
      await heldAlive(async () => {
        world.session(1).commands(false);
        waiting.push(behind.next(), here.listen().next());
        await world.clock.turns(9);
      }),
    ).toEqual([]);
    await world.clock.until(here.close());
    await Promise.all(waiting);
  }),
);

/** Has something be read that the first process missed. */
async function heal(world: Replicas, there: Broker): Promise<void> {
  const { session, store, clock } = world;
  session().feed(false);
  await world.publish(there, ["5"]);
  const reads = store.reads.length;
  session().delay({ answers: 5 });
  session().feed(true);
  while (store.reads.length === reads) await clock.turns(1);
}

const states: Readonly<Record<string, (world: Replicas, there: Broker, here: Broker) => Promise<void> | void>> = {
  "all well": () => undefined,
  "no feed": ({ session }) => session().feed(false),
  "no commands": ({ session }) => session().commands(false),
  neither: ({ session }) => {
    session().feed(false);
    session().commands(false);
  },
  "a feed that is silent": ({ session }) => {
    session().swallows = Infinity;
  },
  "a page on its way": (world, there) => heal(world, there),
  "a page that could not be read": async (world, there) => {
    await heal(world, there);
    world.session().commands(false);
    world.session().commands(true);
    await world.clock.turns(1);
  },
  "a page that nobody waits for": async (world, there, here) => {
    await world.publish(there, ["5"], "b");
    const client = await world.join(here, { channel: "b", query: { from: "earliest" } });
    const reads = world.store.reads.length;
    world.session().delay({ answers: 10_000 });
    void client.read();
    while (world.store.reads.length === reads) await world.clock.turns(1);
    await client.leave();
  },
  "a mark that was refused": async ({ session, clock }) => {
    session().delay({ requests: 5 });
    session().feed(false);
    session().feed(true);
    await clock.turns(1);
    session().commands(false);
    session().commands(true);
  },
};

for (const [state, begin] of [["nothing yet", undefined] as const, ...Object.entries(states)]) {
  test(
    `close(): settles and leaves no timer, with ${state}`,
    replicas(
      async (world) => {
        const [here, there] = [world.broker({ log: TINY }), world.broker()];
        const waiting: Promise<unknown>[] = [here.listen().next(), codeOf(here.broadcast("0"))];
        if (begin) {
          world.session().commands(true);
          world.session().feed(true);
          const client = await world.join(here);
          waiting.push(codeOf(there.broadcast("1")));
          world.session(1).commands(true);
          world.session(1).feed(true);
          await world.publish(here, ["2", "3", "4"]);
          waiting.push(client.ended());
        }
        const listener = here.listen();
        await world.clock.turns(5);
        await begin?.(world, there, here);
        waiting.push(
          world.stage.connect(here, { channel: "a" }).then(
            (client) => client.ended(),
            () => "refused",
          ),
        );
        waiting.push(listener.next(), here.listen().next(), codeOf(here.broadcast("late")));
        await world.clock.turns(2);
        await world.clock.until(Promise.all([here.close(), there.close()]));
        const began = world.clock.time;
        await world.clock.until(Promise.all(waiting));
        expect([world.clock.pending, world.clock.time - began < 100]).toEqual([[], true]);
      },
      { isAway: true, page: 1 },
    ),
  );
}

test(
  "channels are followed once however many read them, inboxes never, and given up some time after the last has left",
  replicas(async (world) => {
    const broker = world.broker();
    const clients = [];
    for (let client = 0; client < 3; client++)
      clients.push(await world.join(broker, { id: `${client}`, channel: "a" }));
    const { subscribed, wishes } = world.session();
    expect([[...subscribed].sort(), wishes.flatMap(({ keys }) => keys).sort()]).toEqual([
      ["", "#a"],
      ["", "#a"],
    ]);
    for (const client of clients) await client.leave();
    await world.clock.pass(9_000);
    expect([...subscribed].sort()).toEqual(["", "#a"]);
    await world.join(broker);
    await world.clock.pass(16_000);
    expect([...subscribed]).toEqual([""]);
    const client = await world.join(broker, { channel: "a" });
    await world.publish(broker, ["1"], "a");
    expect(await world.readTo(client, "1")).toEqual(["1"]);
  }),
);

test(
  "broadcastTo: an inbox in another process is reached, and is nobody's there",
  replicas(async (world) => {
    const [here, there] = [world.broker(), world.broker()];
    const client = await world.join(there, { id: "one" });
    expect(await world.clock.until(codeOf(here.broadcastTo("two", "x")))).toBe("unknown-client");
    await world.clock.until(here.broadcastTo("one", "1"));
    expect(await world.readTo(client, "1")).toEqual(["1"]);
  }),
);

test(
  "a client that leaves while the store is away can be written to when it is back, for as long as it lingers",
  replicas(async (world) => {
    const [broker, other] = [world.broker({ inboxLinger: 60_000 }), world.broker()];
    const client = await world.join(broker, { id: "ann" });
    await world.publish(other, ["first"]);
    world.session().commands(false);
    await client.leave();
    await world.clock.pass(1_000);
    world.session().commands(true);
    await world.clock.pass(1_000);
    expect(world.session().presences).toEqual([]);
    expect(await world.clock.until(other.broadcastTo("ann", "text"))).toMatchObject({ clients: 0 });
    expect(await codeOf(world.clock.until(other.broadcastTo("nobody", "text")))).toBe("unknown-client");
  }),
);
