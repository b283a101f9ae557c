// The events of one file: appends them, reads them by channel, and drops those that are no longer retained.
import { now } from "../base/runtime.ts";
import type { ReplayPage, StoredEvent } from "../engine/engine.ts";
import { byteLength } from "../event/sse-format.ts";
import type { LogBounds, RetentionBounds } from "../log/log-options.ts";
import type { ChannelBounds, HistoryBounds, MaxReplay } from "../log/resume.ts";
import type { Connection } from "./database.ts";
import { EntryCursor, NewestEntries } from "./entries.ts";
import type { FileState } from "./schema.ts";
import { type StoredChannel, StoredChannels } from "./stored-channels.ts";

/** Bytes of the `id:` line that an event has besides its epoch and position. */
const ID_LINE_BYTES = "id: -\n".length;
/** Events that one statement evicts from a channel at most. */
const EVICTION_STEP = 64;
/** Events that are dropped at most besides an append or a read. To delete large ones takes a while. */
const DROPS_PER_STEP = 32;
/** Milliseconds that one step of the clean-up takes, besides its commit. */
const CLEAN_UP_STEP_MS = 3;
/** A bound is exceeded by this part before events are dropped, so that one statement drops several. */
const SLACK = 1 / 8;
/** Free pages that are kept for the next events. */
const MIN_FREE_PAGES = 256;
/** Pages that are given back to the file system in one step. */
const VACUUM_PAGES = 16;

/** An entry, as a query returns it. */
interface EntryRow {
  readonly seq: number;
  readonly at: number;
  readonly size: number;
  readonly shared: number;
}

/** The readable part of a channel. */
interface Readable {
  readonly channel: StoredChannel | undefined;
  /** Events up to here are still in the file, and are no longer retained. */
  readonly startAfter: number;
  readonly droppedThrough: number;
}

/** Decides whether the oldest event that a channel retains leaves it. */
type Decision = (entry: EntryRow) => boolean;

export class SqliteStore {
  readonly epoch: string;
  head: number;
  /** Whether reading may drop events. */
  isWritable = true;
  readonly #db: Connection;
  readonly #bounds: LogBounds;
  readonly #isPinned: (key: string) => boolean;
  readonly #channels: StoredChannels;
  #lastAt: number;
  /** Whether pages were given back that the file still has. */
  #hasFreed = false;
  /** Channels that the clean-up has still to look at. */
  readonly #overdue: StoredChannel[] = [];
  /** Whether an event left the file since `head` was written. */
  #hasDropped = false;

  /** `isPinned` returns whether a channel has a subscriber: it is not forgotten. */
  constructor(
    db: Connection,
    { epoch, head, intactThrough, meta, lastAt }: FileState,
    bounds: LogBounds,
    isPinned: (key: string) => boolean,
  ) {
    this.#db = db;
    this.epoch = epoch;
    this.head = head;
    this.#bounds = bounds;
    this.#isPinned = isPinned;
    this.#lastAt = lastAt;
    this.#channels = new StoredChannels(db, bounds, meta);
    if (intactThrough < head) this.#countLost();
  }

