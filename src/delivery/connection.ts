// A connection: one stream of one client. `StreamConnection` writes to a response of this process; `ObjectConnection` (workers) writes to
// the Worker that holds the response.
import type { Batch } from "../log/batch.ts";
import type { ResumePoint } from "../log/resume.ts";
import type { Subscriber } from "./subscriber.ts";

/**
 * Why a connection ended: the client left, it was blocked for `timeout` × `tolerance`, `disconnect()` named it, its grant expired, it reached
 * `maxConnectionAge`, another connection replaced it (`duplicateIds`), the broker closed, the runtime refused a chunk, or the option `snapshot` failed.
 */
export type DisconnectReason = (typeof DISCONNECT_REASONS)[number];

export const DISCONNECT_REASONS = [
  "client-left",
  "timeout",
  "disconnected",
  "expired",
  "max-age",
  "replaced",
  "closing",
  "write-failed",
  "snapshot-failed",
] as const;

/**
 * Why an event did not reach a connection: how the connection ended, `"late"` (the event may still come from the log), or `"lost"` (it cannot,
 * and a connection that had a claim to it received a gap).
 */
export type FailureReason = DisconnectReason | "late" | "lost";

/** Watches what a connection receives, for a delivery report. */
export interface DeliveryWatcher {
  /** The connection received a batch. */
  sentTo(connection: Connection, batch: Batch): void;
  /** The connection will not receive the event. */
  failedFor(connection: Connection, reason: FailureReason): void;
}

/** The `retry:` value, one day in milliseconds, that keeps a replaced EventSource from taking its place back. */
export const REPLACED_RETRY_MS = 86_400_000;

/** A connection, as `clients()` and the hooks show it. */
export interface ClientInfo {
  /** Identifies the client; several connections may share it. */
  readonly clientId: string;
  /** Identifies this one connection. */
  readonly connectionId: string;
  /** The subject that `authorize` returned. */
  readonly subject?: string;
  /** The channels that the connection reads. */
  readonly channels: readonly string[];
  /** Epoch milliseconds. */
  readonly connectedAt: number;
}

/** The end of a connection. */
export interface CloseOptions {
  /** The last chunk of the stream (`fanwire-end`). */
  readonly endEvent: Uint8Array<ArrayBuffer>;
  /** Whether the connection first receives every event it has not read. */
  readonly drain: boolean;
  /** Whether the caller aborts the connection if it cannot take the end event now. */
  readonly force?: boolean;
}

/** A registered connection. Its states are `open`, `closing` (the end event waits to be read) and `closed`. */
export interface Connection extends Subscriber {
  readonly kind: "connection";
  readonly id: string;
  readonly connectionId: string;
  /** Replaced when its channels change. */
  info: ClientInfo;
  /** Proves that a request comes from the client of this connection. Absent if the client has not received one. */
  secret?: string | undefined;
  /** Delivery reports that wait for this connection. */
  reports: Set<DeliveryWatcher> | undefined;
  /** Sets the cursor and the first chunk. Events after the cursor count as pending from here on. */
  startAt(point: ResumePoint, opening: Uint8Array<ArrayBuffer>): void;
  /** `info` has other channels, and the client is about to receive `fanwire-channels`. */
  onChannelsChanged?(): void;
  /** The connection was blocked for `timeout` once more. */
  onTimeout(tolerance: number): void;
  /**
   * Closes with an end event: at once if the client can take it, else when it reads again. A client that does not read the end event in time
   * is aborted. Resolves when the connection is closed.
   */
  close(reason: DisconnectReason, options: CloseOptions): Promise<void>;
  /** Ends at once, without an end event. */
  abort(reason: DisconnectReason): void;
}
