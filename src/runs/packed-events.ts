// The events of one run in memory: their wire form in a few large pages, so that an event costs its bytes and no object.
import { formatRunEvent } from "../engine/run-store.ts";
import { encode } from "../event/sse-format.ts";

const MIN_PAGE_BYTES = 512;
const MAX_PAGE_BYTES = 64 * 1024;
/** UTF-8 takes three bytes at most for a UTF-16 code unit. */
const MAX_BYTES_PER_UNIT = 3;
const LF = 10;

interface Page {
  /** The number of its first event. */
  readonly first: number;
  bytes: Uint8Array<ArrayBuffer>;
  /** Bytes that are in use. They never change, so readers share them. */
  length: number;
}

const encoder = new TextEncoder();

export class PackedEvents {
  readonly #generation: string;
  readonly #pages: Page[] = [];
  /** Where each event of the last page ends. */
  #ends: number[] = [];
  /** Number of events. */
  count = 0;
  /** Bytes that are allocated. */
  allocated = 0;

  constructor(generation: string) {
    this.#generation = generation;
  }

  append(text: string): void {
    const frame = formatRunEvent(text, this.#generation, ++this.count);
    const page = this.#pageFor(frame.length * MAX_BYTES_PER_UNIT);
    if (page) {
      page.length += encoder.encodeInto(frame, page.bytes.subarray(page.length)).written;
      this.#ends.push(page.length);
      return;
    }
    const bytes = encode(frame);
    this.trim();
    const last = this.#pages.at(-1);
    const size = Math.max(bytes.length, Math.min(MAX_PAGE_BYTES, Math.max(MIN_PAGE_BYTES, 2 * (last?.length ?? 0))));
    const next: Page = { first: this.count, bytes: new Uint8Array(size), length: bytes.length };
    next.bytes.set(bytes);
    this.#pages.push(next);
    this.#ends = [bytes.length];
    this.allocated += size;
  }

  /** Returns the last page if it has room. */
  #pageFor(size: number): Page | undefined {
    const last = this.#pages.at(-1);
    return last && last.bytes.length - last.length >= size ? last : undefined;
  }

  /** Gives the unused rest of the last page back. */
  trim(): void {
    const last = this.#pages.at(-1);
    if (!last || last.bytes.length === last.length) return;
    this.allocated -= last.bytes.length - last.length;
    last.bytes = last.bytes.slice(0, last.length);
  }

  /** Returns events after a number, without a copy: `maxBytes` of them at most, or one. They end where their page ends. */
  read(after: number, maxBytes: number): { readonly through: number; readonly bytes: Uint8Array<ArrayBuffer> } {
    const index = this.#pageOf(after + 1);
    const page = this.#pages[index];
    if (!page || after >= this.count) return { through: after, bytes: new Uint8Array(0) };
    const isLast = index === this.#pages.length - 1;
    const lastNumber = isLast ? this.count : (this.#pages[index + 1] as Page).first - 1;
    const ends = isLast ? this.#ends : endsOf(page);
    const skipped = after + 1 - page.first;
    const from = skipped > 0 ? (ends[skipped - 1] as number) : 0;
    let taken = lastNumber - after;
    if (page.length - from > maxBytes) {
      // The number of events that fit, by bisection: their ends grow.
      let low = 1;
      for (let high = taken; low < high; ) {
        const middle = Math.ceil((low + high) / 2);
        if ((ends[skipped + middle - 1] as number) - from <= maxBytes) low = middle;
        else high = middle - 1;
      }
      taken = low;
    }
    return { through: after + taken, bytes: page.bytes.subarray(from, ends[skipped + taken - 1]) };
  }

  /** Returns the index of the page that has an event. */
  #pageOf(number: number): number {
    let low = 0;
    for (let high = this.#pages.length - 1; low < high; ) {
      const middle = Math.ceil((low + high) / 2);
      if ((this.#pages[middle] as Page).first <= number) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Returns where each event of a page ends: at an empty line, which no event has inside. */
function endsOf({ bytes, length }: Page): number[] {
  const ends: number[] = [];
  for (let index = bytes.indexOf(LF); index >= 0 && index < length; index = bytes.indexOf(LF, index + 1))
    if (bytes[index - 1] === LF) ends.push(index + 1);
  return ends;
}
