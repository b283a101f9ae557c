import type { ErrorCode } from "../base/errors.ts";
import type { DisconnectReason } from "../delivery/connection.ts";

/**
 * What a broker counts, for this process. `published`, `sent`, `bytes`, `replayed`, `gaps`, `overruns`, `disconnects` and `failures` are
 * counters that begin at 0 with the broker; the others are what is now.
 */
export interface BrokerStats {
  /** Connections. */
  readonly clients: number;
  /** Client ids that are connected. */
  readonly ids: number;
  /** Connections that have something to receive and do not take it. */
  readonly blocked: number;
  /** Streams that were told to end and whose client has not read that yet. */
  readonly closing: number;
  /** Requests that wait for `authorize`. */
  readonly pending: number;
  /** Channels and inboxes that somebody reads. */
  readonly channels: number;
  /** Events published through this broker. */
  readonly published: number;
  /** Events sent to clients: given to the runtime, not received. */
  readonly sent: number;
  /** Bytes of the events and gaps sent to clients. */
  readonly bytes: number;
  /** Those of `sent` that came from the log, to clients that came back or were behind. */
  readonly replayed: number;
  /** Gaps told to clients. */
  readonly gaps: number;
  /** Times that a client was put at the head, because the log dropped more of what it had not read while it was catching up. */
  readonly overruns: number;
  /** Connections that ended, by reason. */
  readonly disconnects: Readonly<Partial<Record<DisconnectReason, number>>>;
  /** Requests that were refused or failed, by code. */
  readonly failures: Readonly<Partial<Record<ErrorCode, number>>>;
  /** Whether the engine can append; `idle` before the broker's first use, and from `close()` on. */
  readonly engine: "idle" | "up" | "down";
  /** What this process holds of the log. */
  readonly log: { readonly events: number; readonly bytes: number; readonly channels: number };
}
