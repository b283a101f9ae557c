import { abortAllDurableObjects, evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { BrokerStats, EventInput, Published } from "../../../src/index.ts";
import type { ObjectContext } from "../../../src/workers/cloudflare.ts";
import { type Hub, type HubOptions, hub, type ObjectOptions } from "../../../src/workers/index.ts";
import { Connection } from "../../support/clients/connection.ts";
import { clientRequest, type Wish } from "../../support/test-broker.ts";
import type { Hub as HubObject } from "../servers/main.ts";
import { instancesOf, setOptions } from "./options.ts";

/** The stub of an object, with what of it is called in tests. */
export interface Stub {
  fetch(url: string | Request, init?: RequestInit): Promise<Response & { readonly webSocket?: unknown }>;
  broadcast(event: EventInput, options?: object): Promise<Published>;
  broadcastTo(clientId: string, event: EventInput, options?: object): Promise<Published>;
  disconnect(clientId: string, options?: object): Promise<{ clients: number }>;
  stats(): Promise<BrokerStats>;
  serve(call: { readonly do: "secret" }): Promise<{ readonly value: string }>;
}

/** The `ctx` of an object, as its insides are looked at. */
export interface Inside extends ObjectContext {
  readonly storage: ObjectContext["storage"] & { deleteAlarm(): Promise<void> };
}

export type RoomOptions = ObjectOptions & { readonly hub?: HubOptions };

let rooms = 0;

/** One object with options of its own, a hub of it, and clients; all clients leave after the test. */
export class Room {
  readonly name: string;
  readonly hub: Hub;
  readonly #connections: Connection[] = [];

  constructor({ hub: face, ...options }: RoomOptions = {}) {
    this.name = `room ${++rooms} of ${Date.now()}`;
    setOptions(env.HUB.idFromName(this.name), { retry: 50, ...options });
    this.hub = hub(env.HUB, { name: this.name, retry: 50, ...face });
  }

  /** A stub is of one instance of the object; after an abort it takes another. */
  get stub(): Stub {
    return env.HUB.getByName(this.name);
  }

  /** How many instances the object has had. */
  get instances(): number {
    return instancesOf(env.HUB.idFromName(this.name));
  }

  /** Has the next instance begin with other options. */
  reconfigure(options: ObjectOptions): void {
    setOptions(env.HUB.idFromName(this.name), { retry: 50, ...options });
  }

  /** Another hub of the same object, as another isolate has one. */
  otherHub(options: HubOptions = {}): Hub {
    return hub(env.HUB, { name: this.name, retry: 50, ...options });
  }

  ask(wish: Wish = {}, signal?: AbortSignal): Promise<Response> {
    return this.hub.clientHandler(clientRequest(wish, signal), wish.overrides);
  }

  /** Connects a client that reads nothing until it is told to. */
  async connect(wish: Wish = {}): Promise<Connection> {
    const abort = new AbortController();
    const connection = new Connection(await this.ask(wish, abort.signal), abort);
    this.#connections.push(connection);
    return connection;
  }

  /** Connects a client and reads what says that it is connected. */
  async join(wish: Wish = {}): Promise<Connection> {
    const connection = await this.connect(wish);
    await connection.untilControl("ready");
    return connection;
  }

  inside<R>(look: (object: HubObject, ctx: Inside) => R | Promise<R>): Promise<R> {
    return runInDurableObject(this.stub, look);
  }

  sql(query: string, ...bindings: unknown[]): Promise<Record<string, unknown>[]> {
    return this.inside((_, { storage }) => [...storage.sql.exec(query, ...bindings)].map((row) => ({ ...row })));
  }

  /** How many rows a table has; -1 if there is none. */
  async rows(table: "events" | "channels" | "names" | "connections"): Promise<number> {
    return this.inside((_, { storage: { sql } }) => {
      const count = (what: string): number => Number([...sql.exec(`SELECT count(*) AS n FROM ${what}`)][0]?.n);
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

  /** Waits until nobody is connected any more, as the object knows it. */
  gone(): Promise<void> {
    return until("nobody is connected", async () => (await this.stub.stats()).clients === 0);
  }

  /** Ends the instance. Sockets are kept, as when it hibernates, or closed. */
  async evict(webSockets: "hibernate" | "close" = "hibernate"): Promise<void> {
    try {
      await evictDurableObject(this.stub, { webSockets });
    } catch (error) {
      if (!/not currently running/.test(String(error))) throw error;
    }
  }

  /** Ends the instances of all rooms, as a crash does. */
  abort(): Promise<void> {
    return abortAllDurableObjects();
  }

  alarm(): Promise<boolean> {
    return runDurableObjectAlarm(this.stub);
  }

  async end(): Promise<void> {
    for (const connection of this.#connections) await connection.leave();
  }
}

/** Makes a test body that has a room. */
export const room =
  (options: RoomOptions, body: (room: Room) => Promise<void>): (() => Promise<void>) =>
  async () => {
    const made = new Room(options);
    try {
      await body(made);
    } finally {
      await made.end();
    }
  };

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until something holds. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
  for (const end = Date.now() + ms; !(await holds()); await pause(10))
    if (Date.now() > end) throw new Error(`waiting until ${what}: it is not after ${ms} ms`);
}

/** Runs `body` as if it were so many milliseconds later; no timer knows of it. */
export async function after<T>(ms: number, body: () => Promise<T>): Promise<T> {
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

/** The data of the next so many events that are not fanwire's own. */
export async function take(connection: Connection, count: number): Promise<string[]> {
  const data: string[] = [];
  while (data.length < count) data.push((await connection.nextData()).data);
  return data;
}

export const numbers = (from: number, to: number, prefix = ""): string[] =>
  Array.from({ length: to - from + 1 }, (_, index) => `${prefix}${from + index}`);
