// The bounded log of one namespace. It assigns positions, and drops events by channel: those that retention no longer keeps, and when the log is
// full, the oldest ones of the largest channel of the owner that takes the most.
import { formatPosition } from "../event/position.ts";
import { encode, withId } from "../event/sse-format.ts";
import { ChannelLog, type Entry, type LossNotice } from "./channel-log.ts";
import { type LogBounds, type RetentionBounds, retentionOf } from "./log-options.ts";
import { ENTRY_COST, type Owner, Owners, sizeClass } from "./owner.ts";

/** Returns the bytes that an event counts against `logBytes`. */
export const entryCost = ({ bytes, keys }: Entry): number => bytes.length + ENTRY_COST * keys.length;

/** For how many tenants the log knows up to where their channels are forgotten. Beyond that, it knows only one position for all. */
const MAX_GROUPS = 1_000;

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
  /** An event was published that the log does not hold, behind everything that was appended before. `bytes` are its wire form, without an id. */
  onEphemeral?(keys: readonly string[], bytes: Uint8Array<ArrayBuffer>): void;
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
  /** Bytes of all events, including {@link ENTRY_COST} for each channel that retains one. */
  bytes = 0;
  /** Events that the log holds, each counted once. */
  size = 0;

  readonly retention: RetentionBounds;
  readonly #bounds: LogBounds;
  readonly #channels = new Map<string, ChannelLog>();
  readonly #owners: Owners<ChannelLog>;
  /** Number of records without a pin. */
  #unpinned = 0;
  /** Channels that keep no event, and have one that was not offered to every subscriber yet. */
  readonly #passing = new Set<ChannelLog>();
  /**
   * The last position of channels that were forgotten, by tenant (`#` and its name) or by the first character of the key. A channel without a
   * record may have had events up to there.
   */
  readonly forgotten: Map<string, number> = new Map();

  constructor(epoch: string, bounds: LogBounds) {
    this.epoch = epoch;
    this.maxBytes = bounds.logBytes;
    this.retention = bounds.retention;
    this.#bounds = bounds;
    this.#owners = new Owners(bounds.tenant);
  }

  /** Number of channels that have a record. */
  get channels(): number {
    return this.#channels.size;
  }

  /** A channel without a record may have had events up to this position. */
  get forgottenThrough(): number {
    return Math.max(0, ...this.forgotten.values());
  }

  /** Counts every channel without a record as one that may have had events up to this position. */
  restoreForgotten(through: number): void {
    this.forgotten.clear();
    for (const kind of ["", "#", "@"]) this.forgotten.set(kind, through);
  }

  #forgottenOf(key: string): number {
    const { forgotten } = this;
    return forgotten.size === 0 ? 0 : (forgotten.get(this.#owners.groupOf(key)) ?? forgotten.get(key.charAt(0)) ?? 0);
  }

  /** Returns the wire id of a position of this log. */
  id(seq: number): string {
    return formatPosition(this.epoch, seq);
  }

  /**
   * Appends an event at the next position. `text` is its wire form without an id, `at` the time in epoch milliseconds, and `subject` the
   * publisher's. An engine that stores the event first asks for its `owners` before that.
   *
   * @throws as {@link ownersOf}, before anything is appended
   */
  append(
    keys: readonly string[],
    text: string,
    at: number = Date.now(),
    subject?: string,
    owners: readonly string[] = this.ownersOf(keys, subject),
  ): Entry {
    const channels = keys.map((key) => this.pin(key));
    const entry = this.#store(this.head + 1, keys, channels, text, at, owners);
    for (const listener of this.listeners) listener.onAppended(entry);
    for (const channel of channels) {
      this.trim(channel, at);
      this.unpin(channel);
    }
    this.#evict();
    return entry;
  }

  /** Appends an event, or a notice, whose position another process assigned. `channels` are the records of those of `keys` that are subscribed. */
  appendAt(
    seq: number,
    keys: readonly string[],
    channels: readonly ChannelLog[],
    text: string,
    notice?: LossNotice,
  ): void {
    const at = Date.now();
    const owners = channels.map(({ key }) => this.#owners.settledNameOf(key));
    const entry = this.#store(seq, keys, channels, text, at, owners, notice);
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
  restore(seq: number, keys: readonly string[], text: string, at: number, subject?: string): void {
    const channels = keys.map((key) => this.pin(key));
    const owners = channels.map(({ key, owner }) => owner?.name ?? this.#owners.settledNameOf(key, subject));
    this.#store(seq, keys, channels, text, at, owners);
    for (const channel of channels) this.unpin(channel);
  }

  /** Gives a record that was stored to the owner it had; in a channel of a tenant to that one. Without a name, the next event does. */
  restoreOwner(channel: ChannelLog, name: string | null): void {
    if (name !== null) this.#owners.assign(channel, this.#owners.settledNameOf(channel.key, name.slice(1)));
  }

  #store(
    seq: number,
    keys: readonly string[],
    channels: readonly ChannelLog[],
    text: string,
    at: number,
    names: readonly string[],
    notice?: LossNotice,
  ): Entry {
    const bytes = encode(withId(text, this.id(seq)));
    const owners = channels.length > 1 ? new Map<Owner<ChannelLog>, number>() : undefined;
    const entry: Entry = { seq, keys, at, bytes, total: 0, retainCount: 0, owners, notice };
    this.head = seq;
    this.bytes += bytes.length;
    this.size++;
    for (let index = 0; index < channels.length; index++) {
      const channel = channels[index] as ChannelLog;
      const before = sizeClass(channel);
      const owner = this.#owners.assign(channel, names[index] as string);
      channel.retain(entry);
      this.#charge(owner, entry, 1);
      owner.reclassify(channel, before);
    }
    return entry;
  }

  /**
   * Drops the events that exceed a bound, of all channels. `time` is in epoch milliseconds. Returns the shortest `age`, in milliseconds, of a
   * channel that still retains events (the engine's, where `channels` fails); `Infinity` if nothing is left that will become too old.
   */
  applyRetention(time: number): number {
    let shortest = Infinity;
    for (const channel of this.#channels.values()) {
      this.trim(channel, time);
      if (channel.size > 0) shortest = Math.min(shortest, (channel.retention ?? this.retention).age);
    }
    this.#evict();
    return shortest;
  }

  /** Drops the events of channels that keep none, as far as every subscriber was offered them. Called after each flush. */
  dropPassing(): void {
    for (const channel of this.#passing) this.trim(channel, 0);
  }

  /**
   * Asks the option `channels` about those of these channels that it was not asked about, or did not answer for. `pin` never throws.
   *
   * @throws what `channels` throws; `TypeError` or `RangeError` if it returns no valid options
   */
  checkChannels(keys: readonly string[]): void {
    if (this.#bounds.channels) for (const key of keys) if (!this.find(key)?.retention) retentionOf(this.#bounds, key);
  }

  /** Returns the record of a channel, if there is one. */
  find(key: string): ChannelLog | undefined {
    return this.#channels.get(key);
  }

  /** Returns the record of a channel, and keeps it until `unpin`. Creates the record if there is none. */
  pin(key: string): ChannelLog {
    let channel = this.#channels.get(key);
    if (!channel) {
      channel = new ChannelLog(key, this.#forgottenOf(key));
      channel.retention = this.#retentionOf(key);
      this.#channels.set(key, channel);
    }
    if (channel.pins++ === 0) this.#leaveUnpinned(channel);
    return channel;
  }

  /** Removes a pin. With its last pin, a record without an owner is removed if a new one would say the same. */
  unpin(channel: ChannelLog): void {
    if (--channel.pins > 0) return;
    const { key, owner } = channel;
    const owners = this.#owners;
    if (!owner && channel.last <= this.#forgottenOf(key)) {
      this.#channels.delete(key);
      return;
    }
    const { unpinned, unpinnedRecords } = owner ?? owners.assign(channel, owners.settledNameOf(key));
    unpinned.add(channel);
    owners.unpinnedRecords.change(unpinnedRecords, 1);
    if (++this.#unpinned > this.#bounds.maxChannels) this.#forgetOldest();
  }

  /** Drops the events of a channel that retention does not keep, except those that were not offered to every subscriber yet. */
  trim(channel: ChannelLog, time: number): void {
    const retention = (channel.retention ??= this.#retentionOf(channel.key));
    if (!retention) return;
    const { events, bytes, age } = retention;
    const delivered = this.#deliveredThrough();
    for (let { oldest } = channel; oldest && oldest.seq <= delivered; { oldest } = channel) {
      if (channel.size <= events && channel.bytes <= bytes && time - oldest.at <= age) break;
      this.#dropOldest(channel);
    }
    if (events === 0) this.#passing[channel.size > 0 ? "add" : "delete"](channel);
  }

  /** Returns the retention of a channel, or `undefined` while the option `channels` fails: until it answers, nothing becomes too much or old. */
  #retentionOf(key: string): RetentionBounds | undefined {
    try {
      return retentionOf(this.#bounds, key);
    } catch {
      return undefined;
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
      const channel = this.#owners.bytes.largest?.largest;
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
    if (!entry) return 0;
    const owner = channel.owner as Owner<ChannelLog>;
    this.#charge(owner, entry, -1);
    owner.reclassify(channel, before);
    if (entry.retainCount > 0) return 0;
    this.bytes -= entry.bytes.length;
    this.size--;
    for (const key of entry.keys) this.#channels.get(key)?.entryRemoved(entry, isEvicted);
    this.storageListener?.onEntryRemoved(entry);
    return entry.seq;
  }

  /** Forgets a record of the owner that has the most without a pin: the one that has had none for the longest time. */
  #forgetOldest(): void {
    const owner = this.#owners.unpinnedRecords.largest as Owner<ChannelLog>;
    for (const channel of owner.unpinned) {
      const { forgotten } = this;
      const group = this.#owners.groupOf(channel.key);
      forgotten.set(group, Math.max(forgotten.get(group) ?? 0, channel.last));
      if (forgotten.size > MAX_GROUPS) this.restoreForgotten(this.forgottenThrough);
      this.discard(channel);
      this.storageListener?.onChannelForgotten(channel.key, this.forgottenThrough);
      return;
    }
  }

  /** Removes the record of a channel and all its events, even if a subscriber has not read them. */
  discard(channel: ChannelLog): void {
    while (channel.size > 0) this.#dropOldest(channel);
    this.#remove(channel);
  }

  /** Removes the record of a channel that retains no event. */
  #remove(channel: ChannelLog): void {
    this.#channels.delete(channel.key);
    this.#leaveUnpinned(channel);
    this.#owners.release(channel);
  }

  #leaveUnpinned(channel: ChannelLog): void {
    const { owner } = channel;
    if (!owner?.unpinned.delete(channel)) return;
    this.#owners.unpinnedRecords.change(owner.unpinnedRecords, -1);
    this.#unpinned--;
  }

  /**
   * Returns the names of the owners of these channels, for an event of this publisher.
   *
   * @throws what `tenant` throws, `TypeError` if it does not return a string; as {@link checkChannels}
   */
  ownersOf(keys: readonly string[], subject?: string): string[] {
    this.checkChannels(keys);
    return keys.map((key) => {
      const channel = this.#channels.get(key);
      return channel?.owner && channel.size > 0 ? channel.owner.name : this.#owners.nameOf(key, subject);
    });
  }

  /** Charges an owner for an event that one of its channels retains, or no longer does (`by` -1). */
  #charge(owner: Owner<ChannelLog>, { bytes, owners }: Entry, by: 1 | -1): void {
    const before = owners?.get(owner) ?? 0;
    owners?.set(owner, before + by);
    // Each event counts once, and each reference to it as well.
    const cost = owners && Math.max(before, before + by) > 1 ? ENTRY_COST : ENTRY_COST + bytes.length;
    this.bytes += by * ENTRY_COST;
    this.#owners.bytes.change(owner.bytes, by * cost);
  }
}
