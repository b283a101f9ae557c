// Walks through the entries of channels in the file, a few rows at a time.
import type { Connection } from "./database.ts";

/** Rows that a cursor reads at a time. */
const ROWS = 64;

interface Entry {
  readonly seq: number;
  readonly size: number;
}

/** The entries of one channel after a position, oldest first. */
export class EntryCursor {
  readonly #db: Connection;
  readonly #id: number;
  #rows: readonly Entry[] = [];
  #index = 0;

  constructor(db: Connection, id: number, after: number) {
    this.#db = db;
    this.#id = id;
    this.#load(after);
  }

  /** The position of the entry; `Infinity` at the end. */
  get seq(): number {
    return this.#rows[this.#index]?.seq ?? Infinity;
  }

  advance(): void {
    const { seq } = this;
    if (++this.#index === ROWS) this.#load(seq);
  }

  #load(after: number): void {
    this.#index = 0;
    this.#rows = this.#db.all<Entry>(
      "SELECT seq, size FROM fanwire_entries WHERE channel = ? AND seq > ? ORDER BY seq LIMIT ?",
      ...[this.#id, after, ROWS],
    );
  }
}

/** How far the entries of one channel were taken. */
interface Part {
  readonly db: Connection;
  readonly id: number;
  readonly after: number;
  /** Oldest first. */
  rows: Entry[];
}

/** The entries of several channels, newest first, each event once. */
export class NewestEntries {
  readonly #parts: Part[] = [];

  /** Adds the entries of a channel after a position. */
  add(db: Connection, id: number, after: number): void {
    const part: Part = { db, id, after, rows: [] };
    this.#parts.push(part);
    this.#load(part, Number.MAX_SAFE_INTEGER);
  }

  #load(part: Part, before: number): void {
    const { db, id, after } = part;
    part.rows = db.all<Entry>(
      "SELECT seq, size FROM fanwire_entries WHERE channel = ? AND seq > ? AND seq < ? ORDER BY seq DESC LIMIT ?",
      ...[id, after, before, ROWS],
    );
    part.rows.reverse();
  }

  /** Returns the newest entry that was not taken, and takes it from each channel that has it. */
  take(): Entry | undefined {
    let newest: Entry | undefined;
    for (const { rows } of this.#parts) {
      const last = rows.at(-1);
      if (last && last.seq > (newest?.seq ?? 0)) newest = last;
    }
    if (!newest) return undefined;
    for (const part of this.#parts) {
      if (part.rows.at(-1)?.seq !== newest.seq) continue;
      part.rows.pop();
      if (part.rows.length === 0) this.#load(part, newest.seq);
    }
    return newest;
  }
}
