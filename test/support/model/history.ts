import fc from "fast-check";
import type { Beginning } from "./reader.ts";

// What may happen to brokers and their clients, as plain data: it is made at random, made smaller when it shows a fault, and printed.

/** What a history may have beside what every one has. */
export interface Kinds {
  /** The processes share a store, and its connections have troubles. Otherwise they share a log in memory. */
  readonly store?: boolean;
  /** The log may be too small for what is published in one turn; over a store, that of a process is. */
  readonly overruns?: boolean;
  readonly forgets?: boolean;
  /** Events are so large that a chunk holds few of them. */
  readonly large?: boolean;
  /** The engine answers late, in any order, refuses, and loses answers. */
  readonly late?: boolean;
  /** Of a store: nothing happens to its connections. */
  readonly calm?: boolean;
  /** Of a store: single messages vanish without a sign, so that later ones of other channels come before them. */
  readonly swallows?: boolean;
  /** Of a store: it loses what it has, and begins anew. */
  readonly anew?: boolean;
  /** Of a store: it keeps everything. */
  readonly keeps?: boolean;
}

/** Options of the brokers, and of their log. Times are in milliseconds. */
export interface Setting {
  readonly events: number;
  readonly bytes: number;
  readonly age: number;
  readonly logBytes: number;
  readonly maxChannels: number;
  readonly idempotencyWindow: number;
  readonly timeout: number;
  readonly tolerance: number;
  readonly heartbeat: number;
  readonly inboxLinger: number;
  readonly maxAge: number;
  readonly duplicateIds: "allow" | "reject" | "replace";
  /** Of a store: records in a page. */
  readonly page: number;
}

/** Somebody who reads, and comes back. */
export interface Plan {
  readonly kind: "client" | "listener";
  readonly id: string;
  readonly channels: readonly string[];
  readonly beginning: Beginning;
  /** Bytes that are on their way to it at the most before its runtime asks for no more; with 0 it does not even ask for the first. */
  readonly capacity: number;
  /** How long a connection of it is granted. */
  readonly lifetime: number;
}

type Process = 0 | 1;
export type Step =
  | {
      readonly do: "publish";
      readonly process: Process;
      readonly channels: readonly string[];
      readonly size: number;
      readonly times: number;
      readonly report: boolean;
      readonly key: boolean;
    }
  /** Publishes once more what was published with a key, the last such or one some before it. */
  | { readonly do: "again"; readonly process: Process; readonly ago: number; readonly report: boolean }
  | {
      readonly do: "send";
      readonly process: Process;
      readonly reader: number;
      readonly times: number;
      readonly report: boolean;
    }
  /** Comes, if it is not there, and reads. A listener waits for an event for every eight bytes. */
  | { readonly do: "read"; readonly reader: number; readonly bytes: number }
  /** Comes, reads a little, and leaves in the middle of it. */
  | { readonly do: "glimpse"; readonly reader: number; readonly bytes: number; readonly how: Drop }
  /** Comes, leaves what is published unread for so long, and reads it all. */
  | { readonly do: "stall"; readonly process: Process; readonly reader: number; readonly ms: number }
  | { readonly do: "drop"; readonly reader: number; readonly how: Drop; readonly moves: boolean }
  | { readonly do: "disconnect"; readonly process: Process; readonly reader: number; readonly for: number }
  /** A process closes, and another one takes its place. */
  | { readonly do: "restart"; readonly process: Process; readonly over: number }
  | { readonly do: "turn" }
  | { readonly do: "pass"; readonly ms: number }
  | Trouble;

/** How a client goes: its server is told in one way or the other, much later, or never. */
export type Drop = "cancel" | "abort" | "unnoticed" | "never noticed";

/** Something that happens to the connection of a process with its engine. */
export type Trouble = { readonly process: Process } & (
  | {
      readonly do: "delay";
      readonly requests: number;
      readonly answers: number;
      readonly feed: number;
      readonly isLoose: boolean;
    }
  | { readonly do: "refuse"; readonly times: number }
  | { readonly do: "feed" | "commands"; readonly is: boolean }
  | { readonly do: "swallow"; readonly messages: number }
  | { readonly do: "lose-answer" | "silence" | "anew" | "lose" }
);

export interface History {
  readonly setting: Setting;
  readonly readers: readonly Plan[];
  readonly steps: readonly Step[];
  /** What `Math.random` begins with. */
  readonly random: number;
}

export const NAMES = ["a", "b", "c"];
const READERS = 4;
/** About what an event costs the log beside its padding. */
export const COST = 256 + 40;

const { constant, constantFrom, integer, nat, boolean, record, subarray, oneof } = fc;
const is = <const T extends string>(name: T): fc.Arbitrary<T> => constant(name);
type Weighted<T> = { readonly weight: number; readonly arbitrary: fc.Arbitrary<T> };

export function histories(kinds: Kinds): fc.Arbitrary<History> {
  return record({
    setting: settings(kinds),
    readers: fc.array(plans(kinds), { minLength: READERS, maxLength: READERS }),
    steps: fc.array(oneof(...steps(kinds)), { minLength: 1, maxLength: 40, size: "max" }),
    random: nat(),
  }).map(({ setting, readers, ...rest }) => ({
    ...rest,
    setting,
    // Who is refused because of another reader would never come in.
    readers: setting.duplicateIds === "reject" ? readers.map((plan, index) => ({ ...plan, id: `${index}` })) : readers,
  }));
}

const unitOf = ({ large }: Kinds): number => (large ? 12_000 : 10);

