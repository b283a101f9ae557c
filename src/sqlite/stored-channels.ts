// The record of one channel in the file, and the accounts of all of them: what each channel keeps, and what each owner takes.
import { type LogBounds, type RetentionBounds, retentionOf } from "../log/log-options.ts";
import { ENTRY_COST, type Owner, Owners, sizeClass } from "../log/owner.ts";
import type { Connection, Row } from "./database.ts";

/** The record of a channel. Its rows in `fanwire_entries` have its `id`. */
export class StoredChannel {
  readonly key: string;
  readonly id: number;
  owner: Owner<StoredChannel> | undefined;
  /** Absent until the option `channels` has answered. */
  retention: RetentionBounds | undefined;
  /** Number of events that it retains. */
  size = 0;
  /** Bytes of the events that it retains. */
  bytes = 0;
  /** The channel retains only events after this position. Another one may keep earlier events of both. */
  releasedThrough: number;
  /** The position of its newest event that is no longer in the file. */
  droppedThrough: number;
  /** The position of its newest event. */
  last: number;
  /** When the oldest event that it retains was appended, in epoch milliseconds; `Infinity` without one. */
  oldestAt: number = Infinity;

  constructor(key: string, id: number, droppedThrough: number) {
    this.key = key;
    this.id = id;
    this.releasedThrough = this.droppedThrough = this.last = droppedThrough;
  }
}

/** A row of `fanwire_channels`. */
interface ChannelRow {
  readonly id: number;
  readonly key: string;
  readonly owner: string | null;
  readonly events: number;
  readonly bytes: number;
  readonly released: number;
  readonly dropped: number;
  readonly last: number;
  readonly oldest_at: number | null;
}

/** For how many tenants the file knows up to where their channels are forgotten. Beyond that, it knows one position for all. */
const MAX_GROUPS = 1_000;

const UPSERT_CHANNEL = `INSERT INTO fanwire_channels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
  owner = excluded.owner, events = excluded.events, bytes = excluded.bytes, released = excluded.released, dropped = excluded.dropped,
  last = excluded.last, oldest_at = excluded.oldest_at`;

/** The channels of a file. Changes are in memory until {@link save} writes them, in the transaction that changes the events. */
export class StoredChannels {
  /** Bytes of all events, and of each channel's reference to one. */
  bytes = 0;
  /** The last position of channels that were forgotten: see `Log.forgotten`. */
  readonly #forgotten = new Map<string, number>();
  readonly #bounds: LogBounds;
  readonly #owners: Owners<StoredChannel>;
  readonly #byKey = new Map<string, StoredChannel>();
  readonly #changed = new Set<StoredChannel>();
  readonly #removedIds = new Set<number>();
  /** Owners whose bytes have changed, by name. */
  readonly #changedOwners = new Map<string, Owner<StoredChannel>>();
  #nextId = 1;
  #hasForgotten = false;

  /** Reads the records. Reads no event. */
  constructor(db: Connection, bounds: LogBounds, meta: ReadonlyMap<string, Row[string]>) {
    this.#bounds = bounds;
    this.#owners = new Owners(bounds.tenant);
    this.bytes = Number(meta.get("bytes") ?? 0);
    for (const [group, through] of JSON.parse(String(meta.get("forgotten") ?? "[]")))
      this.#forgotten.set(group, through);
    const owners = new Map<string, Owner<StoredChannel>>();
    for (const row of db.all<ChannelRow>("SELECT * FROM fanwire_channels ORDER BY last")) {
      const channel = new StoredChannel(row.key, row.id, row.dropped);
      channel.size = row.events;
      channel.bytes = row.bytes;
      channel.releasedThrough = row.released;
      channel.last = row.last;
      channel.oldestAt = row.oldest_at ?? Infinity;
      this.#byKey.set(row.key, channel);
      this.#nextId = Math.max(this.#nextId, row.id + 1);
      if (row.owner === null) continue;
      const owner = this.#assign(channel, row.owner);
      owner.reclassify(channel, -Infinity);
      owners.set(row.owner, owner);
    }
    for (const { name, bytes } of db.all<{ name: string; bytes: number }>("SELECT * FROM fanwire_owners")) {
      const owner = owners.get(name);
      if (owner) this.#owners.bytes.change(owner.bytes, bytes);
    }
  }

