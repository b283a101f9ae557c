// A simulated socket: the part of a connection between the broker's stream and the client.
import { type Item, ItemReader } from "./items.ts";

/** A chunk of a stream, with the items in it. */
export interface ReceivedChunk {
  readonly at: number;
  readonly items: readonly Item[];
}

/** How a stream ended: `closed` by its server, `left` by its client, or `errored`, which never happens. */
export interface StreamEnd {
  readonly at: number;
  readonly how: "closed" | "errored" | "left";
}

/**
 * Requests a chunk from the stream whenever it has room for one, as a runtime does. Keeps the bytes until the client reads them, in pieces
 * of any size.
 */
export class VirtualSocket {
  /** Every chunk, in order. */
  readonly chunks: ReceivedChunk[] = [];
  /** When each chunk was requested. The last entry may belong to a chunk that has not come yet. */
  readonly requestedAt: number[] = [];
  ended: StreamEnd | undefined;
  /** How often the client read only a part of a chunk. */
  partialReads = 0;
  readonly #time: () => number;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #server = new ItemReader();
  readonly #client = new ItemReader();
  /** Items that the client has not read to their end. */
  readonly #unread: (readonly [item: Item, at: number])[] = [];
  #capacity: number;
  #buffer: Uint8Array[] = [];
  #bufferedBytes = 0;
  #isRequesting = false;

  /** `capacity` is the number of unread bytes at which the socket requests no more. */
  constructor(body: ReadableStream<Uint8Array>, capacity: number, time: () => number) {
    this.#reader = body.getReader();
    this.#capacity = capacity;
    this.#time = time;
    // The stream may also end while no chunk is requested.
    this.#reader.closed.then(
      () => this.#end("closed"),
      () => this.#end("errored"),
    );
    void this.#fill();
  }

  /** Whether everything is read, and nothing more comes. */
  get isEmpty(): boolean {
    return this.ended !== undefined && this.#bufferedBytes === 0;
  }

  get hasUnread(): boolean {
    return this.#bufferedBytes > 0;
  }

  /** Raises the number of bytes that may be unread. */
  raiseCapacity(capacity: number): void {
    this.#capacity = Math.max(this.#capacity, capacity);
    void this.#fill();
  }

  /** Leaves room for 500 more bytes at most, because the client no longer reads. */
  limitCapacity(): void {
    this.#capacity = Math.min(this.#capacity, this.#bufferedBytes + 500);
  }

  /** Lets the client read a number of bytes. Returns the items that are complete now, and when the stream gave them. */
  read(bytes: number): (readonly [item: Item, at: number])[] {
    let count = 0;
    let room = bytes;
    for (let chunk = this.#buffer.shift(); chunk; chunk = this.#buffer.shift()) {
      const piece = chunk.subarray(0, room);
      count += this.#client.read(piece).length;
      room -= piece.length;
      this.#bufferedBytes -= piece.length;
      if (piece.length === chunk.length) continue;
      this.#buffer.unshift(chunk.subarray(piece.length));
      this.partialReads++;
      break;
    }
    void this.#fill();
    return this.#unread.splice(0, count);
  }

  /** Ends the connection from the client's side. The runtime fires the signal of `abort`, or cancels the stream without one. */
  leave(abort?: AbortController): void {
    if (this.ended) return;
    this.#end("left");
    if (abort) abort.abort();
    else this.#reader.cancel().catch(() => undefined);
  }

  #end(how: StreamEnd["how"]): void {
    this.ended ??= { at: this.#time(), how };
  }

  async #fill(): Promise<void> {
    if (this.#isRequesting) return;
    this.#isRequesting = true;
    while (!this.ended && this.#bufferedBytes < this.#capacity) {
      this.requestedAt.push(this.#time());
      const { value } = await this.#reader.read().catch(() => ({ value: undefined }));
      if (value) this.#receive(value);
      else break;
    }
    this.#isRequesting = false;
  }

  #receive(chunk: Uint8Array): void {
    const at = this.#time();
    const items = this.#server.read(chunk);
    this.chunks.push({ at, items });
    // A client that has left does not read what was on its way.
    if (this.ended?.how === "left") return;
    for (const item of items) this.#unread.push([item, at]);
    this.#buffer.push(chunk);
    this.#bufferedBytes += chunk.length;
  }
}