  /** Counts positions that may have been assigned, up to the head, as events that every channel has lost. */
  #countLost(): void {
    for (const channel of this.#channels.all()) {
      channel.last = this.head;
      this.#channels.drop(channel, this.head);
    }
    this.#channels.forgetAll(this.head);
    this.#hasDropped = true;
    this.#db.transaction(() => this.#save());
  }

  ownersOf(keys: readonly string[], subject?: string): string[] {
    return this.#channels.ownersOf(keys, subject);
  }

  /** Stores an event at the next position, and drops others that are no longer retained. Called in a transaction. */
  append(keys: readonly string[], text: string, at: number, owners: readonly string[]): void {
    const seq = this.head + 1;
    const time = (this.#lastAt = Math.max(at, this.#lastAt));
    const shared = keys.length > 1 ? 1 : 0;
    const size = byteLength(text) + ID_LINE_BYTES + this.epoch.length + String(seq).length;
    this.#db.run("INSERT INTO fanwire_events VALUES (?, ?, ?, ?)", seq, time, JSON.stringify(keys), text);
    this.head = seq;
    for (const channel of this.#channels.retain(seq, keys, size, time, owners)) {
      this.#db.run("INSERT INTO fanwire_entries VALUES (?, ?, ?, ?, ?)", channel.id, seq, time, size, shared);
      if (this.#isOver(channel, at, SLACK)) this.#applyRetention(channel, at, DROPS_PER_STEP);
    }
  }

  /** Drops events beyond the bounds of the whole log, and writes the accounts. Called once, at the end of a transaction. */
  finish(): void {
    this.#evict();
    this.#forgetLeastUsed();
    this.#save();
  }

  #save(): void {
    this.#channels.save(this.#db);
    // The newest event may be one of those that left.
    if (this.#hasDropped) this.#db.run("INSERT OR REPLACE INTO fanwire_meta VALUES ('head', ?)", this.head);
    this.#hasDropped = false;
  }

  /** Whether a channel retains more than it should, by this part of each bound. */
  #isOver(channel: StoredChannel, time: number, slack: number): boolean {
    const retention = this.#channels.retentionOf(channel);
    if (!retention || channel.size === 0) return false;
    const { events, bytes, age } = retention;
    return (
      channel.size > events * (1 + slack) ||
      channel.bytes > bytes * (1 + slack) ||
      time - channel.oldestAt > age * (1 + slack)
    );
  }

  /** Drops the events of a channel that retention does not keep; about `limit` at most. */
  #applyRetention(channel: StoredChannel, time: number, limit: number): number {
    const retention = this.#channels.retentionOf(channel);
    if (!retention) return 0;
    const { events, bytes, age } = retention;
    return this.#release(channel, limit, ({ at }) => channel.size > events || channel.bytes > bytes || time - at > age);
  }

  /** Makes a channel release its oldest events, as long as `decide` returns true, and `limit` at most. Returns how many those were. */
  #release(channel: StoredChannel, limit: number, decide: Decision): number {
    const db = this.#db;
    const from = channel.releasedThrough;
    let released = 0;
    let through = 0;
    const rows = db.all<EntryRow>(
      "SELECT seq, at, size, shared FROM fanwire_entries WHERE channel = ? AND seq > ? ORDER BY seq LIMIT ?",
      ...[channel.id, from, limit + 1],
    );
    for (const row of rows) {
      if (released === limit || !decide(row)) {
        this.#channels.setOldest(channel, row.at);
        break;
      }
      released++;
      if (row.shared) {
        this.#releaseShared(channel, row);
      } else {
        through = row.seq;
        this.#channels.release(channel, row.seq, row.size, []);
      }
    }
    if (channel.size === 0) this.#channels.setOldest(channel, Infinity);
    if (through > 0) {
      db.run(
        "DELETE FROM fanwire_events WHERE seq IN (SELECT seq FROM fanwire_entries WHERE channel = ? AND seq > ? AND seq <= ? AND shared = 0)",
        ...[channel.id, from, through],
      );
      db.run(
        "DELETE FROM fanwire_entries WHERE channel = ? AND seq > ? AND seq <= ? AND shared = 0",
        ...[channel.id, from, through],
      );
      this.#channels.drop(channel, through);
      this.#hasDropped = true;
    }
    return released;
  }

  /** Releases an event of several channels. It stays readable through each of them as long as another one retains it. */
  #releaseShared(channel: StoredChannel, { seq, size }: EntryRow): void {
    const db = this.#db;
    const [row] = db.all<{ keys: string }>("SELECT keys FROM fanwire_events WHERE seq = ?", seq);
    const keys = JSON.parse(row?.keys ?? "[]") as string[];
    const all = keys.flatMap((key) => this.#channels.find(key) ?? []);
    const others = all.filter((other) => other !== channel && other.releasedThrough < seq);
    this.#channels.release(channel, seq, size, others);
    if (others.length > 0) return;
    db.run("DELETE FROM fanwire_events WHERE seq = ?", seq);
    for (const each of all) {
      db.run("DELETE FROM fanwire_entries WHERE channel = ? AND seq = ?", each.id, seq);
      this.#channels.drop(each, seq);
    }
    this.#hasDropped = true;
  }

  /** Drops events of the owner that has the most, until the log is within `logBytes`. */
  #evict(): void {
    const { logBytes } = this.#bounds;
    while (this.#channels.bytes > logBytes) {
      const channel = this.#channels.largest;
      if (!channel) return;
      const isLargest = (): boolean => this.#channels.bytes > logBytes && this.#channels.largest === channel;
      if (this.#release(channel, EVICTION_STEP, isLargest) === 0) return;
    }
  }

  /** Forgets channels beyond `maxChannels`, and their events; not all of a large one at once. */
  #forgetLeastUsed(): void {
    let limit = DROPS_PER_STEP;
    while (this.#channels.size > this.#bounds.maxChannels && limit > 0) {
      const channel = this.#channels.leastUsed(this.#isPinned);
      if (!channel) return;
      limit -= 1 + this.#release(channel, limit, () => true);
      if (channel.size === 0) this.#channels.forget(channel);
    }
  }

  /** Drops some of the events that retention no longer keeps, and gives free pages back. Returns whether more is left to do. */
  cleanUp(time: number): boolean {
    if (this.#overdue.length === 0)
      for (const channel of this.#channels.all()) if (this.#isOver(channel, time, SLACK)) this.#overdue.push(channel);
    if (this.#overdue.length === 0) return this.#giveBackPages();
    const end = now() + CLEAN_UP_STEP_MS;
    this.#db.transaction(() => {
      while (this.#overdue.length > 0 && now() < end) {
        const channel = this.#overdue.at(-1) as StoredChannel;
        // It may have been forgotten in the meantime.
        const isKnown = this.#channels.find(channel.key) === channel;
        if (!isKnown || this.#applyRetention(channel, time, DROPS_PER_STEP) < DROPS_PER_STEP) this.#overdue.pop();
      }
      this.#save();
    });
    return true;
  }

  /** Shrinks a file of which more than a third is free. Returns whether more is left to do. */
  #giveBackPages(): boolean {
    const pragma = (name: string): number => Number(Object.values(this.#db.all(`PRAGMA ${name}`)[0] ?? {})[0]);
    const free = pragma("freelist_count");
    if (free < MIN_FREE_PAGES || free * 3 < pragma("page_count")) {
      // Only this makes the file itself shorter.
      if (this.#hasFreed) this.#db.exec("PRAGMA wal_checkpoint");
      return (this.#hasFreed = false);
    }
    this.#db.finish(`PRAGMA incremental_vacuum(${VACUUM_PAGES})`);
    this.#hasFreed = pragma("freelist_count") < free;
    return this.#hasFreed;
  }

  /** Drops events of these channels that retention does not keep, and returns the readable part of each channel. */
  #trim(keys: readonly string[]): Readable[] {
    const time = Date.now();
    const channels = keys.map((key) => this.#channels.find(key));
    const over = channels.filter(
      (channel) => channel !== undefined && this.#isOver(channel, time, 0),
    ) as StoredChannel[];
    if (over.length > 0 && this.isWritable)
      this.#db.transaction(() => {
        for (const channel of over) this.#applyRetention(channel, time, DROPS_PER_STEP);
        this.#save();
      });
    return keys.map((key, index) => {
      const channel = channels[index];
      // After a long pause there may be millions, which are dropped little by little. Nobody reads them in the meantime.
      const startAfter = channel && this.#isOver(channel, time, 0) ? this.#expiredThrough(channel, time) : 0;
      return { channel, startAfter, droppedThrough: Math.max(startAfter, this.#channels.droppedThrough(key)) };
    });
  }

  /** Returns the position of the newest event of a channel that retention does not keep. */
  #expiredThrough(channel: StoredChannel, time: number): number {
    const { events, bytes, age } = this.#channels.retentionOf(channel) as RetentionBounds;
    const newest = new NewestEntries();
    newest.add(this.#db, channel.id, channel.releasedThrough);
    let expired = this.#olderThan(channel, time - age);
    let remaining = bytes;
    for (let count = 1; ; count++) {
      const entry = newest.take();
      if (!entry || entry.seq <= expired) return expired;
      remaining -= entry.size;
      if (count > events || remaining < 0) expired = entry.seq;
    }
  }

  /** Returns the position of the newest event of a channel that was appended before a time. */
  #olderThan(channel: StoredChannel, at: number): number {
    // Times grow with positions.
    let low = channel.releasedThrough;
    for (let high = channel.last; low < high; ) {
      const middle = Math.ceil((low + high) / 2);
      const [entry] = this.#db.all<EntryRow>(
        "SELECT seq, at FROM fanwire_entries WHERE channel = ? AND seq > ? AND seq <= ? ORDER BY seq DESC LIMIT 1",
        ...[channel.id, low, middle],
      );
      if (!entry || entry.at < at) low = middle;
      else high = entry.seq - 1;
    }
    return low;
  }

  /** As `EngineSession.read`. */
  read(keys: readonly string[], after: number, maxBytes: number): ReplayPage {
    const readable = this.#trim(keys);
    const cursors = readable.flatMap(({ channel, startAfter }) =>
      channel && channel.last > after ? new EntryCursor(this.#db, channel.id, Math.max(after, startAfter)) : [],
    );
    const records: StoredEvent[] = [];
    let remaining = maxBytes;
    let through = this.head;
    for (;;) {
      let next = Infinity;
      for (const { seq } of cursors) next = Math.min(next, seq);
      if (next === Infinity) break;
      const [row] = this.#db.all<{ keys: string; body: string }>(
        "SELECT keys, body FROM fanwire_events WHERE seq = ?",
        next,
      );
      remaining -= row?.body.length ?? 0;
      const last = records.at(-1);
      if (last && remaining < 0) {
        through = last.seq;
        break;
      }
      if (row) records.push({ seq: next, keys: JSON.parse(row.keys) as string[], text: row.body });
      for (const cursor of cursors) if (cursor.seq === next) cursor.advance();
    }
    return {
      epoch: this.epoch,
      records,
      through,
      droppedThrough: readable.map(({ droppedThrough }) => droppedThrough),
    };
  }

  /** As `EngineSession.historyBounds`. */
  historyBounds(keys: readonly string[], after: number, max: MaxReplay, last?: number): HistoryBounds {
    const readable = this.#trim(keys);
    const seqOf = (rest: string, ...values: number[]): number | undefined =>
      this.#db.all<{ seq: number }>(
        `SELECT seq FROM fanwire_entries WHERE channel = ? AND seq > ? ${rest}`,
        ...values,
      )[0]?.seq;
    const channels = readable.map(({ channel, startAfter, droppedThrough }, index): ChannelBounds => {
      const key = keys[index] as string;
      if (!channel) return { key, droppedThrough, oldest: undefined, next: undefined, lastFloor: last && 0 };
      const { id } = channel;
      return {
        key,
        droppedThrough,
        oldest: seqOf("ORDER BY seq LIMIT 1", id, startAfter),
        next: seqOf("ORDER BY seq LIMIT 1", id, Math.max(after, startAfter)),
        lastFloor: last && (seqOf("ORDER BY seq DESC LIMIT 1 OFFSET ?", id, startAfter, last - 1) ?? 1) - 1,
      };
    });
    const floor = this.#replayFloor(readable, after, max, channels);
    return { epoch: this.epoch, head: this.head, floor, channels };
  }

  /** Returns the position after which the newest events lie, as many as a replay may have; 0 if it may have all of them. */
  #replayFloor(
    readable: readonly Readable[],
    after: number,
    { events = Infinity, bytes = Infinity }: MaxReplay,
    bounds: readonly ChannelBounds[],
  ): number {
    if (events === Infinity && bytes === Infinity) return 0;
    const newest = new NewestEntries();
    for (const [index, { channel, startAfter }] of readable.entries())
      if (channel) newest.add(this.#db, channel.id, Math.max(after, startAfter, bounds[index]?.lastFloor ?? 0));
    let remaining = bytes;
    for (let count = 0; ; count++) {
      const entry = newest.take();
      if (!entry) return 0;
      remaining -= entry.size;
      if (count >= events || remaining < 0) return entry.seq;
    }
  }

  /** Returns the events after a position, whatever their channels. */
  eventsAfter(seq: number): (StoredEvent & { readonly at: number })[] {
    return this.#db
      .all<{ seq: number; at: number; keys: string; body: string }>(
        "SELECT * FROM fanwire_events WHERE seq > ? ORDER BY seq",
        seq,
      )
      .map(({ keys, body, ...event }) => ({ ...event, keys: JSON.parse(keys) as string[], text: body }));
  }
}
