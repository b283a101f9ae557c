// A connection whose response is written by this process: a web stream that the runtime pulls as the socket drains.
import type { TimeoutQueue } from "../base/timeout-queue.ts";
import { type Batch, chunkOf, hasNews, type LogReader } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { ResumePoint } from "../log/resume.ts";
import type {
  ClientInfo,
  CloseOptions,
  Connection,
  DeliveryWatcher,
  DisconnectReason,
  FailureReason,
} from "./connection.ts";
import { type Lifetime, watchLifetime } from "./connection-lifetime.ts";
import type { HeartbeatChunk } from "./control-events.ts";
import type { Fanout } from "./fanout.ts";
import type { FanoutGroup } from "./fanout-group.ts";
import type { HeartbeatTarget } from "./heartbeat.ts";
import type { SnapshotSource } from "./subscriber.ts";

/** Takes the chunks of a connection: the controller of a web stream, or a response that an adapter writes itself. */
export interface ChunkSink {
  /** Chunks that the sink could take, minus those that wait in it. */
  readonly desiredSize: number | null;
  /** Takes a chunk. A `pull` of the connection follows when the sink can take another. */
  enqueue(chunk: Uint8Array<ArrayBuffer>): void;
  /** Ends the stream behind the chunks that it has taken. */
  close(): void;
  /** Ends it also where the client does not read. Absent if that is the same as `close`. */
  abort?(): void;
}

/** Leads from the body of a response to its connection. */
const CONNECTION: unique symbol = Symbol.for("fanwire.connection");
type ConnectionStream = ReadableStream<Uint8Array> & { readonly [CONNECTION]?: StreamConnection };

/** Returns the connection behind a body of which nothing was read, so that an adapter can write its chunks without the web stream. */
export function connectionOf(body: ReadableStream<Uint8Array> | null): StreamConnection | undefined {
  const connection = (body as ConnectionStream | null)?.[CONNECTION];
  return body?.locked || connection?.isClosed ? undefined : connection;
}

/** The place where a connection is registered. */
export interface ConnectionHost {
  readonly fanout: Pick<Fanout, "subscribe" | "requestNext" | "position"> &
    Partial<Pick<Fanout, "cancelHistory" | "isLoadingHistory">>;
  readonly heartbeat: { readonly tick: number };
  /** As in `ConnectionTimeouts`. */
  readonly timeouts: {
    readonly blocked: Pick<TimeoutQueue<Connection>, "add" | "delete">;
    readonly starting: Pick<TimeoutQueue<StreamConnection>, "add" | "delete">;
    readonly closing: Pick<TimeoutQueue<Connection>, "add" | "delete">;
  };
  /** Returns the chunk to send to an idle connection. */
  heartbeatFor(connection: StreamConnection): HeartbeatChunk;
  /** Returns the last chunk of a stream. */
  endEvent(reason: DisconnectReason, reconnect: boolean): Uint8Array<ArrayBuffer>;
  /** The connection reads no channel any more. Idempotent. */
  unsubscribe(connection: Connection): void;
  /** The connection is no longer registered. Called once, before a stream that closes has ended. MUST NOT throw. */
  remove(connection: Connection, reason: DisconnectReason): void;
  /** The stream has ended. Called once, after `remove`. */
  onClosed(connection: Connection): void;
  /** Ends a connection as if the broker closed. Absent where no adapter takes a connection over. */
  closeWithBroker?(connection: Connection): void;
}

/**
 * One connection: a stream and a cursor. The class is also the stream's source, so the stream calls `start`, `pull` and `cancel`. The
 * high-water mark is 0: a pull means that the runtime can take a chunk now.
 */
export class StreamConnection implements Connection, HeartbeatTarget {
  readonly kind = "connection";
  readonly id: string;
  info: ClientInfo;
  secret: string | undefined;
  waiting: LogReader["waiting"];
  channels: readonly ChannelLog[];
  cursor = 0;
  missingRanges: LogReader["missingRanges"];
  overrun = 0;
  resumedAfter: LogReader["resumedAfter"];
  pendingGaps: LogReader["pendingGaps"];
  snapshots: SnapshotSource | undefined;
  group: FanoutGroup | undefined;
  live = false;
  lastSentTick = 0;
  slot = 0;
  /** The tick at which the client last received a position that was the newest then. */
  lastPositionTick: number = -Infinity;
  reports: Set<DeliveryWatcher> | undefined;

