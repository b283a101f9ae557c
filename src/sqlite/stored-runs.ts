// Runs in SQLite: their tables, and each change of a run as statements. The engine of a file and the engine of Durable Objects share it.
import { now } from "../base/runtime.ts";
import {
  formatRunEvent,
  type RunAppend,
  type RunEnd,
  type RunPage,
  type RunStart,
  type RunStatus,
} from "../engine/run-store.ts";
import { RunWatchers } from "../engine/run-watchers.ts";
import { concat, encode, endOfEvent } from "../event/sse-format.ts";

/**
 * - `runs`: one row for each run. `run` is the number that its events have; `ending` is null while it is live. `until` is in epoch milliseconds:
 *   of a live run the end of its lease, and of one that has ended the time at which it is dropped.
 * - `run_events`: events that were appended together, in their wire form: `count` of them, from the number `first` on. The last row says how many
 *   events a run has, so that an append is one row.
 */
export const RUN_TABLES: readonly string[] = [
  `CREATE TABLE IF NOT EXISTS fanwire_runs (
    id TEXT PRIMARY KEY, run INTEGER NOT NULL, generation TEXT NOT NULL, lease_ms INTEGER NOT NULL, retain_ms INTEGER NOT NULL,
    until INTEGER NOT NULL, stopping INTEGER NOT NULL, ending TEXT, readers TEXT
  ) WITHOUT ROWID`,
  `CREATE TABLE IF NOT EXISTS fanwire_run_events (
    run INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (run, first)
  ) WITHOUT ROWID`,
];

/** A row of events has about so many bytes at most, unless it has one event. */
const ROW_BYTES = 64 * 1024;
/** Rows of a page that the first query reads. Each further one reads four times as many. */
const FIRST_ROWS = 2;
const ROWS_FACTOR = 4;
/**
 * A lease is stored as so many times as long as it is, and again once the stored one ends before the real one. So a renewal seldom writes, and a run
 * is never lost too early.
 */
const STORED_LEASE_FACTOR = 1.5;
/** The longest duration in milliseconds, about 30 years: its end is a valid time of an alarm. */
const MAX_MS = 1e12;

const SELECT_RUN = `SELECT *, (
  SELECT first + count - 1 FROM fanwire_run_events WHERE run = fanwire_runs.run ORDER BY first DESC LIMIT 1
) AS events FROM fanwire_runs WHERE id = ?`;
const SELECT_EVENTS = `SELECT first, count, bytes FROM fanwire_run_events WHERE run = ? AND first >= (
  SELECT MAX(first) FROM fanwire_run_events WHERE run = ? AND first <= ?
) ORDER BY first LIMIT ?`;
/** Takes the id away from a run. No id begins with a line break. */
const DROP_RUN = "UPDATE fanwire_runs SET id = char(10) || run, until = 0 WHERE id = ?";

type Value = string | number | null | Uint8Array;

/** Runs statements, inside of a transaction where they write. */
export interface RunsDatabase {
  all(sql: string, ...values: Value[]): unknown[];
  run(sql: string, ...values: Value[]): unknown;
}

/** A row of `fanwire_runs`. */
interface RunRow {
  readonly id: string;
  readonly run: number;
  readonly generation: string;
  readonly lease_ms: number;
  readonly retain_ms: number;
  readonly until: number;
  readonly stopping: number;
  readonly ending: RunEnd | null;
  readonly readers: string | null;
  /** Null without an event. */
  readonly events: number | null;
}
interface EventsRow {
  readonly first: number;
  readonly count: number;
  readonly bytes: Uint8Array<ArrayBuffer> | ArrayBuffer;
}

/** The lease of a run. `until` is as `now()` counts. */
interface Lease {
  readonly generation: string;
  readonly until: number;
}

/** The runs of one database. Methods that change something are called in a transaction, and {@link notify} after its commit. */
export class StoredRuns {
  #db: RunsDatabase | undefined;
  readonly #onLease: ((ms: number) => void) | undefined;
  /** The leases of live runs. An entry of a run that has ended stays until its time is over. */
  readonly #leases = new Map<string, Lease>();
  readonly watchers: RunWatchers = new RunWatchers();
  /** Runs whose watchers have to be called, and whether somebody may have asked to stop. */
  readonly #changed = new Map<string, boolean>();
  #nextRun = 1;

  /** With `onLease` leases are stored, and it is called for each with its milliseconds. Without it they end with this object. */
  constructor(onLease?: (ms: number) => void) {
    this.#onLease = onLease;
  }

