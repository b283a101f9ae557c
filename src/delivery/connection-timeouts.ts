// The three times that a connection may use up: blocked with events, not yet begun, and closing.
import { TimeoutQueue } from "../base/timeout-queue.ts";
import type { Connection } from "./connection.ts";
import type { StreamConnection } from "./stream-connection.ts";

/** The shortest time that a response may be on its way before its first chunk is read, in milliseconds. */
const MIN_START_MS = 60_000;
/** The time that a client may take to read its end event where `timeout` is `Infinity`, in milliseconds. */
const MAX_CLOSING_MS = 30_000;

/** Milliseconds that a client may take to read its end event. */
export const closingTimeout = (timeout: number): number => (timeout === Infinity ? MAX_CLOSING_MS : timeout);

/** Connections that are watched for progress. */
export interface ConnectionTimeouts {
  /** Blocked with something to receive. */
  readonly blocked: TimeoutQueue<Connection>;
  /** The first chunk has not been read. */
  readonly starting: TimeoutQueue<StreamConnection>;
  /** Blocked, with only the end event to receive. */
  readonly closing: TimeoutQueue<Connection>;
}

export const createConnectionTimeouts = (timeout: number, tolerance: number): ConnectionTimeouts => ({
  blocked: new TimeoutQueue(timeout, (connection) => connection.onTimeout(tolerance)),
  starting: new TimeoutQueue(Math.max(MIN_START_MS, timeout * Math.max(1, tolerance)), (connection) =>
    connection.onNeverRead(),
  ),
  closing: new TimeoutQueue(closingTimeout(timeout), (connection) => connection.abort("closing")),
});
