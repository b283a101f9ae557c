// Events and gaps as `listen()` and `history()` return them.
import { COMMON, publicName } from "../event/channel-key.ts";
import { parseEvent } from "../event/sse-format.ts";
import { isGap, type LogItem } from "./batch.ts";
import type { Log } from "./log.ts";

/** A published event with its position. */
export interface ListenedEvent {
  readonly type: "event";
  readonly id: string;
  readonly event?: string;
  readonly data: string;
  /** The channels it was published to; empty for an event to every client. */
  readonly channels: readonly string[];
}

/** Events that the log no longer holds, or never held. */
export interface ListenedGap {
  readonly type: "gap";
  readonly id: string;
  readonly channels: readonly string[];
  /** The position after which events are missing; `null` if this process does not know it. */
  readonly after: string | null;
  readonly through: string;
}

export type Listened = ListenedEvent | ListenedGap;

/** Returns an item of the log in its public form. */
export function toListened(log: Log, item: LogItem): Listened {
  if (!isGap(item))
    return {
      type: "event",
      ...parseEvent(item.bytes),
      channels: item.keys.filter((key) => key !== COMMON).map(publicName),
    };
  const { after, through, seq, channels } = item;
  return {
    type: "gap",
    id: log.id(seq),
    channels: channels.map(publicName),
    after: after === undefined ? null : log.id(after),
    through: log.id(through),
  };
}
