import { inject } from "vitest";
import {
  type Broker,
  type BrokerOptions,
  type ClientOverrides,
  createBroker,
  type Engine,
  type LogOptions,
  memoryEngine,
} from "../../src/index.ts";
import { durableEngine } from "../../src/workers/sqlite-engine.ts";
import { Connection } from "./clients/connection.ts";
import { inside } from "./workerd.ts";

/** How a client asks for its stream. */
export interface Wish {
  readonly id?: string;
  readonly channel?: string | readonly string[];
  /** As the header that an EventSource sends. */
  readonly lastEventId?: string;
  /** Further parameters. */
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly overrides?: ClientOverrides;
}

export type SceneBrokerOptions = BrokerOptions & { readonly log?: LogOptions };

interface Storage {
  readonly sql: { exec(query: string, ...bindings: unknown[]): Iterable<Readonly<Record<string, unknown>>> };
}
let engines = 0;

/** The storage of an object, in which an engine meets none but its own tables: a test may have several engines. */
function tablesOfItsOwn(durableObject: object | undefined, engine: number): Storage {
  const { sql } = (durableObject as { readonly storage: Storage }).storage;
  return {
    sql: { exec: (query, ...bindings) => sql.exec(query.replaceAll("fanwire_", `fanwire_${engine}_`), ...bindings) },
  };
}

/** What a test has: brokers that may live where it runs, and clients. All of it is taken down after the test. */
export class Scene {
  readonly durableObject: object | undefined;
  readonly #brokers: Broker[] = [];
  readonly #connections: Connection[] = [];

  constructor(durableObject: unknown) {
    this.durableObject = durableObject as object | undefined;
  }

  engine(log: LogOptions = {}): Engine {
    if (inject("part") === "durable") return durableEngine(tablesOfItsOwn(this.durableObject, ++engines), log);
    return memoryEngine(this.durableObject ? { ...log, durableObject: this.durableObject } : log);
  }

  broker({ log, ...options }: SceneBrokerOptions = {}): Broker {
    const broker = createBroker({ engine: this.engine(log), ...options });
    this.#brokers.push(broker);
    return broker;
  }

  /** Connects a client that reads nothing until it is told to. */
  async connect(broker: Broker, wish: Wish = {}): Promise<Connection> {
    const abort = new AbortController();
    const response = await broker.clientHandler(clientRequest(wish, abort.signal), wish.overrides);
    const connection = new Connection(response, abort);
    this.#connections.push(connection);
    return connection;
  }

  /** Connects a client and reads what says that it is connected. */
  async join(broker: Broker, wish: Wish = {}): Promise<Connection> {
    const connection = await this.connect(broker, wish);
    await connection.untilControl("ready");
    return connection;
  }

  async end(): Promise<void> {
    for (const connection of this.#connections) await connection.leave();
    for (const broker of this.#brokers) await broker.close();
  }
}

/** Makes a test body that has a scene. */
export const scene = (body: (scene: Scene) => Promise<void>): (() => Promise<void>) =>
  inside(async (durableObject) => {
    const made = new Scene(durableObject);
    try {
      await body(made);
    } finally {
      await made.end();
    }
  });

/** A request for a stream, as an EventSource makes it. */
export function clientRequest({ id, channel, lastEventId, query, headers }: Wish = {}, signal?: AbortSignal): Request {
  const url = new URL("https://fanwire.test/connect");
  if (id !== undefined) url.searchParams.set("id", id);
  for (const name of typeof channel === "string" ? [channel] : (channel ?? []))
    url.searchParams.append("channel", name);
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.append(name, value);
  return new Request(url, {
    headers: {
      accept: "text/event-stream",
      ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
      ...headers,
    },
    ...(signal ? { signal } : {}),
  });
}

/** A request that publishes `body`; `where` is its query, or a whole path. */
export const eventRequest = (body: BodyInit | null, where = "", init: RequestInit = {}): Request =>
  new Request(new URL(where, "https://fanwire.test/broadcast"), { method: "POST", body, ...init });

/** Remembers what a callback was called with, and lets a test await the next call. */
export class Witness<T> {
  readonly all: T[] = [];
  #taken = 0;
  #wake: (() => void) | undefined;

  readonly see = (value: T): void => {
    this.all.push(value);
    this.#wake?.();
  };

  /** The next call that was not taken yet. */
  async next(): Promise<T> {
    while (this.#taken === this.all.length) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.all[this.#taken++] as T;
  }
}

/** The next turn of the event loop. */
export const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

/** The `code` that a promise rejects with; what is no BrokerError is shown by its name. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return (error as { code?: string }).code ?? (error as Error).name;
  }
  return "none";
}

/** The `code` of a problem answer. */
export async function problemOf(response: Response): Promise<string> {
  const { code } = (await response.json()) as { code: string };
  return code;
}
