// Reads the log from a cursor. Live delivery, catching up after a stall and resuming after `Last-Event-ID` all use `readBatch`.
import { concat } from "../event/sse-format.ts";
import type { ChannelLog, Entry } from "./channel-log.ts";
import { type Gap, type MissingRange, makeGap } from "./gap.ts";
import type { Log } from "./log.ts";
import { Merge } from "./merge.ts";
import { isTransient, type Transient } from "./transient.ts";

/** An item that the log holds, or reports as missing. */
export type LogItem = Entry | Gap;
export type Item = LogItem | Transient;
export const isGap = (item: Item): item is Gap => "through" in item;

/** Items sent to a subscriber in one chunk. */
export interface Batch<I extends Item = Item> {
  readonly items: readonly I[];
  /** Number of items that are events. */
  readonly events: number;
  /** Number of items that are gaps. */
  readonly gaps: number;
  /** The cursor of a subscriber that has received the whole batch. */
  readonly through: number;
  /** Whether the log has more for this subscriber now. */
  readonly more: boolean;
  /** The batch consists of gaps up to the head, because the subscriber could not keep up. */
  readonly jumpsToHead?: boolean;
  /** More follows before the client's id moves on: a snapshot. `through` is the position that it has until then. */
  readonly isHeld?: boolean;
  /** The bytes of all items. Built once and shared by every subscriber that receives this batch. */
  chunk?: Uint8Array<ArrayBuffer>;
  /** The positions of its events. Built when a delivery report asks for them. */
  seqs?: ReadonlySet<number>;
}

/** A cursor in the log and the channels that are read from there. A connection and a `listen()` iterator are both readers. */
export interface LogReader {
  channels: readonly ChannelLog[];
  cursor: number;
  /**
   * Missing ranges that have events of the reader's other channels inside them, by channel key, and channels that start later than others.
   * Created when the first one appears, and removed once the reader has passed all of them.
   */
  missingRanges: Map<string, MissingRange> | undefined;
  /**
   * The position up to which the full log had evicted unread events of this reader when the reader last received a gap for that. 0 once
   * the reader has caught up.
   */
  overrun: number;
  /** The position with which the reader came to this process. It received the events up to there elsewhere. Absent if it came without one. */
  resumedAfter?: number | undefined;
  /** Gaps to send before anything else. */
  pendingGaps?: readonly Gap[] | undefined;
  /** Says after which gaps a batch ends. Absent if after none. */
  readonly snapshots?: { stopsAfter(gap: Gap): boolean } | undefined;
  /** Items that the log does not hold, to send once the cursor has reached their positions, which is their order. */
  waiting?: Transient[] | undefined;
}

/** The largest chunk, in bytes of events. One larger event is sent alone. */
const MAX_CHUNK_BYTES = 64 * 1024;

/** Whether a channel had an event after one position and up to another. The dropped part of the channel must end before `through`. */
const hadEvent = (channel: ChannelLog, after: number, through: number): boolean =>
  channel.droppedThrough > after || (channel.at(channel.indexAfter(after))?.seq ?? Infinity) <= through;

/** Whether one of these channels has an event after a cursor. */
export const hasNews = (channels: readonly ChannelLog[], cursor: number): boolean =>
  channels.some((channel) => channel.last > cursor);

/** Whether the log no longer holds some event after a cursor in these channels. */
export const hasMissing = (channels: readonly ChannelLog[], cursor: number): boolean =>
  channels.some((channel) => channel.droppedThrough > cursor);

/** Returns the position after which a reader reads one of its channels. */
export const startIn = ({ cursor, missingRanges }: LogReader, key: string): number =>
  missingRanges ? Math.max(cursor, missingRanges.get(key)?.startAfter ?? 0) : cursor;

/** Channels loaded from the store, read in place of a reader's own channels, up to the position `limit`. */
export interface HistoryRange {
  readonly channels: readonly ChannelLog[];
  readonly limit: number;
}

/**
 * Reads the events after a reader's cursor, merged over its channels, up to `through`. Returns `undefined` if there are none. With `history`
 * the events are read from there, up to its limit.
 *
 * A gap stands in the order where its missing range ends, so that its id does not make the reader skip events of other channels. If such
 * events lie inside the range, the gap is also announced before them, with the id that the reader has anyway. A client that drops among them
 * and comes back would otherwise present a position past the beginning of the range, and never learn of that part.
 *
 * The log may evict more unread events of a reader that is already behind. The first time, the reader continues at the oldest retained event.
 * The second time before it has caught up, it receives a gap up to the head: it would otherwise read the oldest events for ever, all late.
 */