  readonly #host: ConnectionHost;
  readonly #expiresAt: number;
  readonly #stopWatch: (signalOnly?: boolean) => void;
  #state: "open" | "closing" | "closed" = "open";
  #controller: ChunkSink | undefined;
  /** The first chunk, until it was read. */
  #opening: Uint8Array<ArrayBuffer> | undefined;
  /** The end of the connection, once it is decided. */
  #closeOptions: CloseOptions | undefined;
  #resolveClosed: (() => void) | undefined;
  /** Number of times that the connection was blocked for `timeout` since it last took anything. */
  #timeouts = 0;

  constructor(host: ConnectionHost, info: ClientInfo, keys: readonly string[], lifetime: Lifetime) {
    this.#host = host;
    this.info = info;
    this.id = info.clientId;
    this.#expiresAt = lifetime.expiresAt;
    this.channels = host.fanout.subscribe(this, keys);
    this.#stopWatch = watchLifetime(lifetime, this);
  }

  startAt({ cursor, missingRanges, resumedAfter }: ResumePoint, opening: Uint8Array<ArrayBuffer>): void {
    this.cursor = cursor;
    this.missingRanges = missingRanges;
    this.resumedAfter = resumedAfter;
    this.#opening = opening;
    if (hasNews(this.channels, cursor)) this.onBlocked();
  }

  /** Whether the stream has ended. Its last chunks may still wait in it. */
  get isClosed(): boolean {
    return this.#state === "closed";
  }

