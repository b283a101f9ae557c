// A subscriber reads channels from a cursor: a connection, or a `listen()` iterator.
import type { Batch, LogReader } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { FanoutGroup } from "./fanout-group.ts";

/**
 * A reader that the fanout sends batches to.
 *
 * The fanout (in a Worker, `WorkerStream` in its place) and the subscriber itself write `cursor` and `live`; no other code does.
 */
export interface Subscriber extends LogReader {
  readonly kind: "connection" | "listener";
  /** The group it belongs to while a flush is prepared. */
  group: FanoutGroup | undefined;
  /** The subscriber wants more and has received everything up to the last flush. */
  live: boolean;
  /** Receives a batch. The fanout sets `live` and `cursor` before. Returns whether the batch was taken. MUST NOT throw. */
  receive(batch: Batch): boolean;
  /** Events wait for the subscriber, and it cannot take them now. */
  onBlocked?(): void;
  /** The subscriber became live without a request of its own, because something it waited for arrived. */
  onCaughtUp?(): void;
  /** The log was replaced: events that were appended before and not yet read are gone. */
  onLogReplaced?(): void;
  /** No event will be appended any more. */
  onFanoutClosed?(): void;
}

/** The subscribers of one channel. */
export interface ChannelSubscribers {
  channel: ChannelLog;
  readonly subscribers: Set<Subscriber>;
  /** How many of the subscribers are listeners. */
  listeners: number;
  /** Whether the channel has events that the next flush sends. */
  pending: boolean;
}
