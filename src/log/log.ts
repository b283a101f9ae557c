// The bounded log of one namespace. It assigns positions, and drops events by channel: those that retention no longer keeps, and the oldest
// ones of the largest channel when the log is full.
import { checkNumbers, withDefaults } from "../base/validate.ts";
import { formatPosition } from "../event/position.ts";
import { encode, withId } from "../event/sse-format.ts";
import { ChannelLog, type Entry } from "./channel-log.ts";

/**
 * Bounds of the history of each channel, which clients that come back can read. `Infinity` sets no bound. An event of several channels is kept
 * as long as one of them keeps it.
 */
export interface Retention {
  /** Events, 1 or more. @default Infinity */
  readonly events?: number | undefined;
  /** Bytes as encoded, 1 or more. @default Infinity */
  readonly bytes?: number | undefined;
  /** Milliseconds, 1 or more. @default 300_000 */
  readonly age?: number | undefined;
}

/** Bounds of a log. */
export interface LogOptions {
  readonly retention?: Retention | undefined;
  /**
   * Bytes that the log may hold in total, including {@link ENTRY_COST} for each event; 1 or more. A full log drops the oldest events of its
   * largest channel (to within a factor of two), even if clients have not received them yet. @default 33_554_432 (32 MiB)
   */
  readonly logBytes?: number | undefined;
  /**
   * Channels without a client that the log remembers, including inboxes; 1 or more. Beyond that, the one that was not used for the longest
   * time is forgotten. A client that comes back to it receives a gap. @default 100_000
   */
  readonly maxChannels?: number | undefined;
}

/** Bounds of a log, with the defaults filled in. */
export interface LogBounds {
  readonly retention: { readonly events: number; readonly bytes: number; readonly age: number };
  readonly logBytes: number;
  readonly maxChannels: number;
}

/** Returns the bounds that options set, and the engine's `others` with their defaults. @throws `RangeError` for a number out of its range, `TypeError` for an unknown option. */
export function resolveLogOptions<Others extends object = object>(
  where: string,
  options: LogOptions,
  others?: Others,
): LogBounds & Others {
  const defaults = { retention: {}, logBytes: 32 * 1024 * 1024, maxChannels: 100_000, ...others };
  const bounds = withDefaults<LogBounds & Others>(where, "option", defaults, options);
  const unbounded = { events: Infinity, bytes: Infinity, age: 300_000 };
  const retention = withDefaults<LogBounds["retention"]>(where, "retention option", unbounded, bounds.retention);
  const { logBytes, maxChannels } = bounds;
  checkNumbers(where, { logBytes, maxChannels, ...retention }, 1);
  return { ...bounds, retention };
}

/** Bytes that the objects around an event cost, as measured on V8 and JavaScriptCore. */
const ENTRY_COST = 256;

/** Returns the bytes that an event counts against `logBytes`. */
export const entryCost = (entry: Entry): number => entry.bytes.length + ENTRY_COST;

/** Receives the events of a log. No method may throw. */
export interface LogListener {
  /**
   * Every event up to this position was delivered or concerned no subscriber. Retention does not drop later events. A full log does.
   */
  readonly position: number;
  /** An event was appended. Called in order, in the same turn, before the publisher is answered. */
  onAppended(entry: Entry): void;
  /** The log evicted events after `position`. */
  onOverrun(): void;
  /** The head moved, without an event for this process. */
  onAdvanced?(): void;
}

/** Receives the removals of a log whose events are also stored in a place that outlives the process. */
export interface LogStorageListener {
  /** The log no longer holds this event. */
  onEntryRemoved(entry: Entry): void;
  /** The log no longer has a record of this channel. */
  onChannelForgotten(key: string, forgottenThrough: number): void;
}

/** The bounded log of one namespace: one total order of events, retained by channel. */
export class Log {
  readonly epoch: string;
  readonly maxBytes: number;
  readonly listeners: Set<LogListener> = new Set();
  storageListener: LogStorageListener | undefined;
  /** The last assigned position. */
  head = 0;
  /** Bytes of all events, including {@link ENTRY_COST} for each. */
  bytes = 0;
  /** Events that the log holds, each counted once. */
  size = 0;

  readonly retention: LogBounds["retention"];
  readonly #maxChannels: number;
  readonly #channels = new Map<string, ChannelLog>();
  /** Records without a pin, in the order in which they lost the last one. */
  readonly #unpinned = new Set<ChannelLog>();
  /** A channel without a record may have had events up to this position. */
  forgottenThrough = 0;
  /** Channels that retain events, by size class. */
  readonly #bySize: Set<ChannelLog>[] = [];

  constructor(epoch: string, { retention, logBytes, maxChannels }: LogBounds) {
    this.epoch = epoch;
    this.maxBytes = logBytes;
    this.retention = retention;
    this.#maxChannels = maxChannels;
  }

  /** How many channels have a record. */
  get channels(): number {
    return this.#channels.size;
  }

  /** Returns the wire id of a position of this log. */
  id(seq: number): string {
    return formatPosition(this.epoch, seq);
  }

  /** Appends an event at the next position. `text` is its wire form without an id, and `at` the time in epoch milliseconds. */
  append(keys: readonly string[], text: string, at: number = Date.now()): Entry {
    const channels = keys.map((key) => this.pin(key));
    const entry = this.#store(this.head + 1, keys, channels, text, at);
    for (const listener of this.listeners) listener.onAppended(entry);
    for (const channel of channels) {
      this.trim(channel, at);
      this.unpin(channel);
    }
    this.#evict();
    return entry;
  }

