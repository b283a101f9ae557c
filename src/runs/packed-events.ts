// The events of one run in memory: their wire form in a few large pages, so that an event costs its bytes and no object.
import { formatRunEvent } from "../engine/run-store.ts";
import { encode, endOfEvent } from "../event/sse-format.ts";

const MIN_PAGE_BYTES = 512;
const MAX_PAGE_BYTES = 64 * 1024;
/** UTF-8 takes three bytes at most for a UTF-16 code unit. */
const MAX_BYTES_PER_UNIT = 3;

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
  #pages: Page[] = [];
  /** Where each event of the last page ends, while others may follow. */
  #ends: number[] | undefined = [];
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
      this.#ends?.push(page.length);
      return;
    }
    const bytes = encode(frame);
    this.#trim();
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
  #trim(): void {
    const last = this.#pages.at(-1);
    if (!last || last.bytes.length === last.length) return;
    this.allocated -= last.bytes.length - last.length;
    last.bytes = last.bytes.slice(0, last.length);
  }

  /** No event follows. Joins small pages, and drops everything else: a page, and each number, has a cost of its own. */
  close(): void {
    this.#ends = undefined;
    this.#trim();
    const joined: Page[] = [];
    for (let start = 0, end = 0; start < this.#pages.length; start = end) {
      let length = 0;
      for (let page = this.#pages[end]; page && (end === start || length + page.length <= MAX_PAGE_BYTES); ) {
        length += page.length;
        page = this.#pages[++end];
      }
      joined.push(join(this.#pages.slice(start, end), length));
    }
    this.#pages = joined;
  }

  /** Returns events after a number, without a copy: `maxBytes` of them at most, or one. They end where their page ends. */
  read(after: number, maxBytes: number): { readonly through: number; readonly bytes: Uint8Array<ArrayBuffer> } {
    const index = this.#pageOf(after + 1);
    const page = this.#pages[index];
    if (!page || after >= this.count) return { through: after, bytes: new Uint8Array(0) };
    const next = this.#pages[index + 1];
    const left = (next ? next.first - 1 : this.count) - after;
    const { from, to, taken } = cutPage(page, after + 1 - page.first, left, maxBytes, next ? undefined : this.#ends);
    return { through: after + taken, bytes: page.bytes.subarray(from, to) };
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

/** Returns one page in place of several that follow each other. */
function join(pages: readonly Page[], length: number): Page {
  const [first, second] = pages as [Page, Page?];
  if (!second) return first;
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const page of pages) {
    bytes.set(page.bytes.subarray(0, page.length), offset);
    offset += page.length;
  }
  return { first: first.first, bytes, length };
}

/** Finds the part of a page behind `skipped` events: `maxBytes` at most, or one event. `left` events follow. */
function cutPage(
  page: Page,
  skipped: number,
  left: number,
  maxBytes: number,
  ends: readonly number[] | undefined,
): { readonly from: number; readonly to: number; readonly taken: number } {
  let from = 0;
  if (ends) from = skipped > 0 ? (ends[skipped - 1] as number) : 0;
  else for (let count = 0; count < skipped; count++) from = endOfEvent(page.bytes, from);
  if (page.length - from <= maxBytes) return { from, to: page.length, taken: left };
  let to = ends?.[skipped] ?? endOfEvent(page.bytes, from);
  for (let taken = 1; ; taken++) {
    const next = ends?.[skipped + taken] ?? endOfEvent(page.bytes, to);
    if (taken === left || next - from > maxBytes) return { from, to, taken };
    to = next;
  }
}
