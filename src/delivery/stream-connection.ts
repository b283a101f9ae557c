import type { Stalls } from "../base/timeout-queue.ts";
import { type Batch, chunkOf, hasNews, type Reader } from "../log/batch.ts";
import type { Channel } from "../log/channel-log.ts";
import type { Landing } from "../log/resume.ts";
import type { FailureReason, Report } from "./delivery-report.ts";
import type { Fanout, Subscriber } from "./fanout.ts";
import type { Match } from "./fanout-group.ts";
import type { Pulse } from "./heartbeat.ts";

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
export interface Member extends Subscriber {
  readonly id: string;
  readonly connectionId: string;
  readonly info: ClientInfo;
  /** What it was asked to report on and has not. */
  reports: Set<Report> | undefined;
  /** Undoes what outlives it, such as a listener on the request's signal. Called once, when it is over. */
  release: (() => void) | undefined;
  /** Where it starts, and what it is told first. What the log has for it already is waited for from here on. */
  startAt(landing: Landing, prelude: Uint8Array<ArrayBuffer>): void;
  /** It was blocked for `timeout` once more. */
  fail(tolerance: number): void;
  /**
   * Ends with a last word: at once if it can take that, else when it wants more, and by force when it did not in time.
   * With `drains` it is given what it has not read before. Resolves when it has ended.
   */
  leave(reason: DisconnectReason, farewell: Uint8Array<ArrayBuffer>, drains: boolean): Promise<void>;
  /** Ends without a word. With `error` what waits for it is dropped as well. */
  end(reason: DisconnectReason, error?: Error): void;
}

/** What a client needs of the place it is registered at. */
export interface ClientHome {
  readonly fanout: Pick<Fanout, "join" | "wants" | "position"> & Partial<Pick<Fanout, "interrupt" | "isFetching">>;
  readonly heartbeat: { readonly tick: number };
  /** Blocked with something to receive. */
  readonly stalled: Pick<Stalls<Member>, "add" | "delete">;
  /** Nobody has read their beginning yet. */
  readonly starting: Pick<Stalls<Client>, "add" | "delete">;
  /** Blocked, with nothing but their end to receive. */
  readonly departing: Pick<Stalls<Member>, "add" | "delete">;
  /** What it is sent while it is idle. */
  pulseFor(client: Client): Uint8Array;
  /** The last chunk of its stream. */
  farewell(reason: DisconnectReason, reconnect: boolean): Uint8Array<ArrayBuffer>;
  /** It reads nothing any more; called again, it does nothing. */
  part(client: Member): void;
  /** Called once, when it stops being a client. MUST NOT throw. */
  retire(client: Member, reason: DisconnectReason): void;
}

/**
 * One connection: a stream that is read by the runtime as the socket drains, and a cursor. It is also the stream's source, so the
 * stream calls `start`, `pull` and `cancel`. Its high-water mark is 0: a pull means that the runtime can take a chunk now.
 */
export class Client implements Member, Pulse {
  readonly id: string;
  readonly info: ClientInfo;
  channels: readonly Channel[];
  cursor = 0;
  holes: Reader["holes"];
  overrun = 0;
  owed: Reader["owed"];
  match: Match | undefined;
  live = false;
  beat = 0;
  slot = 0;
  /** The beat at which it was last told a position that was the newest then. */
  told: number = -Infinity;
  /** Epoch milliseconds from which on it may read nothing any more. */
  expiresAt: number = Infinity;
  /** Times that it was blocked for `timeout` since it last took anything. */
  failures = 0;
  reports: Set<Report> | undefined;
  release: (() => void) | undefined;

  readonly #home: ClientHome;
  #state: "open" | "departing" | "ended" = "open";
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #prelude: Uint8Array | undefined;
  #farewell: Uint8Array<ArrayBuffer> | undefined;
  #drains = false;
  #left: (() => void) | undefined;

  constructor(home: ClientHome, info: ClientInfo, keys: readonly string[]) {
    this.#home = home;
    this.info = info;
    this.id = info.clientId;
    this.channels = home.fanout.join(this, keys);
  }

