import type { GapData } from "../clients/connection.ts";
import { seqOf } from "../clients/connection.ts";

// What a reader may expect, said as simply as possible: it knows what was published and what the reader saw, and nothing of
// how a log is kept.

/** An event as it was published. */
export interface Told {
  readonly seq: number;
  /** Public names of its channels; `fanwire-inbox:<id>` for what went to one recipient. */
  readonly channels: readonly string[];
  readonly data: string;
  /** What it costs the log. */
  readonly cost: number;
  /** As it is on the wire. */
  readonly bytes?: number;
  /** When it was appended. */
  readonly at?: number;
}

/** Something that a reader saw, in its order, and when it was given it. */
export type Seen = { readonly id: string; readonly at?: number } & (
  | { readonly type: "event"; readonly data: string }
  | ({ readonly type: "gap" } & GapData)
);

/** All that one reader saw, over all of its connections. */
export interface Lineage {
  readonly channels: readonly string[];
  /** It has a claim to every event of its channels after this. */
  readonly start: number;
  /** It asked for nothing up to here, so it is told of no gap there. */
  readonly floor: number;
  /** It asked then for all that was kept. */
  readonly since?: number | undefined;
  readonly seen: readonly Seen[];
}

/** Bounds that the oracle understands. */
export interface Bounds {
  /** Events of each channel that are certain to be kept, unless `logBytes` drops them. */
  readonly events: number;
  /** Bytes of each channel. @default Infinity */
  readonly bytes?: number;
  /** Milliseconds. @default Infinity */
  readonly age?: number;
  /** Who reads any channel of an event gets it as long as one of them keeps it; else one that it reads has to. @default false */
  readonly isShared?: boolean;
  readonly logBytes: number;
  /** Whether channels may be forgotten; a gap that only may be is allowed then. */
  readonly forgets: boolean;
}

/** What is wrong with what a reader saw; nothing, if all is well. */
export function judge(published: readonly Told[], lineage: Lineage, bounds: Bounds): string[] {
  return [
    ...judgeOrder(published, lineage),
    ...judgeSilence(published, lineage),
    ...judgeRetention(published, lineage, bounds),
  ];
}

/** In order, each at most once, only what is the reader's, and as it was published. */
function judgeOrder(published: readonly Told[], { channels, seen }: Lineage): string[] {
  const faults: string[] = [];
  const bySeq = new Map(published.map((event) => [event.seq, event]));
  let last = 0;
  for (const item of seen) {
    const seq = seqOf(item.id);
    if (item.type === "gap") {
      if (seq < last) faults.push(`a gap took it back from ${last} to ${seq}`);
      continue;
    }
    const event = bySeq.get(seq);
    if (seq <= last) faults.push(`event ${seq} came after event ${last}`);
    if (!event) faults.push(`event ${seq} was never published`);
    else if (event.data !== item.data) faults.push(`event ${seq} has other data than was published`);
    else if (!event.channels.some((name) => channels.includes(name)))
      faults.push(`event ${seq} is not for this reader`);
    last = Math.max(last, seq);
  }
  return faults;
}

/** Every event is received, or each of the reader's channels that it was in tells of a gap that covers it. */
function judgeSilence(published: readonly Told[], { channels, start, seen }: Lineage): string[] {
  const received = receivedBy(seen);
  const faults: string[] = [];
  for (const event of published) {
    if (event.seq <= start || received.has(event.seq)) continue;
    for (const name of event.channels) {
      if (channels.includes(name) && !seen.some((item) => covers(item, name, event.seq))) {
        faults.push(`event ${event.seq} of ${name} was lost in silence`);
      }
    }
  }
  return faults;
}

/** False alarms: no gap is told before where the reader began, and each one is about at least one event that the reader did not get. */
export function judgeAlarms(published: readonly Told[], { floor, seen }: Lineage): string[] {
  const received = receivedBy(seen);
  const faults: string[] = [];
  for (const item of seen) {
    if (item.type !== "gap" || item.after === null) continue;
    const [after, through] = [seqOf(item.after), seqOf(item.through)];
    const name = `gap (${after}, ${through}] of ${item.channels.join(", ")}`;
    if (after < floor) faults.push(`${name} begins before the reader's start ${floor}`);
    if (after >= through) faults.push(`${name} is empty`);
    for (const channel of item.channels) {
      const isIn = ({ seq, channels }: Told): boolean => seq > after && seq <= through && channels.includes(channel);
      if (!published.some((event) => isIn(event) && !received.has(event.seq))) faults.push(`${name} is a false alarm`);
    }
  }
  return faults;
}

/** What retention covered when a gap was told is not in it, nor when somebody came who asked for all of it. */
function judgeRetention(published: readonly Told[], lineage: Lineage, bounds: Bounds): string[] {
  if (bounds.forgets) return [];
  const { channels, start, since, seen } = lineage;
  const received = receivedBy(seen);
  const faults: string[] = [];
  for (const event of published) {
    const names = event.channels.filter((name) => channels.includes(name));
    if (received.has(event.seq) || names.length === 0) continue;
    const isAsked = since !== undefined && (event.at ?? 0) <= since && isKept(published, event, names, bounds, since);
    const keepers = bounds.isShared ? event.channels : names;
    const isKeptAt = (time: number): boolean => isKept(published, event, keepers, bounds, time);
    if (event.seq <= start && !isAsked) continue;
    // It is lost when the last of these channels tells of it for the last time: who leaves after it was said in advance may be given it yet.
    // What was asked for without a claim is lost when the reader came.
    const told = names.flatMap((name) => seen.findLast((item) => covers(item, name, event.seq)) ?? []);
    if (told.length > 0 ? isKeptAt(Math.max(...told.map(({ at = Infinity }) => at))) : event.seq <= start)
      faults.push(`event ${event.seq} of ${names.join(", ")} was retained and did not come`);
  }
  return faults;
}

/** Whether an event is certain to be in the log at a time, because of one of these channels. */
function isKept(
  published: readonly Told[],
  event: Told,
  names: readonly string[],
  { events, bytes = Infinity, age = Infinity, logBytes }: Bounds,
  time: number,
): boolean {
  const there = published.filter(({ at = 0 }) => at <= time);
  if (there.reduce((sum, { cost }) => sum + cost, 0) > logBytes || time - (event.at ?? 0) > age) return false;
  return names.some((name) => {
    const from = there.filter(({ seq, channels }) => seq >= event.seq && channels.includes(name));
    return from.length <= events && from.reduce((sum, each) => sum + (each.bytes ?? 0), 0) <= bytes;
  });
}

const receivedBy = (seen: readonly Seen[]): Set<number> =>
  new Set(seen.filter(({ type }) => type === "event").map(({ id }) => seqOf(id)));

const covers = (item: Seen, name: string, seq: number): boolean =>
  item.type === "gap" &&
  item.channels.includes(name) &&
  (item.after === null || seqOf(item.after) < seq) &&
  seq <= seqOf(item.through);
