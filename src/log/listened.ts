// Events and gaps as `listen()` and `history()` return them.
import type { EventName } from "../client/events.ts";
import { parseData } from "../client/values.ts";
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

/** A published event of one type of a typed broker. */
interface TypedEvent<Value> extends ListenedEvent {
  /** The data as JSON; as text if it is none. Read from `data` at the first use, and not enumerable. */
  readonly value: Value;
}

/** Published events, discriminated by `event`. An event without a type is `message`. Without a map of types: any event. */
export type ListenedEventOf<Events> = unknown extends Events
  ? ListenedEvent
  : {
      [Name in EventName<Events>]-?: TypedEvent<Events[Name]> &
        (Name extends "message" ? { readonly event?: Name } : { readonly event: Name });
    }[EventName<Events>];

/** An item of `listen()`: an event or a gap. */
export type ListenedOf<Events> = ListenedEventOf<Events> | ListenedGap;

/**
 * Adds `value`, for brokers with types. At run time, no broker knows that its types were given, so every event has it. It does not show in what
 * is enumerated, copied or written as JSON.
 */
export const withValue = (event: ListenedEvent): ListenedEvent => Object.defineProperty(event, "value", VALUE);

/** One getter for all events: a function for each one takes seven times as long to add (2 µs, Node 24). */
const VALUE: PropertyDescriptor & ThisType<ListenedEvent> = {
  configurable: true,
  get() {
    const value = parseData(this.data);
    Object.defineProperty(this, "value", { value });
    return value;
  },
};

/** Returns an item of the log in its public form. */
export function toListened(log: Log, item: LogItem): Listened {
  if (!isGap(item))
    return withValue({
      type: "event",
      ...parseEvent(item.bytes),
      channels: item.keys.filter((key) => key !== COMMON).map(publicName),
    });
  const { after, through, seq, channels } = item;
  return {
    type: "gap",
    id: log.id(seq),
    channels: channels.map(publicName),
    after: after === undefined ? null : log.id(after),
    through: log.id(through),
  };
}
