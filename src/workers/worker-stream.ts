// The Worker's end of a connection: it holds the client's stream and cursor, and a socket to the object that it dials again when it is lost.
import { BrokerError } from "../base/errors.ts";
import { jitter } from "../base/random.ts";
import { after, every, nextTurn } from "../base/runtime.ts";
import { type DisconnectReason, REPLACED_RETRY_MS } from "../delivery/connection.ts";
import { type ConnectionTimeouts, createConnectionTimeouts } from "../delivery/connection-timeouts.ts";
import { type HeartbeatChunk, PLAIN_HEARTBEAT } from "../delivery/control-events.ts";
import { Heartbeat } from "../delivery/heartbeat.ts";
import { type ConnectionHost, StreamConnection } from "../delivery/stream-connection.ts";
import { formatPosition } from "../event/position.ts";
import { concat, encode, formatEnd } from "../event/sse-format.ts";
import type { Socket } from "./cloudflare.ts";
import { closeSocket, type DialedObject, dialObject } from "./dial.ts";
import {
  type ChannelsNotice,
  CLOSE_NORMAL,
  CLOSE_PROTOCOL_ERROR,
  type ConnectionTiming,
  type EndNotice,
  type Frame,
  type Hello,
  kinds,
  PING,
  readFrame,
  readJsonFrame,
  type WorkerFrame,
  writeWorkerFrame,
} from "./protocol.ts";

/** Milliseconds between two pings. The runtime answers them without waking the object. */
const PING_INTERVAL_MS = 10_000;
/** The longest delay before a lost object is dialed again, in milliseconds; the first one is a hundredth of it. */
const MAX_REDIAL_MS = 10_000;
/** Cloudflare limits the number of requests that one request makes. A stream that has dialed this often asks its client to come back. */
const MAX_DIALS = 40;
/** The largest chunk, in bytes. */
const MAX_CHUNK_BYTES = 64 * 1024;

/** The position of the client in a log. */
interface ClientPosition {
  readonly epoch: string;
  readonly cursor: number;
  /** The client does not have the id of this position, which follows a snapshot. */
  readonly isHeld: boolean;
}

/** A chunk that waits for the client, with the client's position after it; or the number of an acknowledgement. */
type Item = (ClientPosition & { readonly chunk: Uint8Array<ArrayBuffer> }) | number;

/** A {@link StreamConnection} whose log is the socket to an object. It takes the place of the fanout for this one connection. */
export class WorkerStream implements ConnectionHost {
  readonly fanout: ConnectionHost["fanout"] = {
    subscribe: () => [],
    requestNext: () => this.#sendNext(),
    position: Infinity,
  };
  readonly heartbeat: Heartbeat<StreamConnection>;
  readonly timeouts: ConnectionTimeouts;

  readonly #dial: () => Promise<Socket>;
  /** The first message of the next dial. */
  #hello: Hello;
  readonly #secret: string | undefined;
  readonly #timing: ConnectionTiming;
  readonly #connection: StreamConnection;
  /** The id of the connection at the object. Each dial gets a new one. */
  #connectionId: string;
  /** The position after everything received from the object, and after everything sent to the client. */
  #received: ClientPosition;
  #sent: ClientPosition;
  #socket: Socket | undefined;
  #queue: Item[] = [];
  /** A refill was requested. Until it arrives, frames that do not follow the cursor are expected. */
  #isRefilling = false;
  /** Epoch milliseconds of the last chunk that was not a heartbeat. */
  #lastChunkAt = Date.now();
  /** `fanwire-position` to send in place of a heartbeat, once the client has received nothing for long. */
  #positionEvent: Uint8Array<ArrayBuffer> | undefined;
  #dials = 0;
  /** Failed dials in a row. */
  #failures = 0;
  #isClosed = false;
  /** The end is decided, and waits to be read. */
  #isClosing = false;
  #hasAnsweredPing = true;
  #stopPing: (() => void) | undefined;
  #cancelDial: (() => void) | undefined;

  /** Dials the object. Returns the stream, or `undefined` if the client id is barred. @throws {@link BrokerError} */
  static async open(
    request: Request,
    hello: Hello,
    dial: () => Promise<Socket>,
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    const dialed = await dialObject(dial, hello);
    if (!dialed) return undefined;
    if (request.signal.aborted) {
      closeSocket(dialed.socket, CLOSE_NORMAL, "client-left");
      throw new BrokerError("client-left", "Connection refused: the client has left.");
    }
    return new WorkerStream(request, hello, dial, dialed).#connection.stream();
  }

