// A gap names the events that a subscriber misses. It has a place in the total order, and an id like an event.
import { publicName } from "../event/channel-key.ts";
import { encode, formatControl } from "../event/sse-format.ts";
import type { Log } from "./log.ts";

/** Missing events of a subscriber, as an element of the total order. */
export interface Gap {
  /** Keys of the channels that have missing events. */
  readonly channels: readonly string[];
  /** The missing range begins after this position; `undefined` if the subscriber's position is not of this log. */
  readonly after: number | undefined;
  /** The missing range ends at this position. */
  readonly through: number;
  /** The cursor of the subscriber once it has read this gap. */
  readonly seq: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A range of one channel that a subscriber has not read and can no longer read, until its gap is complete. */
export interface MissingRange {
  /** The range begins after this position. */
  readonly after: number;
  /** The end of the range as the subscriber last received it in a gap. */
  readonly announcedThrough: number;
  /** The subscriber never had a claim to this range, so no gap is reported for it. */
  readonly excused?: boolean;
  /** The reader starts to read the channel after this position, although it has read others before. Never after `announcedThrough`. */
  readonly startAfter?: number | undefined;
}

/** Creates a gap with its wire form (`fanwire-gap`). */
export function makeGap(log: Log, gap: Omit<Gap, "bytes">): Gap {
  const data = {
    channels: gap.channels.map(publicName),
    after: gap.after === undefined ? null : log.id(gap.after),
    through: log.id(gap.through),
  };
  return { ...gap, bytes: encode(formatControl("gap", data, log.id(gap.seq))) };
}
