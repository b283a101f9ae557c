import { checkNumbers, overlay } from "../base/validate.ts";
import { encode, formatId } from "../event/event.ts";
import { formatPosition } from "../event/position.ts";
import type { Order } from "../shared-log/shared-log.ts";
import { Channel, type Entry } from "./channel-log.ts";

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
  const bounds = overlay<LogBounds>(where, "option", defaults, options);
  const unbounded = { events: Infinity, bytes: Infinity, age: 300_000 };
  const retention = overlay<LogBounds["retention"]>(where, "retention option", unbounded, bounds.retention);
  const { logBytes, maxChannels } = bounds;
  checkNumbers(where, { logBytes, maxChannels, ...retention }, 1);
  return { retention, logBytes, maxChannels };
}

/** What an event costs beside its bytes: the objects that hold it, as measured on V8 and JavaScriptCore. */
const ENTRY_COST = 256;

/** What an event takes of `logBytes`. */
export const costOf = (entry: Entry): number => entry.bytes.length + ENTRY_COST;

/** Who hands events on from the log to readers. */
export interface Follower {
  /** All up to here was handed on or concerned nobody; retention keeps what is after it, only `logBytes` does not. */
  readonly position: number;
  /** An event was appended. Called in order, in the same turn, before the publisher is told. MUST NOT throw. */
  appended(entry: Entry): void;
  /** The log had to drop what is after `position`. MUST NOT throw. */
  overrun(): void;
  /** The head moved on without an event for this process. */
  advanced?(): void;
  /** The log is another one now: what was before has come to an end. Its channels that are subscribed to are in the new one. */
  began?(log: Log): void;
  /**
   * Events of a channel did not come, though they should have; the log has counted them as dropped. Missing is what is after a position, up
   * to another one, which may be behind others that came. It is not beyond the head: what comes there was handed to nobody yet.
   */
  missed?(key: string, after: number, through: number): void;
  /** Another process asks for something to be done with clients. */
  ordered?(order: Order): void;
  /** Something failed that nobody waits for. */
  failed?(error: unknown): void;
}

/** Who keeps what the log holds in a place that outlives the process. */
export interface Keeper {
  /** The log holds this event no longer. */
  lost(entry: Entry): void;
  /** The log knows nothing of this channel any more. */
  forgot(key: string): void;
}

/** The bounded log of one namespace: one total order, kept by channel. */
export class Log {
  readonly epoch: string;
  readonly maxBytes: number;
  readonly followers: Set<Follower> = new Set();
  keeper: Keeper | undefined;
  /** The last position given. */
  head = 0;
  /** Bytes held, each event counted once, {@link ENTRY_COST} included. */
  bytes = 0;
  /** Events held, each counted once. */
  size = 0;

