// One Durable Object under test, with its hub and its clients. Also the waits and clocks that its tests share.
import { abortAllDurableObjects, evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { BrokerStats, ChannelOptions, EventInput, Published } from "../../../src/index.ts";
import type { ObjectContext } from "../../../src/workers/cloudflare.ts";
import { type Hub, type HubOptions, hub, type ObjectOptions } from "../../../src/workers/index.ts";
import { Connection } from "../../support/clients/connection.ts";
import { type ConnectOptions, clientRequest } from "../../support/test-broker.ts";
import type { Hub as HubObject } from "../servers/main.ts";
import { instancesOf, setOptions } from "./options.ts";

/** The stub of an object, with the methods that tests call. */
export interface Stub {
  fetch(url: string | Request, init?: RequestInit): Promise<Response & { readonly webSocket?: unknown }>;
  history: Hub["history"];
  broadcast(event: EventInput, options?: object): Promise<Published>;
  broadcastTo(clientId: string, event: EventInput, options?: object): Promise<Published>;
  disconnect(clientId: string, options?: object): Promise<{ clients: number }>;
  subscribe: Hub["subscribe"];
  unsubscribe: Hub["unsubscribe"];
  stats(): Promise<BrokerStats>;
  serve(request: { readonly type: "secret" }): Promise<{ readonly value: string }>;
}

/** The `ctx` of an object. */
export type Inside = ObjectContext;

export type TestObjectOptions = ObjectOptions & { readonly hub?: HubOptions };

let created = 0;

/** One object with its own options, a hub for it, and clients. All clients leave after the test. */
export class TestObject {
  readonly name: string;
  readonly hub: Hub;
  readonly #connections: Connection[] = [];

  constructor({ hub: hubOptions, ...options }: TestObjectOptions = {}) {
    this.name = `object ${++created} of ${Date.now()}`;
    setOptions(env.HUB.idFromName(this.name), { retry: 50, ...options });
    this.hub = hub(env.HUB, { name: this.name, retry: 50, ...hubOptions });
  }

  /** A new stub. A stub belongs to one instance of the object, so a test needs another one after a crash. */
  get stub(): Stub {
    return env.HUB.getByName(this.name);
  }

  /** The number of instances so far. */
  get instances(): number {
    return instancesOf(env.HUB.idFromName(this.name));
  }

  /** Sets the options of the next instance. */
  reconfigure(options: ObjectOptions): void {
    setOptions(env.HUB.idFromName(this.name), { retry: 50, ...options });
  }

  /** Creates another hub for the same object, as another isolate would. */
  otherHub(options: HubOptions = {}): Hub {
    return hub(env.HUB, { name: this.name, retry: 50, ...options });
  }

  requestStream(options: ConnectOptions = {}, signal?: AbortSignal, through: Hub = this.hub): Promise<Response> {
    return through.clientHandler(clientRequest(options, signal), options.overrides);
  }

  /** Connects a client that reads only when the test asks it to. */
  async connect(options: ConnectOptions = {}, through?: Hub): Promise<Connection> {
    const controller = new AbortController();
    const connection = new Connection(await this.requestStream(options, controller.signal, through), controller);
    this.#connections.push(connection);
    return connection;
  }

  /** Connects a client and reads `fanwire-ready`. */
  async join(options: ConnectOptions = {}): Promise<Connection> {
    const connection = await this.connect(options);
    await connection.untilControl("ready");
    return connection;
  }

  /** Runs `body` inside the object, with its instance and its `ctx`. */
  inside<R>(body: (instance: HubObject, ctx: Inside) => R | Promise<R>): Promise<R> {
    return runInDurableObject(this.stub, body);
  }

  sql(query: string, ...bindings: unknown[]): Promise<Record<string, unknown>[]> {
    return this.inside((_, { storage }) => [...storage.sql.exec(query, ...bindings)].map((row) => ({ ...row })));
  }

  /** Returns the number of rows of a table; -1 if the table does not exist. */
  async rowCount(table: "events" | "channels" | "names" | "connections"): Promise<number> {
    return this.inside((_, { storage: { sql } }) => {
      const count = (from: string): number => Number([...sql.exec(`SELECT count(*) AS n FROM ${from}`)][0]?.n);
      return count(`sqlite_master WHERE name = 'fanwire_${table}'`) === 0 ? -1 : count(`fanwire_${table}`);
    });
  }

  tables(): Promise<string[]> {
    return this.inside((_, { storage }) =>
      [...storage.sql.exec("SELECT name FROM sqlite_master WHERE name LIKE 'fanwire%'")].map(({ name }) =>
        String(name),
      ),
    );
  }

  nextAlarm(): Promise<number | null> {
    return this.inside((_, { storage }) => storage.getAlarm());
  }

  /** Waits until the object counts no clients. */
  untilNoClients(): Promise<void> {
    return waitUntil("no client is connected", async () => (await this.stub.stats()).clients === 0);
  }

  /** Ends the instance. Its sockets stay open, as in hibernation, or are closed. */
  async evict(webSockets: "hibernate" | "close" = "hibernate"): Promise<void> {
    try {
      await evictDurableObject(this.stub, { webSockets });
    } catch (error) {
      if (!/not currently running/.test(String(error))) throw error;
    }
  }

  /** Ends the instances of all objects, with their sockets, as a crash does. */
  crash(): Promise<void> {
    return abortAllDurableObjects();
  }

  /** Runs the object's alarm now. Returns whether one was set. */
  runAlarm(): Promise<boolean> {
    return runDurableObjectAlarm(this.stub);
  }

  async disconnectClients(): Promise<void> {
    for (const connection of this.#connections) await connection.leave();
  }
}

/** What channels of some tests keep: the latest event, an hour, or nothing. Others have the object's retention. */
export function keptIn(name: string): ChannelOptions | undefined {
  if (name === "state") return { retention: { events: 1 } };
  if (name === "chat") return { retention: { age: 3_600_000 } };
  return name === "typing" ? { retention: { events: 0 } } : undefined;
}

/** Returns a test body that runs with an object. */
export const withObject =
  (options: TestObjectOptions, body: (object: TestObject) => Promise<void>): (() => Promise<void>) =>
  async () => {
    const object = new TestObject(options);
    try {
      await body(object);
    } finally {
      await object.disconnectClients();
    }
  };

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until a condition holds. @throws after `ms` milliseconds */
export async function waitUntil(
  condition: string,
  holds: () => boolean | Promise<boolean>,
  ms = 10_000,
): Promise<void> {
  for (const end = Date.now() + ms; !(await holds()); await pause(10))
    if (Date.now() > end) throw new Error(`Waited ${ms} ms in vain until: ${condition}.`);
}

/** Runs `body` with both clocks `ms` milliseconds ahead. Timers are not affected. */
export async function withClockAhead<T>(ms: number, body: () => Promise<T>): Promise<T> {
  const { now } = Date;
  const { now: monotonic } = performance;
  Date.now = () => now.call(Date) + ms;
  performance.now = () => monotonic.call(performance) + ms;
  try {
    return await body();
  } finally {
    Date.now = now;
    performance.now = monotonic;
  }
}

/** Reads the data of the next `count` events, control events aside. */
export async function takeData(connection: Connection, count: number): Promise<string[]> {
  const data: string[] = [];
  while (data.length < count) data.push((await connection.nextData()).data);
  return data;
}

/** Returns consecutive numbers as texts. */
export const numbers = (from: number, to: number, prefix = ""): string[] =>
  Array.from({ length: to - from + 1 }, (_, index) => `${prefix}${from + index}`);
