import type { TimeoutQueue } from "../base/timeout-queue.ts";
import { type Batch, chunkOf, hasNews, type LogReader } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { ResumePoint } from "../log/resume.ts";
import type { FailureReason, ReportTracker } from "./delivery-report.ts";
import type { Fanout, Subscriber } from "./fanout.ts";
import type { FanoutGroup } from "./fanout-group.ts";
import type { HeartbeatTarget } from "./heartbeat.ts";

/**
 * Why a connection ended: the client left, it was blocked for `timeout` × `tolerance`, `disconnect()` named it, what it was granted
 * expired, it reached `maxAge`, another one took its place (`duplicateIds`), the broker closed, or the runtime refused a chunk.
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
] as const;

/** A connection, as `clients()` and the hooks show it. */
export interface ClientInfo {
  /** Names the recipient; several connections may share it. */
  readonly clientId: string;
  /** Names this one connection. */
  readonly connectionId: string;
  /** Who it is, as `authorize` said. */
  readonly subject?: string;
  /** The channels that it reads. */
  readonly channels: readonly string[];
  /** Epoch milliseconds. */
  readonly connectedAt: number;
}

/** A connection that is registered, whatever carries it. */
export interface Connection extends Subscriber {
  readonly id: string;
  readonly connectionId: string;
  readonly info: ClientInfo;
  /** What it was asked to report on and has not. */
  reports: Set<ReportTracker> | undefined;
  /** Undoes what outlives it, such as a listener on the request's signal. Called once, when it is over. */
  release: (() => void) | undefined;
  /** Where it starts, and what it is told first. What the log has for it already is waited for from here on. */
  startAt(landing: ResumePoint, prelude: Uint8Array<ArrayBuffer>): void;
  /** It was blocked for `timeout` once more. */
  onTimeout(tolerance: number): void;
  /**
   * Ends with a last word: at once if it can take that, else when it wants more, and by force when it did not in time.
   * With `drains` it is given what it has not read before. Resolves when it has ended.
   */
  close(reason: DisconnectReason, farewell: Uint8Array<ArrayBuffer>, drains: boolean): Promise<void>;
  /** Ends without a word. With `error` what waits for it is dropped as well. */
  abort(reason: DisconnectReason, error?: Error): void;
}

/** What a client needs of the place it is registered at. */
export interface ConnectionHost {
  readonly fanout: Pick<Fanout, "subscribe" | "requestNext" | "position"> &
    Partial<Pick<Fanout, "cancelHistory" | "isLoadingHistory">>;
  readonly heartbeat: { readonly tick: number };
  /** Blocked with something to receive. */
  readonly stalled: Pick<TimeoutQueue<Connection>, "add" | "delete">;
  /** Nobody has read their beginning yet. */
  readonly starting: Pick<TimeoutQueue<StreamConnection>, "add" | "delete">;
  /** Blocked, with nothing but their end to receive. */
  readonly closing: Pick<TimeoutQueue<Connection>, "add" | "delete">;
  /** What it is sent while it is idle. */
  heartbeatFor(client: StreamConnection): Uint8Array;
  /** The last chunk of its stream. */
  endEvent(reason: DisconnectReason, reconnect: boolean): Uint8Array<ArrayBuffer>;
  /** It reads nothing any more; called again, it does nothing. */
  unsubscribe(client: Connection): void;
  /** Called once, when it stops being a client. MUST NOT throw. */
  remove(client: Connection, reason: DisconnectReason): void;
}

/**
 * One connection: a stream that is read by the runtime as the socket drains, and a cursor. It is also the stream's source, so the
 * stream calls `start`, `pull` and `cancel`. Its high-water mark is 0: a pull means that the runtime can take a chunk now.
 */
export class StreamConnection implements Connection, HeartbeatTarget {
  readonly id: string;
  readonly info: ClientInfo;
  channels: readonly ChannelLog[];
  cursor = 0;
  missingRanges: LogReader["missingRanges"];
  overrun = 0;
  pendingGaps: LogReader["pendingGaps"];
  group: FanoutGroup | undefined;
  live = false;
  lastSentTick = 0;
  slot = 0;
  /** The beat at which it was last told a position that was the newest then. */
  lastPositionTick: number = -Infinity;
  /** Epoch milliseconds from which on it may read nothing any more. */
  expiresAt: number = Infinity;
  /** Times that it was blocked for `timeout` since it last took anything. */
  failures = 0;
  reports: Set<ReportTracker> | undefined;
  release: (() => void) | undefined;

  readonly #home: ConnectionHost;
  #state: "open" | "closing" | "ended" = "open";
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #opening: Uint8Array | undefined;
  #endEvent: Uint8Array<ArrayBuffer> | undefined;
  #drain = false;
  #resolveClosed: (() => void) | undefined;

  constructor(home: ConnectionHost, info: ClientInfo, keys: readonly string[]) {
    this.#home = home;
    this.info = info;
    this.id = info.clientId;
    this.channels = home.fanout.subscribe(this, keys);
  }

  startAt({ cursor, missingRanges }: ResumePoint, prelude: Uint8Array): void {
    this.cursor = cursor;
    this.missingRanges = missingRanges;
    this.#opening = prelude;
    if (hasNews(this.channels, cursor)) this.onBlocked();
  }

