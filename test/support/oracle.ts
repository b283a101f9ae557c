import type { GapData } from "./connection.ts";
import { seqOf } from "./connection.ts";

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
}

/** Something that a reader saw, in its order. */
export type Seen =
  | { readonly type: "event"; readonly id: string; readonly data: string }
  | ({ readonly type: "gap"; readonly id: string } & GapData);

/** All that one reader saw, over all of its connections. */
export interface Lineage {
  readonly channels: readonly string[];
  /** It has a claim to every event of its channels after this. */
  readonly start: number;
  /** It asked for nothing up to here, so it is told of no gap there. */
  readonly floor: number;
  readonly seen: readonly Seen[];
}

/** Bounds that the oracle understands. */
export interface Bounds {
  /** Events of each channel that are certain to be kept, unless `logBytes` drops them. */
  readonly events: number;
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
    if (item.type !== "event") continue;
    const seq = seqOf(item.id);
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

/** What retention covers is never missing. */
function judgeRetention(published: readonly Told[], { channels, start, seen }: Lineage, bounds: Bounds): string[] {
  const { events, logBytes, forgets } = bounds;
  if (forgets || published.reduce((sum, { cost }) => sum + cost, 0) > logBytes) return [];
  const received = receivedBy(seen);
  const faults: string[] = [];
  for (const event of published) {
    if (event.seq <= start || received.has(event.seq)) continue;
    for (const name of event.channels) {
      const newer = published.filter(({ seq, channels }) => seq > event.seq && channels.includes(name)).length;
      if (channels.includes(name) && newer < events)
        faults.push(`event ${event.seq} of ${name} was retained and did not come`);
    }
  }
  return faults;
}

const receivedBy = (seen: readonly Seen[]): Set<number> =>
  new Set(seen.filter(({ type }) => type === "event").map(({ id }) => seqOf(id)));

const covers = (item: Seen, name: string, seq: number): boolean =>
  item.type === "gap" &&
  item.channels.includes(name) &&
  (item.after === null || seqOf(item.after) < seq) &&
  seq <= seqOf(item.through);
