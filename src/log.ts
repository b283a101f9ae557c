import { encode, formatId } from "./event.ts";
import { formatPosition } from "./position.ts";

/** An event in the log. Its bytes are the whole event as it goes over the wire, shared by all who read it. */
export interface Entry {
  readonly seq: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The keys of its channels, each once. */
  readonly keys: readonly string[];
  /** When it was appended, epoch milliseconds. */
  readonly at: number;
}

/** How much of each channel is kept for those who come back. What goes first goes; `Infinity` sets no bound. */
export interface Retention {
  /** Events, 1 or more. @default Infinity */
  readonly events?: number;
  /** Bytes as encoded. @default Infinity */
  readonly bytes?: number;
  /** Milliseconds. @default 300_000 */
  readonly age?: number;
}

/** Bounds of a log. */
export interface LogOptions {
  readonly retention?: Retention;
  /**
   * Bytes that the log may hold in all, {@link ENTRY_COST} for each event included. At this bound the channel that holds the most
   * (to within a factor of two) loses its oldest events first, whoever still waits for them.
   * @default 33_554_432 (32 MiB)
   */
  readonly logBytes?: number;
  /**
   * Channels that the log may know, inboxes included. Beyond it the one without a client that was used longest ago is
   * forgotten; a client that comes back to it is told of a gap. @default 100_000
   */
  readonly maxChannels?: number;
}

/** What an event costs beside its bytes: the objects that hold it, as measured on V8 and JavaScriptCore. */
const ENTRY_COST = 256;

/** Who hands events on from the log to readers. */
export interface Follower {
  /** All up to here was handed on or concerned nobody; retention keeps what is after it, only `logBytes` does not. */
  readonly position: number;
  /** An event was appended. Called in order, in the same turn, before the publisher is told. MUST NOT throw. */
  appended(entry: Entry): void;
  /** The log had to drop what is after `position`. MUST NOT throw. */
  overrun(): void;
}

/** The events of one channel that are still there, and how far back that is. */
export class Channel {
  readonly key: string;
  /** The last event of this channel, dropped or not. */
  last: number;
  /** The last event of this channel that is not there any more; 0 while nothing was dropped. */
  dropped: number;
  /** Bytes of the events held. */
  bytes = 0;
  /** How many of the readers' sets need this record. It is not forgotten meanwhile. */
  pins = 0;
  #entries: (Entry | undefined)[] = [];
  #first = 0;

  constructor(key: string, dropped: number) {
    this.key = key;
    this.last = this.dropped = dropped;
  }

  get size(): number {
    return this.#entries.length - this.#first;
  }

  /** The `index`-th oldest event held. */
  at(index: number): Entry | undefined {
    return this.#entries[this.#first + index];
  }

  /** The index of the first event after `seq`; `size` if there is none. */
  indexAfter(seq: number): number {
    if (this.last <= seq) return this.size;
    let low = this.#first;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#entries[middle] as Entry).seq <= seq) low = middle + 1;
      else high = middle;
    }
    return low - this.#first;
  }

  push(entry: Entry): void {
    this.#entries.push(entry);
    this.last = entry.seq;
    this.bytes += entry.bytes.length;
  }

  shift(): Entry | undefined {
    const entry = this.#entries[this.#first];
    if (!entry) return undefined;
    this.#first++;
    // The dropped half is cut off at once, so that each event is moved at most once.
    if (this.#first * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first);
      this.#first = 0;
    } else {
      this.#entries[this.#first - 1] = undefined;
    }
    this.dropped = entry.seq;
    this.bytes -= entry.bytes.length;
    return entry;
  }
}

/** The bounded log of one namespace: one total order, kept by channel. */
export class Log {
  readonly epoch: string;
  readonly maxBytes: number;
  readonly followers: Set<Follower> = new Set();
  /** The last position given. */
  head = 0;
  /** Bytes held, each event counted once, {@link ENTRY_COST} included. */
  bytes = 0;
  /** Events held, each counted once. */
  size = 0;

  readonly #retention: Required<Retention>;
  readonly #maxChannels: number;
  readonly #channels = new Map<string, Channel>();
  /** Channels without a pin, the one that was used longest ago first. */
  readonly #idle = new Set<Channel>();
  /** Every channel without a record may have had events up to here. */
  #forgotten = 0;
  /** Channels that hold events, by the binary logarithm of their bytes. */
  readonly #bySize: Set<Channel>[] = [];
  /** How many channels hold an event, for those in more than one. */
  readonly #shared = new Map<Entry, number>();

