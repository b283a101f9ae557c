// An engine over one SQLite file. Events, positions, idempotency keys and remembered client ids survive a restart of the process, so a client
// resumes where it was. One process at a time can open the file. Needs Node 22.13 or later, for `node:sqlite`.
import { DatabaseSync } from "node:sqlite";
import {
  type AppendResult,
  BrokerError,
  createEpoch,
  type Engine,
  type EngineListener,
  type EngineSession,
  type Entry,
  type ExpiringMap,
  eventFingerprint,
  type Log,
  type LogOptions,
  restoreLog,
  type StoredLog,
} from "fanwire/engine";

export interface SqliteEngineOptions extends LogOptions {
  /** Milliseconds for which an idempotency key is remembered; 0 remembers none. @default 300_000 */
  readonly idempotencyWindow?: number | undefined;
}

const SCHEMA = `
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- AUTOINCREMENT remembers the last position in sqlite_sequence, even after its row was deleted.
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY AUTOINCREMENT, keys TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS channels (key TEXT PRIMARY KEY, dropped_through INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS idempotency (key TEXT PRIMARY KEY, seq INTEGER NOT NULL, print TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS names (kind TEXT, name TEXT, owner TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
`;

/** Milliseconds between two removals of everything that is too old. */
const CLEAN_UP_MS = 30_000;

/** Creates an engine. The file is opened with the first broker, and closed with the last one. */
export function sqliteEngine(path: string, options: SqliteEngineOptions = {}): Engine {
  let store: SqliteStore | undefined;
  return {
    open(listener: EngineListener): EngineSession {
      const opened = (store ??= new SqliteStore(path, options));
      opened.addListener(listener);
      return {
        log: opened.log,
        append: (keys, text, idempotencyKey) => opened.append(keys, text, idempotencyKey),
        persistNames: (kind, names) => opened.persistNames(kind, names),
        close() {
          if (opened.removeListener(listener) === 0) store = undefined;
        },
      };
    },
  };
}

class SqliteStore {
  readonly log: Log;
  readonly #db: DatabaseSync;
  readonly #idempotencyWindow: number;
  readonly #timer: NodeJS.Timeout;
  readonly #listeners = new Set<EngineListener>();
  /** Events that the log dropped and that still have a row. */
  #dropped: Entry[] = [];
  /** Channels that the log forgot and that still have a row. */
  #forgotten: string[] = [];