  /**
   * Appends an event whose position another process assigned. `channels` are the records of those channels of `keys` that this process
   * subscribes to.
   */
  appendAt(seq: number, keys: readonly string[], channels: readonly ChannelLog[], text: string): void {
    const at = Date.now();
    const entry = this.#store(seq, keys, channels, text, at);
    for (const listener of this.listeners) listener.onAppended(entry);
    for (const channel of channels) this.trim(channel, at);
    this.#evict();
  }

  /** Moves the head to `seq`. Called when every event of the subscribed channels up to there has been appended. */
  advance(seq: number): void {
    if (seq <= this.head) return;
    this.head = seq;
    for (const listener of this.listeners) listener.onAdvanced?.();
  }

  /**
   * Puts back an event that was stored outside the process. Called in order of position, before anything is appended. `applyRetention` must
   * follow, because nothing is dropped here.
   */
  restore(seq: number, keys: readonly string[], text: string, at: number): void {
    const channels = keys.map((key) => this.pin(key));
    this.#store(seq, keys, channels, text, at);
    for (const channel of channels) this.unpin(channel);
  }

  #store(seq: number, keys: readonly string[], channels: readonly ChannelLog[], text: string, at: number): Entry {
    const entry: Entry = { seq, keys, at, bytes: encode(withId(text, this.id(seq))), total: 0, retainCount: 0 };
    this.head = seq;
    this.bytes += entryCost(entry);
    this.size++;
    for (const channel of channels) {
      const before = sizeClass(channel);
      channel.retain(entry);
      this.#reclassify(channel, before);
    }
    return entry;
  }

  /** Drops the events that exceed a bound, of all channels. `time` is in epoch milliseconds. */
  applyRetention(time: number): void {
    for (const channel of this.#channels.values()) this.trim(channel, time);
    this.#evict();
  }

  /** Returns the record of a channel, if there is one. */
  find(key: string): ChannelLog | undefined {
    return this.#channels.get(key);
  }

  /** Returns the record of a channel, and keeps it until `unpin`. Creates the record if there is none. */
  pin(key: string): ChannelLog {
    let channel = this.#channels.get(key);
    if (!channel) {
      channel = new ChannelLog(key, this.forgottenThrough);
      this.#channels.set(key, channel);
    }
    if (channel.pins++ === 0) this.#unpinned.delete(channel);
    return channel;
  }

  /** Removes a pin. With its last pin, a record is removed if a new one would say the same. */
  unpin(channel: ChannelLog): void {
    if (--channel.pins > 0) return;
    if (channel.last <= this.forgottenThrough && channel.size === 0) this.#channels.delete(channel.key);
    else if (this.#unpinned.add(channel).size > this.#maxChannels) this.#forgetOldest();
  }

  /** Drops the events of a channel that retention does not keep, except those that were not offered to every subscriber yet. */
  trim(channel: ChannelLog, time: number): void {
    const { events, bytes, age } = this.retention;
    const delivered = this.#deliveredThrough();
    for (let { oldest } = channel; oldest && oldest.seq <= delivered; { oldest } = channel) {
      if (channel.size <= events && channel.bytes <= bytes && time - oldest.at <= age) break;
      this.#dropOldest(channel);
    }
  }

  /** Returns the position up to which every listener has delivered. */
  #deliveredThrough(): number {
    let position = this.head;
    for (const listener of this.listeners) position = Math.min(position, listener.position);
    return position;
  }

  /** Drops events until the log is no longer over `maxBytes`. */
  #evict(): void {
    let evictedThrough = 0;
    while (this.bytes > this.maxBytes) {
      const channel = this.#largest();
      if (!channel) break;
      evictedThrough = Math.max(evictedThrough, this.#dropOldest(channel, true));
    }
    if (evictedThrough === 0) return;
    for (const listener of this.listeners) if (listener.position < evictedThrough) listener.onOverrun();
  }

  /** Makes a channel release its oldest event. Returns the event's position if it left the log, or 0 if another channel retains it. */
  #dropOldest(channel: ChannelLog, isEvicted = false): number {
    const before = sizeClass(channel);
    const entry = channel.releaseOldest();
    this.#reclassify(channel, before);
    if (!entry || entry.retainCount > 0) return 0;
    this.bytes -= entryCost(entry);
    this.size--;
    for (const key of entry.keys) this.#channels.get(key)?.entryRemoved(entry, isEvicted);
    this.storageListener?.onEntryRemoved(entry);
    return entry.seq;
  }

  /** Forgets the record that has had no pin for the longest time. */
  #forgetOldest(): void {
    for (const channel of this.#unpinned) {
      this.forgottenThrough = Math.max(this.forgottenThrough, channel.last);
      this.discard(channel);
      this.storageListener?.onChannelForgotten(channel.key, this.forgottenThrough);
      return;
    }
  }

  /** Removes the record of a channel and all its events, even if a subscriber has not read them. */
  discard(channel: ChannelLog): void {
    while (channel.size > 0) this.#dropOldest(channel);
    this.#channels.delete(channel.key);
    this.#unpinned.delete(channel);
  }

  /** Returns a channel of the highest size class. */
  #largest(): ChannelLog | undefined {
    for (let index = this.#bySize.length - 1; index >= 0; index--) {
      for (const channel of this.#bySize[index] ?? []) return channel;
    }
    return undefined;
  }

  /** Moves a channel whose size class was `before` to its present one. */
  #reclassify(channel: ChannelLog, before: number): void {
    const after = sizeClass(channel);
    if (before === after) return;
    this.#bySize[before]?.delete(channel);
    if (after >= 0) (this.#bySize[after] ??= new Set()).add(channel);
  }
}

/** Returns the binary logarithm of a channel's bytes, rounded down; `-Infinity` for a channel without events. */
const sizeClass = ({ size, bytes }: ChannelLog): number => Math.floor(Math.log2(size * ENTRY_COST + bytes));
