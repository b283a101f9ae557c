// The oracle of delivery: what a reader may expect, as simply as possible. The oracle knows which events were published and which items the
// reader received, and nothing about how a log keeps events.
import type { GapData } from "../clients/connection.ts";
import { seqOf } from "../clients/connection.ts";

export interface PublishedEvent {
  readonly seq: number;
  /** The public names of its channels; `fanwire-inbox:<id>` for an event of a client's inbox. */
  readonly channels: readonly string[];
  readonly data: string;
  /** The bytes that it takes of `logBytes`. */
  readonly cost: number;
  /** Its length on the wire, in bytes. */
  readonly bytes?: number;
  /** When it was appended, in milliseconds. */
  readonly at?: number;
}

/** An item that a reader received. `at` is when it was sent, in milliseconds. */
export type ReceivedItem = {
  readonly id: string;
  readonly at?: number;
  /** Whether it was received on a connection that started at the newest events of each channel. */
  readonly isFromStart?: boolean;
} & ({ readonly type: "event"; readonly data: string } | ({ readonly type: "gap" } & GapData));

/** The items that one reader received over all of its connections. */
export interface ReaderRecord {
  readonly channels: readonly string[];
  /** Channels that its streams joined for a time. Whether their events came as they should is the work of another oracle. */
  readonly joined?: readonly string[] | undefined;
  /** The reader must receive every event of its channels after this position, or a gap for it. */
  readonly start: number;
  /** No gap may begin before this position, because the reader requested nothing before it. */
  readonly floor: number;
  /** When the reader requested the retained events, in milliseconds. */
  readonly historyRequestedAt?: number | undefined;
  /** How many of its newest events the reader requested of each channel. @default Infinity */
  readonly newest?: number | undefined;
  /** In the order of receipt. */
  readonly items: readonly ReceivedItem[];
}

/** The retention of a log. */
export interface RetentionBounds {
  /** Events of each channel that are certainly retained, unless `logBytes` evicts them. */
  readonly events: number;
  /** The same of channels with a retention of their own, by name. */
  readonly eventsOf?: Readonly<Record<string, number>>;
  /** Bytes of each channel. @default Infinity */
  readonly bytes?: number;
  /** Milliseconds. @default Infinity */
  readonly age?: number;
  /**
   * Whether an event stays readable through each of its channels as long as one of them retains it. Otherwise a channel that the reader
   * reads has to retain it. @default false
   */
  readonly isShared?: boolean;
  readonly logBytes: number;
  /** Whether the log may drop whole channels. Then retention cannot be checked. */
  readonly dropsChannels: boolean;
}

/** Returns the faults in the items that a reader received, or an empty array. */
export function findFaults(
  published: readonly PublishedEvent[],
  reader: ReaderRecord,
  bounds: RetentionBounds,
): string[] {
  return [
    ...findOrderFaults(published, reader),
    ...findSilentLosses(published, reader),
    ...findRetentionFaults(published, reader, bounds),
    ...findExcess(published, reader, bounds),
  ];
}

/** Events arrive in order, each at most once, only from the reader's channels, and with the data that was published. */
function findOrderFaults(
  published: readonly PublishedEvent[],
  { channels, joined = [], items }: ReaderRecord,
): string[] {
  const faults: string[] = [];
  const bySeq = new Map(published.map((event) => [event.seq, event]));
  let last = 0;
  for (const item of items) {
    const seq = seqOf(item.id);
    if (item.type === "gap") {
      if (seq < last) faults.push(`a gap moved the position back from ${last} to ${seq}`);
      continue;
    }
    const event = bySeq.get(seq);
    if (seq <= last) faults.push(`event ${seq} came after event ${last}`);
    if (!event) faults.push(`event ${seq} was never published`);
    else if (event.data !== item.data) faults.push(`event ${seq} does not have the data that was published`);
    else if (!event.channels.some((name) => channels.includes(name) || joined.includes(name)))
      faults.push(`event ${seq} is not for this reader`);
    last = Math.max(last, seq);
  }
  return faults;
}

/** Every event is received, or each of its channels that the reader reads has a gap that covers it. */
function findSilentLosses(published: readonly PublishedEvent[], { channels, start, items }: ReaderRecord): string[] {
  const received = receivedSeqs(items);
  const faults: string[] = [];
  for (const event of published) {
    if (event.seq <= start || received.has(event.seq)) continue;
    for (const name of event.channels) {
      if (channels.includes(name) && !items.some((item) => covers(item, name, event.seq))) {
        faults.push(`event ${event.seq} of ${name} was lost without a gap`);
      }
    }
  }
  return faults;
}

