// Actions of a test on a broker under test.
import type { Broker, BrokerOptions, BrokerStats, ClientInfo, Engine, LogOptions } from "../../../src/index.ts";
import type { Faults } from "./breakable-engine.ts";
import type { Decision } from "./hooks.ts";
import type { RunArgs, TestRuns } from "./runs.ts";
import { activeTimers } from "./timers.ts";

/** The parts of the server under test that differ between runtimes. */
export interface Host {
  /** Forces a garbage collection. */
  gc(): void | Promise<void>;
  /** Returns the bytes of the heap in use, or `null` if the runtime does not tell. */
  heapUsed(): number | null;
  /** Creates the engine, where the memory engine needs more options. @default memoryEngine */
  engine?(options: object): Engine;
  /** Creates the broker, where that is not the work of `createBroker` of this package. */
  createBroker?(name: string, options: BrokerOptions, log: LogOptions): BrokerUnderTest;
  /** Serves a run, where it is elsewhere. */
  serveRun?(name: string, request: Request): Promise<Response>;
  /** Carries out an action, where the broker is elsewhere. @default control */
  control?(name: string, test: TestBroker, action: string, args: Record<string, unknown>): Promise<unknown>;
}

/** The methods of a broker that actions use. With a hub some of them are those of its object. */
export type BrokerUnderTest = Pick<Broker, "broadcast" | "close" | "fetch"> & {
  disconnect(id: string, options: object): Promise<object>;
  stats(): BrokerStats | Promise<BrokerStats>;
};

/** A broker under test, with records of what it did. */
export interface TestBroker {
  broker: BrokerUnderTest;
  /** The broker's runs, unless they are elsewhere. */
  runs: TestRuns | undefined;
  ended: { clientId: string; reason: string }[];
  errors: string[];
  seen: WeakRef<ClientInfo>[];
  /** Requests that the broker received. */
  requests: number;
  /** Requests whose signal was aborted. Counted with a breakable engine only, because a listener on the signal may change a runtime's behaviour. */
  aborted: number;
  isWatched: boolean;
  decision: Decision;
  faults: Faults;
  flood?: Promise<unknown>;
}

/** Brokers whose flood in the background is to end, by a part of them that a hub does not copy. */
const ending = new WeakSet<Decision>();

/** Publishes numbered events: `0 xxx…`, `1 xxx…`. Awaits one of `every`. Stops when `isOver` returns true. */
async function flood(
  broker: BrokerUnderTest,
  { count = 1, bytes = 0, channel = "", every = 1 },
  isOver: () => boolean,
): Promise<void> {
  const pad = "x".repeat(bytes);
  const options = channel ? { channels: channel } : {};
  for (let n = 0; n < count && !isOver(); n++) {
    const published = broker.broadcast(`${n} ${pad}`, options);
    if (n % every === every - 1) await published;
  }
}

/** Publishes events to some channels in turn. */
async function fillHistory(broker: BrokerUnderTest, { count = 1, bytes = 8, channels = 1 }): Promise<void> {
  const data = "x".repeat(bytes);
  for (let n = 0; n < count; n++) {
    const published = broker.broadcast(data, { channels: `c${n % channels}` });
    if (n % 1_000 === 999 || n === count - 1) await published;
  }
}

/** Carries out an action of a test on a broker. */
export async function control(
  host: Host,
  test: TestBroker,
  action: string,
  args: Record<string, unknown>,
): Promise<unknown> {
  const { broker } = test;
  if (action === "flood") {
    const work = flood(broker, args, () => ending.has(test.decision));
    test.flood = work;
    if (!args.background) await work;
    return {};
  }
  if (action === "history") {
    await fillHistory(broker, args);
    return {};
  }
  if (action === "flooded") {
    ending.add(test.decision);
    await test.flood;
    return {};
  }
  if (action === "report") {
    const { report } = await broker.broadcast("reported", { report: true });
    return await report;
  }
  if (action === "run") return await test.runs?.act(args as unknown as RunArgs);
  if (action === "decide") return void test.decision.decide();
  if (action === "break") return void Object.assign(test.faults, { append: undefined, subscribe: undefined }, args);
  if (action === "disconnect")
    return await broker.disconnect(String(args.id), args.blockFor === undefined ? {} : { blockFor: args.blockFor });
  if (action === "close") {
    const first = args.first ? broker.broadcast(String(args.first)) : undefined;
    const { spreadOver, force } = args as { spreadOver?: number; force?: boolean };
    const closed = broker.close({
      ...(spreadOver === undefined ? {} : { spreadOver }),
      ...(force === undefined ? {} : { force }),
    });
    if (args.background) return {};
    await closed;
    await first;
    return {};
  }
  if (action === "forget") {
    // Records for a test must not grow as a leak would. Changed in place, because a hub works on copies of the test broker.
    test.ended.length = 0;
    test.seen.splice(0, Infinity, ...test.seen.filter((client) => client.deref()));
    return {};
  }
  if (action === "state") {
    for (let round = 0; args.collect && round < 4; round++) {
      await host.gc();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return {
      stats: await broker.stats(),
      ended: test.ended,
      errors: test.errors,
      /** All connections so far. */
      connected: test.seen.length,
      requests: test.requests,
      aborted: test.aborted,
      subscribing: test.faults.subscribing,
      /** Connections whose object is still in memory. */
      alive: test.seen.filter((client) => client.deref()).length,
      timers: activeTimers(),
      /** Open resources by Node's count. Other runtimes report none. */
      resources: globalThis.process?.getActiveResourcesInfo?.().length ?? 0,
      heapUsed: host.heapUsed(),
    };
  }
  throw new Error(`unknown action ${action}`);
}
