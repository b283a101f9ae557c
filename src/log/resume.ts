// Decides where a stream begins: at the head, at the earliest or newest retained events, or after the id that the client received last.
import { quote } from "../base/errors.ts";
import { parsePosition } from "../event/position.ts";
import type { ChannelLog } from "./channel-log.ts";
import { type Gap, type MissingRange, makeGap } from "./gap.ts";
import type { Log } from "./log.ts";
import { Merge } from "./merge.ts";

/** The start that a reader asks for: after an id it received, or at retained events. Without either it starts at the head. */
export interface StartOptions {
  /** An id that the reader received. The other options then have no effect. */
  readonly lastEventId?: string | undefined;
  /** The earliest retained event, or the newest one of each channel: `"latest"` is `last: 1`. Not together with `last`. */
  readonly from?: "earliest" | "latest" | undefined;
  /** Number of newest events that each channel starts with, as far as they are retained: a whole number from 1 to 1,000. */
  readonly last?: number | undefined;
}

const MAX_LAST = 1_000;

/** Returns what is wrong with where a reader asks to start, or `undefined`. The values may come from anywhere. */
export function findStartFault(from: unknown, last: unknown): string | undefined {
  const isRight =
    last === undefined
      ? from === undefined || from === "earliest" || from === "latest"
      : from === undefined && Number.isInteger(last) && (last as number) >= 1 && (last as number) <= MAX_LAST;
  if (isRight) return undefined;
  const values = quote(`from=${from}&last=${last}`);
  return `${values} must have from ("earliest" or "latest"), or last (a whole number from 1 to ${MAX_LAST}), or neither.`;
}

/** The start of a stream. */
export interface ResumePoint {
  readonly cursor: number;
  /** Gaps to send before anything else. */
  readonly gaps?: readonly Gap[];
  /** The requested position, if it is one of this log. */
  readonly resumedAfter?: number;
  /** Whether the stream continues at the requested position. */
  readonly resumed: boolean;
  readonly missingRanges?: Map<string, MissingRange>;
  /** Whether more gaps follow later in the stream. */
  readonly hasMissing: boolean;
  /**
   * Keys of channels that may have events before those that the reader receives, retained or not. Present if the reader starts at retained
   * events without an id.
   */
  readonly incomplete?: readonly string[];
  /** The position is sent later, behind a snapshot. */
  readonly isHeld?: boolean;
  /** The reader asked for no history. */
  readonly isLive?: boolean;
}

/** Bounds of the history that one connection receives at its start. */
export interface MaxReplay {
  /** Events, 0 or more. @default Infinity */
  readonly events?: number;
  /** Bytes as encoded, 0 or more. @default Infinity */
  readonly bytes?: number;
}

/** The bounds of one channel's history, for a reader that starts after a position. */
export interface ChannelBounds {
  readonly key: string;
  /** The last position of this channel that is no longer retained, or 0. */
  readonly droppedThrough: number;
  /** The position of the oldest retained event. */
  readonly oldest: number | undefined;
  /** The position of the first retained event after the requested position. */
  readonly next: number | undefined;
  /**
   * The position after which the newest `last` events of this channel lie; 0 if it retains no more than those. Absent without `last`.
   */
  readonly lastFloor?: number | undefined;
}

/** The bounds of what is retained for a new reader. */
export interface HistoryBounds {
  readonly epoch: string;
  readonly head: number;
  /**
   * The position after which the newest events lie, as many as `maxReplay` allows; 0 if it allows all of them after the requested position.
   * With `last`, only the newest `last` events of each channel count.
   */
  readonly floor: number;
  readonly channels: readonly ChannelBounds[];
}

/** Asks the store for the bounds of its history. */
export type HistoryBoundsLookup = (
  keys: readonly string[],
  after: number,
  max: MaxReplay,
  last?: number,
) => Promise<HistoryBounds>;

/** A start request, resolved against one log. */
interface RequestedStart {
  /** An `unknown-id` is not a position of this log. */
  readonly kind: "head" | "retained" | "after" | "unknown-id";
  /** The position to start after, or 0. */
  readonly seq: number;
  /** Number of newest events that each channel starts with, if not with all of them. */
  readonly last?: number | undefined;
}