  get #hasExpired(): boolean {
    return this.#expiresAt !== Infinity && this.#expiresAt <= Date.now();
  }

  get connectionId(): string {
    return this.info.connectionId;
  }

  /** Returns the body of the response. The first chunk is enqueued at once: Bun and srvx hold the head until there is a chunk. */
  stream(): ReadableStream<Uint8Array> {
    const stream = new ReadableStream<Uint8Array>(this, { highWaterMark: 0 });
    return Object.assign(stream, { [CONNECTION]: this });
  }

  /** Writes to `sink` from now on, from the first chunk, in place of the stream, of which nothing was read. */
  redirect(sink: ChunkSink): void {
    // The sink reports a client that leaves. The signal would keep the request for as long as the connection is open.
    this.#stopWatch(true);
    this.start(sink);
  }

  start(controller: ChunkSink): void {
    // A hook may have ended the connection already.
    if (this.isClosed) {
      controller.close();
      return;
    }
    this.#controller = controller;
    if (this.#opening) this.#enqueue(this.#opening);
    this.#host.timeouts.starting.add(this);
    if (this.cursor >= this.#host.fanout.position) this.lastPositionTick = this.lastSentTick;
  }

  pull(): void {
    if (this.isClosed) return;
    if (this.#hasExpired) {
      this.#expire(true);
      if (this.isClosed) return;
    }
    this.#timeouts = 0;
    this.#opening = undefined;
    this.#host.timeouts.starting.delete(this);
    this.#host.timeouts.blocked.delete(this);
    if (this.#state === "open" || this.#closeOptions?.drain) this.#host.fanout.requestNext(this);
    this.onCaughtUp();
  }

  cancel(): void {
    this.onClientLeft();
  }

  onClientLeft(): void {
    this.abort("client-left");
  }

  closeWithServer(): void {
    this.#host.closeWithBroker?.(this);
  }

  /** A connection that closes with `drain` sends its end event once it has everything. */
  onCaughtUp(): void {
    if (this.#state === "closing" && (this.live || !this.#closeOptions?.drain)) this.#sendEndEvent();
  }

  onLogReplaced(): void {
    this.snapshots?.reset();
    this.#failReports("lost");
  }

  receive(batch: Batch): boolean {
    if (this.#hasExpired) {
      // The connection was live until now, so it can take its end event.
      this.live = true;
      this.#expire(true);
      return false;
    }
    this.#enqueue(chunkOf(batch));
    this.lastPositionTick = this.lastSentTick;
    if (this.reports?.size) for (const report of this.reports) report.sentTo(this, batch);
    return true;
  }

  onBlocked(): void {
    // The snapshot may be asked for its first event while the chunk before it is sent.
    if (this.#state === "open" && !this.snapshots?.isWaiting) this.#host.timeouts.blocked.add(this);
  }

  /** Sends a heartbeat to a connection that waits for news, or for history from the store. A blocked one has enough to read. */
  sendHeartbeat(): void {
    const cancelledHistory = !this.live && this.#host.fanout.cancelHistory?.(this) === true;
    if (!this.live && !cancelledHistory) return;
    const { bytes, position } = this.#host.heartbeatFor(this);
    if (position !== undefined) {
      this.cursor = position;
      this.lastPositionTick = this.#host.heartbeat.tick;
    }
    this.live = false;
    this.#enqueue(bytes);
    // Events wait for it, and whether it takes the heartbeat shows whether the client is there.
    if (cancelledHistory) this.onBlocked();
  }

  onExpired(): void {
    this.#expire(this.live);
  }

  onTimeout(tolerance: number): void {
    if (this.#state !== "open") return;
    if (++this.#timeouts < tolerance) this.#host.timeouts.blocked.add(this);
    else this.abort("timeout");
  }

  /** Nobody read the first chunk: a middleware that failed after the handler, say, dropped the response and did not even cancel it. */
  onNeverRead(): void {
    if ((this.#controller?.desiredSize ?? 0) < 0) this.abort("timeout");
  }

  close(reason: DisconnectReason, options: CloseOptions): Promise<void> {
    if (this.#state !== "open") return Promise.resolve();
    this.#state = "closing";
    this.#closeOptions = options;
    const { drain } = options;
    // A connection that waits for history can take its end event instead.
    if (!drain && this.#host.fanout.cancelHistory?.(this)) this.live = true;
    this.#host.remove(this, reason);
    if (!drain) {
      this.#host.unsubscribe(this);
      this.#failReports(reason);
    }
    if (this.live) this.#sendEndEvent();
    if (this.#state !== "closing") return Promise.resolve();
    this.#host.timeouts.closing.add(this);
    return new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /**
   * Closes the stream, and never errors it. An error ends a Node process that pipes `Readable.fromWeb(body)` to its response, because nobody
   * listens for it, and Bun, Deno, workerd and @hono/node-server print it. Nothing has to be dropped: each chunk but the first answers a pull,
   * so the stream holds no other. A reader that was pending ends here too.
   */
  abort(reason: DisconnectReason): void {
    if (this.isClosed) return;
    const wasRegistered = this.#state === "open";
    const controller = this.#finish();
    try {
      if (controller?.abort) controller.abort();
      else controller?.close();
    } catch {
      // The runtime has cancelled the stream.
    }
    if (wasRegistered) this.#host.remove(this, reason);
    this.#host.onClosed(this);
    this.#failReports(reason);
  }

  /** Ends a connection whose grant has expired: with an end event if it can take one now, else without, and without the events it has not read. */
  #expire(isPulling: boolean): void {
    if (this.#state === "open" && (isPulling || this.#host.fanout.isLoadingHistory?.(this)))
      void this.close("expired", { endEvent: this.#host.endEvent("expired", true), drain: false });
    else this.abort("expired");
  }

  #sendEndEvent(): void {
    const { endEvent } = this.#closeOptions as CloseOptions;
    const controller = this.#finish();
    try {
      controller?.enqueue(endEvent);
      controller?.close();
    } catch {
      // The client left in the meantime, and the runtime is about to call `cancel`.
    }
    this.#host.onClosed(this);
    this.#failReports("closing");
  }

  #finish(): ChunkSink | undefined {
    const controller = this.#controller;
    this.#state = "closed";
    this.live = false;
    this.#controller = this.#closeOptions = undefined;
    this.#stopWatch();
    this.#host.timeouts.starting.delete(this);
    this.#host.timeouts.closing.delete(this);
    this.#host.unsubscribe(this);
    this.#resolveClosed?.();
    return controller;
  }

  #failReports(reason: FailureReason): void {
    if (this.reports) for (const report of this.reports) report.failedFor(this, reason);
  }

  #enqueue(chunk: Uint8Array<ArrayBuffer>): void {
    this.lastSentTick = this.#host.heartbeat.tick;
    try {
      this.#controller?.enqueue(chunk);
    } catch {
      // The runtime ended the stream without a call of `cancel`.
      this.abort("write-failed");
    }
  }
}
