import type { ControlEvents } from "../delivery/control-events.ts";
import type { FailureReason, ReportTracker } from "../delivery/delivery-report.ts";
import type { Fanout } from "../delivery/fanout.ts";
import type { FanoutGroup } from "../delivery/fanout-group.ts";
import type { ClientInfo, Connection, ConnectionHost, DisconnectReason } from "../delivery/stream-connection.ts";
import { textDecoder } from "../event/event.ts";
import { type Batch, chunkOf, type LogReader } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { ResumePoint } from "../log/resume.ts";
import type { Socket } from "./cloudflare.ts";
import {
  type Ack,
  CLOSE_NORMAL,
  type ConnectionTiming,
  kinds,
  type Refill,
  writeFrame,
  writeJsonFrame,
} from "./protocol.ts";

/** What a frame costs beside its bytes, in the Worker's turn that it takes. */
const FRAME_COST = 1024;
/** Beyond so many bytes an acknowledgement is asked for; what is sent to a quiet room never comes to that. */
const ASK = 64 * 1024;
/** So many bytes may be on their way to a Worker; then the client is left to its cursor until it answers. A socket never pushes back. */
const LIMIT = 256 * 1024;

/** What a link needs of the object that it is registered at. */
export interface ObjectConnectionHost extends Pick<ConnectionHost, "stalled" | "closing" | "unsubscribe" | "remove"> {
  readonly fanout: ConnectionHost["fanout"] & Pick<Fanout, "log">;
  readonly announcer: Pick<ControlEvents, "position">;
  readonly epoch: string;
  readonly pacing: ConnectionTiming;
  /** Has what a link needs to be made again outlive this instance of the object. */
  save(link: ObjectConnection): void;
  /** Its socket is closed. */
  forget(link: ObjectConnection): void;
}

/**
 * One client, as the object knows it: a socket to the Worker that holds the client's stream. How far the client is, the Worker knows; the
 * object knows what it has sent, and forgets even that when it hibernates.
 */
export class ObjectConnection implements Connection {
  readonly id: string;
  readonly info: ClientInfo;
  readonly channels: readonly ChannelLog[];
  readonly socket: Socket;
  cursor = 0;
  missingRanges: LogReader["missingRanges"];
  overrun = 0;
  group: FanoutGroup | undefined;
  live = false;
  reports: Set<ReportTracker> | undefined;
  release: (() => void) | undefined;
  /** So many bytes are to be acknowledged by an answer that has not come, and its number. */
  asked = 0;
  asks = 0;

  readonly #home: ObjectConnectionHost;
  /** Where the client is when it has everything that it was sent. */
  #sent = 0;
  /** What was sent since the last acknowledgement, and how much of it the next one stands for. */
  #unacknowledged = 0;
  #isRestored = false;
  #failures = 0;
  #farewell: Uint8Array<ArrayBuffer> | undefined;
  #reason: DisconnectReason = "closing";
  #isOver = false;
  #left: (() => void) | undefined;

  constructor(home: ObjectConnectionHost, socket: Socket, info: ClientInfo, keys: readonly string[]) {
    this.#home = home;
    this.socket = socket;
    this.info = info;
    this.id = info.clientId;
    this.channels = home.fanout.subscribe(this, keys);
  }

  get connectionId(): string {
    return this.info.connectionId;
  }