/** Resolves a start request. `head` is the last position of the log. */
function requestedStart(log: Log, { lastEventId, from, last }: StartOptions, head: number): RequestedStart {
  // EventSource sends an empty id after an event that reset it.
  if (!lastEventId) return { kind: from || last ? "retained" : "head", seq: 0, last: from === "latest" ? 1 : last };
  const position = parsePosition(lastEventId);
  return position?.epoch === log.epoch && position.seq <= head
    ? { kind: "after", seq: position.seq }
    : { kind: "unknown-id", seq: 0 };
}

/** Returns the position after which a start reads, or 0 if it does not name one of this log. */
export const startSeq = (log: Log, start: StartOptions): number => requestedStart(log, start, Infinity).seq;

/** Returns the position after which a channel's newest `last` events lie, or 0 if it has no more than those. */
const lastFloorOf = (log: Log, channel: ChannelLog, last: number): number =>
  (channel.at(channel.indexAfter(log.head) - last)?.seq ?? 1) - 1;

/** Returns the history bounds of a log that holds everything that is retained. */
export function localHistoryBounds(
  log: Log,
  channels: readonly ChannelLog[],
  after: number,
  max: MaxReplay,
  last?: number,
): HistoryBounds {
  const time = Date.now();
  for (const channel of channels) log.trim(channel, time);
  const lastFloors = last === undefined ? [] : channels.map((channel) => lastFloorOf(log, channel, last));
  return {
    epoch: log.epoch,
    head: log.head,
    floor: replayFloor(log, channels, max, lastFloors),
    channels: channels.map((channel, index) => ({
      key: channel.key,
      droppedThrough: channel.droppedThrough,
      oldest: channel.at(0)?.seq,
      next: channel.at(channel.indexAfter(after))?.seq,
      lastFloor: lastFloors[index],
    })),
  };
}

/**
 * Asks the store for the history bounds if a start needs them. Returns `undefined` if the local log is enough: the start is at the head, or
 * the log holds everything after the requested position.
 */
export function remoteHistoryBounds(
  log: Log,
  lookUp: HistoryBoundsLookup | undefined,
  keys: readonly string[],
  start: StartOptions,
  max: MaxReplay,
): Promise<HistoryBounds> | undefined {
  // Not limited by the local head: another process may have sent the client a position that this one has not reached.
  const requested = requestedStart(log, start, Infinity);
  if (!lookUp || requested.kind === "head") return undefined;
  const { events = Infinity, bytes = Infinity } = max;
  if (requested.kind === "after" && requested.seq <= log.head && events === Infinity && bytes === Infinity) {
    const isHeldHere = (key: string): boolean => (log.find(key)?.droppedThrough ?? Infinity) <= requested.seq;
    if (keys.every(isHeldHere)) return undefined;
  }
  return lookUp(keys, requested.seq, max, requested.last);
}

/** Resolves where a reader of these channels starts. `bounds` are the store's answer, if it was asked. */
export function resolveResumePoint(
  log: Log,
  channels: readonly ChannelLog[],
  start: StartOptions,
  max: MaxReplay,
  bounds?: HistoryBounds,
): ResumePoint {
  const requested = requestedStart(log, start, Math.max(log.head, bounds?.head ?? 0));
  if (requested.kind === "head") return { cursor: log.head, resumed: false, hasMissing: false, isLive: true };
  const { seq, last } = requested;
  return resumeWithin(log, requested, bounds ?? localHistoryBounds(log, channels, seq, max, last));
}

/**
 * Resolves a start within history bounds: after the requested position; or at the oldest event that one of the channels starts with, for an
 * unknown id behind a gap. The reader never starts before `floor`.
 */
