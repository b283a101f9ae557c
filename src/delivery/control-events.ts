import type { ErrorCode } from "../base/errors.ts";
import { jitter } from "../base/random.ts";
import type { Settings } from "../broker/options.ts";
import { concat, encode, formatControl, formatEnd, formatRetry, HEARTBEAT } from "../event/event.ts";
import type { ResumePoint } from "../log/resume.ts";
import type { Fanout } from "./fanout.ts";
import type { Heartbeat } from "./heartbeat.ts";
import type { Connection, DisconnectReason, StreamConnection } from "./stream-connection.ts";

/** What clients are told by the broker itself. */
export class ControlEvents {
  readonly #settings: Pick<Settings, "announce" | "retry">;
  readonly #fanout: Fanout;
  readonly #heartbeat: Heartbeat<StreamConnection>;
  /** Shared by all who are told the same position. */
  #position: { readonly id: string; readonly bytes: Uint8Array<ArrayBuffer> } | undefined;

  constructor(settings: Pick<Settings, "announce" | "retry">, fanout: Fanout, heartbeat: Heartbeat<StreamConnection>) {
    this.#settings = settings;
    this.#fanout = fanout;
    this.#heartbeat = heartbeat;
  }

  /**
   * What a stream begins with: the reconnection time, who and where the client is, and what it has missed if that is all that can be said.
   * One that was known before (`again`) is told the last only.
   */
  opening(
    client: Connection,
    { cursor, gaps = [], resumed, hasMissing }: ResumePoint,
    again: boolean,
  ): Uint8Array<ArrayBuffer> {
    const { announce, retry } = this.#settings;
    let text = again ? "" : `${formatRetry(jitter(retry))}\n`;
    if (announce && !again) {
      // While a gap is about to be said, the id would let a client that drops here skip it.
      const id = gaps.length > 0 || hasMissing ? undefined : this.#fanout.log.id(cursor);
      text += formatControl("ready", { clientId: client.id, resumed }, id);
    }
    const told = gaps.map(({ bytes }) => bytes);
    this.#fanout.sentGaps += told.length;
    for (const { length } of told) this.#fanout.sentBytes += length;
    return concat([encode(text), ...told]);
  }

  /** What an idle client is sent. The one of a quiet channel is told where the log is, before nobody can judge its last id any more. */
  pulse(client: StreamConnection): Uint8Array<ArrayBuffer> {
    const { log, position } = this.#fanout;
    if (!client.live) return HEARTBEAT;
    const age = this.#heartbeat.since(client.lastPositionTick);
    if (!this.#settings.announce || client.cursor >= position || age < log.retention.age / 2) return HEARTBEAT;
    client.cursor = position;
    client.lastPositionTick = this.#heartbeat.tick;
    return this.position(position);
  }

  /** Where the log is, for who has everything up to there. */
  position(seq: number): Uint8Array<ArrayBuffer> {
    const id = this.#fanout.log.id(seq);
    if (this.#position?.id !== id) this.#position = { id, bytes: encode(formatControl("position", {}, id)) };
    return this.#position.bytes;
  }

  /** The last chunk of a stream: why it ends, and when to come back. */
  end(
    reason: DisconnectReason | ErrorCode,
    reconnect: boolean,
    retry: number = jitter(this.#settings.retry),
  ): Uint8Array<ArrayBuffer> {
    return encode(formatEnd(reason, reconnect, retry));
  }
}