  /** Continues with the runs in a database. Where leases are not stored, a live run that this object does not know has lost its producer. */
  load(db: RunsDatabase): void {
    this.#db = db;
    const [newest] = this.#all<{ run: number | null }>("SELECT MAX(run) AS run FROM fanwire_runs");
    this.#nextRun = (newest?.run ?? 0) + 1;
    for (const row of this.#all<RunRow>("SELECT * FROM fanwire_runs WHERE ending IS NULL")) {
      if (this.#onLease) this.#setLease(row, Math.min(row.until - Date.now(), row.lease_ms));
      else if (this.#leases.get(row.id)?.generation !== row.generation) this.#end(row, "lost");
    }
    for (const id of this.watchers.keys()) this.#changed.set(id, true);
  }

  /** Forgets the leases: the producers have ended. */
  clear(): void {
    this.#leases.clear();
  }

  #all<Result>(sql: string, ...values: Value[]): Result[] {
    return (this.#db as RunsDatabase).all(sql, ...values) as Result[];
  }

  #run(sql: string, ...values: Value[]): void {
    this.#db?.run(sql, ...values);
  }

  /** As `RunStore.start`. */
  start(id: string, { generation, leaseMs, retainMs, readers }: RunStart): boolean {
    const current = this.#findAlive(id);
    if (current?.generation === generation) {
      if (!current.ending) this.#renew(current);
      return true;
    }
    if (current && !current.ending) return false;
    // The events of a run that had this id are deleted later, some at a time.
    this.#run(DROP_RUN, id);
    const [lease, retain] = [bounded(leaseMs), bounded(retainMs)];
    this.#run(
      "INSERT INTO fanwire_runs VALUES (?, ?, ?, ?, ?, ?, 0, NULL, ?)",
      ...[id, this.#nextRun++, generation, lease, retain, timeIn(STORED_LEASE_FACTOR * lease), readers ?? null],
    );
    this.#setLease({ id, generation }, lease);
    this.#onLease?.(lease);
    this.#change(id);
    return true;
  }

  /** As `RunStore.append`. */
  append(id: string, generation: string, { after, texts, end }: RunAppend): boolean {
    const row = this.#find(id);
    if (row?.generation !== generation) return false;
    const events = row.events ?? 0;
    if (row.ending) return end === row.ending && events === after + texts.length;
    if (events < after) {
      // Events that were answered are gone, as from a backup. The run must not look whole.
      this.#end(row, "lost");
      return false;
    }
    if (end && after + texts.length < events) return false;
    this.#insert(row, events + 1, texts.slice(events - after));
    if (end) this.#end(row, end);
    else this.#renew(row);
    this.#change(id);
    return true;
  }

  /** Inserts events: in one row, unless they are large. */
  #insert({ run, generation }: RunRow, first: number, texts: readonly string[]): void {
    let frames = "";
    let count = 0;
    const insert = (): void => {
      if (count > 0) this.#run("INSERT INTO fanwire_run_events VALUES (?, ?, ?, ?)", run, first, count, encode(frames));
      first += count;
      frames = "";
      count = 0;
    };
    for (const text of texts) {
      const frame = formatRunEvent(text, generation, first + count);
      if (frames.length + frame.length > ROW_BYTES) insert();
      frames += frame;
      count++;
    }
    insert();
  }

  /** As `RunStore.renew`. */
  renew(runs: readonly { readonly id: string; readonly generation: string }[]): RunStatus[] {
    return runs.map(({ id, generation }) => {
      const row = this.#find(id);
      if (row?.generation !== generation || row.ending) return "over";
      this.#renew(row);
      return row.stopping ? "stopping" : "live";
    });
  }

  /** As `RunStore.requestStop`. */
  requestStop(id: string): boolean {
    const row = this.#findAlive(id);
    if (!row || row.ending) return false;
    if (!row.stopping) this.#run("UPDATE fanwire_runs SET stopping = 1 WHERE id = ?", id);
    this.#changed.set(id, true);
    return true;
  }

