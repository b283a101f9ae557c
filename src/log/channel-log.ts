// The part of the log that belongs to one channel: its events that can be read, and how far back they reach.
import type { RetentionBounds } from "./log-options.ts";
import type { Owner } from "./owner.ts";

/** An element of the log that is not an event: it says that a process has lost events, and which readers may lack them. */
export interface LossNotice {
  /** Returns what a reader of these channels may lack, if anything. `resumedAfter` is the reader's. */
  lostFor(
    channels: readonly ChannelLog[],
    resumedAfter: number | undefined,
  ): { readonly channels: readonly string[]; readonly after: number; readonly through: number } | undefined;
}

/** An event in the log. All subscribers share its bytes. */
export interface Entry {
  readonly seq: number;
  /** The whole event in its wire form. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The keys of its channels, each once. */
  readonly keys: readonly string[];
  /** When it was appended, in epoch milliseconds. */
  readonly at: number;
  /** Bytes of its channel's events up to and including this one. Used if it has no other channel. */
  total: number;
  /** Number of its channels that retain it. The log holds it as long as one does. */
  retainCount: number;
  /** Number of its channels that retain it, by their owner. Absent if it was appended to one channel. */
  readonly owners?: Map<Owner<ChannelLog>, number> | undefined;
  /** Set if the entry is not an event. Its bytes are sent to nobody. */
  readonly notice?: LossNotice | undefined;
}

/** Entries in order of position. Most entries leave at the front. */
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
    // The array is cut when half of it is empty, so there is at most one copy for each entry that was shifted.
    if (this.#first * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first);
      this.#first = 0;
    }
    return entry;
  }

  /** Returns the index of the first entry after `seq`, or `length` if there is none. */
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

  /** Returns whether the entry was there. */
  delete(entry: Entry): boolean {
    const index = this.indexAfter(entry.seq) - 1;
    if (index < 0 || this.at(index) !== entry) return false;
    if (index === 0) this.shift();
    else this.#entries.splice(this.#first + index, 1);
    return true;
  }
}

/**
 * The record of one channel.
 *
 * A channel retains an event until its own retention ends. An event of several channels stays readable through each of them as long as one of
 * them retains it.
 */
export class ChannelLog {
  readonly key: string;
  /** The owner that is charged for the channel. Set with its first event. */
  owner: Owner<ChannelLog> | undefined;
  /** The retention of the channel. Set by the log; absent while the option `channels` fails, and in history that was loaded from a store. */
  retention: RetentionBounds | undefined;
  /** The position of the channel's newest event, whether the log holds it or not. */
  last: number;
  /** The position of the channel's newest event that the log no longer holds; 0 if it holds all of them. */
  droppedThrough: number;
  /** As `droppedThrough`, of events that were evicted: dropped because the log was full, not because they were old. */
  evictedThrough = 0;
  /** Bytes of the events that this channel retains. */
  bytes = 0;
  /** Number of events that can be read and are also events of other channels. */
  shared = 0;
  /** Number of users that need this record. A pinned record is not forgotten. */
  pins = 0;
  /** Bytes of all events that this record has ever retained. */
  #total = 0;
  readonly #retained = new EntryQueue();
  /** Events that this channel no longer retains and another one does. All are older than the retained ones. */
  readonly #retainedElsewhere = new EntryQueue();

  /** Creates the record of a channel that may have had events up to the position `droppedThrough`. */
  constructor(key: string, droppedThrough: number) {
    this.key = key;
    this.last = this.droppedThrough = droppedThrough;
  }

  /** Number of events that this channel retains. */
  get size(): number {
    return this.#retained.length;
  }

  /** The oldest event that this channel retains. */
  get oldest(): Entry | undefined {
    return this.#retained.at(0);
  }

  /** Returns the event at an index, counted from the oldest one that can be read, whichever channel retains it. */
  at(index: number): Entry | undefined {
    const elsewhere = this.#retainedElsewhere.length;
    return index < elsewhere ? this.#retainedElsewhere.at(index) : this.#retained.at(index - elsewhere);
  }

  /** Returns the index of the first event after `seq`. */
  indexAfter(seq: number): number {
    const elsewhere = this.#retainedElsewhere.indexAfter(seq);
    return elsewhere < this.#retainedElsewhere.length ? elsewhere : elsewhere + this.#retained.indexAfter(seq);
  }

  retain(entry: Entry): void {
    this.#retained.push(entry);
    this.last = entry.seq;
    this.bytes += entry.bytes.length;
    entry.total = this.#total += entry.bytes.length;
    if (entry.keys.length > 1) this.shared++;
    entry.retainCount++;
  }

  /** Whether at most this many events and bytes come after `seq`. The channel must share no event with others. */
  fitsAfter(seq: number, most: { events: number; bytes: number }): boolean {
    const index = this.indexAfter(seq);
    most.events -= this.size - index;
    const next = this.at(index);
    if (next) most.bytes -= this.#total - next.total + next.bytes.length;
    return most.events >= 0 && most.bytes >= 0;
  }

  /** Stops retaining the oldest event, and returns it. */
  releaseOldest(): Entry | undefined {
    const entry = this.#retained.shift();
    if (!entry) return undefined;
    this.bytes -= entry.bytes.length;
    if (--entry.retainCount > 0) this.#retainedElsewhere.push(entry);
    else if (entry.keys.length > 1) this.shared--;
    return entry;
  }

  /** Counts all events up to `seq` as dropped. This process does not hold them, because it subscribed to the channel later. */
  startAfter(seq: number): void {
    this.last = Math.max(this.last, seq);
    this.droppedThrough = Math.max(this.droppedThrough, seq);
  }

  /** An event of this channel left the log, evicted or not. */
  entryRemoved(entry: Entry, isEvicted: boolean): void {
    if (this.#retainedElsewhere.delete(entry)) this.shared--;
    if (entry.seq > this.droppedThrough) this.droppedThrough = entry.seq;
    if (isEvicted && entry.seq > this.evictedThrough) this.evictedThrough = entry.seq;
  }
}