  get #isEnded(): boolean {
    return this.#state === "ended";
  }

  get #hasExpired(): boolean {
    return this.expiresAt !== Infinity && this.expiresAt <= Date.now();
  }

  get connectionId(): string {
    return this.info.connectionId;
  }

  /** The body of the response. What it is told first leaves at once: Bun and srvx hold the head until there is a chunk. */
  stream(): ReadableStream<Uint8Array> {
    return new ReadableStream(this, { highWaterMark: 0 });
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    // A hook may have ended it already.
    if (this.#isEnded) {
      controller.close();
      return;
    }
    this.#controller = controller;
    if (this.#opening) this.#enqueue(this.#opening);
    this.#opening = undefined;
    this.#home.starting.add(this);
    if (this.cursor >= this.#home.fanout.position) this.lastPositionTick = this.lastSentTick;
  }

  pull(): void {
    if (this.#isEnded) return;
    if (this.#hasExpired) {
      this.expire(true);
      if (this.#isEnded) return;
    }
    this.failures = 0;
    this.#home.starting.delete(this);
    this.#home.stalled.delete(this);
    if (this.#state === "open" || this.#drain) this.#home.fanout.requestNext(this);
    this.onCaughtUp();
  }

  /** Whoever leaves with everything goes when it has that. */
  onCaughtUp(): void {
    if (this.#state === "closing" && (this.live || !this.#drain)) this.#sendEnd();
  }

  onLogReplaced(): void {
    this.#failReports("lost");
  }

  cancel(): void {
    this.abort("client-left");
  }

  receive(batch: Batch): boolean {
    if (this.#hasExpired) {
      // It was live until now, so it can take its last word.
      this.live = true;
      this.expire();
      return false;
    }
    this.#enqueue(chunkOf(batch));
    this.lastPositionTick = this.lastSentTick;
    if (this.reports?.size) for (const report of this.reports) report.sentTo(this, batch);
    return true;
  }

  onBlocked(): void {
    if (this.#state === "open") this.#home.stalled.add(this);
  }

  /** Sends a heartbeat to a client that waits for news, or for what is kept elsewhere; one that is blocked has enough to read. */
  sendHeartbeat(): void {
    const fetches = !this.live && this.#home.fanout.cancelHistory?.(this);
    if (!this.live && !fetches) return;
    const pulse = this.#home.heartbeatFor(this);
    this.live = false;
    this.#enqueue(pulse);
    // There is something for it, and whether it takes this shows whether it is there.
    if (fetches) this.onBlocked();
  }

  /** Its time is over: it ends with a word if it can take that now, else it is cut off from what waits for it. */
  expire(pulling: boolean = this.live): void {
    if (this.#state === "open" && (pulling || this.#home.fanout.isLoadingHistory?.(this)))
      void this.close("expired", this.#home.endEvent("expired", true), false);
    else this.abort("expired", new Error("Stream ended: what its client was granted has expired."));
  }

  onTimeout(tolerance: number): void {
    if (this.#state !== "open") return;
    if (++this.failures < tolerance) this.#home.stalled.add(this);
    else this.abort("timeout", new Error(`Client disconnected: it took nothing for ${this.failures} × timeout.`));
  }

  /** Nobody read its beginning: the response was lost on its way, in a middleware that failed after it, say, and not even cancelled. */
  onNeverRead(): void {
    if ((this.#controller?.desiredSize ?? 0) < 0)
      this.abort("timeout", new Error("Client disconnected: it never began."));
  }

  close(reason: DisconnectReason, farewell: Uint8Array<ArrayBuffer>, drains: boolean): Promise<void> {
    if (this.#state !== "open") return Promise.resolve();
    this.#state = "closing";
    this.#endEvent = farewell;
    this.#drain = drains;
    // It waits for what is fetched for it, so it can take its end instead.
    if (!drains && this.#home.fanout.cancelHistory?.(this)) this.live = true;
    this.#home.remove(this, reason);
    if (!drains) {
      this.#home.unsubscribe(this);
      this.#failReports(reason);
    }
    if (this.live) this.#sendEnd();
    if (this.#state !== "closing") return Promise.resolve();
    this.#home.closing.add(this);
    return new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** Ends without a word. With `error` the stream is errored, which drops what the runtime holds of it in JavaScript. */
  abort(reason: DisconnectReason, error?: Error): void {
    if (this.#isEnded) return;
    const registered = this.#state === "open";
    const controller = this.#finish();
    if (error) {
      try {
        controller?.error(error);
      } catch {
        // The runtime ended the stream first; there is nothing left to drop.
      }
    }
    if (registered) this.#home.remove(this, reason);
    this.#failReports(reason);
  }

  #sendEnd(): void {
    const farewell = this.#endEvent as Uint8Array;
    const controller = this.#finish();
    try {
      controller?.enqueue(farewell);
      controller?.close();
    } catch {
      // The client left in the meantime; its cancel is on the way.
    }
    this.#failReports("closing");
  }

  #finish(): ReadableStreamDefaultController<Uint8Array> | undefined {
    const controller = this.#controller;
    this.#state = "ended";
    this.live = false;
    this.#controller = this.#endEvent = undefined;
    this.release?.();
    this.release = undefined;
    this.#home.starting.delete(this);
    this.#home.closing.delete(this);
    this.#home.unsubscribe(this);
    this.#resolveClosed?.();
    return controller;
  }

  #failReports(reason: FailureReason): void {
    if (this.reports) for (const report of this.reports) report.failedFor(this, reason);
  }

  #enqueue(chunk: Uint8Array): void {
    this.lastSentTick = this.#home.heartbeat.tick;
    try {
      this.#controller?.enqueue(chunk);
    } catch {
      // How the runtime says that the stream was ended behind our back.
      this.abort("write-failed");
    }
  }
}
