// Formats the events that the broker itself sends: `fanwire-ready`, `fanwire-position`, `fanwire-end`, and heartbeats. Decides nothing about a
// connection's state.

import type { ErrorCode } from "../base/errors.ts";
import { jitter } from "../base/random.ts";
import { publicName } from "../event/channel-key.ts";
import { concat, encode, formatControl, formatEnd, formatRetry, HEARTBEAT } from "../event/sse-format.ts";
import type { Log } from "../log/log.ts";
import type { ResumePoint } from "../log/resume.ts";
import type { ClientInfo, DisconnectReason } from "./connection.ts";

/** Options of the broker that control events depend on. */
export interface ControlEventOptions {
  readonly announce: boolean;
  /** Milliseconds between two heartbeats; `Infinity` for none. */
  readonly heartbeat: number;
  readonly retry: number;
}

/** The chunk of a heartbeat. One with a `position` moves the client's id, and so its cursor, to there. */
export interface HeartbeatChunk {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly position?: number;
}

/** The end of a stream. */
export interface EndOptions {
  /** Milliseconds after which the client comes back. @default the option `retry`, with jitter */
  readonly retry?: number;
  /** The application's reason. */
  readonly detail?: string | undefined;
}

/** A heartbeat that moves nothing. */
export const PLAIN_HEARTBEAT: HeartbeatChunk = { bytes: HEARTBEAT };

export class ControlEvents {
  readonly #options: ControlEventOptions;
  /** The last `fanwire-position`, shared by all connections that receive the same one. */
  #position: { readonly id: string; readonly chunk: Required<HeartbeatChunk> } | undefined;

  constructor(options: ControlEventOptions) {
    this.#options = options;
  }

  /**
   * Formats the first chunk of a stream: the reconnection time, `fanwire-ready`, and the gaps that come before anything else. A stream that
   * `continues` on another socket receives only the gaps. `channels` are names.
   */
  opening(
    log: Log,
    { clientId, channels }: ClientInfo,
    { cursor, gaps = [], resumed, hasMissing, incomplete, isHeld }: ResumePoint,
    continues: boolean,
    secret?: string,
  ): Uint8Array<ArrayBuffer> {
    const { announce, heartbeat, retry } = this.#options;
    // In the block of the event that follows: some clients dispatch an empty message for a block without data (fetch-event-source 2.0.1).
    let text = continues ? "" : formatRetry(jitter(retry));
    if (announce && !continues) {
      // With the id, a client that drops before a gap arrives would skip that gap.
      const id = gaps.length > 0 || hasMissing || isHeld ? undefined : log.id(cursor);
      const rest = { ...(heartbeat < Infinity && { heartbeat }), ...completeness(incomplete) };
      text += formatControl("ready", { clientId, resumed, channels, secret, ...rest }, id);
    }
    return concat([encode(text), ...gaps.map(({ bytes }) => bytes)]);
  }

  /** Formats `fanwire-position`, for a client that has everything up to there. */
  position(log: Log, seq: number): Required<HeartbeatChunk> {
    const id = log.id(seq);
    if (this.#position?.id !== id)
      this.#position = { id, chunk: { bytes: encode(formatControl("position", {}, id)), position: seq } };
    return this.#position.chunk;
  }

  /** Formats `fanwire-end`, the last chunk of a stream: why it ends, and when to come back. */
  end(
    reason: DisconnectReason | ErrorCode,
    reconnect: boolean,
    { retry = jitter(this.#options.retry), detail }: EndOptions = {},
  ): Uint8Array<ArrayBuffer> {
    return encode(formatEnd(reason, reconnect, retry, detail));
  }
}

/** Says whether a stream that starts at the earliest retained event has everything that there ever was in its channels. */
const completeness = (incomplete: readonly string[] | undefined): object =>
  incomplete ? { complete: incomplete.length === 0, incomplete: incomplete.map(publicName) } : {};