/** Returns gaps that begin before the reader's start, or that cover no event which the reader did not receive. */
export function findFalseGaps(
  published: readonly PublishedEvent[],
  { joined = [], floor, items }: ReaderRecord,
): string[] {
  const received = receivedSeqs(items);
  const faults: string[] = [];
  for (const item of items) {
    if (item.type !== "gap" || item.after === null) continue;
    const [after, through] = [seqOf(item.after), seqOf(item.through)];
    const name = `gap (${after}, ${through}] of ${item.channels.join(", ")}`;
    if (after < floor) faults.push(`${name} begins before the reader's start ${floor}`);
    if (after >= through) faults.push(`${name} is empty`);
    for (const channel of item.channels.filter((each) => !joined.includes(each))) {
      const isInside = ({ seq, channels }: PublishedEvent): boolean =>
        seq > after && seq <= through && channels.includes(channel);
      if (!published.some((event) => isInside(event) && !received.has(event.seq)))
        faults.push(`${name} is a false alarm`);
    }
  }
  return faults;
}

/** Retention no longer covered an event when its gap was sent, or when the reader requested every retained event. */
function findRetentionFaults(
  published: readonly PublishedEvent[],
  reader: ReaderRecord,
  bounds: RetentionBounds,
): string[] {
  if (bounds.dropsChannels) return [];
  const { channels, start, historyRequestedAt, newest = Infinity, items } = reader;
  const received = receivedSeqs(items);
  const faults: string[] = [];
  for (const event of published) {
    const names = event.channels.filter((name) => channels.includes(name));
    if (received.has(event.seq) || names.length === 0) continue;
    const isRequested =
      historyRequestedAt !== undefined &&
      (event.at ?? 0) <= historyRequestedAt &&
      isAmongNewest(published, event, names, newest, historyRequestedAt) &&
      isRetained(published, event, names, bounds, historyRequestedAt);
    if (event.seq <= start && !isRequested) continue;
    const keepers = bounds.isShared ? event.channels : names;
    // An event is lost when the last of these channels has its last gap for it: a client that drops after the first announcement of a gap may
    // still receive the event. An event that the reader only requested is lost when the reader connected.
    const gaps = names.flatMap((name) => items.findLast((item) => covers(item, name, event.seq)) ?? []);
    const lostAt = Math.max(...gaps.map(({ at = Infinity }) => at));
    const isFault = gaps.length > 0 ? isRetained(published, event, keepers, bounds, lostAt) : event.seq <= start;
    if (isFault) faults.push(`event ${event.seq} of ${names.join(", ")} was retained and was not sent`);
  }
  return faults;
}

/** Whether an event is certainly among the newest ones of one of these channels at a time. */
const isAmongNewest = (
  published: readonly PublishedEvent[],
  event: PublishedEvent,
  names: readonly string[],
  newest: number,
  time: number,
): boolean =>
  names.some(
    (name) =>
      published.filter(({ seq, at = 0, channels }) => seq >= event.seq && at <= time && channels.includes(name))
        .length <= newest,
  );

/** A reader that started at the newest events of each channel received no older one. */
function findExcess(
  published: readonly PublishedEvent[],
  { channels, start, historyRequestedAt: time, newest = Infinity, items }: ReaderRecord,
  bounds: RetentionBounds,
): string[] {
  if (bounds.dropsChannels || time === undefined || newest === Infinity) return [];
  const isCertain = (event: PublishedEvent): boolean =>
    (event.at ?? 0) < time && isRetained(published, event, event.channels, bounds, time);
  return items.flatMap((item) => {
    const event = published.find(({ seq }) => seq === seqOf(item.id));
    if (!item.isFromStart || item.type === "gap" || !event || event.seq > start) return [];
    const isOlder = (name: string): boolean =>
      published.filter((other) => other.seq > event.seq && other.channels.includes(name) && isCertain(other)).length >=
      newest;
    const names = event.channels.filter((name) => channels.includes(name));
    return names.every(isOlder) ? [`event ${event.seq} of ${names.join(", ")} is older than the newest ${newest}`] : [];
  });
}

/** Whether an event is certainly in the log at a time, because one of these channels retains it. */
function isRetained(
  published: readonly PublishedEvent[],
  event: PublishedEvent,
  names: readonly string[],
  { events, eventsOf = {}, bytes = Infinity, age = Infinity, logBytes }: RetentionBounds,
  time: number,
): boolean {
  const appended = published.filter(({ at = 0 }) => at <= time);
  if (appended.reduce((sum, { cost }) => sum + cost, 0) > logBytes || time - (event.at ?? 0) > age) return false;
  return names.some((name) => {
    const newer = appended.filter(({ seq, channels }) => seq >= event.seq && channels.includes(name));
    return (
      newer.length <= (eventsOf[name] ?? events) && newer.reduce((sum, each) => sum + (each.bytes ?? 0), 0) <= bytes
    );
  });
}

const receivedSeqs = (items: readonly ReceivedItem[]): Set<number> =>
  new Set(items.filter(({ type }) => type === "event").map(({ id }) => seqOf(id)));

const covers = (item: ReceivedItem, name: string, seq: number): boolean =>
  item.type === "gap" &&
  item.channels.includes(name) &&
  (item.after === null || seqOf(item.after) < seq) &&
  seq <= seqOf(item.through);