  /** As `RunStore.read`. `write` runs a write in a transaction; without it, a run whose lease is over stays as it is. */
  read(id: string, after: number, maxBytes: number, write?: (body: () => void) => void): RunPage | undefined {
    let row = this.#find(id);
    if (row && write && this.#isOver(row)) {
      write(() => this.#findAlive(id));
      row = this.#find(id);
    }
    if (!row) return undefined;
    const { run, generation, ending, stopping, readers } = row;
    const events = row.events ?? 0;
    const leaseMs = ending ? Infinity : Math.max(0, (this.#leases.get(id)?.until ?? 0) - now());
    const record = { generation, events, end: ending ?? undefined, isStopping: stopping === 1, leaseMs };
    return { ...record, readers: readers ?? undefined, ...this.#readEvents(run, after, events, maxBytes) };
  }

  #readEvents(
    run: number,
    after: number,
    events: number,
    maxBytes: number,
  ): { readonly through: number; readonly bytes: Uint8Array<ArrayBuffer> } {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let through = after;
    let left = maxBytes;
    for (let limit = FIRST_ROWS, isOver = through >= events; !isOver; limit *= ROWS_FACTOR) {
      isOver = true;
      for (const { first, count, bytes } of this.#all<EventsRow>(SELECT_EVENTS, run, run, through + 1, limit)) {
        const row = bytes instanceof ArrayBuffer ? new Uint8Array(bytes) : bytes;
        const part = takeEvents(row, count, through + 1 - first, left, parts.length === 0);
        parts.push(part.bytes);
        through += part.count;
        left -= part.bytes.length;
        isOver = through < first + count - 1 || through >= events || left <= 0;
        if (isOver) break;
      }
    }
    return { through, bytes: concat(parts) };
  }

  /** Calls the watchers of the runs that have changed. */
  notify(): void {
    const changed = [...this.#changed];
    this.#changed.clear();
    for (const change of changed) this.watchers.notify(...change);
  }

  #change(id: string): void {
    if (!this.#changed.has(id)) this.#changed.set(id, false);
  }

  /** Ends runs whose lease is over, and deletes rows of those that are no longer kept: `limit` at most of both. */
  cleanUp(limit: number): void {
    const time = now();
    let left = limit;
    for (const [id, { until }] of this.#leases)
      if (until <= time && left-- > 0) {
        this.#findAlive(id);
        this.#leases.delete(id);
      }
    this.#drop(limit);
  }

  #drop(limit: number): void {
    const runs = this.#all<{ id: string; run: number }>(
      "SELECT id, run FROM fanwire_runs WHERE until <= ? AND ending IS NOT NULL LIMIT ?",
      ...[Date.now(), limit],
    );
    let left = limit;
    for (const { id, run } of runs) {
      const events = this.#all<{ first: number }>(
        "SELECT first FROM fanwire_run_events WHERE run = ? ORDER BY first LIMIT ?",
        ...[run, left],
      );
      const last = events.at(-1);
      if (last) this.#run("DELETE FROM fanwire_run_events WHERE run = ? AND first <= ?", run, last.first);
      left -= events.length;
      // A clock that goes back must not show a run of which events are missing.
      if (left === 0) this.#run("UPDATE fanwire_runs SET until = 0 WHERE id = ?", id);
      else this.#run("DELETE FROM fanwire_runs WHERE id = ?", id);
      if (--left <= 0) return;
    }
  }

  /** Whether a lease is over, or a run is no longer kept. */
  get isDue(): boolean {
    return this.nextLeaseMs <= 0 || this.nextDropMs <= 0;
  }

  /** Milliseconds until the first lease is over; `Infinity` without one. */
  get nextLeaseMs(): number {
    let first = Infinity;
    for (const { until } of this.#leases.values()) first = Math.min(first, until);
    return first - now();
  }

  /** Milliseconds until the first run is no longer kept; `Infinity` if none has ended. */
  get nextDropMs(): number {
    const [first] = this.#all<{ until: number }>(
      "SELECT until FROM fanwire_runs WHERE ending IS NOT NULL ORDER BY until LIMIT 1",
    );
    return (first?.until ?? Infinity) - Date.now();
  }

  get isEmpty(): boolean {
    return this.#all("SELECT 1 FROM fanwire_runs LIMIT 1").length === 0;
  }

  /** Returns a run that is kept. */
  #find(id: string): RunRow | undefined {
    const [row] = this.#all<RunRow>(SELECT_RUN, id);
    return row?.ending && row.until <= Date.now() ? undefined : row;
  }

  /** Returns a run that is kept. Ends it first if its lease is over. */
  #findAlive(id: string): RunRow | undefined {
    const row = this.#find(id);
    if (!row || !this.#isOver(row)) return row;
    this.#end(row, "lost");
    return { ...row, ending: "lost" };
  }

  #isOver({ id, generation, ending }: RunRow): boolean {
    const lease = this.#leases.get(id);
    return !ending && (lease?.generation !== generation || lease.until <= now());
  }

  #renew(row: RunRow): void {
    const { id, lease_ms: ms, until } = row;
    this.#setLease(row, ms);
    if (!this.#onLease) return;
    if (until < timeIn(ms))
      this.#run("UPDATE fanwire_runs SET until = ? WHERE id = ?", timeIn(STORED_LEASE_FACTOR * ms), id);
    this.#onLease(ms);
  }

  #setLease({ id, generation }: Pick<RunRow, "id" | "generation">, ms: number): void {
    this.#leases.set(id, { generation, until: now() + ms });
  }

  #end({ id, retain_ms: retainMs }: RunRow, end: RunEnd): void {
    this.#run("UPDATE fanwire_runs SET ending = ?, until = ? WHERE id = ?", end, timeIn(retainMs), id);
    this.#change(id);
  }
}

const bounded = (ms: number): number => Math.min(Math.ceil(ms), MAX_MS);
/** Returns a time in epoch milliseconds. */
const timeIn = (ms: number): number => Math.ceil(Date.now() + ms);

/** Takes the events of a row behind `skipped` ones: `maxBytes` at most, but with `needsOne` one at least. */
function takeEvents(
  bytes: Uint8Array<ArrayBuffer>,
  count: number,
  skipped: number,
  maxBytes: number,
  needsOne: boolean,
): { readonly count: number; readonly bytes: Uint8Array<ArrayBuffer> } {
  let from = 0;
  for (let index = 0; index < skipped; index++) from = endOfEvent(bytes, from);
  if (bytes.length - from <= maxBytes) return { count: count - skipped, bytes: bytes.subarray(from) };
  let taken = 0;
  let to = from;
  for (let end = endOfEvent(bytes, from); end - from <= maxBytes || (needsOne && taken === 0); taken++) {
    to = end;
    end = endOfEvent(bytes, to);
  }
  return { count: taken, bytes: bytes.subarray(from, to) };
}
