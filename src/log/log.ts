import { checkNumbers, withDefaults } from "../base/validate.ts";
import { formatPosition } from "../event/position.ts";
import { encode, formatId } from "../event/sse-format.ts";
import { ChannelLog, type Entry } from "./channel-log.ts";

/** How much of each channel is kept for those who come back. `Infinity` sets no bound. An event of several channels is kept as long as one does. */
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
   * Bytes that the log may hold in all, {@link ENTRY_COST} for each event included; 1 or more. At this bound the channel that holds the
   * most (to within a factor of two) loses its oldest events first, whoever still waits for them. @default 33_554_432 (32 MiB)
   */
  readonly logBytes?: number | undefined;
  /**
   * Channels without a client that the log may know, inboxes included; 1 or more. Beyond it the one that was used longest ago is
   * forgotten; a client that comes back to it is told of a gap. @default 100_000
   */
  readonly maxChannels?: number | undefined;
}

/** Bounds with every default in its place. */
export interface LogBounds {
  readonly retention: { readonly events: number; readonly bytes: number; readonly age: number };
  readonly logBytes: number;
  readonly maxChannels: number;
}

/** @throws `RangeError` for a number out of its range, `TypeError` for what is no option. */
export function resolveLogOptions(where: string, options: LogOptions): LogBounds {
  const defaults = { retention: {}, logBytes: 32 * 1024 * 1024, maxChannels: 100_000 };
  const bounds = withDefaults<LogBounds>(where, "option", defaults, options);
  const unbounded = { events: Infinity, bytes: Infinity, age: 300_000 };
  const retention = withDefaults<LogBounds["retention"]>(where, "retention option", unbounded, bounds.retention);
  const { logBytes, maxChannels } = bounds;
  checkNumbers(where, { logBytes, maxChannels, ...retention }, 1);
  return { retention, logBytes, maxChannels };
}

/** What an event costs beside its bytes: the objects that hold it, as measured on V8 and JavaScriptCore. */
const ENTRY_COST = 256;

/** What an event takes of `logBytes`. */
export const entryCost = (entry: Entry): number => entry.bytes.length + ENTRY_COST;

/** Receives the events of a log. No method may throw. */
export interface LogListener {
  /** Every event up to this position was delivered or concerned no subscriber. Retention keeps what is after it; only `logBytes` does not. */
  readonly position: number;
  /** An event was appended. Called in order, in the same turn, before the publisher is answered. */
  onAppended(entry: Entry): void;
  /** The log had to drop events after `position`, because it is full. */
  onOverrun(): void;
  /** The head moved on without an event for this process. */
  onAdvanced?(): void;
}

/** Who keeps what the log holds in a place that outlives the process. */
export interface LogStorageListener {
  /** The log holds this event no longer. */
  onEntryRemoved(entry: Entry): void;
  /** The log knows nothing of this channel any more. */
  onChannelForgotten(key: string): void;
}

/** The bounded log of one namespace: one total order, kept by channel. */
export class Log {
  readonly epoch: string;
  readonly maxBytes: number;
  readonly listeners: Set<LogListener> = new Set();
  storageListener: LogStorageListener | undefined;
  /** The last position given. */
  head = 0;
  /** Bytes held, each event counted once, {@link ENTRY_COST} included. */
  bytes = 0;
  /** Events held, each counted once. */
  size = 0;

  readonly retention: LogBounds["retention"];
  readonly #maxChannels: number;
  readonly #channels = new Map<string, ChannelLog>();
  /** Channels without a pin, the one that was used longest ago first. */
  readonly #idle = new Set<ChannelLog>();
  /** Every channel without a record may have had events up to here. */
  forgottenThrough = 0;
  /** Channels that keep events, by the binary logarithm of what those cost. */
  readonly #bySize: Set<ChannelLog>[] = [];

  constructor(epoch: string, { retention, logBytes, maxChannels }: LogBounds) {
    this.epoch = epoch;
    this.maxBytes = logBytes;
    this.retention = retention;
    this.#maxChannels = maxChannels;
  }

  get channels(): number {
    return this.#channels.size;
  }

  id(seq: number): string {
    return formatPosition(this.epoch, seq);
  }

  /** Gives the next position to an event and keeps it. `text` is the event without its id. */
  append(keys: readonly string[], text: string, at: number = Date.now()): Entry {
    const channels = keys.map((key) => this.pin(key));
    const entry = this.#store(this.head + 1, keys, channels, text, at);
    for (const follower of this.listeners) follower.onAppended(entry);
    for (const channel of channels) {
      this.trim(channel, at);
      this.unpin(channel);
    }
    this.#evict();
    return entry;
  }

  /** Keeps an event that has its position: in channels that are told from others, which this process may know of but not follow. */
  appendAt(seq: number, keys: readonly string[], followed: readonly ChannelLog[], text: string): void {
    const at = Date.now();
    const entry = this.#store(seq, keys, followed, text, at);
    for (const follower of this.listeners) follower.onAppended(entry);
    for (const channel of followed) this.trim(channel, at);
    this.#evict();
  }

