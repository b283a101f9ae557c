import { publicName } from "../event/channel-key.ts";
import { concat, encode, formatControl } from "../event/event.ts";
import type { ChannelLog, Entry } from "./channel-log.ts";
import type { Log } from "./log.ts";

/** What a reader missed, as an element of the total order. */
export interface Gap {
  readonly channels: readonly string[];
  /** The events of these channels after this position are missing; `undefined` if it is not of this log. */
  readonly after: number | undefined;
  /** The last one that is missing. */
  readonly through: number;
  /** The position of the reader once it has read this. */
  readonly seq: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export type Item = Entry | Gap;
export const isGap = (item: Item): item is Gap => "through" in item;

/** What is sent to a reader at once. */
export interface Batch {
  readonly items: readonly Item[];
  /** How many of them are events; the others are gaps. */
  readonly events: number;
  /** The position of a reader that has all of it. */
  readonly through: number;
  /** Whether the log has more for this reader now. */
  readonly more: boolean;
  /** It is nothing but gaps up to the head, because the reader could not keep up. */
  readonly jumpsToHead?: boolean;
  /** The bytes of the items, made once for all who are sent the same. */
  chunk?: Uint8Array<ArrayBuffer>;
  /** Its events by position, made for those who ask. */
  seqs?: ReadonlySet<number>;
}

/** A place in the log, and the channels that are read from there: a client's connection, or a listener. */
export interface LogReader {
  channels: readonly ChannelLog[];
  cursor: number;
  /** Holes in a channel that events of the reader's other channels lie inside of, by its key. Made when there is one. */
  missingRanges: Map<string, MissingRange> | undefined;
  /** How far the log, for want of room, dropped what this reader had not read when it was last told of that; 0 once it has everything. */
  overrun: number;
  /** What it has to be told before anything else. */
  pendingGaps?: readonly Gap[] | undefined;
}

/** A stretch that a reader has not read and cannot. */
export interface MissingRange {
  /** Where it begins. */
  readonly after: number;
  /** How far the reader was told that it reaches. */
  readonly announcedThrough: number;
  /** The reader never had a claim to it. */
  readonly excused?: boolean;
}

/** Bytes of events in one chunk, at the most; one larger event goes alone. */
const MAX_CHUNK = 64 * 1024;

export function makeGap(log: Log, gap: Omit<Gap, "bytes">): Gap {
  const data = {
    channels: gap.channels.map(publicName),
    after: gap.after === undefined ? null : log.id(gap.after),
    through: log.id(gap.through),
  };
  return { ...gap, bytes: encode(formatControl("gap", data, log.id(gap.seq))) };
}

/** Whether a channel had an event in a stretch of the log. What the log has lost of it must not reach beyond. */
const hasUnread = (channel: ChannelLog, after: number, through: number): boolean =>
  channel.droppedThrough > after || (channel.at(channel.indexAfter(after))?.seq ?? Infinity) <= through;

/** Whether there is anything after a cursor in these channels. */
export const hasNews = (channels: readonly ChannelLog[], cursor: number): boolean =>
  channels.some((channel) => channel.last > cursor);

/** Whether the log has lost what this reader, or a part of it, has not read yet. */
export const hasMissing = (channels: readonly ChannelLog[], cursor: number): boolean =>
  channels.some((channel) => channel.droppedThrough > cursor);

/** What stands for a reader's channels while it reads what this process does not hold, and how far that reaches. */
export interface HistoryRange {
  readonly channels: readonly ChannelLog[];
  readonly limit: number;
}

/**
 * What comes after a cursor in these channels, merged, up to `through`; `undefined` if that is nothing. With a `stretch` it is
 * read from there, up to its limit.
 *
 * A hole stands in the order where it ends, so that its id does not make the reader skip events of other channels. Where such
 * events lie inside of it, it is announced before them as well, with the id that the reader has anyway: one that leaves among
 * them and comes back would otherwise be judged by a position past the beginning of the hole, and never be told of that part.
 *
 * A reader that is behind and that the log drops more of for want of room before it has everything again is told of a gap up to the
 * end: who cannot keep up would be read the oldest events for ever, each of them late.
 */
export function readBatch(log: Log, reader: LogReader, through: number, stretch?: HistoryRange): Batch | undefined {
  const { cursor } = reader;
  const { channels } = stretch ?? reader;
  const items: Item[] = [];
  const lanes: { channel: ChannelLog; index: number }[] = [];
  const open: ChannelLog[] = [];
  let end = through;
  let forced = 0;
  for (const channel of channels) {
    if (channel.last <= cursor) continue;
    if (channel.droppedThrough > cursor) {
      open.push(channel);
      end = Math.max(end, channel.droppedThrough);
      forced = Math.max(forced, channel.evictedThrough);
    }
    const index = channel.indexAfter(cursor);
    if (channel.at(index)) lanes.push({ channel, index });
  }
  if (stretch) end = stretch.limit;
  if (forced > Math.max(cursor, reader.overrun)) {
    if (reader.overrun > 0) {
      const lost = channels.filter((channel) => hasUnread(channel, cursor, end));
      closeMissingRanges(log, reader, lost, Infinity, items, end, end);
      return { items, events: 0, through: end, more: false, jumpsToHead: true };
    }
    reader.overrun = forced;
  }

  const next = (): Entry | undefined => {
    let first: Entry | undefined;
    for (const { channel, index } of lanes) {
      const entry = channel.at(index);
      if (entry && entry.seq <= end && !(first && first.seq <= entry.seq)) first = entry;
    }
    return first;
  };

  let entry = next();
  if (open.length > 0) {
    open.sort((a, b) => a.droppedThrough - b.droppedThrough);
    announceMissingRanges(
      log,
      reader,
      open,
      Math.min(entry?.seq ?? Infinity, (open[0] as ChannelLog).droppedThrough, end),
      items,
    );
  }
  let bytes = 0;
  let events = 0;
  for (; entry; entry = next()) {
    // One that ends in this very event, which another channel keeps, is told before it: whoever leaves in between has an id from before it.
    closeMissingRanges(log, reader, open, entry.seq, items, 0, entry.seq - 1);
    bytes += entry.bytes.length;
    const last = items.at(-1);
    if (bytes > MAX_CHUNK && last) return { items, events, through: last.seq, more: true };
    items.push(entry);
    events++;
    // By position: of a stretch it may be in one channel as it was read, and in another as it is here.
    for (const lane of lanes) if (lane.channel.at(lane.index)?.seq === entry.seq) lane.index++;
  }
  closeMissingRanges(log, reader, open, end, items, 0, end);
  return items.length > 0 ? { items, events, through: end, more: end < through } : undefined;
}

const startOfGap = ({ cursor }: LogReader, hole: MissingRange | undefined): number =>
  !hole || hole.announcedThrough <= cursor ? cursor : hole.excused ? hole.announcedThrough : hole.after;

/** Says at once which missingRanges do not end at the first place that the reader comes to. */
function announceMissingRanges(
  log: Log,
  reader: LogReader,
  open: readonly ChannelLog[],
  first: number,
  items: Item[],
): void {
  for (const channel of open) {
    const hole = reader.missingRanges?.get(channel.key);
    if (channel.droppedThrough <= first || hole?.announcedThrough === channel.droppedThrough) continue;
    const after = startOfGap(reader, hole);
    (reader.missingRanges ??= new Map()).set(channel.key, { after, told: channel.droppedThrough });
    items.push(makeGap(log, { channels: [channel.key], after, through: channel.droppedThrough, seq: reader.cursor }));
  }
}

/** Puts the missingRanges that end up to `next` into their place, from `least` to `most`; one gap for those that end at the same, or one would hide the other. */
function closeMissingRanges(
  log: Log,
  reader: LogReader,
  open: ChannelLog[],
  next: number,
  items: Item[],
  least: number,
  most: number,
): void {
  // Called for every event, and there is hardly ever a hole.
  if (!open[0] || open[0].droppedThrough > next) return;
  const gaps = new Map<number, Omit<Gap, "bytes" | "after"> & { readonly after: number }>();
  for (let channel = open[0]; channel && channel.droppedThrough <= next; channel = open[0]) {
    open.shift();
    const hole = reader.missingRanges?.get(channel.key);
    const through = Math.min(Math.max(channel.droppedThrough, least), most);
    // An excuse holds until the cursor is past it, which it is not while the rest of this batch may be cut off.
    if (hole?.excused && hole.announcedThrough >= through) continue;
    reader.missingRanges?.delete(channel.key);
    const after = startOfGap(reader, hole);
    if (after >= through) continue;
    const { channels = [], after: before = after } = gaps.get(through) ?? {};
    gaps.set(through, { channels: [...channels, channel.key], after: Math.min(before, after), through, seq: through });
  }
  for (const gap of gaps.values()) items.push(makeGap(log, gap));
}

/** Whether an event is in a batch. */
export function holdsEvent(batch: Batch, seq: number): boolean {
  batch.seqs ??= new Set(batch.items.filter((item) => !isGap(item)).map((item) => item.seq));
  return batch.seqs.has(seq);
}

/** The bytes of a batch; those of a single item are not copied. */
export function chunkOf(batch: Batch): Uint8Array<ArrayBuffer> {
  return (batch.chunk ??= concat(batch.items.map(({ bytes }) => bytes)));
}
