/** An event in the log. Its bytes are the whole event as it goes over the wire, shared by all who read it. */
export interface Entry {
  readonly seq: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The keys of its channels, each once. */
  readonly keys: readonly string[];
  /** When it was appended, epoch milliseconds. */
  readonly at: number;
  /** How many of its channels keep it; it is in the log as long as one does. */
  retainCount: number;
}

/** Events in order of their position; what goes, goes mostly from the front. */
class EntryQueue {
  #entries: (Entry | undefined)[] = [];
  #first = 0;

  get length(): number {
    return this.#entries.length - this.#first;
  }

  at(index: number): Entry | undefined {
    return this.#entries[this.#first + index];
  }

  push(entry: Entry): void {
    this.#entries.push(entry);
  }

  shift(): Entry | undefined {
    const entry = this.#entries[this.#first];
    this.#entries[this.#first++] = undefined;
    // The empty half is cut off at once, so that each event is moved at most once.
    if (this.#first * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first);
      this.#first = 0;
    }
    return entry;
  }

  /** The index of the first event after `seq`; `length` if there is none. */
  indexAfter(seq: number): number {
    let low = this.#first;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#entries[middle] as Entry).seq <= seq) low = middle + 1;
      else high = middle;
    }
    return low - this.#first;
  }

  delete(entry: Entry): void {
    const index = this.indexAfter(entry.seq) - 1;
    if (index < 0 || this.at(index) !== entry) return;
    if (index === 0) this.shift();
    else this.#entries.splice(this.#first + index, 1);
  }
}

/** The events of one channel that are still there, and how far back that is. */
export class ChannelLog {
  readonly key: string;
  /** The last event of this channel, in the log or not. */
  last: number;
  /** The last event of this channel that is not in the log any more; 0 while all are. */
  droppedThrough: number;
  /** The last one of those that the log dropped for want of room, and not because they were old. */
  evictedThrough = 0;
  /** Bytes of the events that it keeps. */
  bytes = 0;
  /** How many need this record. It is not forgotten meanwhile. */
  pins = 0;
  readonly #retained = new EntryQueue();
  /** Events that this channel does not keep and another one does. All are older than those it keeps. */
  readonly #retainedElsewhere = new EntryQueue();

  constructor(key: string, dropped: number) {
    this.key = key;
    this.last = this.droppedThrough = dropped;
  }

  /** How many events it keeps. */
  get size(): number {
    return this.#retained.length;
  }

  /** The oldest event that it keeps. */
  get oldest(): Entry | undefined {
    return this.#retained.at(0);
  }

  /** The `index`-th oldest event that can be read, kept by this channel or by another. */
  at(index: number): Entry | undefined {
    const lent = this.#retainedElsewhere.length;
    return index < lent ? this.#retainedElsewhere.at(index) : this.#retained.at(index - lent);
  }

  /** The index of the first event after `seq`. */
  indexAfter(seq: number): number {
    const lent = this.#retainedElsewhere.indexAfter(seq);
    return lent < this.#retainedElsewhere.length ? lent : lent + this.#retained.indexAfter(seq);
  }

  retain(entry: Entry): void {
    this.#retained.push(entry);
    this.last = entry.seq;
    this.bytes += entry.bytes.length;
    entry.retainCount++;
  }

  /** Stops to keep the oldest event. */
  releaseOldest(): Entry | undefined {
    const entry = this.#retained.shift();
    if (!entry) return undefined;
    this.bytes -= entry.bytes.length;
    if (--entry.retainCount > 0) this.#retainedElsewhere.push(entry);
    return entry;
  }

  /** Its events up to there are kept elsewhere, or nowhere; those after it will be kept here. */
  startAfter(seq: number): void {
    this.last = Math.max(this.last, seq);
    this.droppedThrough = Math.max(this.droppedThrough, seq);
  }

  /** An event of this channel left the log. */
  entryRemoved(entry: Entry, forced: boolean): void {
    this.#retainedElsewhere.delete(entry);
    if (entry.seq > this.droppedThrough) this.droppedThrough = entry.seq;
    if (forced && entry.seq > this.evictedThrough) this.evictedThrough = entry.seq;
  }
}