  get size(): number {
    return this.#byKey.size;
  }

  find(key: string): StoredChannel | undefined {
    return this.#byKey.get(key);
  }

  all(): IterableIterator<StoredChannel> {
    return this.#byKey.values();
  }

  /** Returns up to which position a channel may have had events that are no longer in the file. */
  droppedThrough(key: string): number {
    return this.#byKey.get(key)?.droppedThrough ?? this.#forgottenOf(key);
  }

  #forgottenOf(key: string): number {
    const forgotten = this.#forgotten;
    return forgotten.size === 0 ? 0 : (forgotten.get(this.#owners.groupOf(key)) ?? forgotten.get(key.charAt(0)) ?? 0);
  }

  /** As `Log.ownersOf`. */
  ownersOf(keys: readonly string[], subject?: string): string[] {
    return keys.map((key) => {
      const channel = this.#byKey.get(key);
      return channel?.owner && channel.size > 0 ? channel.owner.name : this.#owners.nameOf(key, subject);
    });
  }

  /** Returns the retention of a channel, or `undefined` while the option `channels` fails. */
  retentionOf(channel: StoredChannel): RetentionBounds | undefined {
    try {
      return (channel.retention ??= retentionOf(this.#bounds, channel.key));
    } catch {
      return undefined;
    }
  }

  /** Lets the channels of an event retain it, and charges their owners. Returns the channels. */
  retain(seq: number, keys: readonly string[], size: number, at: number, names: readonly string[]): StoredChannel[] {
    const charged = new Set<Owner<StoredChannel>>();
    this.bytes += size;
    return keys.map((key, index) => {
      let channel = this.#byKey.get(key);
      if (!channel) {
        channel = new StoredChannel(key, this.#nextId++, this.#forgottenOf(key));
        this.#byKey.set(key, channel);
      }
      const before = sizeClass(channel);
      const owner = this.#assign(channel, names[index] as string);
      if (channel.size++ === 0) channel.oldestAt = at;
      channel.bytes += size;
      channel.last = seq;
      this.bytes += ENTRY_COST;
      this.#charge(owner, charged.has(owner) ? ENTRY_COST : ENTRY_COST + size);
      charged.add(owner);
      owner.reclassify(channel, before);
      // The set is in the order of the last use.
      owner.unpinned.delete(channel);
      owner.unpinned.add(channel);
      this.#changed.add(channel);
      return channel;
    });
  }

  /** The channel no longer retains its oldest event. `others` are the channels that still do. */
  release(channel: StoredChannel, seq: number, size: number, others: readonly StoredChannel[]): void {
    const before = sizeClass(channel);
    const owner = channel.owner as Owner<StoredChannel>;
    channel.size--;
    channel.bytes -= size;
    channel.releasedThrough = seq;
    this.bytes -= others.length > 0 ? ENTRY_COST : ENTRY_COST + size;
    this.#charge(owner, others.some((other) => other.owner === owner) ? -ENTRY_COST : -ENTRY_COST - size);
    owner.reclassify(channel, before);
    this.#changed.add(channel);
  }

  /** An event of the channel left the file. */
  drop(channel: StoredChannel, seq: number): void {
    channel.droppedThrough = Math.max(channel.droppedThrough, seq);
    this.#changed.add(channel);
  }

  /** Sets when the oldest event that a channel retains was appended. */
  setOldest(channel: StoredChannel, at: number): void {
    channel.oldestAt = at;
    this.#changed.add(channel);
  }

  /** The largest channel of the owner that has the most bytes. */
  get largest(): StoredChannel | undefined {
    return this.#owners.bytes.largest?.largest;
  }

  /** The channel that is forgotten next: of the owner that has the most, the one that was not used for the longest time. */
  leastUsed(isNeeded: (key: string) => boolean): StoredChannel | undefined {
    for (const channel of this.#owners.unpinnedRecords.largest?.unpinned ?? [])
      if (!isNeeded(channel.key)) return channel;
    return undefined;
  }

  /** Forgets a channel that retains no event. */
  forget(channel: StoredChannel): void {
    const { owner, key } = channel;
    const forgotten = this.#forgotten;
    const group = this.#owners.groupOf(key);
    forgotten.set(group, Math.max(forgotten.get(group) ?? 0, channel.last));
    if (forgotten.size > MAX_GROUPS) this.forgetAll(Math.max(...forgotten.values()));
    this.#hasForgotten = true;
    this.#byKey.delete(key);
    this.#changed.delete(channel);
    this.#removedIds.add(channel.id);
    if (!owner) return;
    this.#leave(channel, owner);
    this.#owners.release(channel);
  }

  /** Counts every channel without a record as one that may have had events up to a position. */
  forgetAll(through: number): void {
    this.#forgotten.clear();
    for (const kind of ["", "#", "@"]) this.#forgotten.set(kind, through);
    this.#hasForgotten = true;
  }

  #assign(channel: StoredChannel, name: string): Owner<StoredChannel> {
    const { owner: before } = channel;
    if (before && before.name !== name && channel.size === 0) this.#leave(channel, before);
    const owner = this.#owners.assign(channel, name);
    if (owner.unpinned.has(channel)) return owner;
    owner.unpinned.add(channel);
    this.#owners.unpinnedRecords.change(owner.unpinnedRecords, 1);
    return owner;
  }

  /** Takes a channel out of an owner's records, before `Owners.release`. */
  #leave(channel: StoredChannel, owner: Owner<StoredChannel>): void {
    owner.unpinned.delete(channel);
    this.#owners.unpinnedRecords.change(owner.unpinnedRecords, -1);
    this.#changedOwners.set(owner.name, owner);
  }

  #charge(owner: Owner<StoredChannel>, by: number): void {
    this.#owners.bytes.change(owner.bytes, by);
    this.#changedOwners.set(owner.name, owner);
  }

  /** Writes the changes. Called in the transaction that changes the events. */
  save(db: Connection): void {
    for (const id of this.#removedIds) {
      db.run("DELETE FROM fanwire_entries WHERE channel = ?", id);
      db.run("DELETE FROM fanwire_channels WHERE id = ?", id);
    }
    for (const channel of this.#changed) {
      const { id, key, owner, size, bytes, releasedThrough, droppedThrough, last, oldestAt } = channel;
      const at = oldestAt === Infinity ? null : oldestAt;
      db.run(UPSERT_CHANNEL, id, key, owner?.name ?? null, size, bytes, releasedThrough, droppedThrough, last, at);
    }
    for (const [name, owner] of this.#changedOwners)
      if (owner.records === 0) db.run("DELETE FROM fanwire_owners WHERE name = ?", name);
      else db.run("INSERT OR REPLACE INTO fanwire_owners VALUES (?, ?)", name, owner.bytes.amount);
    if (this.#changed.size > 0 || this.#removedIds.size > 0)
      db.run("INSERT OR REPLACE INTO fanwire_meta VALUES ('bytes', ?)", this.bytes);
    if (this.#hasForgotten)
      db.run("INSERT OR REPLACE INTO fanwire_meta VALUES ('forgotten', ?)", JSON.stringify([...this.#forgotten]));
    this.#hasForgotten = false;
    this.#changed.clear();
    this.#removedIds.clear();
    this.#changedOwners.clear();
  }
}
