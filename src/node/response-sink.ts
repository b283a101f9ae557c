// Writes the chunks of a connection to Node's response, without a web stream.
import { onNode } from "../base/runtime.ts";
import type { ChunkSink, StreamConnection } from "../delivery/stream-connection.ts";
import { concat, encode } from "../event/sse-format.ts";
import { unwatch, watchServer } from "./server-watch.ts";
import type { NodeOutgoing, NodeServer, NodeSocket } from "./types.ts";

/**
 * The response of one connection. On HTTP/1, once the head was sent, chunks go straight to the socket: all connections of a flush then share the
 * bytes of one framed chunk. Where a middleware wraps the response, or on HTTP/2, they go through `response.write`.
 */
export class ResponseSink implements ChunkSink {
  /** Nothing waits here: `pull` follows when a chunk was taken. */
  readonly desiredSize = 0;
  readonly #connection: StreamConnection;
  readonly #response: NodeOutgoing;
  /** The socket to write to, if not the response. */
  #socket: NodeSocket | undefined;
  #server: NodeServer | undefined;
  #isFramed = false;
  /** Whether the last chunk waits for the client to read. */
  #isBlocked = false;
  #isEnded = false;
  /** Whether the connection is about to be asked for more. */
  #isReady = false;

  constructor(connection: StreamConnection, response: NodeOutgoing) {
    this.#connection = connection;
    this.#response = response;
  }

  /** Sends the head, and takes the connection over. */
  start(): void {
    const response = this.#response;
    // The socket of HTTP/2 belongs to many streams.
    const socket = "stream" in response ? null : (response.socket as NodeSocket | null);
    // The head and the first chunk in one packet.
    socket?.cork();
    response.flushHeaders?.();
    if (socket && onNode() && writesToSocket(response)) {
      this.#socket = socket;
      this.#isFramed = response.chunkedEncoding === true;
    }
    const { server } = Object(response.socket) as Partial<NodeSocket>;
    this.#server = watchServer(server, this);
    response.on("close", () => this.#onClose());
    this.#connection.redirect(this);
    socket?.uncork();
  }

  enqueue(chunk: Uint8Array<ArrayBuffer>): void {
    const socket = this.#socket;
    if (socket) {
      this.#isBlocked = !socket.write(this.#isFramed ? frameOf(chunk) : chunk);
    } else {
      const response = this.#response as NodeOutgoing & { flush?: () => void };
      this.#isBlocked = response.write(chunk) === false;
      // Compression keeps its output until it is flushed.
      response.flush?.();
    }
    if (this.#isBlocked) (socket ?? this.#response).once("drain", () => this.#onDrain());
    else this.#pullSoon();
  }

  close(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#response.end();
  }

  /** Closes the socket of a client that does not read, because its response cannot end. The client reads what is on its way to it. */
  abort(): void {
    if (this.#isBlocked && !this.#isEnded) this.#response.destroy();
    this.close();
  }

  /** Asks the connection for more, unless the response is blocked. */
  pull(): void {
    this.#isReady = false;
    if (!this.#isBlocked && !this.#isEnded) this.#connection.pull();
  }

  /** The server stops. Ends the stream as `broker.close()` does. */
  closeWithServer(): void {
    this.#connection.closeWithServer();
  }

  #pullSoon(): void {
    if (this.#isReady) return;
    this.#isReady = true;
    ready.push(this);
    if (ready.length === 1) queueMicrotask(pullAll);
  }

  #onDrain(): void {
    this.#isBlocked = false;
    this.#pullSoon();
  }

  #onClose(): void {
    this.#isEnded = true;
    unwatch(this.#server, this);
    this.#connection.cancel();
  }
}

/** Sinks that took a chunk. Their connections are asked for more after the flush, and not inside it. */
let ready: ResponseSink[] = [];

function pullAll(): void {
  const sinks = ready;
  ready = [];
  for (const sink of sinks) sink.pull();
}

/** Whether `response.write` is Node's own, on HTTP/1: then what it would do can be done here once for all. */
function writesToSocket(response: NodeOutgoing): boolean {
  let owner: object | null = response;
  while (owner && !Object.hasOwn(owner, "write")) owner = Object.getPrototypeOf(owner) as object | null;
  return owner?.constructor.name === "OutgoingMessage";
}

interface NodeGlobals {
  readonly Buffer: { from(buffer: ArrayBuffer): Uint8Array };
}

/** Framed chunks. A flush has one chunk for each group of connections. */
const frames = new WeakMap<Uint8Array, Uint8Array>();
const CRLF = encode("\r\n");
/** The last chunk and its frame: most connections of a flush receive the same as the one before. */
let lastChunk: Uint8Array | undefined;
let lastFrame: Uint8Array | undefined;

/** Returns a chunk in the chunked transfer coding (RFC 9112, section 7.1). Connections that share a chunk share its frame. */
function frameOf(chunk: Uint8Array<ArrayBuffer>): Uint8Array {
  if (chunk === lastChunk && lastFrame) return lastFrame;
  let frame = frames.get(chunk);
  if (!frame) {
    const { buffer } = concat([encode(`${chunk.length.toString(16)}\r\n`), chunk, CRLF]);
    // Node would make a Buffer of other bytes at each write.
    frames.set(chunk, (frame = (globalThis as unknown as NodeGlobals).Buffer.from(buffer)));
  }
  lastChunk = chunk;
  return (lastFrame = frame);
}