  startAt({ cursor, missingRanges }: ResumePoint, prelude: Uint8Array<ArrayBuffer>): void {
    const { epoch, pacing } = this.#home;
    this.cursor = this.#sent = cursor;
    this.missingRanges = missingRanges;
    this.#home.save(this);
    const { connectionId } = this;
    this.#send(
      writeJsonFrame(kinds.welcome, { connectionId, epoch, cursor, prelude: decoder.decode(prelude), pacing }),
    );
    this.#home.fanout.requestNext(this);
  }

  /** Goes on after the object was gone: the client has what there was, or the Worker will say that it has not. */
  restore(head: number, asked: number, asks: number): void {
    this.cursor = head;
    const { forgottenThrough } = this.#home.fanout.log;
    // Of a channel that was forgotten nobody knows what it had last.
    const known = this.channels.filter(({ last, size }) => size > 0 || last > forgottenThrough);
    this.#sent = Math.max(0, ...known.map(({ last }) => last));
    this.asked = this.#unacknowledged = asked;
    this.asks = asks;
    this.live = asked === 0;
    this.#isRestored = asked > 0;
  }

  receive(batch: Batch): boolean {
    this.#send(frameOf(batch, this.#sent), chunkOf(batch).length);
    this.#sent = batch.through;
    if (this.reports?.size) for (const report of this.reports) report.sentTo(this, batch);
    if (this.#unacknowledged < LIMIT && !this.#isOver) this.#home.fanout.requestNext(this);
    return true;
  }

  onBlocked(): void {
    if (!this.#isOver) this.#home.stalled.add(this);
  }

  /** Tells a client where the log is, if it has everything up to there. */
  pulse(): void {
    const { announcer, fanout } = this.#home;
    const { position } = fanout;
    if (!this.live || this.#sent >= position) return;
    const payload = announcer.position(position);
    this.#send(writeFrame({ kind: kinds.pulse, previous: this.#sent, position, payload }), payload.length);
    this.cursor = this.#sent = position;
  }

  acknowledged({ number, cursor }: Ack): void {
    if (number !== this.asks || this.asked === 0) return;
    if (this.#isRestored) {
      // What the instance before sent after its ask may be on its way still; a new one comes after all of it.
      this.#isRestored = false;
      this.#ask();
      return;
    }
    this.#unacknowledged -= this.asked;
    this.asked = 0;
    this.#home.save(this);
    this.#failures = 0;
    this.#home.stalled.delete(this);
    // Nothing is on its way any more, so that is where it goes on; the object may have hibernated meanwhile.
    if (!this.live && this.#unacknowledged <= 0) this.cursor = this.#sent = cursor;
    this.#goOn();
  }

  refill({ cursor }: Refill): void {
    this.cursor = this.#sent = cursor;
    this.missingRanges = undefined;
    this.live = false;
    if (this.#unacknowledged < LIMIT) this.#goOn();
  }

  #goOn(): void {
    if (!this.live) this.#home.fanout.requestNext(this);
    if (this.#farewell && this.live) this.#depart(true);
  }

  onTimeout(tolerance: number): void {
    if (this.#isOver) return;
    if (++this.#failures < tolerance) this.#home.stalled.add(this);
    else this.abort("timeout", new Error(`Client disconnected: it took nothing for ${this.#failures} × timeout.`));
  }

  close(reason: DisconnectReason, farewell: Uint8Array<ArrayBuffer>, drains: boolean): Promise<void> {
    if (this.#isOver || this.#farewell) return Promise.resolve();
    this.#farewell = farewell;
    this.#reason = reason;
    this.#home.remove(this, reason);
    if (!drains || this.live) {
      this.#depart(drains);
      return Promise.resolve();
    }
    this.#home.closing.add(this);
    return new Promise((resolve) => {
      this.#left = resolve;
    });
  }

  abort(reason: DisconnectReason, _error?: Error): void {
    if (this.#isOver) return;
    this.#send(writeJsonFrame(kinds.end, { reason, drains: false }));
    this.#finish(reason);
  }

  /** The Worker closed the socket. */
  onSocketClosed(reason: DisconnectReason): void {
    if (!this.#isOver) this.#finish(reason);
  }

  #depart(drains: boolean): void {
    const chunk = decoder.decode(this.#farewell);
    this.#send(writeJsonFrame(kinds.end, { reason: this.#reason, chunk, drains }));
    this.#finish(this.#reason);
  }

  #finish(reason: DisconnectReason): void {
    const registered = !this.#farewell;
    this.#isOver = true;
    this.live = false;
    this.release?.();
    this.release = undefined;
    this.#home.stalled.delete(this);
    this.#home.closing.delete(this);
    this.#home.unsubscribe(this);
    this.#home.forget(this);
    try {
      this.socket.close(CLOSE_NORMAL, reason);
    } catch {
      // It is closed.
    }
    if (registered) this.#home.remove(this, reason);
    this.#failReports(reason);
    this.#left?.();
  }

  #failReports(reason: FailureReason): void {
    if (this.reports) for (const report of this.reports) report.failedFor(this, reason);
  }

  #send(frame: Uint8Array<ArrayBuffer>, bytes = 0): void {
    try {
      this.socket.send(frame);
      if (bytes > 0) this.#count(bytes);
    } catch {
      // The socket is gone; its close is on the way.
    }
  }

  #count(bytes: number): void {
    this.#unacknowledged += bytes + FRAME_COST;
    if (this.asked === 0 && this.#unacknowledged >= ASK) this.#ask();
  }

  #ask(): void {
    this.asked = this.#unacknowledged;
    this.asks++;
    this.#home.save(this);
    this.#send(writeFrame({ kind: kinds.ask, previous: 0, position: this.asks, payload: new Uint8Array() }));
  }
}

const decoder = textDecoder();
/** The last frame of a batch: most clients that get the same have the same behind them. */
const frames = new WeakMap<Batch, { readonly previous: number; readonly frame: Uint8Array<ArrayBuffer> }>();

function frameOf(batch: Batch, previous: number): Uint8Array<ArrayBuffer> {
  const made = frames.get(batch);
  if (made?.previous === previous) return made.frame;
  const frame = writeFrame({ kind: kinds.chunk, previous, position: batch.through, payload: chunkOf(batch) });
  frames.set(batch, { previous, frame });
  return frame;
}