  startAt({ cursor, holes }: Landing, prelude: Uint8Array): void {
    this.cursor = cursor;
    this.holes = holes;
    this.#prelude = prelude;
    if (hasNews(this.channels, cursor)) this.waits();
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
    if (this.#prelude) this.#enqueue(this.#prelude);
    this.#prelude = undefined;
    this.#home.starting.add(this);
    if (this.cursor >= this.#home.fanout.position) this.told = this.beat;
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
    if (this.#state === "open" || this.#drains) this.#home.fanout.wants(this);
    this.caughtUp();
  }

  /** Whoever leaves with everything goes when it has that. */
  caughtUp(): void {
    if (this.#state === "departing" && (this.live || !this.#drains)) this.#depart();
  }

  cutOff(): void {
    this.#failReports("lost");
  }

  cancel(): void {
    this.end("client-left");
  }

  take(batch: Batch): boolean {
    if (this.#hasExpired) {
      // It was live until now, so it can take its last word.
      this.live = true;
      this.expire();
      return false;
    }
    this.#enqueue(chunkOf(batch));
    this.told = this.beat;
    if (this.reports?.size) for (const report of this.reports) report.handed(this, batch);
    return true;
  }

  waits(): void {
    if (this.#state === "open") this.#home.stalled.add(this);
  }

  /** Sends a heartbeat to a client that waits for news, or for what is kept elsewhere; one that is blocked has enough to read. */
  keepAlive(): void {
    const fetches = !this.live && this.#home.fanout.interrupt?.(this);
    if (!this.live && !fetches) return;
    const pulse = this.#home.pulseFor(this);
    this.live = false;
    this.#enqueue(pulse);
    // There is something for it, and whether it takes this shows whether it is there.
    if (fetches) this.waits();
  }

  /** Its time is over: it ends with a word if it can take that now, else it is cut off from what waits for it. */
  expire(pulling: boolean = this.live): void {
    if (this.#state === "open" && (pulling || this.#home.fanout.isFetching?.(this)))
      void this.leave("expired", this.#home.farewell("expired", true), false);
    else this.end("expired", new Error("Stream ended: what its client was granted has expired."));
  }

  fail(tolerance: number): void {
    if (this.#state !== "open") return;
    if (++this.failures < tolerance) this.#home.stalled.add(this);
    else this.end("timeout", new Error(`Client disconnected: it took nothing for ${this.failures} × timeout.`));
  }

  /** Nobody read its beginning: the response was lost on its way, in a middleware that failed after it, say, and not even cancelled. */
  failStart(): void {
    if ((this.#controller?.desiredSize ?? 0) < 0)
      this.end("timeout", new Error("Client disconnected: it never began."));
  }

  leave(reason: DisconnectReason, farewell: Uint8Array<ArrayBuffer>, drains: boolean): Promise<void> {
    if (this.#state !== "open") return Promise.resolve();
    this.#state = "departing";
    this.#farewell = farewell;
    this.#drains = drains;
    // It waits for what is fetched for it, so it can take its end instead.
    if (!drains && this.#home.fanout.interrupt?.(this)) this.live = true;
    this.#home.retire(this, reason);
    if (!drains) {
      this.#home.part(this);
      this.#failReports(reason);
    }
    if (this.live) this.#depart();
    if (this.#state !== "departing") return Promise.resolve();
    this.#home.departing.add(this);
    return new Promise((resolve) => {
      this.#left = resolve;
    });
  }

  /** Ends without a word. With `error` the stream is errored, which drops what the runtime holds of it in JavaScript. */
  end(reason: DisconnectReason, error?: Error): void {
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
    if (registered) this.#home.retire(this, reason);
    this.#failReports(reason);
  }

  #depart(): void {
    const farewell = this.#farewell as Uint8Array;
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
    this.#controller = this.#farewell = undefined;
    this.release?.();
    this.release = undefined;
    this.#home.starting.delete(this);
    this.#home.departing.delete(this);
    this.#home.part(this);
    this.#left?.();
    return controller;
  }

  #failReports(reason: FailureReason): void {
    if (this.reports) for (const report of this.reports) report.failed(this, reason);
  }

  #enqueue(chunk: Uint8Array): void {
    this.beat = this.#home.heartbeat.tick;
    try {
      this.#controller?.enqueue(chunk);
    } catch {
      // How the runtime says that the stream was ended behind our back.
      this.end("write-failed");
    }
  }
}
