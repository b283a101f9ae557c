import type { Channel, Entry } from "./channel.ts";
import type { Log } from "./log.ts";
import { parsePosition } from "./position.ts";
import { type Gap, type Hole, hasLost, makeGap } from "./reader.ts";

/** Where a reader wishes to start: after an id it was given, or at the earliest event retained; else it is live from now. */
export interface Start {
  readonly lastEventId?: string | undefined;
  readonly from?: "earliest" | undefined;
}

/** Where a stream starts. */
export interface Landing {
  readonly cursor: number;
  /** What has to be said before anything else. */
  readonly gaps?: readonly Gap[];
  /** Whether it continues the position that was asked for. */
  readonly resumed: boolean;
  readonly holes?: Map<Channel, Hole>;
}

/** The most that a connection is given of what was before it. */
export interface MaxReplay {
  /** Events, 0 or more. @default Infinity */
  readonly events?: number;
  /** Bytes as encoded, 0 or more. @default Infinity */
  readonly bytes?: number;
}

/**
 * Where a reader of these channels starts: after `seq` if that is a position of this log, live if nothing was asked for
 * (`undefined`), at the oldest event retained for `"earliest"`, and there with a gap for a foreign position (`null`); with no more
 * before it than `max` allows.
 */
function land(
  log: Log,
  channels: readonly Channel[],
  from: number | null | undefined | "earliest",
  max: MaxReplay,
): Landing {
  if (from === undefined) return { cursor: log.head, resumed: false };
  const time = Date.now();
  for (const channel of channels) log.trim(channel, time);
  const oldest = oldestAllowed(log, channels, max);
  if (typeof from === "number")
    return oldest > from ? cutOff(log, channels, from, oldest) : { cursor: from, resumed: true };
  let cursor = log.head;
  for (const channel of channels) {
    cursor = Math.min(cursor, (channel.at(0)?.seq ?? Infinity) - 1);
  }
  cursor = Math.max(cursor, oldest);
  if (from === "earliest") {
    const holes = new Map<Channel, Hole>();
    for (const channel of channels) {
      if (channel.dropped > cursor) holes.set(channel, { after: cursor, told: channel.dropped, excused: true });
    }
    return { cursor, resumed: false, holes };
  }
  const keys = channels.map((channel) => channel.key);
  return {
    cursor,
    resumed: false,
    gaps: [makeGap(log, { channels: keys, after: undefined, through: cursor, seq: cursor })],
  };
}

/** Where a reader starts that comes back to `from` and is given nothing up to `oldest`. */
function cutOff(log: Log, channels: readonly Channel[], from: number, oldest: number): Landing {
  const holes = new Map<Channel, Hole>();
  const gaps: Gap[] = [];
  const keys: string[] = [];
  for (const channel of channels) {
    if (channel.dropped > oldest) {
      // What the log has lost up to a place behind is a hole of its own; it is said first, or the other gap's id would hide its beginning.
      holes.set(channel, { after: from, told: channel.dropped });
      gaps.push(makeGap(log, { channels: [channel.key], after: from, through: channel.dropped, seq: from }));
    } else if (hasLost(channel, from, oldest)) {
      keys.push(channel.key);
    }
  }
  if (keys.length > 0) gaps.push(makeGap(log, { channels: keys, after: from, through: oldest, seq: oldest }));
  return { cursor: oldest, resumed: false, gaps, holes };
}

/** The position after which the newest events of these channels are, as many as a replay may have; 0 if all that there are. */
function oldestAllowed(
  log: Log,
  channels: readonly Channel[],
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

/** Where a reader of these channels starts that wishes so. */
export function landAt(log: Log, channels: readonly Channel[], { lastEventId, from }: Start, max: MaxReplay): Landing {
  // EventSource sends an empty id after an event that reset it.
  if (!lastEventId) return land(log, channels, from, max);
  const position = parsePosition(lastEventId);
  const ours = position?.epoch === log.epoch && position.seq <= log.head;
  return land(log, channels, ours ? position.seq : null, max);
}
