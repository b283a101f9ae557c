// Clients that others wrote, and a connection that ends at every byte of a snapshot: the client's state is the application's in the end.
import { expect, test } from "vitest";
import { type Broker, createBroker, memoryEngine } from "../../src/index.ts";
import { Flushes } from "../support/flushes.ts";
import type { ClientEvent, Connect } from "./client.ts";
import { CutServer, until } from "./cut-server.ts";

const ADAPTERS = ["eventsource", "eventsource-client", "fanwire-client"] as const;
const NAMES = ["ada", "bob", "cy"];
/** Sessions at a time. Those that break off before `retry` arrived wait for seconds. */
const SESSIONS = 60;

/** One client, its broker, and the server between the two. */
class Session {
  readonly state = new Map(NAMES.map((name) => [name, 1]));
  /** What the client was told of the state. */
  readonly mirror = new Map<string, number>();
  readonly events: ClientEvent[] = [];
  /** The reasons for which the state was asked for. */
  readonly asked: string[] = [];
  readonly server: CutServer;
  readonly #broker: Broker;
  /** An event that was not flushed yet is retained in any case. */
  readonly #flushes: Flushes;
  #disconnect: () => void = () => undefined;

  /** `retained` is the number of events that the log retains. */
  constructor(retained: number) {
    this.#broker = createBroker({
      engine: memoryEngine({ retention: { events: retained } }),
      retry: 20,
      snapshot: ({ reason }) => {
        this.asked.push(reason);
        return Array.from(this.state, ([name, price]) => ({ event: "price", data: { name, price } }));
      },
    });
    this.server = new CutServer((request) => this.#broker.fetch(request));
    this.#flushes = new Flushes(this.#broker);
  }

  async start(connect: Connect): Promise<void> {
    const onEvent = (event: ClientEvent): void => {
      this.events.push(event);
      if (event.type !== "price") return;
      const { name, price } = JSON.parse(event.data) as { name: string; price: number };
      this.mirror.set(name, price);
    };
    this.#disconnect = connect(await this.server.start(), onEvent, () => undefined);
  }

  async change(name: string): Promise<void> {
    const price = (this.state.get(name) ?? 0) + 1;
    this.state.set(name, price);
    const { id } = await this.#broker.broadcast({ event: "price", data: { name, price } });
    await this.#flushes.reach(id);
  }

  get isEqual(): boolean {
    return NAMES.every((name) => this.mirror.get(name) === this.state.get(name));
  }

  count(type: string): number {
    return this.events.filter((event) => event.type === type).length;
  }

  until(what: string, holds: () => boolean): Promise<void> {
    return until(what, holds, () => JSON.stringify(this.events));
  }

  async close(): Promise<void> {
    this.#disconnect();
    this.server.close();
    await this.#broker.close({ force: true });
  }
}

/** Opens a session whose next connection receives a snapshot with this reason. */
async function prepare(connect: Connect, reason: "new" | "gap", cutAt: number): Promise<Session> {
  const session = new Session(reason === "new" ? Infinity : 1);
  if (reason === "new") {
    session.server.cutAt = cutAt;
    await session.start(connect);
    return session;
  }
  await session.start(connect);
  await session.until("the client has the state", () => session.count("fanwire-snapshot") === 1);
  session.server.isOpen = false;
  session.server.cut();
  for (const name of NAMES) await session.change(name);
  session.server.cutAt = cutAt;
  session.server.isOpen = true;
  return session;
}

/** Returns how many bytes the stream has up to the end of its snapshot. */
async function lengthOf(connect: Connect, reason: "new" | "gap"): Promise<number> {
  const session = await prepare(connect, reason, Infinity);
  try {
    await session.until("it has a snapshot", () => session.asked.at(-1) === reason && session.isEqual);
    await session.until("the snapshot ends", () => session.count("fanwire-snapshot") === session.asked.length);
    return session.server.sent;
  } finally {
    await session.close();
  }
}

async function play(connect: Connect, reason: "new" | "gap", cutAt: number): Promise<number> {
  const session = await prepare(connect, reason, cutAt);
  try {
    await session.until("the connection was cut", () => session.server.cutAt === Infinity);
    // In the pause, or later. Where the log retains one event only, it would be a gap of its own, and repair everything.
    if (reason === "new") await session.change("ada");
    await session.until("the states are equal", () => session.isEqual);
    await session.until("the snapshot ends", () => session.count("fanwire-snapshot") > 0);
    // Nothing but what was said: a type that nobody names, or an event without data.
    expect([cutAt, session.events.filter(({ type, data }) => data === "" || type === "message")]).toEqual([cutAt, []]);
    return session.asked.length;
  } finally {
    await session.close();
  }
}

test.for(ADAPTERS.flatMap((adapter) => (["new", "gap"] as const).map((reason) => [adapter, reason] as const)))(
  "%s: a snapshot (%s) that breaks off at any byte is received whole in the end",
  async ([adapter, reason]) => {
    const { connect } = (await import(`./adapters/${adapter}.ts`)) as { connect: Connect };
    const length = await lengthOf(connect, reason);
    expect(length).toBeGreaterThan(300);
    const cuts = Array.from({ length }, (_, index) => index + 1);
    const asked: number[] = [];
    const work = async (): Promise<void> => {
      for (let cut = cuts.shift(); cut !== undefined; cut = cuts.shift()) asked.push(await play(connect, reason, cut));
    };
    await Promise.all(Array.from({ length: SESSIONS }, work));
    expect(asked).toHaveLength(length);
    // A client that had all of it but the end asks again.
    expect(Math.max(...asked)).toBeGreaterThanOrEqual(reason === "new" ? 2 : 3);
  },
);