function settings(kinds: Kinds): fc.Arbitrary<Setting> {
  const { store, overruns, forgets, swallows, keeps } = kinds;
  const unit = unitOf(kinds);
  return record({
    events: keeps ? constant(Infinity) : oneof(integer({ min: 1, max: 5 }), constant(Infinity)),
    bytes: store ? constant(Infinity) : constantFrom(Infinity, Infinity, 30 * unit),
    age: store ? constant(Infinity) : constantFrom(Infinity, Infinity, 1_000, 5_000),
    logBytes: overruns
      ? integer({ min: 2, max: 12 }).map((count) => count * (COST + unit))
      : constant(32 * 1024 * 1024),
    maxChannels: forgets ? integer({ min: 2, max: 6 }) : constant(1_000),
    idempotencyWindow: store ? constant(300_000) : constantFrom(300_000, 1_000),
    timeout: swallows ? constant(Infinity) : constantFrom(400, 1_000, 2_500, Infinity),
    tolerance: integer({ min: 0, max: 3 }),
    heartbeat: store ? constantFrom(8_000, 30_000) : constantFrom(1_600, 8_000, Infinity),
    inboxLinger: store ? constant(600_000) : constantFrom(0, 400, 60_000),
    maxAge: swallows ? constant(Infinity) : constantFrom(Infinity, Infinity, Infinity, 2_000),
    duplicateIds: store ? is("allow") : constantFrom("allow", "allow", "reject", "replace"),
    page: integer({ min: 1, max: 4 }),
  });
}

const plans = ({ swallows }: Kinds): fc.Arbitrary<Plan> =>
  record({
    // A listener that waits for nothing just then cannot be told that a message vanished.
    kind: swallows ? is("client") : constantFrom("client", "client", "client", "listener"),
    id: constantFrom("one", "two"),
    channels: subarray(NAMES),
    beginning: constantFrom("live", "live", "live", "live", "earliest", "foreign"),
    capacity: constantFrom(Infinity, Infinity, 3_000, 300, 1, ...(swallows ? [] : [0])),
    lifetime: swallows ? constant(Infinity) : constantFrom(Infinity, Infinity, Infinity, 900),
  });

function steps(kinds: Kinds): Weighted<Step>[] {
  const { store, overruns, large, swallows } = kinds;
  const process = constantFrom(0 as const, 1 as const);
  const reader = nat({ max: READERS - 1 });
  const times = integer({ min: 1, max: overruns ? 12 : 3 });
  const report = boolean();
  const size = nat({ max: 3 }).map((units) => units * unitOf(kinds));
  const bytes = oneof(integer({ min: 1, max: 600 }), constantFrom(4_000, Infinity));
  const ms = store ? constantFrom(1, 60, 400, 1_100, 3_500, 11_000) : constantFrom(1, 10, 50, 399, 401, 1_000, 2_600);
  const how = constantFrom<Drop[]>("cancel", "abort", "unnoticed", "never noticed");
  const all: Weighted<Step>[] = [
    {
      weight: 10,
      arbitrary: record({ do: is("publish"), process, channels: subarray(NAMES), size, times, report, key: boolean() }),
    },
    // Where a chunk ends, reports that were begun out of order are told apart.
    {
      weight: large ? 8 : 2,
      arbitrary: record({ do: is("again"), process, ago: constantFrom(0, 0, 1, 3, 6), report }),
    },
    { weight: 2, arbitrary: record({ do: is("send"), process, reader, times, report }) },
    { weight: 12, arbitrary: record({ do: is("read"), reader, bytes }) },
    {
      weight: 3,
      arbitrary: record({ do: is("stall"), process, reader, ms: constantFrom(399, 401, 999, 1_001, 2_600) }),
    },
    { weight: 8, arbitrary: constant({ do: "turn" }) },
    { weight: 5, arbitrary: record({ do: is("pass"), ms }) },
    ...troubles(kinds),
  ];
  // Who leaves before it is found that a message vanished, with the id of a later one, cannot be told.
  if (swallows) return all;
  return [
    ...all,
    { weight: 4, arbitrary: record({ do: is("drop"), reader, how, moves: boolean() }) },
    { weight: 2, arbitrary: record({ do: is("glimpse"), reader, bytes, how }) },
    {
      weight: 1,
      arbitrary: record({ do: is("disconnect"), process, reader, for: constantFrom(0, 0, 401, 1_200) }),
    },
    { weight: 1, arbitrary: record({ do: is("restart"), process, over: constantFrom(0, 0, 100, 700) }) },
  ];
}

function troubles({ store, late, calm, swallows, anew }: Kinds): Weighted<Step>[] {
  if (!store && !late) return [];
  const process = constantFrom(0 as const, 1 as const);
  const lag = constantFrom(0, 0, 1, 5, 40, 300, 1_500);
  const delay = record({ do: is("delay"), process, requests: lag, answers: lag, feed: lag, isLoose: boolean() });
  const some: Weighted<Step>[] = [{ weight: 3, arbitrary: delay }];
  if (!calm) {
    some.push(
      { weight: 1, arbitrary: record({ do: is("refuse"), process, times: integer({ min: 1, max: 4 }) }) },
      { weight: 1, arbitrary: record({ do: is("lose-answer"), process }) },
    );
  }
  if (store && !calm) {
    some.push(
      { weight: 5, arbitrary: record({ do: constantFrom("feed", "commands"), process, is: boolean() }) },
      { weight: 1, arbitrary: record({ do: is("silence"), process }) },
    );
  }
  const messages = integer({ min: 1, max: 3 });
  if (swallows) some.push({ weight: 4, arbitrary: record({ do: is("swallow"), process, messages }) });
  if (anew) some.push({ weight: 1, arbitrary: record({ do: constantFrom("anew", "lose"), process }) });
  return some;
}