  constructor(epoch: string, options: LogOptions = {}) {
    this.epoch = epoch;
    this.#retention = { events: Infinity, bytes: Infinity, age: 300_000, ...options.retention };
    this.maxBytes = options.logBytes ?? 32 * 1024 * 1024;
    this.#maxChannels = options.maxChannels ?? 100_000;
  }

  get channels(): number {
    return this.#channels.size;
  }

  id(seq: number): string {
    return formatPosition(this.epoch, seq);
  }

  /** Gives the next position to an event and keeps it. `text` is the event without its id. */
  append(keys: readonly string[], text: string): Entry {
    const seq = ++this.head;
    const entry: Entry = { seq, keys, at: Date.now(), bytes: encode(formatId(this.id(seq)) + text) };
    if (keys.length > 1) this.#shared.set(entry, keys.length);
    this.bytes += costOf(entry);
    this.size++;
    const channels = keys.map((key) => this.pin(key));
    for (const channel of channels) {
      const before = level(channel);
      channel.push(entry);
      this.#file(channel, before);
    }
    for (const follower of this.followers) follower.appended(entry);
    for (const channel of channels) {
      this.trim(channel, entry.at);
      this.unpin(channel);
    }
    this.#shrink();
    return entry;
  }

  /** The record of a channel, made if there is none, and kept until the pin is given back. */
  pin(key: string): Channel {
    let channel = this.#channels.get(key);
    if (!channel) {
      if (this.#channels.size >= this.#maxChannels) this.#forgetOne();
      channel = new Channel(key, this.#forgotten);
      this.#channels.set(key, channel);
    }
    if (channel.pins++ === 0) this.#idle.delete(channel);
    return channel;
  }

  /** Gives back a pin. A record that tells nothing goes with its last one. */
  unpin(channel: Channel): void {
    if (--channel.pins > 0) return;
    if (channel.last <= this.#forgotten) this.#channels.delete(channel.key);
    else this.#idle.add(channel);
  }

  /** Drops what retention does not keep, unless it was not handed on yet. */
  trim(channel: Channel, time: number): void {
    const { events, bytes, age } = this.#retention;
    const handedOn = this.#handedOn();
    for (let oldest = channel.at(0); oldest && oldest.seq <= handedOn; oldest = channel.at(0)) {
      if (channel.size <= events && channel.bytes <= bytes && time - oldest.at <= age) break;
      this.#drop(channel);
    }
  }

  #handedOn(): number {
    let position = this.head;
    for (const follower of this.followers) if (follower.position < position) position = follower.position;
    return position;
  }

  #shrink(): void {
    if (this.bytes <= this.maxBytes) return;
    const handedOn = this.#handedOn();
    let dropped = 0;
    while (this.bytes > this.maxBytes) {
      const channel = this.#largest();
      if (!channel) break;
      this.#drop(channel);
      if (channel.dropped > dropped) dropped = channel.dropped;
    }
    if (dropped <= handedOn) return;
    for (const follower of this.followers) if (follower.position < dropped) follower.overrun();
  }

  #drop(channel: Channel): void {
    const before = level(channel);
    const entry = channel.shift();
    this.#file(channel, before);
    if (!entry) return;
    const holders = (this.#shared.get(entry) ?? 1) - 1;
    if (holders > 1) this.#shared.set(entry, holders);
    else this.#shared.delete(entry);
    if (holders > 0) return;
    this.bytes -= costOf(entry);
    this.size--;
  }

  #forgetOne(): void {
    for (const channel of this.#idle) {
      while (channel.size > 0) this.#drop(channel);
      this.#forgotten = Math.max(this.#forgotten, channel.last);
      this.#channels.delete(channel.key);
      this.#idle.delete(channel);
      return;
    }
  }

  #largest(): Channel | undefined {
    for (let level = this.#bySize.length - 1; level >= 0; level--) {
      for (const channel of this.#bySize[level] ?? []) return channel;
    }
    return undefined;
  }

  /** Files a channel under its size, where that changed. */
  #file(channel: Channel, before: number): void {
    const now = level(channel);
    if (before === now) return;
    this.#bySize[before]?.delete(channel);
    if (now >= 0) (this.#bySize[now] ??= new Set()).add(channel);
  }
}

/** What an event takes of `logBytes`. */
export const costOf = (entry: Entry): number => entry.bytes.length + ENTRY_COST;
const level = (channel: Channel): number => (channel.size === 0 ? -1 : Math.floor(Math.log2(channel.bytes)));
