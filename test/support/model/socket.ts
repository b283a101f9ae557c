import { type Item, ItemReader } from "./items.ts";

/** A chunk that a stream gave, and what was in it. */
export interface Given {
  readonly at: number;
  readonly items: readonly Item[];
}

/** How a stream ended: politely, by force, or because its client left. */
export interface Over {
  readonly at: number;
  readonly how: "closed" | "errored" | "left";
}

/**
 * A connection, from the runtime on: it asks the stream for a chunk whenever it has room for one, and keeps what came until the client
 * reads it, in pieces of any size.
 */
export class VirtualSocket {
  /** Every chunk, as it came. */
  readonly given: Given[] = [];
  /** When each of them was asked for, and the one that is waited for. */
  readonly wanted: number[] = [];
  over: Over | undefined;
  /** How often a client read no more than a part of a chunk. */
  pieces = 0;
  readonly #time: () => number;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #server = new ItemReader();
  readonly #client = new ItemReader();
  /** What the client has not completed yet. */
  readonly #unread: (readonly [item: Item, at: number])[] = [];
  #capacity: number;
  #kept: Uint8Array[] = [];
  #size = 0;
  #asks = false;

  constructor(body: ReadableStream<Uint8Array>, capacity: number, time: () => number) {
    this.#reader = body.getReader();
    this.#capacity = capacity;
    this.#time = time;
    // Also while nobody asks.
    this.#reader.closed.then(
      () => this.#end("closed"),
      () => this.#end("errored"),
    );
    void this.#fill();
  }

  /** Nothing is left to read, and nothing comes. */
  get isEmpty(): boolean {
    return this.over !== undefined && this.#size === 0;
  }

  /** Something came that nobody has read. */
  get hasUnread(): boolean {
    return this.#size > 0;
  }

  /** Makes room for so many bytes that nobody has read. */
  widen(capacity: number): void {
    this.#capacity = Math.max(this.#capacity, capacity);
    void this.#fill();
  }

  /** Nobody reads any more, and what is on its way has little room left. */
  abandon(): void {
    this.#capacity = Math.min(this.#capacity, this.#size + 500);
  }

  /** The client reads so many bytes: what they complete, and when the stream gave it. */
  read(bytes: number): (readonly [item: Item, at: number])[] {
    let count = 0;
    let room = bytes;
    for (let chunk = this.#kept.shift(); chunk; chunk = this.#kept.shift()) {
      const piece = chunk.subarray(0, room);
      count += this.#client.read(piece).length;
      room -= piece.length;
      this.#size -= piece.length;
      if (piece.length === chunk.length) continue;
      this.#kept.unshift(chunk.subarray(piece.length));
      this.pieces++;
      break;
    }
    void this.#fill();
    return this.#unread.splice(0, count);
  }

  /** The client is gone, and its runtime says so in one of two ways. */
  leave(abort?: AbortController): void {
    if (this.over) return;
    this.#end("left");
    if (abort) abort.abort();
    else this.#reader.cancel().catch(() => undefined);
  }

  #end(how: Over["how"]): void {
    this.over ??= { at: this.#time(), how };
  }

  async #fill(): Promise<void> {
    if (this.#asks) return;
    this.#asks = true;
    while (!this.over && this.#size < this.#capacity) {
      this.wanted.push(this.#time());
      const { value } = await this.#reader.read().catch(() => ({ value: undefined }));
      if (value) this.#take(value);
      else break;
    }
    this.#asks = false;
  }

  #take(chunk: Uint8Array): void {
    const at = this.#time();
    const items = this.#server.read(chunk);
    this.given.push({ at, items });
    // Nobody is there to read what was on its way.
    if (this.over?.how === "left") return;
    for (const item of items) this.#unread.push([item, at]);
    this.#kept.push(chunk);
    this.#size += chunk.length;
  }
}
