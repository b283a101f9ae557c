// Test support for several processes that share a log.
import { sharedLogEngine } from "../../../src/engine.ts";
import type { Broker } from "../../../src/index.ts";
import type { Connection } from "../clients/connection.ts";
import { Clock } from "../clock.ts";
import { type ConnectOptions, type TestBrokerOptions, type TestSetup, withBroker } from "../test-broker.ts";
import type { MemorySession } from "./memory-session.ts";
import { MemorySharedLog } from "./memory-shared-log.ts";

/** Returns the numbers of a range as event data. */
export const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

/** Options of a log that holds one or two events. */
export const TINY = { logBytes: 600 };

/** Brokers of several processes over one store. The test moves the clock. */
export class SharedLogProcesses {
  readonly setup: TestSetup;
  readonly store: MemorySharedLog;
  readonly clock: Clock;

  constructor(setup: TestSetup, store: MemorySharedLog) {
    this.setup = setup;
    this.store = store;
    this.clock = new Clock(() => store.advanceTurn());
  }

  /** Creates the broker of another process. */
  broker({ log, ...options }: TestBrokerOptions = {}): Broker {
    return this.setup.broker({ engine: sharedLogEngine(this.store, log), ...options });
  }

  /** Returns the store's session of the `index`-th broker, in the order of their first use. */
  readonly session = (index = 0): MemorySession => {
    const session = this.store.sessions[index];
    if (!session) throw new Error(`There is no session ${index}; fewer brokers were used.`);
    return session;
  };

  join(broker: Broker, options: ConnectOptions = {}): Promise<Connection> {
    return this.clock.advanceUntil(this.setup.join(broker, options));
  }

  connect(broker: Broker, options: ConnectOptions = {}): Promise<Connection> {
    return this.clock.advanceUntil(this.setup.connect(broker, options));
  }

  async publish(broker: Broker, data: readonly string[], channel?: string): Promise<string> {
    const options = channel === undefined ? {} : { channels: channel };
    let id = "";
    for (const each of data) id = (await this.clock.advanceUntil(broker.broadcast(each, options))).id;
    return id;
  }

  /** Waits until a client has received an event, and returns all data that it received. */
  async readThrough(client: Connection, data: string): Promise<readonly string[]> {
    await this.clock.advanceUntil(client.untilData(data));
    return client.data;
  }
}

/** Creates a test body that runs with processes over one store. */
export const sharedLogTest = (
  body: (processes: SharedLogProcesses) => Promise<void>,
  options: ConstructorParameters<typeof MemorySharedLog>[0] = {},
): (() => Promise<void>) =>
  withBroker(async (setup) => {
    const made = new SharedLogProcesses(setup, new MemorySharedLog(options));
    await made.clock.run(async () => {
      try {
        await body(made);
      } finally {
        await made.clock.advanceUntil(setup.close());
      }
    });
  });
