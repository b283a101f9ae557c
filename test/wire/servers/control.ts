import type { Broker, BrokerOptions, BrokerStats, ClientInfo, Engine, LogOptions } from "../../../src/index.ts";
import type { Faults } from "./breakable-engine.ts";
import type { Decision } from "./hooks.ts";
import { activeTimers } from "./timers.ts";

/** What a runtime has to give. */
export interface Host {
  /** Forces a collection. */
  gc(): void | Promise<void>;
  /** Bytes of the heap in use; `null` where the runtime does not tell. */
  heapUsed(): number | null;
  /** Where the memory engine needs to be told where it is. @default memoryEngine */
  engine?(options: object): Engine;
  /** Where brokers are not made by `createBroker`. */
  make?(name: string, options: BrokerOptions, log: LogOptions): StageBroker;
  /** Where they are to be asked elsewhere. @default control */
  control?(name: string, stage: Stage, verb: string, wish: Record<string, unknown>): Promise<unknown>;
}

/** What is asked of a broker that is under test; on Workers it is an object. */
export type StageBroker = Pick<Broker, "broadcast" | "close" | "fetch"> & {
  disconnect(id: string, options: object): Promise<object>;
  stats(): BrokerStats | Promise<BrokerStats>;
};

/** A broker, and what it did. */
export interface Stage {
  broker: StageBroker;
  ended: { clientId: string; reason: string }[];
  errors: string[];
  seen: WeakRef<ClientInfo>[];
  /** How many the broker was given. */
  requests: number;
  /** How many of them told by their signal that the client left; counted with a breakable engine only, because to ask may change it. */
  aborted: number;
  watched: boolean;
  decision: Decision;
  faults: Faults;
  flood?: Promise<unknown>;
}

/** Publishes numbered events: `{"n":0,"pad":"…"}`. */
async function flood(broker: StageBroker, { count = 1, bytes = 0, channel = "", every = 1 }): Promise<void> {
  const pad = "x".repeat(bytes);
  const options = channel ? { channels: channel } : {};
  for (let n = 0; n < count; n++) {
    const published = broker.broadcast(`${n} ${pad}`, options);
    if (n % every === every - 1) await published;
  }
}

/** Does what a test wants of a broker. */
export async function control(host: Host, stage: Stage, verb: string, wish: Record<string, unknown>): Promise<unknown> {
  const { broker } = stage;
  if (verb === "flood") {
    const work = flood(broker, wish);
    stage.flood = work;
    if (!wish.background) await work;
    return {};
  }
  if (verb === "flooded") return void (await stage.flood);
  if (verb === "report") {
    const { report } = await broker.broadcast("reported", { report: true });
    return await report;
  }
  if (verb === "decide") return void stage.decision.decide();
  if (verb === "break") return void Object.assign(stage.faults, { append: undefined, subscribe: undefined }, wish);
  if (verb === "disconnect")
    return await broker.disconnect(String(wish.id), wish.blockFor === undefined ? {} : { blockFor: wish.blockFor });
  if (verb === "close") {
    const first = wish.first ? broker.broadcast(String(wish.first)) : undefined;
    const { spreadOver } = wish as { spreadOver?: number };
    const closed = broker.close(spreadOver === undefined ? {} : { spreadOver });
    if (wish.background) return {};
    await closed;
    await first;
    return {};
  }
  if (verb === "forget") {
    // What a test counts with must not grow as a leak would. In place, because a hub hands out copies of the stage.
    stage.ended.length = 0;
    stage.seen.splice(0, Infinity, ...stage.seen.filter((client) => client.deref()));
    return {};
  }
  if (verb === "state") {
    for (let round = 0; wish.collect && round < 4; round++) {
      await host.gc();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return {
      stats: await broker.stats(),
      ended: stage.ended,
      errors: stage.errors,
      /** Connections that there ever were. */
      connected: stage.seen.length,
      requests: stage.requests,
      aborted: stage.aborted,
      subscribing: stage.faults.subscribing,
      /** Connections whose object is still in memory. */
      alive: stage.seen.filter((client) => client.deref()).length,
      timers: activeTimers(),
      /** What Node knows to be open; the others tell nothing, or that there is nothing. */
      resources: globalThis.process?.getActiveResourcesInfo?.().length ?? 0,
      heapUsed: host.heapUsed(),
    };
  }
  throw new Error(`there is no verb ${verb}`);
}