export function readBatch(
  log: Log,
  reader: LogReader,
  through: number,
  history?: HistoryRange,
): Batch<LogItem> | undefined {
  const { cursor } = reader;
  const { channels } = history ?? reader;
  const limit = history?.limit ?? Infinity;
  const isPassed = ({ announcedThrough }: MissingRange): boolean => announcedThrough <= cursor;
  if (reader.missingRanges && [...reader.missingRanges.values()].every(isPassed)) reader.missingRanges = undefined;
  const items: LogItem[] = [];
  const merge = new Merge();
  const incomplete: ChannelLog[] = [];
  let end = through;
  let evicted = 0;
  for (const channel of channels) {
    const from = startIn(reader, channel.key);
    if (channel.last <= from || from >= limit) continue;
    if (channel.droppedThrough > from) {
      incomplete.push(channel);
      end = Math.max(end, channel.droppedThrough);
      evicted = Math.max(evicted, channel.evictedThrough);
    }
    merge.add(channel, channel.indexAfter(from));
  }
  if (history) end = limit;
  if (evicted > Math.max(cursor, reader.overrun)) {
    if (reader.overrun > 0) {
      const concerned = channels.filter((channel) => hadEvent(channel, startIn(reader, channel.key), end));
      closeMissingRanges(log, reader, concerned, Infinity, items, end, end);
      return { items, events: 0, gaps: items.length, through: end, more: false, jumpsToHead: true };
    }
    reader.overrun = evicted;
  }

  const next = (): Entry | undefined => {
    const entry = merge.next;
    return entry && entry.seq <= end ? entry : undefined;
  };

  let entry = next();
  if (incomplete.length > 0) {
    incomplete.sort((a, b) => a.droppedThrough - b.droppedThrough);
    announceMissingRanges(
      log,
      reader,
      incomplete,
      Math.min(entry?.seq ?? Infinity, (incomplete[0] as ChannelLog).droppedThrough, end),
      items,
    );
  }
  let bytes = 0;
  let events = 0;
  for (; entry; entry = next()) {
    // A range can end at this very event, because another channel retains it. Its gap goes first. A client that drops between the two then has
    // an id from before the event.
    closeMissingRanges(log, reader, incomplete, entry.seq, items, 0, entry.seq - 1);
    const isStop = endsWithStop(reader, items);
    if (entry.notice && !isStop) {
      const lost = entry.notice.lostFor(channels, reader.resumedAfter);
      if (lost) items.push(makeGap(log, { ...lost, seq: entry.seq }));
      merge.advance();
      continue;
    }
    bytes += entry.bytes.length;
    const last = items.at(-1);
    if (last && (isStop || bytes > MAX_CHUNK_BYTES))
      return { items, events, gaps: items.length - events, through: last.seq, more: true };
    items.push(entry);
    events++;
    merge.advance();
  }
  closeMissingRanges(log, reader, incomplete, end, items, 0, end);
  return items.length > 0
    ? { items, events, gaps: items.length - events, through: end, more: end < through }
    : undefined;
}

/** Whether the last item is a gap after which the reader receives something else before the log. */
function endsWithStop({ snapshots }: LogReader, items: readonly LogItem[]): boolean {
  const last = snapshots && items.at(-1);
  return last !== undefined && isGap(last) && snapshots?.stopsAfter(last) === true;
}

const startOfGap = ({ cursor }: LogReader, range: MissingRange | undefined): number =>
  !range || range.announcedThrough <= cursor ? cursor : range.excused ? range.announcedThrough : range.after;

/** Announces at once the missing ranges that do not end at the first item of the batch. */
function announceMissingRanges(
  log: Log,
  reader: LogReader,
  incomplete: readonly ChannelLog[],
  first: number,
  items: LogItem[],
): void {
  for (const channel of incomplete) {
    const range = reader.missingRanges?.get(channel.key);
    // The store may have dropped more than this process, and have announced that.
    if (channel.droppedThrough <= first || (range?.announcedThrough ?? 0) >= channel.droppedThrough) continue;
    const after = startOfGap(reader, range);
    const announced = { after, announcedThrough: channel.droppedThrough, startAfter: range?.startAfter };
    (reader.missingRanges ??= new Map()).set(channel.key, announced);
    items.push(makeGap(log, { channels: [channel.key], after, through: channel.droppedThrough, seq: reader.cursor }));
  }
}

/**
 * Adds the gaps of missing ranges that end at or before `next`, placed between `least` and `most`. Ranges that end at the same position share
 * one gap, because the id of one would otherwise hide the other.
 */
function closeMissingRanges(
  log: Log,
  reader: LogReader,
  incomplete: ChannelLog[],
  next: number,
  items: LogItem[],
  least: number,
  most: number,
): void {
  // Called for every event. Missing ranges are rare.
  if (!incomplete[0] || incomplete[0].droppedThrough > next) return;
  const gaps = new Map<number, Omit<Gap, "bytes" | "after"> & { readonly after: number }>();
  for (let channel = incomplete[0]; channel && channel.droppedThrough <= next; channel = incomplete[0]) {
    incomplete.shift();
    const range = reader.missingRanges?.get(channel.key);
    const through = Math.min(Math.max(channel.droppedThrough, least), most);
    // A range stays excused until the cursor is past it, because the rest of this batch may still be cut off.
    if (range?.excused && range.announcedThrough >= through) continue;
    reader.missingRanges?.delete(channel.key);
    const after = startOfGap(reader, range);
    if (after >= through) continue;
    const { channels = [], after: before = after } = gaps.get(through) ?? {};
    gaps.set(through, { channels: [...channels, channel.key], after: Math.min(before, after), through, seq: through });
  }
  for (const gap of gaps.values()) items.push(makeGap(log, gap));
}

/** Whether a batch contains the event at a position. */
export function holdsEvent(batch: Batch, seq: number): boolean {
  batch.seqs ??= new Set(batch.items.filter((item) => !isGap(item) && !isTransient(item)).map((item) => item.seq));
  return batch.seqs.has(seq);
}

/** Whether two batches consist of the same items and lead to the same place. */
export const isSameBatch = (a: Batch, b: Batch): boolean =>
  a.items.length === b.items.length &&
  a.through === b.through &&
  a.more === b.more &&
  a.items.every((item, index) => item === b.items[index]);

/** Returns the bytes of a batch. The bytes of a single item are not copied. */
export function chunkOf(batch: Batch): Uint8Array<ArrayBuffer> {
  return (batch.chunk ??= concat(batch.items.map(({ bytes }) => bytes)));
}
