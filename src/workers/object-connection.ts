// A client as the object knows it: a WebSocket to the Worker that holds the client's stream.
import type {
  ClientInfo,
  CloseOptions,
  Connection,
  DeliveryWatcher,
  DisconnectReason,
  FailureReason,
} from "../delivery/connection.ts";
import type { ControlEvents } from "../delivery/control-events.ts";
import type { Fanout } from "../delivery/fanout.ts";
import type { FanoutGroup } from "../delivery/fanout-group.ts";
import type { ConnectionHost } from "../delivery/stream-connection.ts";
import type { SnapshotSource } from "../delivery/subscriber.ts";
import { textDecoder } from "../event/sse-format.ts";
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

/** The cost of a frame in bytes, besides its payload: each frame takes a turn in the Worker. */
const FRAME_COST = 1024;
/** Unacknowledged bytes at which an acknowledgement is requested. A quiet channel rarely sends as much. */
const ACK_AFTER_BYTES = 64 * 1024;
/**
 * The most bytes that may be on their way to a Worker. Then the connection waits for an acknowledgement, because a WebSocket has no
 * backpressure of its own.
 */
const MAX_UNACKNOWLEDGED_BYTES = 256 * 1024;

/** The end of the connection, once it is decided. */
interface Closing {
  readonly reason: DisconnectReason;
  readonly endEvent: Uint8Array<ArrayBuffer>;
}

/** The object that a connection is registered at. */
export interface ObjectConnectionHost extends Pick<ConnectionHost, "unsubscribe" | "remove" | "onClosed"> {
  readonly fanout: Pick<Fanout, "subscribe" | "requestNext" | "position" | "log">;
  readonly timeouts: Pick<ConnectionHost["timeouts"], "blocked" | "closing">;
  readonly controlEvents: Pick<ControlEvents, "position">;
  readonly epoch: string;
  readonly timing: ConnectionTiming;
  /** Stores the state that the connection needs after hibernation. */
  save(connection: ObjectConnection): void;
  /** The same, after its channels have changed. */
  saveChannels(connection: ObjectConnection): void;
  /** The socket is closed. */
  forget(connection: ObjectConnection): void;
}

/**
 * A connection whose stream a Worker holds. The Worker knows how far the client is. The object knows only what it has sent, and forgets even
 * that when it hibernates.
 */
export class ObjectConnection implements Connection {
  readonly kind = "connection";
  readonly id: string;
  info: ClientInfo;
  secret: string | undefined;
  waiting: LogReader["waiting"];
  channels: readonly ChannelLog[];
  readonly socket: Socket;
  cursor = 0;
  missingRanges: LogReader["missingRanges"];
  overrun = 0;
  snapshots: SnapshotSource | undefined;
  group: FanoutGroup | undefined;
  live = false;
  reports: Set<DeliveryWatcher> | undefined;
  /** Bytes covered by the requested acknowledgement, and its number. */
  ackBytes = 0;
  ackNumber = 0;
  /** The client's id is held back. The state of the snapshot is lost with this instance. */
  isHeld = false;

  readonly #host: ObjectConnectionHost;
  /** The position of the client once it has received everything that was sent. */
  #sentThrough = 0;
  #unacknowledgedBytes = 0;
  /** The connection was restored after hibernation, and an acknowledgement from before is still to come. */
  #isRestored = false;
  #timeouts = 0;
  #closing: Closing | undefined;
  #isClosed = false;
  #resolveClosed: (() => void) | undefined;

  constructor(host: ObjectConnectionHost, socket: Socket, info: ClientInfo, keys: readonly string[]) {
    this.#host = host;
    this.socket = socket;
    this.info = info;
    this.id = info.clientId;
    this.channels = host.fanout.subscribe(this, keys);
  }

  get connectionId(): string {
    return this.info.connectionId;
  }

