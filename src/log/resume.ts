import type { EngineSession } from "../engine/engine.ts";
import { parsePosition } from "../event/position.ts";
import { type Gap, type MissingRange, makeGap } from "./batch.ts";
import type { ChannelLog, Entry } from "./channel-log.ts";
import type { Log } from "./log.ts";

/** Where a reader wishes to start: after an id it was given, or at the earliest event retained; else it is live from now. */
export interface StartOptions {
  readonly lastEventId?: string | undefined;
  readonly from?: "earliest" | undefined;
}

/** Where a stream starts. */
export interface ResumePoint {
  readonly cursor: number;
  /** What has to be said before anything else. */
  readonly gaps?: readonly Gap[];
  /** Whether it continues the position that was asked for. */
  readonly resumed: boolean;
  readonly missingRanges?: Map<string, MissingRange>;
  /** Whether there is more to be said that is missing. */
  readonly hasMissing: boolean;
  /** It asked for nothing that was before. */
  readonly isLive?: boolean;
}

/** The most that a connection is given of what was before it. */
export interface MaxReplay {
  /** Events, 0 or more. @default Infinity */
  readonly events?: number;
  /** Bytes as encoded, 0 or more. @default Infinity */
  readonly bytes?: number;
}

/** What is kept of a channel, as somebody sees it who starts after a position. */
interface ChannelBounds {
  readonly key: string;
  /** The last position of it that is not kept any more; 0 while all are. */
  readonly dropped: number;
  /** The position of the oldest event that is kept. */
  readonly oldest: number | undefined;
  /** The position of the first event that is kept after the one that it starts from. */
  readonly next: number | undefined;
}

/** What is kept for a new reader. */
interface Survey {
  /** The position after which the newest events are, as many as a replay may have; 0 if all that there are. */
  readonly floor: number;
  /** Of each of its channels. */
  readonly channels: readonly ChannelBounds[];
}

/** What a store keeps for a new reader, of an epoch, and its last position. */
export type HistoryBounds = Survey & { readonly epoch: string; readonly head: number };

/** The position that a reader asks for: `undefined` if for none, `null` if it is none of this log, whose last one is `head`. */
function askedOf(log: Log, { lastEventId, from }: StartOptions, head: number): number | "earliest" | null | undefined {
  // EventSource sends an empty id after an event that reset it.
  if (!lastEventId) return from;
  const position = parsePosition(lastEventId);
  return position?.epoch === log.epoch && position.seq <= head ? position.seq : null;
}

/** What the log itself keeps of these channels. */
function localHistoryBounds(log: Log, channels: readonly ChannelLog[], from: number, max: MaxReplay): HistoryBounds {
  const time = Date.now();
  for (const channel of channels) log.trim(channel, time);
  return {
    epoch: log.epoch,
    head: log.head,
    floor: replayFloor(log, channels, max),
    channels: channels.map((channel) => ({
      key: channel.key,
      dropped: channel.droppedThrough,
      oldest: channel.at(0)?.seq,
      next: channel.at(channel.indexAfter(from))?.seq,
    })),
  };
}

/** What is kept elsewhere for who starts so, if that has to be known: the log alone does not say, unless it holds everything. */
export function remoteHistoryBounds(
  session: EngineSession,
  keys: readonly string[],
  start: StartOptions,
  max: MaxReplay,
): Promise<HistoryBounds> | undefined {
  const { log } = session;
  // Another process may have told a position that this one has not come to.
  const asked = askedOf(log, start, Infinity);
  if (!session.historyBounds || asked === undefined) return undefined;
  const { events = Infinity, bytes = Infinity } = max;
  const isBounded = events !== Infinity || bytes !== Infinity;
  const isHere = (key: string): boolean => (log.find(key)?.droppedThrough ?? Infinity) <= Number(asked);
  if (typeof asked === "number" && asked <= log.head && !isBounded && keys.every(isHere)) return undefined;
  return session.historyBounds(keys, typeof asked === "number" ? asked : 0, max);
}

