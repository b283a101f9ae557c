// The tables of a file, and how it is opened: settings of SQLite, the version, and the state of a file that was not closed.
import { randomName } from "../base/random.ts";
import type { Connection, Row } from "./database.ts";
import { FileError } from "./failure.ts";
import { NAMES_TABLE } from "./stored-names.ts";
import { RUN_TABLES } from "./stored-runs.ts";

/**
 * - `events`: each event once. `at` is its time in epoch milliseconds, `keys` a JSON list.
 * - `entries`: each event in each of its channels. `shared` is 1 if it has other channels.
 * - `channels`: the records of {@link StoredChannel}. `events` and `bytes` count what the channel retains.
 * - `names`: idempotency keys, barred ids and lingering ids, with their expiry in epoch milliseconds.
 */
const TABLES = [
  "CREATE TABLE fanwire_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
  "CREATE TABLE fanwire_events (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, keys TEXT NOT NULL, body TEXT NOT NULL)",
  `CREATE TABLE fanwire_entries (
    channel INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL, shared INTEGER NOT NULL,
    PRIMARY KEY (channel, seq)
  ) WITHOUT ROWID`,
  `CREATE TABLE fanwire_channels (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, owner TEXT, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
    released INTEGER NOT NULL, dropped INTEGER NOT NULL, last INTEGER NOT NULL, oldest_at INTEGER
  )`,
  "CREATE TABLE fanwire_owners (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
  NAMES_TABLE,
];
/** The tables of runs, which the first version did not have, and an index for the clean-up. */
const ADDED_TABLES = [...RUN_TABLES, "CREATE INDEX IF NOT EXISTS fanwire_runs_until ON fanwire_runs (until)"];
/** Stored as `schema` in `fanwire_meta`. */
const SCHEMA_VERSION = 2;

/**
 * `busy_timeout` must be 0, because a wait would stop the event loop. The lock of `EXCLUSIVE` is the operating system's: it ends with the
 * process, however that ends. `fullfsync` is for macOS, where `fsync` alone leaves the data in the disk's cache.
 */
const LOCKING = ["PRAGMA busy_timeout = 0", "PRAGMA locking_mode = EXCLUSIVE"];
const SETTINGS = [
  "PRAGMA auto_vacuum = INCREMENTAL",
  "PRAGMA journal_mode = WAL",
  "PRAGMA synchronous = FULL",
  "PRAGMA fullfsync = 1",
  "PRAGMA checkpoint_fullfsync = 1",
  "PRAGMA journal_size_limit = 4194304",
  "PRAGMA cache_size = -16000",
  "PRAGMA temp_store = MEMORY",
];

/** The facts of a file. */
export interface FileState {
  readonly meta: ReadonlyMap<string, Row[string]>;
  readonly epoch: string;
  /** The last position that may have been assigned. */
  readonly head: number;
  /** Events up to here are in the file, or were dropped by retention. Those after it, up to `head`, are lost. */
  readonly intactThrough: number;
  /** The time of the newest event, in epoch milliseconds. */
  readonly lastAt: number;
  /** Whether the process before this one ended without `close`. */
  readonly wasInterrupted: boolean;
}

/**
 * Sets up a connection, and takes the lock of the file. Changes nothing in the file of a newer version.
 *
 * @throws {@link FileError} if the file is of a newer version of fanwire; errors of SQLite
 */
export function configure(db: Connection): void {
  for (const setting of LOCKING) db.exec(setting);
  const version = hasTables(db) ? Number(readMeta(db).get("schema")) : 0;
  if (version > SCHEMA_VERSION)
    throw new FileError(
      `a newer version of fanwire wrote it (schema ${version}; this version knows ${SCHEMA_VERSION}). ` +
        "Update fanwire, or use another file.",
    );
  for (const setting of SETTINGS) db.exec(setting);
}

const hasTables = (db: Connection): boolean =>
  db.all("SELECT 1 FROM sqlite_master WHERE name = 'fanwire_meta'").length > 0;

/**
 * Reads the facts of a file, creates the tables in a new one and those that an older one does not have, and marks it as open.
 *
 * @throws errors of SQLite
 */
export function readState(db: Connection): FileState {
  const isNew = !hasTables(db);
  return db.transaction(() => {
    if (isNew) {
      for (const table of TABLES) db.run(table);
      db.run("INSERT INTO fanwire_meta VALUES ('schema', 0), ('epoch', ?), ('clean', 1)", randomName(12));
    }
    const meta = readMeta(db);
    if (meta.get("schema") !== SCHEMA_VERSION) {
      for (const table of ADDED_TABLES) db.run(table);
      db.run("UPDATE fanwire_meta SET value = ? WHERE name = 'schema'", SCHEMA_VERSION);
    }
    const epoch = meta.get("epoch") ?? beginEpoch(db);
    const [newest] = db.all<{ seq: number; at: number }>(
      "SELECT seq, at FROM fanwire_events ORDER BY seq DESC LIMIT 1",
    );
    const intactThrough = Math.max(newest?.seq ?? 0, Number(meta.get("head") ?? 0));
    const wasInterrupted = Number(meta.get("clean")) !== 1;
    if (!wasInterrupted) db.run("UPDATE fanwire_meta SET value = 0 WHERE name = 'clean'");
    return {
      meta,
      epoch: String(epoch),
      intactThrough,
      head: wasInterrupted ? Math.max(intactThrough, Number(meta.get("reserved") ?? 0)) : intactThrough,
      lastAt: newest?.at ?? 0,
      wasInterrupted,
    };
  });
}

/** Begins a new epoch: the log cannot be proved to continue. Returns it. */
export function beginEpoch(db: Connection): string {
  const epoch = randomName(12);
  db.run("INSERT OR REPLACE INTO fanwire_meta VALUES ('epoch', ?)", epoch);
  return epoch;
}

/** Reads a whole file. @throws {@link FileError} if it is damaged */
export function checkFile(db: Connection): void {
  const [result] = db.all("PRAGMA quick_check(1)");
  const [text] = Object.values(result ?? {});
  if (text !== "ok") throw new FileError(`it is damaged: ${text}`);
}

/** Marks a file as complete, waits for the disk, and gives the lock back. */
export function markClosed(db: Connection): void {
  db.exec("PRAGMA synchronous = FULL");
  db.run("UPDATE fanwire_meta SET value = 1 WHERE name = 'clean'");
  db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  db.exec("PRAGMA locking_mode = NORMAL");
  // The lock is given back at the next access.
  db.all("SELECT 1 FROM fanwire_meta LIMIT 1");
}

const readMeta = (db: Connection): Map<string, Row[string]> =>
  new Map(
    db.all<{ name: string; value: Row[string] }>("SELECT * FROM fanwire_meta").map(({ name, value }) => [name, value]),
  );
