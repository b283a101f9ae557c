// A subscriber reads channels from a cursor: a connection, or a `listen()` iterator.
import type { Batch, LogReader } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { Gap } from "../log/gap.ts";
import type { FanoutGroup } from "./fanout-group.ts";

/** The snapshots of one connection. While one is sent, the connection reads nothing from the log. */
export interface SnapshotSource {
  /** Whether the connection wants more, and waits for the application. */
  readonly isWaiting: boolean;
  /** Whether a snapshot follows a gap, so that the batch ends there. */
  stopsAfter(gap: Gap): boolean;
  /** Begins a snapshot, if a batch ends with such a gap. Returns what to send: the batch, or one in which the gap has no id. */
  beginAfter(batch: Batch): Batch;
  /** The connection wants more. Returns whether a snapshot is sent. */
  requestNext(): boolean;
  /** The connection receives something else first. Returns whether it was waiting. */
  pause(): boolean;
  /** Sends a snapshot of channels that were added to the open stream. The client's id stays where it is. */
  join(channels: readonly string[]): void;
  /** Ends a snapshot that is sent, because the stream goes on from another place. */
  reset(): void;
  /** Ends a snapshot that is sent, and any later one, because the broker closes. Returns whether one was sent. */
  stop(): boolean;
  /** The connection reads no more. */
  cancel(): void;
}

/**
 * A reader that the fanout sends batches to.
 *
 * The fanout (in a Worker, `WorkerStream` in its place) and the subscriber itself write `cursor` and `live`; no other code does.
 */
export interface Subscriber extends LogReader {
  readonly kind: "connection" | "listener";
  /** The group it belongs to while a flush is prepared. */
  group: FanoutGroup | undefined;
  /** Present if the application sends its state at the start of a stream and after a gap. */
  snapshots?: SnapshotSource | undefined;
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
  /** Number of subscribers that are listeners. */
  listeners: number;
  /** Whether the channel has events that the next flush sends. */
  pending: boolean;
}