/** Where a reader of these channels starts that wishes so; `survey` is what is kept for it elsewhere, if it was asked. */
export function resolveResumePoint(
  log: Log,
  channels: readonly ChannelLog[],
  start: StartOptions,
  max: MaxReplay,
  survey?: HistoryBounds,
): ResumePoint {
  const asked = askedOf(log, start, Math.max(log.head, survey?.head ?? 0));
  if (asked === undefined) return { cursor: log.head, resumed: false, hasMissing: false, isLive: true };
  return resumeWithin(
    log,
    asked,
    survey ?? localHistoryBounds(log, channels, typeof asked === "number" ? asked : 0, max),
  );
}

/**
 * Where a reader starts: after a position of this log that it asks for, live if it asks for none, at the oldest event retained for
 * `"earliest"`, and there with a gap for a foreign position; with no more before it than `floor` allows.
 */
function resumeWithin(
  log: Log,
  asked: number | "earliest" | null,
  { head, floor, channels }: HistoryBounds,
): ResumePoint {
  if (typeof asked === "number") {
    if (floor > asked) return limitReplay(log, channels, asked, floor);
    return { cursor: asked, resumed: true, hasMissing: channels.some(({ dropped }) => dropped > asked) };
  }
  // Not where the log is by now: what came since the survey is there to be read.
  let cursor = head;
  for (const { oldest = Infinity } of channels) cursor = Math.min(cursor, oldest - 1);
  cursor = Math.max(cursor, floor);
  const lost = channels.filter(({ dropped }) => dropped > cursor);
  const whole = { cursor, resumed: false, hasMissing: lost.length > 0 };
  if (asked === "earliest")
    return {
      ...whole,
      missingRanges: new Map(
        lost.map(({ key, dropped }) => [key, { after: cursor, announcedThrough: dropped, excused: true }]),
      ),
    };
  const keys = channels.map(({ key }) => key);
  return { ...whole, gaps: [makeGap(log, { channels: keys, after: undefined, through: cursor, seq: cursor })] };
}

/** Where a reader starts that comes back to `from` and is given nothing up to `floor`. */
function limitReplay(log: Log, channels: readonly ChannelBounds[], from: number, floor: number): ResumePoint {
  const missingRanges = new Map<string, MissingRange>();
  const gaps: Gap[] = [];
  const keys: string[] = [];
  for (const { key, dropped, next = Infinity } of channels) {
    if (dropped > floor) {
      // What the log has lost up to a place behind is a hole of its own; it is said first, or the other gap's id would hide its beginning.
      missingRanges.set(key, { after: from, announcedThrough: dropped });
      gaps.push(makeGap(log, { channels: [key], after: from, through: dropped, seq: from }));
    } else if (dropped > from || next <= floor) {
      keys.push(key);
    }
  }
  if (keys.length > 0) gaps.push(makeGap(log, { channels: keys, after: from, through: floor, seq: floor }));
  return { cursor: floor, resumed: false, gaps, missingRanges, hasMissing: missingRanges.size > 0 };
}

/** The position after which the newest events of these channels are, as many as a replay may have; 0 if all that there are. */
function replayFloor(
  log: Log,
  channels: readonly ChannelLog[],
  { events = Infinity, bytes = Infinity }: MaxReplay,
): number {
  if (events === Infinity && bytes === Infinity) return 0;
  const lanes = channels.map((channel) => ({ channel, index: channel.indexAfter(log.head) - 1 }));
  let room = bytes;
  for (let count = 0; ; count++) {
    let newest: Entry | undefined;
    for (const { channel, index } of lanes) {
      const entry = channel.at(index);
      if (entry && !(newest && newest.seq >= entry.seq)) newest = entry;
    }
    if (!newest) return 0;
    room -= newest.bytes.length;
    if (count >= events || room < 0) return newest.seq;
    for (const lane of lanes) if (lane.channel.at(lane.index) === newest) lane.index--;
  }
}
