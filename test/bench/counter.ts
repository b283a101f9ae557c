import { clock, EVENT_HEAD, formatEvent, MARK, readEvent } from "./event.ts";

const MARK_BYTE = MARK.charCodeAt(0);

/**
 * Counts the events of so many characters in what is read. No parser: a mark is one byte, so no read can split it, and behind it
 * comes data without another one, which is stepped over; where a read or an HTTP chunk splits the data, the step ends early in it.
 */
export class Counter {
  readonly #length: number;
  /** From one event to the next, the last time: nearly always the same again, which spares a search. */
  #stride: number;

  constructor(length: number) {
    this.#length = length;
    this.#stride = length;
  }

  /** Events in the first `length` bytes. */
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
      // No two events fit into less than two steps, so a guess never goes past one.
      if (next >= 0 && next < length && next - at < 2 * step) this.#stride = next - at;
      at = next;
    }
    return events;
  }
}

/** Reads the events of one connection with their numbers and ages; too dear to do for all of them. */
export class Sampler {
  /** Milliseconds from the publisher's call to here. */
  latencies: number[] = [];
  /** Events that came again. */
  repeated = 0;
  /** Events that came after one of a higher number. With several publishes in flight the server may have had them so. */
  disordered = 0;
  /** Gaps that the server told of. */
  gaps = 0;
  #last = -1;
  #seen = new Set<number>();
  #rest: Buffer = Buffer.alloc(0);

  /** Begins anew for the events to come, which may be another publisher's and count from zero. */
  reset(): void {
    this.latencies = [];
    this.#last = -1;
    this.repeated = this.disordered = this.gaps = 0;
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
    if (event.seq < this.#last) this.disordered++;
    this.#last = event.seq;
  }
}

function occurrences(bytes: Buffer, text: string): number {
  let found = 0;
  for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + text.length)) found++;
  return found;
}

/** Throws if {@link Counter} miscounts a stream of such events, however that is cut. */
export function checkCounting(length: number): void {
  const events = Math.max(20, Math.ceil(300_000 / length));
  // With heads of chunks and a heartbeat in between, as servers send them, and one distance that is not as the others.
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
