import type { Broker } from "../../../src/index.ts";
import { sharedLogEngine } from "../../../src/shared-log/shared-log-engine.ts";
import type { Connection } from "../clients/connection.ts";
import { Clock } from "../clock.ts";
import { type Scene, type SceneBrokerOptions, scene, type Wish } from "../test-broker.ts";
import type { MemorySession } from "./memory-session.ts";
import { MemoryStore } from "./memory-shared-log.ts";

/** The data of events. */
export const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

/** A log so small that hardly an event stays in it. */
export const TINY = { logBytes: 600 };

/** Brokers of several processes over one store, by a clock that the test moves. */
export class Replicas {
  readonly stage: Scene;
  readonly store: MemoryStore;
  readonly clock: Clock;

  constructor(stage: Scene, store: MemoryStore) {
    this.stage = stage;
    this.store = store;
    this.clock = new Clock(() => store.turn());
  }

  /** Another process. */
  broker({ log, ...options }: SceneBrokerOptions = {}): Broker {
    return this.stage.broker({ engine: sharedLogEngine(this.store, log), ...options });
  }

  /** What the `index`-th broker that was used has of the store. */
  readonly session = (index = 0): MemorySession => {
    const session = this.store.sessions[index];
    if (!session) throw new Error(`no broker ${index} was used`);
    return session;
  };

  join(broker: Broker, wish: Wish = {}): Promise<Connection> {
    return this.clock.until(this.stage.join(broker, wish));
  }

  connect(broker: Broker, wish: Wish = {}): Promise<Connection> {
    return this.clock.until(this.stage.connect(broker, wish));
  }

  async publish(broker: Broker, data: readonly string[], channel?: string): Promise<string> {
    let id = "";
    for (const each of data)
      id = (await this.clock.until(broker.broadcast(each, channel === undefined ? {} : { channels: channel }))).id;
    return id;
  }

  /** What a client has read when it has read this. */
  async readTo(client: Connection, data: string): Promise<readonly string[]> {
    await this.clock.until(client.untilData(data));
    return client.data;
  }
}

/** Makes a test body that has replicas of a store. */
export const replicas = (
  body: (replicas: Replicas) => Promise<void>,
  options: ConstructorParameters<typeof MemoryStore>[0] = {},
): (() => Promise<void>) =>
  scene(async (stage) => {
    const made = new Replicas(stage, new MemoryStore(options));
    await made.clock.run(async () => {
      try {
        await body(made);
      } finally {
        await made.clock.until(stage.end());
      }
    });
  });
