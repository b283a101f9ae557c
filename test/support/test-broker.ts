// `withBroker` gives a test brokers and clients in the same process, and closes them after the test. On workerd the test runs in a Durable
// Object.
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
import { sqliteEngine } from "../../src/sqlite/index.ts";
import { durableEngine } from "../../src/workers/sqlite-engine.ts";
import { Connection } from "./clients/connection.ts";
import { newDatabasePath } from "./engines/database-path.ts";
import { withDurableObject } from "./workerd.ts";

/** Options of a client's request for a stream. */
export interface ConnectOptions {
  readonly id?: string;
  readonly channel?: string | readonly string[];
  /** Sent as the header `Last-Event-ID`. */
  readonly lastEventId?: string;
  /** Further query parameters. */
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly overrides?: ClientOverrides;
}

export type TestBrokerOptions = BrokerOptions & { readonly log?: LogOptions };

interface Storage {
  readonly sql: { exec(query: string, ...bindings: unknown[]): Iterable<Readonly<Record<string, unknown>>> };
  transactionSync<T>(body: () => T): T;
}
let engineCount = 0;

/** Returns the storage of a Durable Object with tables for one engine only, because a test may have several engines. */
function storageOf(durableObject: object | undefined, engine: number): Storage {
  const { storage } = durableObject as { readonly storage: Storage };
  const { sql } = storage;
  return {
    transactionSync: (body) => storage.transactionSync(body),
    sql: { exec: (query, ...bindings) => sql.exec(query.replaceAll("fanwire_", `fanwire_${engine}_`), ...bindings) },
  };
}

/** Creates the brokers and clients of one test. */
export class TestSetup {
  /** The Durable Object in which the test runs, on workerd. */
  readonly durableObject: object | undefined;
  readonly #brokers: Broker[] = [];
  readonly #connections: Connection[] = [];

  constructor(durableObject: unknown) {
    this.durableObject = durableObject as object | undefined;
  }

  engine(log: LogOptions = {}): Engine {
    return this.engines(log)();
  }

  /** Returns an engine that appends within the call, and so in the turn of it. An engine over a file appends in the next turn. */
  immediateEngine(log: LogOptions = {}): Engine {
    return inject("part").startsWith("sqlite") ? memoryEngine(log) : this.engine(log);
  }

  /** Returns a function that starts an engine: in SQLite a new one for the same log each time, and in memory always the same one. */
  engines(log: LogOptions): () => Engine {
    if (inject("part") === "durable") {
      const storage = storageOf(this.durableObject, ++engineCount);
      return () => durableEngine(storage, log);
    }
    if (inject("part").startsWith("sqlite")) {
      const path = newDatabasePath();
      return () => sqliteEngine({ path, durability: "process", ...log });
    }
    const engine = memoryEngine(this.durableObject ? { ...log, durableObject: this.durableObject } : log);
    return () => engine;
  }

  broker({ log, ...options }: TestBrokerOptions = {}): Broker {
    // Errors that no test expects would only fill the output. The tests of the default are in broker/error-output.test.ts.
    const broker = createBroker({ engine: this.engine(log), onError: () => undefined, ...options });
    this.#brokers.push(broker);
    return broker;
  }

  /** Connects a client that has read nothing yet. */
  async connect(broker: Broker, options: ConnectOptions = {}): Promise<Connection> {
    const abort = new AbortController();
    const response = await broker.clientHandler(clientRequest(options, abort.signal), options.overrides);
    const connection = new Connection(response, abort);
    this.#connections.push(connection);
    return connection;
  }

  /** Connects a client that has read its `fanwire-ready`. */
  async join(broker: Broker, options: ConnectOptions = {}): Promise<Connection> {
    const connection = await this.connect(broker, options);
    await connection.untilControl("ready");
    return connection;
  }

  /** Ends all connections and closes all brokers. */
  async close(): Promise<void> {
    for (const connection of this.#connections) await connection.leave();
    for (const broker of this.#brokers) await broker.close();
  }
}

/** Returns a test function that calls `body` with a setup, and closes the setup afterwards. */
export const withBroker = (body: (setup: TestSetup) => Promise<void>): (() => Promise<void>) =>
  withDurableObject(async (durableObject) => {
    const setup = new TestSetup(durableObject);
    try {
      await body(setup);
    } finally {
      await setup.close();
    }
  });

/** Returns a request for a stream, as an EventSource makes it. */
export function clientRequest(
  { id, channel, lastEventId, query, headers }: ConnectOptions = {},
  signal?: AbortSignal,
): Request {
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

/** Returns a request that publishes `body`. `path` is a query such as `?type=a`, or a whole path. */
export const eventRequest = (body: BodyInit | null, path = "", init: RequestInit = {}): Request =>
  new Request(new URL(path, "https://fanwire.test/broadcast"), { method: "POST", body, ...init });

/** Records the calls of a callback that has one parameter, and lets a test await the next call. */
export class Recorder<T> {
  /** The arguments of all calls. */
  readonly all: T[] = [];
  #taken = 0;
  #wake: (() => void) | undefined;

  /** The callback. */
  readonly record = (value: T): void => {
    this.all.push(value);
    this.#wake?.();
  };

  /** Resolves with the argument of the next call that was not returned yet. */
  async next(): Promise<T> {
    while (this.#taken === this.all.length) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.all[this.#taken++] as T;
  }
}

/** Resolves in the next turn of the event loop. */
export const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

/** Returns the `code` of the error that a promise rejects with, its name if it has no code, or `"none"` if the promise resolves. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return (error as { code?: string }).code ?? (error as Error).name;
  }
  return "none";
}

/** Returns the `code` of a problem response. */
export async function problemOf(response: Response): Promise<string> {
  const { code } = (await response.json()) as { code: string };
  return code;
}
