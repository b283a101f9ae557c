// Reads the events of several channels in order of position. A heap of the channels makes an event cost the logarithm of their number.
import type { ChannelLog, Entry } from "./channel-log.ts";

/** A channel, and its next event. */
interface Source {
  readonly channel: ChannelLog;
  index: number;
  /** No event before this index is returned. */
  readonly least: number;
  entry: Entry;
}

/** The events of some channels, each once, in order of position: oldest first with `step` 1, newest first with `step` -1. */
export class Merge {
  readonly #step: 1 | -1;
  /** A binary heap: no source comes before its parent, which is at half its place. */
  readonly #heap: Source[] = [];

  constructor(step: 1 | -1 = 1) {
    this.#step = step;
  }

  /** Adds a channel from an index on; with `step` -1 down to the index `least`. */
  add(channel: ChannelLog, index: number, least = 0): void {
    const entry = channel.at(index);
    if (!entry || index < least) return;
    const heap = this.#heap;
    const source = { channel, index, least, entry };
    let place = heap.push(source) - 1;
    while (place > 0) {
      const parent = (place - 1) >>> 1;
      if (!this.#isBefore(source, heap[parent] as Source)) break;
      heap[place] = heap[parent] as Source;
      place = parent;
    }
    heap[place] = source;
  }

  /** The next event. */
  get next(): Entry | undefined {
    return this.#heap[0]?.entry;
  }

  /** Goes on to the event after the next one. Channels may hold copies of one event, so it is known by its position. */
  advance(): void {
    const heap = this.#heap;
    const seq = heap[0]?.entry.seq;
    for (let source = heap[0]; source && source.entry.seq === seq; source = heap[0]) {
      source.index += this.#step;
      const entry = source.index < source.least ? undefined : source.channel.at(source.index);
      if (entry) {
        source.entry = entry;
        this.#sink(source);
      } else {
        const last = heap.pop() as Source;
        if (last !== source) this.#sink(last);
      }
    }
  }

  /** Puts a source in the place of the first one, and moves it down to where it belongs. */
  #sink(source: Source): void {
    const heap = this.#heap;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#isBefore(heap[child + 1] as Source, heap[child] as Source)) child++;
      if (!this.#isBefore(heap[child] as Source, source)) break;
      heap[place] = heap[child] as Source;
      place = child;
    }
    heap[place] = source;
  }

  #isBefore(a: Source, b: Source): boolean {
    return (a.entry.seq - b.entry.seq) * this.#step < 0;
  }
}
