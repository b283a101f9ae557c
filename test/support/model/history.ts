// Random histories of brokers and their clients as plain data, which fast-check can shrink and print.
import fc from "fast-check";
import type { StartOption } from "./reader.ts";
import { JOINED } from "./stream-oracle.ts";

/** Conditions that a kind of history has in addition to those that all have. */
export interface HistoryKind {
  /** The processes share a log in a store, over connections that fail. Otherwise they share a log in memory. */
  readonly sharedLog?: boolean;
  /** The log may be too small for the events of one turn. With a shared log, the local log of a process may be. */
  readonly overruns?: boolean;
  /** The log keeps few channels, and drops the others. */
  readonly dropsChannels?: boolean;
  /** Events are so large that a chunk holds few of them. */
  readonly large?: boolean;
  /** The engine answers late, in any order, refuses events, and loses answers. */
  readonly late?: boolean;
  /** With a shared log: nothing happens to its connections except delays. */
  readonly calm?: boolean;
  /** With a shared log: single messages vanish without a sign, so that later ones of other channels arrive before them. */
  readonly losesMessages?: boolean;
  /** With a shared log: the store loses its log, and a new epoch begins. */
  readonly newEpochs?: boolean;
  /** With a shared log: the store retains everything. */
  readonly keepsAll?: boolean;
}

/** Options of the brokers and of their log. Times are in milliseconds. */
export interface HistorySettings {
  readonly events: number;
  /** Events of channel `b`, if it has a retention of its own. */
  readonly eventsOfB: number | undefined;
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
  /** With a shared log: events in a page of history. */
  readonly pageSize: number;
}

