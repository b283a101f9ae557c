// The statistics that `stats()` returns.
import type { ErrorCode } from "../base/errors.ts";
import type { DisconnectReason } from "../delivery/connection.ts";

/**
 * Statistics of a broker, for this process. `published`, `sent`, `bytes`, `replayed`, `gaps`, `overruns`, `disconnects` and `failures` are
 * counters that start at 0 with the broker. The others are gauges.
 */
export interface BrokerStats {
  /** Open connections. */
  readonly clients: number;
  /** Client ids with an open connection. */
  readonly ids: number;
  /** Connections that have something to receive and do not take it. */
  readonly blocked: number;
  /** Connections that have an end event to deliver which their client has not read. They do not count as `clients`. */
  readonly closing: number;
  /** Requests that wait for `authorize`. */
  readonly pending: number;
  /** Channels and inboxes with a subscriber: a connection, or an iterator of `listen()`. */
  readonly channels: number;
  /** Events published through this broker. */
  readonly published: number;
  /** Events sent to connections. Sent means given to the runtime, not received. */
  readonly sent: number;
  /** Bytes of the events and gaps sent to connections. */
  readonly bytes: number;
  /** The part of `sent` that came from the log, for connections that resumed or were behind. */
  readonly replayed: number;
  /** Gaps sent to connections. */
  readonly gaps: number;
  /** Number of times that a connection jumped to the head, because the log evicted more of its unread events before it had caught up. */
  readonly overruns: number;
  /** Connections that ended, by reason. */
  readonly disconnects: Readonly<Partial<Record<DisconnectReason, number>>>;
  /** Requests that were refused or failed, by code. */
  readonly failures: Readonly<Partial<Record<ErrorCode, number>>>;
  /** Whether the engine can append events. `idle` before the broker's first use, and from `close()` on. */
  readonly engine: "idle" | "up" | "down";
  /** The part of the log that this process holds. */
  readonly log: { readonly events: number; readonly bytes: number; readonly channels: number };
}