function resumeWithin(log: Log, requested: RequestedStart, { head, floor, channels }: HistoryBounds): ResumePoint {
  if (requested.kind === "after") {
    const { seq } = requested;
    if (floor > seq) return skipToFloor(log, channels, seq, floor);
    const hasMissing = channels.some(({ droppedThrough }) => droppedThrough > seq);
    return { cursor: seq, resumedAfter: seq, resumed: !hasMissing, hasMissing };
  }
  // Not the current head: events that were appended after the bounds were read must still be read.
  let cursor = head;
  for (const { oldest = Infinity, lastFloor = 0 } of channels)
    cursor = Math.min(cursor, Math.max(oldest - 1, lastFloor));
  cursor = Math.max(cursor, floor);
  const missingRanges = new Map<string, MissingRange>();
  for (const { key, droppedThrough, oldest = Infinity, lastFloor = 0 } of channels) {
    const startAfter = oldest <= lastFloor ? lastFloor : 0;
    const announcedThrough = Math.max(droppedThrough, startAfter);
    if (announcedThrough > cursor)
      missingRanges.set(key, { after: cursor, announcedThrough, excused: true, startAfter });
  }
  const start = { cursor, resumed: false, hasMissing: missingRanges.size > 0 };
  if (requested.kind === "retained") {
    // An unknown beginning counts as one that is left out: a channel that was forgotten may have had events.
    const isCut = ({ droppedThrough, oldest = Infinity, lastFloor = 0 }: ChannelBounds): boolean =>
      droppedThrough > 0 || oldest <= Math.max(floor, lastFloor);
    return { ...start, incomplete: channels.filter(isCut).map(({ key }) => key), missingRanges };
  }
  const keys = channels.map(({ key }) => key);
  return { ...start, gaps: [makeGap(log, { channels: keys, after: undefined, through: cursor, seq: cursor })] };
}

/** Resolves the start of a reader that comes back to `after` and, because of `maxReplay`, receives no event up to `floor`. */
function skipToFloor(log: Log, channels: readonly ChannelBounds[], after: number, floor: number): ResumePoint {
  const missingRanges = new Map<string, MissingRange>();
  const gaps: Gap[] = [];
  const keys: string[] = [];
  for (const { key, droppedThrough, next = Infinity } of channels) {
    if (droppedThrough > floor) {
      // A range that ends after the floor has a gap of its own. It goes first: the id of the other gap would hide its beginning.
      missingRanges.set(key, { after, announcedThrough: droppedThrough });
      gaps.push(makeGap(log, { channels: [key], after, through: droppedThrough, seq: after }));
    } else if (droppedThrough > after || next <= floor) {
      keys.push(key);
    }
  }
  if (keys.length > 0) gaps.push(makeGap(log, { channels: keys, after, through: floor, seq: floor }));
  const hasMissing = missingRanges.size > 0;
  return { cursor: floor, resumedAfter: after, resumed: false, gaps, missingRanges, hasMissing };
}

/**
 * Returns the position after which the newest events lie, as many as a replay may have; 0 if it may have all of them. Of each channel, events
 * up to its position in `starts` do not count.
 */
function replayFloor(
  log: Log,
  channels: readonly ChannelLog[],
  { events = Infinity, bytes = Infinity }: MaxReplay,
  starts: readonly number[],
): number {
  if (events === Infinity && bytes === Infinity) return 0;
  if (channels.every(({ shared }) => shared === 0)) {
    // The smallest position that fits. What an event adds is known without looking at it, because it counts in one channel only.
    let low = 0;
    for (let high = log.head; low < high; ) {
      const middle = Math.floor((low + high) / 2);
      const most = { events, bytes };
      if (channels.every((channel, index) => channel.fitsAfter(Math.max(middle, starts[index] ?? 0), most)))
        high = middle;
      else low = middle + 1;
    }
    return low;
  }
  const merge = new Merge(-1);
  for (const [index, channel] of channels.entries())
    merge.add(channel, channel.indexAfter(log.head) - 1, channel.indexAfter(starts[index] ?? 0));
  let remaining = bytes;
  let count = 0;
  for (let newest = merge.next; newest; newest = merge.next) {
    remaining -= newest.bytes.length;
    if (count++ >= events || remaining < 0) return newest.seq;
    merge.advance();
  }
  return 0;
}