  private constructor(
    { signal }: Request,
    hello: Hello,
    dial: () => Promise<Socket>,
    { socket, welcome, rest }: DialedObject,
  ) {
    const { timing, connectionId, epoch, cursor, opening, secret, isHeld = false } = welcome;
    const { heartbeat, timeout, tolerance, maxConnectionAge } = timing;
    this.#dial = dial;
    this.#hello = hello;
    this.#timing = timing;
    this.#secret = secret;
    this.#connectionId = connectionId;
    this.#received = this.#sent = { epoch, cursor, isHeld };
    // Two slots: a timer for each stream should have little to do.
    this.heartbeat = new Heartbeat(heartbeat, (connection) => connection.sendHeartbeat(), 2);
    this.timeouts = createConnectionTimeouts(timeout, tolerance);
    const { grant, clientId } = hello;
    const { subject, channels, expiresAt } = grant;
    this.#connection = new StreamConnection(
      this,
      { clientId, connectionId, ...(subject === undefined ? {} : { subject }), channels, connectedAt: Date.now() },
      [],
      { signal, expiresAt, maxConnectionAge, onMaxAge: () => this.#close("max-age", true) },
    );
    this.#connection.startAt({ cursor, resumed: false, hasMissing: false }, encode(opening));
    this.heartbeat.add(this.#connection);
    this.#listen(socket, rest);
  }

  heartbeatFor(): HeartbeatChunk {
    const bytes = this.#positionEvent;
    if (!bytes || !this.#connection.live || Date.now() - this.#lastChunkAt < this.#timing.quietMs)
      return PLAIN_HEARTBEAT;
    this.#positionEvent = undefined;
    this.#lastChunkAt = Date.now();
    return { bytes };
  }

  endEvent(reason: string, reconnect: boolean): Uint8Array<ArrayBuffer> {
    return encode(formatEnd(reason, reconnect, jitter(this.#timing.retry)));
  }

  unsubscribe(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#queue = [];
    this.heartbeat.delete(this.#connection);
    this.timeouts.blocked.clear();
    this.#stopPing?.();
    this.#cancelDial?.();
  }

  remove(_connection: unknown, reason: DisconnectReason): void {
    this.#isClosing = true;
    this.#stopPing?.();
    this.timeouts.blocked.delete(this.#connection);
    this.#disconnectSocket(CLOSE_NORMAL, reason);
  }

  onClosed(): void {
    // The object counts connections; its side of the socket is closed by `remove`.
  }

  #close(reason: DisconnectReason | "engine-down", reconnect: boolean): void {
    // The client receives `reason`; the connection records one of the reasons of a disconnect.
    const recorded = reason === "engine-down" ? "closing" : reason;
    void this.#connection.close(recorded, { endEvent: this.endEvent(reason, reconnect), drain: false });
  }

  /** Closes the current socket. Its close event no longer causes a redial. */
  #disconnectSocket(code: number, reason: string): void {
    if (this.#socket) closeSocket(this.#socket, code, reason);
    this.#socket = undefined;
  }

  #listen(socket: Socket, rest: readonly unknown[]): void {
    this.#socket = socket;
    this.#isRefilling = false;
    this.#hasAnsweredPing = true;
    const isCurrent = (): boolean => socket === this.#socket;
    const onLost = (): void => {
      if (isCurrent()) this.#redial();
      closeSocket(socket, CLOSE_NORMAL, "closing");
    };
    socket.addEventListener("message", ({ data }) => {
      if (isCurrent()) this.#receive(data);
    });
    socket.addEventListener("close", onLost);
    socket.addEventListener("error", onLost);
    this.#stopPing = every(PING_INTERVAL_MS, () => {
      if (!this.#hasAnsweredPing) {
        this.#disconnectSocket(CLOSE_NORMAL, "write-failed");
        this.#redial();
        return;
      }
      this.#hasAnsweredPing = false;
      this.#sendText(PING[0]);
    });
    for (const data of rest) if (isCurrent()) this.#receive(data);
  }

  #receive(data: unknown): void {
    if (data === PING[1]) {
      this.#hasAnsweredPing = true;
      return;
    }
    const frame = readFrame(data);
    if (frame?.kind === kinds.chunk || frame?.kind === kinds.held || frame?.kind === kinds.position) {
      this.#receiveChunk(frame);
    } else if (frame?.kind === kinds.ackRequest) {
      this.#queue.push(frame.position);
      if (this.#connection.live) this.#sendNext();
    } else if (frame?.kind === kinds.channels) {
      const { channels } = readJsonFrame<ChannelsNotice>(frame);
      this.#hello = { ...this.#hello, grant: { ...this.#hello.grant, channels } };
    } else if (frame?.kind === kinds.end) {
      this.#receiveEnd(readJsonFrame(frame));
    } else {
      // A frame of another version: a deploy is about to replace the object or this Worker.
      this.#disconnectSocket(CLOSE_PROTOCOL_ERROR, "unknown frame");
      this.#redial();
    }
  }

  #receiveChunk({ kind, previous, position, payload }: Frame): void {
    const { epoch, cursor } = this.#received;
    // An announced gap has the position that the client is at already.
    if (position < cursor || (position === cursor && previous !== cursor)) return;
    if (previous > cursor) {
      if (!this.#isRefilling) this.#sendFrame({ kind: "refill", cursor });
      this.#isRefilling = true;
      return;
    }
    this.#isRefilling = false;
    this.#received = { epoch, cursor: position, isHeld: kind === kinds.held };
    this.#positionEvent = kind === kinds.position ? payload : undefined;
    if (this.#positionEvent) return;
    this.#lastChunkAt = Date.now();
    this.#queue.push({ ...this.#received, chunk: payload });
    if (this.#connection.live) this.#sendNext();
    else this.#connection.onBlocked();
  }

  /** Sends queued chunks to the client, which wants more. */
  #sendNext(): void {
    const connection = this.#connection;
    connection.live = true;
    while (this.#queue.length > 0) {
      const chunks = this.#takeChunks();
      if (chunks.length > 0) {
        connection.live = false;
        const { cursor: through } = this.#sent;
        connection.receive({ items: [], events: 0, gaps: 0, through, more: false, chunk: concat(chunks) });
        if (this.#queue.some((item) => typeof item !== "number")) connection.onBlocked();
        return;
      }
      this.#sendFrame({ kind: "ack", number: this.#queue.shift() as number, cursor: this.#sent.cursor });
    }
  }

  /** Takes the chunks at the head of the queue, as many as fit into one. */
  #takeChunks(): Uint8Array<ArrayBuffer>[] {
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    let bytes = 0;
    for (let [item] = this.#queue; typeof item === "object"; [item] = this.#queue) {
      bytes += item.chunk.length;
      if (chunks.length > 0 && bytes > MAX_CHUNK_BYTES) break;
      chunks.push(item.chunk);
      this.#sent = item;
      this.#queue.shift();
    }
    return chunks;
  }

  #receiveEnd({ reason, chunk, drain, force }: EndNotice): void {
    const abort = (): void => this.#connection.abort(reason);
    if (chunk === undefined) {
      abort();
    } else {
      void this.#connection.close(reason, { endEvent: encode(chunk), drain });
      // A turn later, so that a client that reads takes the chunks before it.
      if (force) nextTurn(abort);
    }
  }

  #redial(): void {
    this.#socket = undefined;
    this.#stopPing?.();
    if (this.#isClosed || this.#isClosing) return;
    // The object sends again what the client has not received. The queue is bounded by what one socket may have on its way.
    this.#queue = [];
    this.#positionEvent = undefined;
    // In the middle of a snapshot there is no position to go on from. The client comes back, and receives it whole.
    if (this.#dials >= MAX_DIALS || this.#sent.isHeld) {
      this.#close("engine-down", true);
      return;
    }
    const longest = Math.min(MAX_REDIAL_MS, (MAX_REDIAL_MS / 100) * 2 ** this.#failures++);
    this.#cancelDial = after(jitter(longest), () => void this.#dialAgain());
  }

  async #dialAgain(): Promise<void> {
    this.#dials++;
    const start = { lastEventId: formatPosition(this.#sent.epoch, this.#sent.cursor) };
    const { connectedAt } = this.#connection.info;
    const previous = { connectionId: this.#connectionId, connectedAt, secret: this.#secret };
    let dialed: DialedObject | undefined;
    try {
      dialed = await dialObject(this.#dial, { ...this.#hello, start, previous });
    } catch (error) {
      this.#onRefused(error);
      return;
    }
    if (!dialed || this.#isClosed || this.#isClosing) {
      if (dialed) closeSocket(dialed.socket, CLOSE_NORMAL, "client-left");
      else this.#close("disconnected", false);
      return;
    }
    const { socket, welcome, rest } = dialed;
    this.#failures = 0;
    this.#connectionId = welcome.connectionId;
    const { epoch, cursor, opening, isHeld = false } = welcome;
    this.#received = { epoch, cursor, isHeld };
    // Without an opening, the client is at this position already.
    if (opening === "") this.#sent = this.#received;
    else this.#queue.push({ ...this.#received, chunk: encode(opening) });
    this.#listen(socket, rest);
    if (this.#connection.live) this.#sendNext();
  }

  /** The object refused the connection, or was not reached. */
  #onRefused(error: unknown): void {
    if (this.#isClosed) return;
    if (!(error instanceof BrokerError) || error.code === "engine-down" || error.code === "closed") {
      this.#redial();
    } else if (error.code === "duplicate-id") {
      const endEvent = encode(formatEnd("replaced", false, REPLACED_RETRY_MS));
      void this.#connection.close("replaced", { endEvent, drain: false });
    } else {
      void this.#connection.close("closing", { endEvent: this.endEvent(error.code, true), drain: false });
    }
  }

  #sendFrame(frame: WorkerFrame): void {
    this.#sendText(writeWorkerFrame(frame));
  }

  #sendText(text: string): void {
    try {
      this.#socket?.send(text);
    } catch {
      // The socket is gone, and its close is about to be reported.
    }
  }
}
