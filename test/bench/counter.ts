// Counts events in the bytes of a stream, at the least cost for the client.
import { clock, EVENT_HEAD, formatEvent, MARK, readEvent } from "./event.ts";

const MARK_BYTE = MARK.charCodeAt(0);

/**
 * Counts events of a known length without parsing them. The mark of an event is one byte, so no read can split it. The data behind it has no
 * other mark, so most of it is skipped. A read or an HTTP chunk that splits the data only makes a skip end early.
 */
export class Counter {
  readonly #length: number;
  /** Distance between the last two events. It is nearly always the same, which saves a search. */
  #stride: number;

  constructor(length: number) {
    this.#length = length;
    this.#stride = length;
  }

  /** Counts the events in the first `length` bytes. */
  count(bytes: Buffer, length: number): number {
    const step = this.#length;
    let events = 0;
    let at = bytes.indexOf(MARK_BYTE);
    while (at >= 0 && at < length) {
      events++;
      const guess = at + this.#stride;
      if (guess < length && bytes[guess] === MARK_BYTE) {
        at = guess;
        continue;
      }
      const next = bytes.indexOf(MARK_BYTE, at + step);
      // Two events never fit into less than two steps, so a guess never skips one.
      if (next >= 0 && next < length && next - at < 2 * step) this.#stride = next - at;
      at = next;
    }
    return events;
  }
}

/** Reads the number and age of every event of a connection. Too expensive for all connections. */
export class Sampler {
  /** Milliseconds from the publisher's call to here. */
  latencies: number[] = [];
  /** Events that arrived again. */
  repeated = 0;
  /** Events that arrived after one with a higher number. With several publishes in flight the server may have received them in this order. */
  reordered = 0;
  /** Gaps that the server sent. */
  gaps = 0;
  #last = -1;
  #seen = new Set<number>();
  #rest: Buffer = Buffer.alloc(0);

  /** Resets all counts, for events that may come from another publisher and count from zero. */
  reset(): void {
    this.latencies = [];
    this.#last = -1;
    this.repeated = this.reordered = this.gaps = 0;
    this.#seen = new Set();
  }

  read(bytes: Uint8Array, length: number): void {
    const time = clock();
    const all = Buffer.concat([this.#rest, bytes.subarray(0, length)]);
    let end = 0;
    for (let at = all.indexOf(MARK_BYTE); at >= 0 && at + EVENT_HEAD <= all.length; at = all.indexOf(MARK_BYTE, end)) {
      this.#take(readEvent(all, at), time);
      end = at + 1;
    }
    this.gaps += occurrences(all, "fanwire-gap");
    const partial = all.indexOf(MARK_BYTE, end);
    this.#rest = partial < 0 ? Buffer.alloc(0) : all.subarray(partial);
  }

  #take(event: { seq: number; time: number }, time: number): void {
    this.latencies.push((time - event.time) / 1000);
    if (this.#seen.has(event.seq)) this.repeated++;
    this.#seen.add(event.seq);
    if (event.seq < this.#last) this.reordered++;
    this.#last = event.seq;
  }
}

function occurrences(bytes: Buffer, text: string): number {
  let found = 0;
  for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + text.length)) found++;
  return found;
}

/** @throws `Error` if {@link Counter} miscounts a stream of such events, however it is split. */
export function checkCounting(length: number): void {
  const events = Math.max(20, Math.ceil(300_000 / length));
  // With heads of chunks and heartbeats in between, as servers send them, and with distances that vary.
  const stream = Buffer.from(
    Array.from(
      { length: events },
      (_, seq) =>
        `97\r\nid: abcdefghijkl-${seq}\ndata: ${formatEvent(seq, 0, length)}\n\n\r\n${seq % 7 === 0 ? ": alive\n\n" : ""}`,
    ).join(""),
  );
  for (const size of [1, 7, 61, 151, 4_096, 65_536]) {
    const counter = new Counter(length);
    let counted = 0;
    for (let at = 0; at < stream.length; at += size) {
      const read = stream.subarray(at, at + size);
      counted += counter.count(read, read.length);
    }
    if (counted !== events) throw new Error(`counting: ${counted} of ${events} events found in reads of ${size} bytes`);
  }
}
