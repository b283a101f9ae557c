// A gap tells a subscriber which events are missing. It is an element of the total order, with its own place and id.

import { publicName } from "../event/channel-key.ts";
import { encode, formatControl } from "../event/sse-format.ts";
import type { Log } from "./log.ts";

/** Missing events of a subscriber, as an element of the total order. */
export interface Gap {
  readonly channels: readonly string[];
  /** The events of these channels after this position are missing; `undefined` if the position is not of this log. */
  readonly after: number | undefined;
  /** The last position that is missing. */
  readonly through: number;
  /** The cursor of the subscriber once it has read this gap. */
  readonly seq: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A range of one channel that a subscriber has not read and can no longer read. */
export interface MissingRange {
  /** The range begins after this position. */
  readonly after: number;
  /** The end of the range that the subscriber was last told. */
  readonly announcedThrough: number;
  /** The subscriber never had a claim to this range, so no gap is reported for it. */
  readonly excused?: boolean;
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
