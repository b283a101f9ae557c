import { BrokerError } from "../base/errors.ts";
import { jitter } from "../base/random.ts";
import { after, every } from "../base/runtime.ts";
import { type TimeoutQueue, watch } from "../base/timeout-queue.ts";
import { NOT_SOON } from "../broker/core.ts";
import { bindLifetime } from "../delivery/connection-lifetime.ts";
import { Heartbeat } from "../delivery/heartbeat.ts";
import {
  type Connection,
  type ConnectionHost,
  type DisconnectReason,
  StreamConnection,
} from "../delivery/stream-connection.ts";
import { concat, encode, formatEnd, HEARTBEAT } from "../event/event.ts";
import { formatPosition } from "../event/position.ts";
import type { Socket } from "./cloudflare.ts";
import { closeSocket, type DialedObject, dialObject } from "./dial.ts";
import {
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

/** How often the object's side is asked whether it is there, in milliseconds. It answers without being woken. */
const ECHO_INTERVAL = 10_000;
/** The longest pause before a lost object is dialled again; the first is a hundredth of it. */
const LONGEST_PAUSE = 10_000;
/** A request may make so many others; a stream that has dialled so often asks its client to come back. */
const MOST_DIALS = 40;
/** Bytes that are given to the runtime at once, at the most. */
const MAX_CHUNK = 64 * 1024;

/** A place of the client: in which log, and where in it. */
interface Place {
  readonly epoch: string;
  readonly cursor: number;
}

/** What waits for the client to take it, and where it is then; or the number of an acknowledgement. */
type Item = (Place & { readonly chunk: Uint8Array<ArrayBuffer> }) | number;

/**
 * The Worker's end: it holds the client's stream and cursor, and a socket to the object, for which it dials again whenever that is lost. The
 * stream is a {@link StreamConnection} whose log is what comes by the socket.
 */
export class WorkerStream implements ConnectionHost {
  readonly fanout: ConnectionHost["fanout"] = {
    subscribe: () => [],
    requestNext: () => this.#serve(),
    position: Infinity,
  };
  readonly heartbeat: Heartbeat<StreamConnection>;
  readonly stalled: TimeoutQueue<Connection>;
  readonly starting: TimeoutQueue<StreamConnection>;
  readonly closing: TimeoutQueue<Connection>;

  readonly #dial: () => Promise<Socket>;
  readonly #hello: Hello;
  readonly #pacing: ConnectionTiming;
  readonly #client: StreamConnection;
  #connectionId: string;
  /** What was received so far, and what of it was given to the client. */
  #received: Place;
  #given: Place;
  #socket: Socket | undefined;
  #queue: Item[] = [];
  /** What was sent is asked for again; until it comes, what does not follow the cursor is no news. */
  #refilling = false;
  /** When the client was last given anything but a heartbeat. */
  #told = Date.now();
  /** What a client is told instead of a heartbeat once it was told nothing for long. */
  #pulse: Uint8Array<ArrayBuffer> | undefined;
  #dials = 0;
  /** Dials in a row that came to nothing. */
  #failures = 0;
  #isOver = false;
  /** Its end is decided, and waits to be read. */
  #isLeaving = false;
  #isEchoed = true;
  #stopEcho: (() => void) | undefined;
  #cancelDial: (() => void) | undefined;

  /** Dials, and resolves with the stream; `undefined` if the client is turned away. @throws {@link BrokerError} */
  static async open(
    request: Request,
    hello: Hello,
    dial: () => Promise<Socket>,
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    const line = await dialObject(dial, hello);
    if (!line) return undefined;
    if (request.signal.aborted) {
      closeSocket(line.socket, CLOSE_NORMAL, "client-left");
      throw new BrokerError("client-left", "Connection refused: the client has left.");
    }
    return new WorkerStream(request, hello, dial, line).#client.stream();
  }

  private constructor(
    request: Request,
    hello: Hello,
    dial: () => Promise<Socket>,
    { socket, welcome, rest }: DialedObject,
  ) {
    const { pacing, connectionId, epoch, cursor, prelude } = welcome;
    const { heartbeat, timeout, tolerance, maxAge } = pacing;
    this.#dial = dial;
    this.#hello = hello;
    this.#pacing = pacing;
    this.#connectionId = connectionId;
    this.#received = this.#given = { epoch, cursor };
    // Two looks at each interval: a timer for each stream should have little to do.
    this.heartbeat = new Heartbeat(heartbeat, (client) => client.sendHeartbeat(), 2);
    ({ stalled: this.stalled, starting: this.starting, closing: this.closing } = watch(timeout, tolerance));
    const { admission, clientId } = hello;
    const { subject, channels, expiresAt } = admission;
    const client = new StreamConnection(
      this,
      { clientId, connectionId, ...(subject === undefined ? {} : { subject }), channels, connectedAt: Date.now() },
      [],
    );
    this.#client = client;
    client.startAt({ cursor, resumed: false, hasMissing: false }, encode(prelude));
    bindLifetime(client, request, expiresAt, maxAge, () => this.#dismiss("max-age", true));
    this.heartbeat.add(client);
    this.#listen(socket, rest);
  }

  heartbeatFor(): Uint8Array<ArrayBuffer> {
    const pulse = this.#pulse;
    if (!pulse || Date.now() - this.#told < this.#pacing.quiet) return HEARTBEAT;
    this.#pulse = undefined;
    this.#told = Date.now();
    return pulse;
  }

  endEvent(reason: string, reconnect: boolean): Uint8Array<ArrayBuffer> {
    return encode(formatEnd(reason, reconnect, jitter(this.#pacing.retry)));
  }

  unsubscribe(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#queue = [];
    this.heartbeat.delete(this.#client);
    this.stalled.clear();
    this.#stopEcho?.();
    this.#cancelDial?.();
  }

  remove(_client: Connection, reason: DisconnectReason): void {
    this.#isLeaving = true;
    this.#stopEcho?.();
    this.stalled.delete(this.#client);
    this.#hangUp(CLOSE_NORMAL, reason);
  }

  #dismiss(reason: DisconnectReason | "engine-down", reconnect: boolean): void {
    // What an object said is the client's reason as well; the word to its client is another matter.
    const why = reason === "engine-down" ? "closing" : reason;
    void this.#client.close(why, this.endEvent(reason, reconnect), false);
  }

  #hangUp(code: number, reason: string): void {
    if (this.#socket) closeSocket(this.#socket, code, reason);
    this.#socket = undefined;
  }

  /** Takes what comes by a socket; `rest` came already. */
  #listen(socket: Socket, rest: readonly unknown[]): void {
    this.#socket = socket;
    this.#refilling = false;
    this.#isEchoed = true;
    const isCurrent = (): boolean => socket === this.#socket;
    const lost = (): void => {
      if (isCurrent()) this.#redial();
      closeSocket(socket, CLOSE_NORMAL, "closing");
    };
    socket.addEventListener("message", ({ data }) => {
      if (isCurrent()) this.#receive(data);
    });
    socket.addEventListener("close", lost);
    socket.addEventListener("error", lost);
    this.#stopEcho = every(ECHO_INTERVAL, () => {
      if (!this.#isEchoed) {
        this.#hangUp(CLOSE_NORMAL, "write-failed");
        this.#redial();
        return;
      }
      this.#isEchoed = false;
      this.#say(PING[0]);
    });
    for (const data of rest) if (isCurrent()) this.#receive(data);
  }

  #receive(data: unknown): void {
    if (data === PING[1]) {
      this.#isEchoed = true;
      return;
    }
    const frame = readFrame(data);
    if (frame?.kind === kinds.chunk || frame?.kind === kinds.pulse) {
      this.#take(frame);
    } else if (frame?.kind === kinds.ask) {
      this.#queue.push(frame.position);
      if (this.#client.live) this.#serve();
    } else if (frame?.kind === kinds.end) {
      this.#end(readJsonFrame(frame));
    } else {
      // Of another version: the object, or this Worker, is about to be replaced.
      this.#hangUp(CLOSE_PROTOCOL_ERROR, "foreign frame");
      this.#redial();
    }
  }

  #take({ kind, previous, position, payload }: Frame): void {
    const { epoch, cursor } = this.#received;
    // A gap that is announced stands where the client is already.
    if (position < cursor || (position === cursor && previous !== cursor)) return;
    if (previous > cursor) {
      if (!this.#refilling) this.#tell({ kind: "refill", cursor });
      this.#refilling = true;
      return;
    }
    this.#refilling = false;
    this.#received = { epoch, cursor: position };
    this.#pulse = kind === kinds.pulse ? payload : undefined;
    if (this.#pulse) return;
    this.#told = Date.now();
    this.#queue.push({ ...this.#received, chunk: payload });
    if (this.#client.live) this.#serve();
    else this.#client.onBlocked();
  }

  /** Gives the client what waits for it. */
  #serve(): void {
    const client = this.#client;
    client.live = true;
    while (this.#queue.length > 0) {
      const chunks = this.#nextChunks();
      if (chunks.length > 0) {
        client.live = false;
        client.receive({ items: [], events: 0, through: this.#given.cursor, more: false, chunk: concat(chunks) });
        if (this.#queue.some((item) => typeof item !== "number")) client.onBlocked();
        return;
      }
      this.#tell({ kind: "ack", number: this.#queue.shift() as number, cursor: this.#given.cursor });
    }
  }

  /** The chunks at the head of the queue, as many as go at once. */
  #nextChunks(): Uint8Array<ArrayBuffer>[] {
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    let bytes = 0;
    for (let [item] = this.#queue; typeof item === "object"; [item] = this.#queue) {
      bytes += item.chunk.length;
      if (chunks.length > 0 && bytes > MAX_CHUNK) break;
      chunks.push(item.chunk);
      this.#given = item;
      this.#queue.shift();
    }
    return chunks;
  }

  #end({ reason, chunk, drains }: EndNotice): void {
    if (chunk === undefined) this.#client.abort(reason, new Error(`Stream ended by the broker: ${reason}.`));
    else void this.#client.close(reason, encode(chunk), drains);
  }

  #redial(): void {
    this.#socket = undefined;
    this.#stopEcho?.();
    if (this.#isOver || this.#isLeaving) return;
    // What it was not given is sent again: what waits for it is bounded by what one socket may have on its way.
    this.#queue = [];
    this.#pulse = undefined;
    if (this.#dials >= MOST_DIALS) {
      this.#dismiss("engine-down", true);
      return;
    }
    const longest = Math.min(LONGEST_PAUSE, (LONGEST_PAUSE / 100) * 2 ** this.#failures++);
    this.#cancelDial = after(jitter(longest), () => void this.#dialAgain());
  }

  async #dialAgain(): Promise<void> {
    this.#dials++;
    const start = { lastEventId: formatPosition(this.#given.epoch, this.#given.cursor) };
    const again = { connectionId: this.#connectionId, connectedAt: this.#client.info.connectedAt };
    let line: DialedObject | undefined;
    try {
      line = await dialObject(this.#dial, { ...this.#hello, start, again });
    } catch (error) {
      const isFinal = error instanceof BrokerError && error.code !== "engine-down" && error.code !== "closed";
      if (this.#isOver) return;
      if (isFinal && error.code === "duplicate-id")
        void this.#client.close("replaced", encode(formatEnd("replaced", false, NOT_SOON)), false);
      else if (isFinal) void this.#client.close("closing", this.endEvent(error.code, true), false);
      else this.#redial();
      return;
    }
    if (!line || this.#isOver || this.#isLeaving) {
      if (line) closeSocket(line.socket, CLOSE_NORMAL, "client-left");
      else this.#dismiss("disconnected", false);
      return;
    }
    const { socket, welcome, rest } = line;
    this.#failures = 0;
    this.#connectionId = welcome.connectionId;
    const { epoch, cursor, prelude } = welcome;
    this.#received = { epoch, cursor };
    // Without anything to say first, that is where the client is.
    if (prelude === "") this.#given = this.#received;
    else this.#queue.push({ ...this.#received, chunk: encode(prelude) });
    this.#listen(socket, rest);
    if (this.#client.live) this.#serve();
  }

  #tell(frame: WorkerFrame): void {
    this.#say(writeWorkerFrame(frame));
  }

  #say(text: string): void {
    try {
      this.#socket?.send(text);
    } catch {
      // Its close is on the way.
    }
  }
}