/** A client or listener of a history. */
export interface ReaderPlan {
  readonly kind: "client" | "listener";
  readonly id: string;
  readonly channels: readonly string[];
  readonly start: StartOption;
  /** Unread bytes at which the client's runtime requests no more. With 0 it does not request even the first chunk. */
  readonly capacity: number;
  /** Milliseconds until the grant of a connection expires. */
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
  /** Repeats a publish that had a key: the last one, or one before it. */
  | { readonly do: "republish"; readonly process: Process; readonly ago: number; readonly report: boolean }
  | {
      readonly do: "publish-to";
      readonly process: Process;
      readonly reader: number;
      readonly times: number;
      readonly report: boolean;
    }
  /** Connects the reader if it is not connected, and lets it read. A listener requests one event for every eight bytes. */
  | { readonly do: "read"; readonly reader: number; readonly bytes: number }
  /** Connects the reader, lets it read a little, and drops the connection in the middle of that. */
  | { readonly do: "read-and-drop"; readonly reader: number; readonly bytes: number; readonly how: Drop }
  /** Connects the reader, leaves published events unread for a time, and then lets the reader read everything. */
  | { readonly do: "stall"; readonly process: Process; readonly reader: number; readonly ms: number }
  | { readonly do: "drop"; readonly reader: number; readonly how: Drop; readonly moves: boolean }
  /** The open streams of the reader's client id join or leave the channel that no reader asks for. */
  | { readonly do: "subscribe" | "unsubscribe"; readonly reader: number }
  | { readonly do: "ephemeral"; readonly process: Process; readonly channel: string; readonly times: number }
  | { readonly do: "disconnect"; readonly process: Process; readonly reader: number; readonly barFor: number }
  /** Closes a process, and starts another one in its place. */
  | { readonly do: "restart"; readonly process: Process; readonly spreadOver: number }
  | { readonly do: "turn" }
  | { readonly do: "pass"; readonly ms: number }
  | Disturbance;

/** How a client leaves: its server learns of it through the stream or the signal, much later, or never. */
export type Drop = "cancel" | "abort" | "unnoticed" | "never noticed";

/** Something that happens to the connection between a process and its engine. */
export type Disturbance = { readonly process: Process } & (
  | {
      readonly do: "delay";
      readonly requests: number;
      readonly replies: number;
      readonly feed: number;
      readonly isUnordered: boolean;
    }
  | { readonly do: "refuse"; readonly times: number }
  | { readonly do: "feed" | "commands"; readonly isConnected: boolean }
  | { readonly do: "lose-messages"; readonly messages: number }
  | { readonly do: "lose-reply" | "silence" | "new-epoch" | "lose-log" }
);

export interface History {
  readonly settings: HistorySettings;
  readonly readers: readonly ReaderPlan[];
  readonly steps: readonly Step[];
  /** The seed of `Math.random`. */
  readonly random: number;
}

export const CHANNEL_NAMES = ["a", "b", "c"];
/** The channels of events: one of them is read only after `subscribe()`. */
const EVENT_CHANNELS = [...CHANNEL_NAMES, JOINED];
const READER_COUNT = 4;
/** About what an event costs the log in addition to its padding, in bytes. */
export const EVENT_COST_BYTES = 256 + 40;

const { constant, constantFrom, integer, nat, boolean, record, subarray, oneof } = fc;
const literal = <const T extends string>(name: T): fc.Arbitrary<T> => constant(name);
type Weighted<T> = { readonly weight: number; readonly arbitrary: fc.Arbitrary<T> };

export function histories(kind: HistoryKind): fc.Arbitrary<History> {
  return record({
    settings: settingsOf(kind),
    readers: fc.array(readerPlans(kind), { minLength: READER_COUNT, maxLength: READER_COUNT }),
    steps: fc.array(oneof(...steps(kind)), { minLength: 1, maxLength: 40, size: "max" }),
    random: nat(),
  }).map(({ settings, readers, ...rest }) => ({
    ...rest,
    settings,
    // With `reject`, a reader with the id of another one could never connect.
    readers: settings.duplicateIds === "reject" ? readers.map((plan, index) => ({ ...plan, id: `${index}` })) : readers,
  }));
}

const sizeUnit = ({ large }: HistoryKind): number => (large ? 12_000 : 10);

function settingsOf(kind: HistoryKind): fc.Arbitrary<HistorySettings> {
  const { sharedLog, overruns, dropsChannels, losesMessages, keepsAll } = kind;
  const unit = sizeUnit(kind);
  return record({
    events: keepsAll ? constant(Infinity) : oneof(integer({ min: 1, max: 5 }), constant(Infinity)),
    eventsOfB: sharedLog ? constant(undefined) : constantFrom(undefined, undefined, 0, 1),
    bytes: sharedLog ? constant(Infinity) : constantFrom(Infinity, Infinity, 30 * unit),
    age: sharedLog ? constant(Infinity) : constantFrom(Infinity, Infinity, 1_000, 5_000),
    logBytes: overruns
      ? integer({ min: 2, max: 12 }).map((count) => count * (EVENT_COST_BYTES + unit))
      : constant(32 * 1024 * 1024),
    maxChannels: dropsChannels ? integer({ min: 2, max: 6 }) : constant(1_000),
    idempotencyWindow: sharedLog ? constant(300_000) : constantFrom(300_000, 1_000),
    timeout: losesMessages ? constant(Infinity) : constantFrom(400, 1_000, 2_500, Infinity),
    tolerance: integer({ min: 0, max: 3 }),
    heartbeat: sharedLog ? constantFrom(8_000, 30_000) : constantFrom(1_600, 8_000, Infinity),
    inboxLinger: sharedLog ? constant(600_000) : constantFrom(0, 400, 60_000),
    maxAge: losesMessages ? constant(Infinity) : constantFrom(Infinity, Infinity, Infinity, 2_000),
    duplicateIds: sharedLog ? literal("allow") : constantFrom("allow", "allow", "reject", "replace"),
    pageSize: integer({ min: 1, max: 4 }),
  });
}

const readerPlans = ({ losesMessages }: HistoryKind): fc.Arbitrary<ReaderPlan> =>
  record({
    // A listener that requests nothing at that moment cannot receive the gap for a message that vanished.
    kind: losesMessages ? literal("client") : constantFrom("client", "client", "client", "listener"),
    id: constantFrom("one", "two"),
    channels: subarray(CHANNEL_NAMES),
    start: constantFrom("live", "live", "live", "live", "earliest", "latest", "newest two", "foreign"),
    capacity: constantFrom(Infinity, Infinity, 3_000, 300, 1, ...(losesMessages ? [] : [0])),
    lifetime: losesMessages ? constant(Infinity) : constantFrom(Infinity, Infinity, Infinity, 900),
  });

function steps(kind: HistoryKind): Weighted<Step>[] {
  const { sharedLog, overruns, large, losesMessages } = kind;
  const process = constantFrom(0 as const, 1 as const);
  const reader = nat({ max: READER_COUNT - 1 });
  const times = integer({ min: 1, max: overruns ? 12 : 3 });
  const report = boolean();
  const size = nat({ max: 3 }).map((units) => units * sizeUnit(kind));
  const bytes = oneof(integer({ min: 1, max: 600 }), constantFrom(4_000, Infinity));
  const ms = sharedLog
    ? constantFrom(1, 60, 400, 1_100, 3_500, 11_000)
    : constantFrom(1, 10, 50, 399, 401, 1_000, 2_600);
  const how = constantFrom<Drop[]>("cancel", "abort", "unnoticed", "never noticed");
  const always: Weighted<Step>[] = [
    {
      weight: 10,
      arbitrary: record({
        do: literal("publish"),
        process,
        channels: subarray(EVENT_CHANNELS),
        size,
        times,
        report,
        key: boolean(),
      }),
    },
    // Reports that were begun out of order differ only where a chunk ends, so histories with large events need more repeats.
    {
      weight: large ? 8 : 2,
      arbitrary: record({ do: literal("republish"), process, ago: constantFrom(0, 0, 1, 3, 6), report }),
    },
    { weight: 2, arbitrary: record({ do: literal("publish-to"), process, reader, times, report }) },
    { weight: 12, arbitrary: record({ do: literal("read"), reader, bytes }) },
    {
      weight: 3,
      arbitrary: record({ do: literal("stall"), process, reader, ms: constantFrom(399, 401, 999, 1_001, 2_600) }),
    },
    { weight: 8, arbitrary: constant({ do: "turn" }) },
    { weight: 5, arbitrary: record({ do: literal("pass"), ms }) },
    ...disturbances(kind),
    ...streamSteps(kind),
  ];
  // A client that leaves with the id of a later message, before the broker finds that an earlier one vanished, cannot receive a gap for it.
  if (losesMessages) return always;
  return [
    ...always,
    { weight: 4, arbitrary: record({ do: literal("drop"), reader, how, moves: boolean() }) },
    { weight: 2, arbitrary: record({ do: literal("read-and-drop"), reader, bytes, how }) },
    {
      weight: 1,
      arbitrary: record({ do: literal("disconnect"), process, reader, barFor: constantFrom(0, 0, 401, 1_200) }),
    },
    {
      weight: 1,
      arbitrary: record({ do: literal("restart"), process, spreadOver: constantFrom(0, 0, 100, 700) }),
    },
  ];
}

/** What changes an open stream. The shared log of these histories has no requests to other processes; Redis is tested with its own. */
function streamSteps({ sharedLog }: HistoryKind): Weighted<Step>[] {
  if (sharedLog) return [];
  const reader = nat({ max: READER_COUNT - 1 });
  const process = constantFrom(0 as const, 1 as const);
  const channel = constantFrom(...CHANNEL_NAMES);
  return [
    { weight: 3, arbitrary: record({ do: literal("subscribe"), reader }) },
    { weight: 2, arbitrary: record({ do: literal("unsubscribe"), reader }) },
    {
      weight: 2,
      arbitrary: record({ do: literal("ephemeral"), process, channel, times: integer({ min: 1, max: 3 }) }),
    },
  ];
}

function disturbances({ sharedLog, late, calm, losesMessages, newEpochs }: HistoryKind): Weighted<Step>[] {
  if (!sharedLog && !late) return [];
  const process = constantFrom(0 as const, 1 as const);
  const ms = constantFrom(0, 0, 1, 5, 40, 300, 1_500);
  const delay = record({
    do: literal("delay"),
    process,
    requests: ms,
    replies: ms,
    feed: ms,
    isUnordered: boolean(),
  });
  const possible: Weighted<Step>[] = [{ weight: 3, arbitrary: delay }];
  if (!calm) {
    possible.push(
      { weight: 1, arbitrary: record({ do: literal("refuse"), process, times: integer({ min: 1, max: 4 }) }) },
      { weight: 1, arbitrary: record({ do: literal("lose-reply"), process }) },
    );
  }
  if (sharedLog && !calm) {
    possible.push(
      { weight: 5, arbitrary: record({ do: constantFrom("feed", "commands"), process, isConnected: boolean() }) },
      { weight: 1, arbitrary: record({ do: literal("silence"), process }) },
    );
  }
  const messages = integer({ min: 1, max: 3 });
  if (losesMessages)
    possible.push({ weight: 4, arbitrary: record({ do: literal("lose-messages"), process, messages }) });
  if (newEpochs)
    possible.push({ weight: 1, arbitrary: record({ do: constantFrom("new-epoch", "lose-log"), process }) });
  return possible;
}