  readonly retention: LogBounds["retention"];
  readonly #maxChannels: number;
  readonly #channels = new Map<string, Channel>();
  /** Channels without a pin, the one that was used longest ago first. */
  readonly #idle = new Set<Channel>();
  /** Every channel without a record may have had events up to here. */
  forgotten = 0;
  /** Channels that keep events, by the binary logarithm of what those cost. */
  readonly #bySize: Set<Channel>[] = [];

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
    const entry = this.#hold(this.head + 1, keys, channels, text, at);
    for (const follower of this.followers) follower.appended(entry);
    for (const channel of channels) {
      this.trim(channel, at);
      this.unpin(channel);
    }
    this.#shrink();
    return entry;
  }

  /** Keeps an event that has its position: in channels that are told from others, which this process may know of but not follow. */
  add(seq: number, keys: readonly string[], followed: readonly Channel[], text: string): void {
    const at = Date.now();
    const entry = this.#hold(seq, keys, followed, text, at);
    for (const follower of this.followers) follower.appended(entry);
    for (const channel of followed) this.trim(channel, at);
    this.#shrink();
  }

  /** Nothing of the channels that are followed was before this position and did not come. */
  advance(seq: number): void {
    if (seq <= this.head) return;
    this.head = seq;
    for (const follower of this.followers) follower.advanced?.();
  }

  /** Puts back an event that was kept elsewhere. In order, before anything is appended; `expire` then drops what is over its bounds. */
  restore(seq: number, keys: readonly string[], text: string, at: number): void {
    const channels = keys.map((key) => this.pin(key));
    this.#hold(seq, keys, channels, text, at);
    for (const channel of channels) this.unpin(channel);
  }

  #hold(seq: number, keys: readonly string[], channels: readonly Channel[], text: string, at: number): Entry {
    const entry: Entry = { seq, keys, at, bytes: encode(formatId(this.id(seq)) + text), keepers: 0 };
    this.head = seq;
    this.bytes += costOf(entry);
    this.size++;
    for (const channel of channels) {
      const before = level(channel);
      channel.keep(entry);
      this.#file(channel, before);
    }
    return entry;
  }

  /** Drops what no bound allows any more, of all channels. */
  expire(time: number): void {
    for (const channel of this.#channels.values()) this.trim(channel, time);
    this.#shrink();
  }

  /** The record of a channel, if there is one. */
  peek(key: string): Channel | undefined {
    return this.#channels.get(key);
  }

  /** The record of a channel, made if there is none, and kept until the pin is given back. */
  pin(key: string): Channel {
    let channel = this.#channels.get(key);
    if (!channel) {
      channel = new Channel(key, this.forgotten);
      this.#channels.set(key, channel);
    }
    if (channel.pins++ === 0) this.#idle.delete(channel);
    return channel;
  }

  /** Gives back a pin. A record that tells nothing goes with its last one. */
  unpin(channel: Channel): void {
    if (--channel.pins > 0) return;
    if (channel.last <= this.forgotten && channel.size === 0) this.#channels.delete(channel.key);
    else if (this.#idle.add(channel).size > this.#maxChannels) this.#forgetOne();
  }

  /** Drops what retention does not keep, unless it was not handed on yet. */
  trim(channel: Channel, time: number): void {
    const { events, bytes, age } = this.retention;
    const handedOn = this.#handedOn();
    for (let { oldest } = channel; oldest && oldest.seq <= handedOn; { oldest } = channel) {
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
    let lost = 0;
    while (this.bytes > this.maxBytes) {
      const channel = this.#largest();
      if (!channel) break;
      lost = Math.max(lost, this.#drop(channel, true));
    }
    if (lost === 0) return;
    for (const follower of this.followers) if (follower.position < lost) follower.overrun();
  }

  /** Has a channel give up its oldest event, `forced` for want of room. The event's seq if it left the log, else 0. */
  #drop(channel: Channel, forced = false): number {
    const before = level(channel);
    const entry = channel.release();
    this.#file(channel, before);
    if (!entry || entry.keepers > 0) return 0;
    this.bytes -= costOf(entry);
    this.size--;
    for (const key of entry.keys) this.#channels.get(key)?.lost(entry, forced);
    this.keeper?.lost(entry);
    return entry.seq;
  }

  #forgetOne(): void {
    for (const channel of this.#idle) {
      this.forgotten = Math.max(this.forgotten, channel.last);
      this.discard(channel);
      this.keeper?.forgot(channel.key);
      return;
    }
  }

  /** Drops a channel's record, with what it keeps, whoever needs it. */
  discard(channel: Channel): void {
    while (channel.size > 0) this.#drop(channel);
    this.#channels.delete(channel.key);
    this.#idle.delete(channel);
  }

  #largest(): Channel | undefined {
    for (let index = this.#bySize.length - 1; index >= 0; index--) {
      for (const channel of this.#bySize[index] ?? []) return channel;
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

const level = ({ size, bytes }: Channel): number => Math.floor(Math.log2(size * ENTRY_COST + bytes));