  constructor(path: string, { idempotencyWindow = 300_000, ...logOptions }: SqliteEngineOptions) {
    this.#idempotencyWindow = idempotencyWindow;
    this.#db = openExclusively(path);
    this.log = restoreLog(this.#load(), logOptions, {
      onEntryRemoved: (entry) => void this.#dropped.push(entry),
      onChannelForgotten: (key) => void this.#forgotten.push(key),
    });
    this.#cleanUp();
    this.#timer = setInterval(() => this.#cleanUp(), CLEAN_UP_MS);
    this.#timer.unref();
  }

  addListener(listener: EngineListener): void {
    this.#listeners.add(listener);
    this.log.listeners.add(listener);
  }

  /** Removes a listener, and closes the file with the last one. Returns how many are left. */
  removeListener(listener: EngineListener): number {
    this.log.listeners.delete(listener);
    if (this.#listeners.delete(listener) && this.#listeners.size === 0) {
      clearInterval(this.#timer);
      this.#attempt(() => this.#deleteRows());
      this.#db.close();
    }
    return this.#listeners.size;
  }

  append(keys: readonly string[], text: string, idempotencyKey: string | undefined): AppendResult {
    // SQLite stores UTF-8, so a lone surrogate must become U+FFFD first, as on the wire.
    const body = Buffer.from(text).toString();
    const { log } = this;
    const print = eventFingerprint(keys, body);
    const at = Date.now();
    const seen = idempotencyKey === undefined ? undefined : this.#findKey(idempotencyKey, at);
    if (seen && seen.print !== print)
      throw new BrokerError("key-reused", "Event refused: its key was used before, for another event.");
    if (seen) return { epoch: log.epoch, seq: seen.seq, repeated: true };
    const seq = log.head + 1;
    // Throws if `tenant` does, before anything is stored.
    const owners = log.ownersOf(keys);
    try {
      this.#transaction(() => {
        this.#run("INSERT INTO events VALUES (?, ?, ?, ?)", seq, JSON.stringify(keys), body, at);
        if (idempotencyKey === undefined) return;
        const until = at + this.#idempotencyWindow;
        this.#run("INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?)", idempotencyKey, seq, print, until);
      });
    } catch (cause) {
      throw new BrokerError("engine-down", "Event refused: it could not be written to the SQLite file.", { cause });
    }
    // Stored first: no subscriber may see an event that is lost by a crash.
    log.append(keys, body, at, undefined, owners);
    if (this.#dropped.length > 100) this.#deleteRows();
    return { epoch: log.epoch, seq, repeated: false };
  }

  persistNames(kind: string, names: ExpiringMap): void {
    const time = Date.now();
    for (const row of this.#all("SELECT * FROM names WHERE kind = ? AND until > ? ORDER BY until", kind, time))
      names.set(String(row.name), Number(row.until) - time, true, String(row.owner));
    names.onSet = (name, until, _, owner) =>
      this.#attempt(() =>
        this.#run(
          "INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)",
          kind,
          name,
          owner,
          Math.min(until, Number.MAX_SAFE_INTEGER),
        ),
      );
    names.onForget = (name) =>
      this.#attempt(() => this.#run("DELETE FROM names WHERE kind = ? AND name = ?", kind, name));
  }

  /** Reads the log, and creates its epoch at the first start. */
  #load(): StoredLog {
    this.#db.exec(SCHEMA);
    this.#run("INSERT OR IGNORE INTO meta VALUES ('epoch', ?), ('forgotten_through', '0')", createEpoch());
    const meta = new Map(this.#all("SELECT * FROM meta").map(({ name, value }) => [name, value]));
    const [sequence] = this.#all("SELECT seq FROM sqlite_sequence WHERE name = 'events'");
    return {
      epoch: String(meta.get("epoch")),
      head: Number(sequence?.seq ?? 0),
      forgottenThrough: Number(meta.get("forgotten_through")),
      channels: this.#all("SELECT * FROM channels").map(({ key, dropped_through }) => ({
        key: String(key),
        droppedThrough: Number(dropped_through),
      })),
      events: this.#all("SELECT * FROM events ORDER BY seq").map(({ seq, keys, text, at }) => ({
        seq: Number(seq),
        keys: JSON.parse(String(keys)) as string[],
        text: String(text),
        at: Number(at),
      })),
    };
  }

  #findKey(idempotencyKey: string, time: number): { readonly seq: number; readonly print: string } | undefined {
    const [row] = this.#all("SELECT seq, print FROM idempotency WHERE key = ? AND until > ?", idempotencyKey, time);
    return row && { seq: Number(row.seq), print: String(row.print) };
  }

  /** Drops everything that is too old, from the log and from the file. */
  #cleanUp(): void {
    const time = Date.now();
    this.log.applyRetention(time);
    this.#attempt(() => {
      this.#deleteRows();
      this.#run("DELETE FROM idempotency WHERE until <= ?", time);
      this.#run("DELETE FROM names WHERE until <= ?", time);
    });
  }

  /** Deletes the rows of dropped events, and stores how far their channels have dropped, in one transaction. */
  #deleteRows(): void {
    const { log } = this;
    this.#transaction(() => {
      for (const { seq, keys } of this.#dropped) {
        this.#run("DELETE FROM events WHERE seq = ?", seq);
        for (const key of keys) {
          const channel = log.find(key);
          if (channel) this.#run("INSERT OR REPLACE INTO channels VALUES (?, ?)", key, channel.droppedThrough);
        }
      }
      for (const key of this.#forgotten) if (!log.find(key)) this.#run("DELETE FROM channels WHERE key = ?", key);
      this.#run("UPDATE meta SET value = ? WHERE name = 'forgotten_through'", String(log.forgottenThrough));
    });
    this.#dropped = [];
    this.#forgotten = [];
  }

  /** Runs a write that no caller waits for. */
  #attempt(write: () => void): void {
    try {
      write();
    } catch (error) {
      for (const listener of this.#listeners) listener.onError?.(error);
    }
  }

  #transaction(body: () => void): void {
    this.#db.exec("BEGIN");
    try {
      body();
      this.#db.exec("COMMIT");
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  #run(sql: string, ...values: (string | number)[]): void {
    this.#db.prepare(sql).run(...values);
  }

  #all(sql: string, ...values: (string | number)[]): Record<string, unknown>[] {
    return this.#db.prepare(sql).all(...values);
  }
}

/** Opens the file so that no other process can: two processes would assign the same position to two events. */
function openExclusively(path: string): DatabaseSync {
  const db = new DatabaseSync(path);
  try {
    // `synchronous` stays FULL, the default: after a power failure a committed position must not be assigned again.
    db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; COMMIT;");
    return db;
  } catch (cause) {
    db.close();
    throw new BrokerError("engine-refused", `sqliteEngine() refused: another process uses ${path}.`, { cause });
  }
}
