// Clients that others wrote, and a connection that ends at every byte of a snapshot: the client's state is the application's in the end.
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { type Broker, createBroker, memoryEngine } from "../../src/index.ts";
import { Flushes } from "../support/flushes.ts";
import type { ClientEvent, Connect } from "./client.ts";

const ADAPTERS = ["eventsource", "eventsource-client"] as const;
const NAMES = ["ada", "bob", "cy"];
/** Sessions at a time. Those that break off before `retry` arrived wait for seconds. */
const SESSIONS = 60;

/** One client, its broker, and a server between the two that can end a response at any byte of its body. */
class Session {
  readonly state = new Map(NAMES.map((name) => [name, 1]));
  /** What the client was told of the state. */
  readonly mirror = new Map<string, number>();
  readonly events: ClientEvent[] = [];
  /** The reasons for which the state was asked for. */
  readonly asked: string[] = [];
  /** Bytes of the last response. */
  sent = 0;
  /** Bytes of the next response after which it ends. */
  cutAt = Infinity;
  /** Whether the server lets the client in. */
  isOpen = true;
  readonly #broker: Broker;
  readonly #server = createServer((request, response) => void this.#serve(request.headers, response));
  /** An event that was not flushed yet is retained in any case. */
  readonly #flushes: Flushes;
  readonly #responses = new Set<ServerResponse>();
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
    this.#flushes = new Flushes(this.#broker);
  }

  async start(connect: Connect): Promise<void> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    const { port } = this.#server.address() as AddressInfo;
    const onEvent = (event: ClientEvent): void => {
      this.events.push(event);
      if (event.type !== "price") return;
      const { name, price } = JSON.parse(event.data) as { name: string; price: number };
      this.mirror.set(name, price);
    };
    this.#disconnect = connect(`http://127.0.0.1:${port}/connect?id=me`, onEvent, () => undefined);
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

  async until(what: string, holds: () => boolean): Promise<void> {
    for (const end = Date.now() + 20_000; !holds(); await new Promise((resolve) => setTimeout(resolve, 5)))
      if (Date.now() > end) throw new Error(`Waiting until ${what}: ${JSON.stringify(this.events)}`);
  }

  cut(): void {
    for (const response of this.#responses) response.socket?.destroy();
  }

  async close(): Promise<void> {
    this.#disconnect();
    this.cut();
    this.#server.close();
    await this.#broker.close({ force: true });
  }

  async #serve(headers: NodeJS.Dict<string | string[]>, response: ServerResponse): Promise<void> {
    if (!this.isOpen) {
      response.socket?.destroy();
      return;
    }
    const lastEventId = headers["last-event-id"];
    const request = new Request("http://server/connect?id=me", {
      headers: {
        accept: "text/event-stream",
        ...(lastEventId === undefined ? {} : { "last-event-id": `${lastEventId}` }),
      },
    });
    const answer = await this.#broker.fetch(request);
    const reader = answer.body?.getReader();
    this.#responses.add(response);
    response.on("close", () => {
      this.#responses.delete(response);
      void reader?.cancel().catch(() => undefined);
    });
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    this.sent = 0;
    for (let next = await reader?.read(); next?.value; next = await reader?.read()) {
      const part = next.value.subarray(0, this.cutAt - this.sent);
      this.sent += part.length;
      await new Promise<void>((resolve) => response.write(part, () => resolve()));
      if (this.sent < this.cutAt) continue;
      this.cutAt = Infinity;
      // Without a reset, so that the client receives everything up to here.
      response.socket?.end();
      return;
    }
  }
}

/** Opens a session whose next connection receives a snapshot with this reason. */
async function prepare(connect: Connect, reason: "new" | "gap", cutAt: number): Promise<Session> {
  const session = new Session(reason === "new" ? Infinity : 1);
  if (reason === "new") {
    session.cutAt = cutAt;
    await session.start(connect);
    return session;
  }
  await session.start(connect);
  await session.until("the client has the state", () => session.count("fanwire-snapshot") === 1);
  session.isOpen = false;
  session.cut();
  for (const name of NAMES) await session.change(name);
  session.cutAt = cutAt;
  session.isOpen = true;
  return session;
}

/** Returns how many bytes the stream has up to the end of its snapshot. */
async function lengthOf(connect: Connect, reason: "new" | "gap"): Promise<number> {
  const session = await prepare(connect, reason, Infinity);
  try {
    await session.until("it has a snapshot", () => session.asked.at(-1) === reason && session.isEqual);
    await session.until("the snapshot ends", () => session.count("fanwire-snapshot") === session.asked.length);
    return session.sent;
  } finally {
    await session.close();
  }
}

async function play(connect: Connect, reason: "new" | "gap", cutAt: number): Promise<number> {
  const session = await prepare(connect, reason, cutAt);
  try {
    await session.until("the connection was cut", () => session.cutAt === Infinity);
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