  /** Nothing of the channels that are followed was before this position and did not come. */
  advance(seq: number): void {
    if (seq <= this.head) return;
    this.head = seq;
    for (const follower of this.listeners) follower.onAdvanced?.();
  }

  /** Puts back an event that was kept elsewhere. In order, before anything is appended; `expire` then drops what is over its bounds. */
  restore(seq: number, keys: readonly string[], text: string, at: number): void {
    const channels = keys.map((key) => this.pin(key));
    this.#store(seq, keys, channels, text, at);
    for (const channel of channels) this.unpin(channel);
  }

  #store(seq: number, keys: readonly string[], channels: readonly ChannelLog[], text: string, at: number): Entry {
    const entry: Entry = { seq, keys, at, bytes: encode(formatId(this.id(seq)) + text), retainCount: 0 };
    this.head = seq;
    this.bytes += entryCost(entry);
    this.size++;
    for (const channel of channels) {
      const before = level(channel);
      channel.retain(entry);
      this.#file(channel, before);
    }
    return entry;
  }

  /** Drops what no bound allows any more, of all channels. */
  applyRetention(time: number): void {
    for (const channel of this.#channels.values()) this.trim(channel, time);
    this.#evict();
  }

  /** The record of a channel, if there is one. */
  find(key: string): ChannelLog | undefined {
    return this.#channels.get(key);
  }

  /** The record of a channel, made if there is none, and kept until the pin is given back. */
  pin(key: string): ChannelLog {
    let channel = this.#channels.get(key);
    if (!channel) {
      channel = new ChannelLog(key, this.forgottenThrough);
      this.#channels.set(key, channel);
    }
    if (channel.pins++ === 0) this.#idle.delete(channel);
    return channel;
  }

  /** Gives back a pin. A record that tells nothing goes with its last one. */
  unpin(channel: ChannelLog): void {
    if (--channel.pins > 0) return;
    if (channel.last <= this.forgottenThrough && channel.size === 0) this.#channels.delete(channel.key);
    else if (this.#idle.add(channel).size > this.#maxChannels) this.#forgetOne();
  }

  /** Drops what retention does not keep, unless it was not sent on yet. */
  trim(channel: ChannelLog, time: number): void {
    const { events, bytes, age } = this.retention;
    const handedOn = this.#deliveredThrough();
    for (let { oldest } = channel; oldest && oldest.seq <= handedOn; { oldest } = channel) {
      if (channel.size <= events && channel.bytes <= bytes && time - oldest.at <= age) break;
      this.#drop(channel);
    }
  }

  #deliveredThrough(): number {
    let position = this.head;
    for (const follower of this.listeners) if (follower.position < position) position = follower.position;
    return position;
  }

  #evict(): void {
    let lost = 0;
    while (this.bytes > this.maxBytes) {
      const channel = this.#largest();
      if (!channel) break;
      lost = Math.max(lost, this.#drop(channel, true));
    }
    if (lost === 0) return;
    for (const follower of this.listeners) if (follower.position < lost) follower.onOverrun();
  }

  /** Has a channel give up its oldest event, `forced` for want of room. The event's seq if it left the log, else 0. */
  #drop(channel: ChannelLog, forced = false): number {
    const before = level(channel);
    const entry = channel.releaseOldest();
    this.#file(channel, before);
    if (!entry || entry.retainCount > 0) return 0;
    this.bytes -= entryCost(entry);
    this.size--;
    for (const key of entry.keys) this.#channels.get(key)?.entryRemoved(entry, forced);
    this.storageListener?.onEntryRemoved(entry);
    return entry.seq;
  }

  #forgetOne(): void {
    for (const channel of this.#idle) {
      this.forgottenThrough = Math.max(this.forgottenThrough, channel.last);
      this.discard(channel);
      this.storageListener?.onChannelForgotten(channel.key);
      return;
    }
  }

  /** Drops a channel's record, with what it keeps, whoever needs it. */
  discard(channel: ChannelLog): void {
    while (channel.size > 0) this.#drop(channel);
    this.#channels.delete(channel.key);
    this.#idle.delete(channel);
  }

  #largest(): ChannelLog | undefined {
    for (let index = this.#bySize.length - 1; index >= 0; index--) {
      for (const channel of this.#bySize[index] ?? []) return channel;
    }
    return undefined;
  }

  /** Files a channel under its size, where that changed. */
  #file(channel: ChannelLog, before: number): void {
    const now = level(channel);
    if (before === now) return;
    this.#bySize[before]?.delete(channel);
    if (now >= 0) (this.#bySize[now] ??= new Set()).add(channel);
  }
}

const level = ({ size, bytes }: ChannelLog): number => Math.floor(Math.log2(size * ENTRY_COST + bytes));
