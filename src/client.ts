import type { Channel } from "./channel.ts";
import { HEARTBEAT } from "./event.ts";
import type { Fanout, Match, Subscriber } from "./fanout.ts";
import type { Heartbeat, Pulse } from "./heartbeat.ts";
import { type Batch, chunkOf, type Landing, type Reader } from "./reader.ts";
import type { FailureReason, Report } from "./report.ts";
import type { Stallable, Stalls } from "./stalls.ts";

/**
 * Why a connection ended: the client left, it was blocked for `timeout` × `tolerance`, `disconnect()` named it, the broker closed,
 * or the runtime refused a chunk.
 */
export type DisconnectReason = "client-left" | "timeout" | "disconnected" | "closing" | "write-failed";

/** A connection, as `clients()` and the hooks show it. */
export interface ClientInfo {
  /** Names the recipient; several connections may share it. */
  readonly clientId: string;
  /** Names this one connection. */
  readonly connectionId: string;
  /** The channels it asked for. */
  readonly channels: readonly string[];
  /** Epoch milliseconds. */
  readonly connectedAt: number;
}

/** What a client needs of the place it is registered at. */
export interface ClientHome {
  readonly fanout: Fanout;
  readonly heartbeat: Heartbeat<Client>;
  /** Blocked with something to receive. */
  readonly stalled: Stalls<Client>;
  /** Blocked, with nothing but their end to receive. */
  readonly departing: Stalls<Client>;
  /** It reads nothing any more; called again, it does nothing. */
  part(client: Client): void;
  /** Called once, when it stops being a client. MUST NOT throw. */
  retire(client: Client, reason: DisconnectReason): void;
}

/**
 * One connection: a stream that is read by the runtime as the socket drains, and a cursor. It is also the stream's source, so the
 * stream calls `start`, `pull` and `cancel`. Its high-water mark is 0: a pull means that the runtime can take a chunk now.
 */
export class Client implements Subscriber, Stallable, Pulse {
  readonly id: string;
  readonly info: ClientInfo;
  readonly channels: readonly Channel[];
  cursor = 0;
  holes: Reader["holes"];
  match: Match | undefined;
  live = false;
  due = 0;
  beat = 0;
  slot = 0;
  /** Times that it was blocked for `timeout` since it last took anything. */
  failures = 0;
  reports: Set<Report> | undefined;
  /** Undoes what outlives the stream, such as a listener on the request's signal. */
  release: (() => void) | undefined;

  readonly #home: ClientHome;
  #state: "open" | "departing" | "ended" = "open";
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #prelude: Uint8Array | undefined;
  #farewell: Uint8Array | undefined;
  #drains = false;
  #left: (() => void) | undefined;

  constructor(home: ClientHome, info: ClientInfo, keys: readonly string[]) {
    this.#home = home;
    this.info = info;
    this.id = info.clientId;
    this.channels = home.fanout.join(this, keys);
  }

  /** Where it starts. What the log has for it already is waited for from here on. */
  startAt({ cursor, holes }: Landing): void {
    this.cursor = cursor;
    this.holes = holes;
    if (this.channels.some(({ last }) => last > cursor)) this.waits();
  }

  get connectionId(): string {
    return this.info.connectionId;
  }

  /** The body of the response. `prelude` leaves at once: Bun and srvx hold the head until there is a chunk. */
  stream(prelude: Uint8Array): ReadableStream<Uint8Array> {
    this.#prelude = prelude;
    return new ReadableStream(this, { highWaterMark: 0 });
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    // A hook may have ended it already.
    if (this.#state === "ended") {
      controller.close();
      return;
    }
    this.#controller = controller;
    if (this.#prelude) this.#enqueue(this.#prelude);
    this.#prelude = undefined;
  }

  pull(): void {
    if (this.#state === "ended") return;
    this.failures = 0;
    this.#home.stalled.delete(this);
    if (this.#state === "open" || this.#drains) this.#home.fanout.wants(this);
    if (this.#state === "departing" && (this.live || !this.#drains)) this.#depart();
  }

  cancel(): void {
    this.end("client-left");
  }

  take(batch: Batch): void {
    this.#enqueue(chunkOf(batch));
    if (!this.reports?.size) return;
    for (const report of this.reports) if (!report.handed(this, batch)) return;
  }

  waits(): void {
    if (this.#state === "open") this.#home.stalled.add(this);
  }

  /** Sends a heartbeat to a client that waits for news; one that is blocked has enough to read. */
  keepAlive(): void {
    if (!this.live) return;
    this.live = false;
    this.#enqueue(HEARTBEAT);
  }

  /** It was blocked for `timeout` once more. */
  fail(tolerance: number): void {
    if (this.#state !== "open") return;
    if (++this.failures < tolerance) this.#home.stalled.add(this);
    else this.end("timeout", new Error(`Client disconnected: it took nothing for ${this.failures} × timeout.`));
  }

  /**
   * Ends with a last word: at once if the client can take it, else when it pulls, and by force when it did not in time.
   * With `drains` it is given what it has not read before. Resolves when the stream has ended.
   */
  leave(reason: DisconnectReason, farewell: Uint8Array, drains: boolean): Promise<void> {
    if (this.#state !== "open") return Promise.resolve();
    this.#state = "departing";
    this.#farewell = farewell;
    this.#drains = drains;
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
    if (this.#state === "ended") return;
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