  startAt({ cursor, missingRanges, isHeld = false }: ResumePoint, opening: Uint8Array<ArrayBuffer>): void {
    const { epoch, timing } = this.#host;
    this.cursor = this.#sentThrough = cursor;
    this.missingRanges = missingRanges;
    this.isHeld = isHeld;
    this.#host.save(this);
    const { connectionId, secret } = this;
    this.#send(
      writeJsonFrame(kinds.welcome, {
        ...{ connectionId, secret, epoch, cursor, timing, isHeld },
        opening: decoder.decode(opening),
      }),
    );
    this.#host.fanout.requestNext(this);
  }

  /**
   * Restores the connection after the object was gone. It assumes that the client has everything up to `head`; if not, the Worker asks for
   * it with a refill.
   */
  restore(head: number, ackBytes: number, ackNumber: number): void {
    this.cursor = head;
    const { forgottenThrough } = this.#host.fanout.log;
    // The last position of a forgotten channel is not known.
    const known = this.channels.filter(({ last, size }) => size > 0 || last > forgottenThrough);
    this.#sentThrough = Math.max(0, ...known.map(({ last }) => last));
    this.ackBytes = this.#unacknowledgedBytes = ackBytes;
    this.ackNumber = ackNumber;
    this.live = ackBytes === 0;
    this.#isRestored = ackBytes > 0;
  }

  receive(batch: Batch): boolean {
    if (this.isHeld !== (batch.isHeld ?? false)) {
      this.isHeld = !this.isHeld;
      this.#host.save(this);
    }
    this.#send(frameOf(batch, this.#sentThrough), chunkOf(batch).length);
    this.#sentThrough = batch.through;
    if (this.reports?.size) for (const report of this.reports) report.sentTo(this, batch);
    if (this.#unacknowledgedBytes < MAX_UNACKNOWLEDGED_BYTES && !this.#isClosed) this.#host.fanout.requestNext(this);
    return true;
  }

  onBlocked(): void {
    if (!this.#isClosed && !this.snapshots?.isWaiting) this.#host.timeouts.blocked.add(this);
  }

  /** Sends the position of the log to a client that has everything up to there. */
  sendPosition(): void {
    const { controlEvents, fanout } = this.#host;
    const { position } = fanout;
    if (!this.live || this.#sentThrough >= position) return;
    const { bytes: payload } = controlEvents.position(fanout.log, position);
    this.#send(writeFrame({ kind: kinds.position, previous: this.#sentThrough, position, payload }), payload.length);
    this.cursor = this.#sentThrough = position;
  }

  onAck({ number, cursor }: Ack): void {
    if (number !== this.ackNumber || this.ackBytes === 0) return;
    if (this.#isRestored) {
      // Frames that the instance before sent after its request may still be on their way. A new acknowledgement comes after all of them.
      this.#isRestored = false;
      this.#requestAck();
      return;
    }
    this.#unacknowledgedBytes -= this.ackBytes;
    this.ackBytes = 0;
    this.#host.save(this);
    this.#timeouts = 0;
    this.#host.timeouts.blocked.delete(this);
    // Nothing is on its way, so the client is where it says. The object may have hibernated since.
    if (!this.live && this.#unacknowledgedBytes <= 0) this.cursor = this.#sentThrough = cursor;
    this.#continue();
  }

  onRefill({ cursor }: Refill): void {
    this.snapshots?.reset();
    this.cursor = this.#sentThrough = cursor;
    this.missingRanges = undefined;
    this.live = false;
    if (this.#unacknowledgedBytes < MAX_UNACKNOWLEDGED_BYTES) this.#continue();
  }

  onChannelsChanged(): void {
    this.#host.saveChannels(this);
    this.#send(writeJsonFrame(kinds.channels, { channels: this.info.channels }));
  }

  onTimeout(tolerance: number): void {
    if (this.#isClosed) return;
    if (++this.#timeouts < tolerance) this.#host.timeouts.blocked.add(this);
    else this.abort("timeout");
  }

  close(reason: DisconnectReason, { endEvent, drain, force }: CloseOptions): Promise<void> {
    if (this.#isClosed || this.#closing) return Promise.resolve();
    this.#closing = { reason, endEvent };
    this.#host.remove(this, reason);
    if (!drain || this.live) {
      this.#sendEndNotice(drain, force);
      return Promise.resolve();
    }
    this.#host.timeouts.closing.add(this);
    return new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  abort(reason: DisconnectReason): void {
    if (this.#isClosed) return;
    this.#send(writeJsonFrame(kinds.end, { reason, drain: false }));
    this.#finish(reason);
  }

  /** The Worker closed the socket. */
  onSocketClosed(reason: DisconnectReason): void {
    if (!this.#isClosed) this.#finish(reason);
  }

  #continue(): void {
    if (!this.live) this.#host.fanout.requestNext(this);
    if (this.#closing && this.live) this.#sendEndNotice(true);
  }

  #sendEndNotice(drain: boolean, force = false): void {
    const { reason, endEvent } = this.#closing as Closing;
    this.#send(writeJsonFrame(kinds.end, { reason, chunk: decoder.decode(endEvent), drain, force }));
    this.#finish(reason);
  }

  #finish(reason: DisconnectReason): void {
    const wasRegistered = !this.#closing;
    this.#isClosed = true;
    this.live = false;
    this.#host.timeouts.blocked.delete(this);
    this.#host.timeouts.closing.delete(this);
    this.#host.unsubscribe(this);
    this.#host.forget(this);
    try {
      this.socket.close(CLOSE_NORMAL, reason);
    } catch {
      // The socket is closed already.
    }
    if (wasRegistered) this.#host.remove(this, reason);
    this.#host.onClosed(this);
    this.#failReports(reason);
    this.#resolveClosed?.();
  }

  #failReports(reason: FailureReason): void {
    if (this.reports) for (const report of this.reports) report.failedFor(this, reason);
  }

  #send(frame: Uint8Array<ArrayBuffer>, bytes = 0): void {
    try {
      this.socket.send(frame);
      if (bytes > 0) this.#count(bytes);
    } catch {
      // The socket is gone, and the runtime is about to report its close.
    }
  }

  #count(bytes: number): void {
    this.#unacknowledgedBytes += bytes + FRAME_COST;
    if (this.ackBytes === 0 && this.#unacknowledgedBytes >= ACK_AFTER_BYTES) this.#requestAck();
  }

  #requestAck(): void {
    this.ackBytes = this.#unacknowledgedBytes;
    this.ackNumber++;
    this.#host.save(this);
    this.#send(
      writeFrame({ kind: kinds.ackRequest, previous: 0, position: this.ackNumber, payload: new Uint8Array() }),
    );
  }
}

const decoder = textDecoder();
/** The last frame of each batch: most connections that receive the same batch have received the same before. */
const frames = new WeakMap<Batch, { readonly previous: number; readonly frame: Uint8Array<ArrayBuffer> }>();

function frameOf(batch: Batch, previous: number): Uint8Array<ArrayBuffer> {
  const last = frames.get(batch);
  if (last?.previous === previous) return last.frame;
  const kind = batch.isHeld ? kinds.held : kinds.chunk;
  const frame = writeFrame({ kind, previous, position: batch.through, payload: chunkOf(batch) });
  frames.set(batch, { previous, frame });
  return frame;
}
