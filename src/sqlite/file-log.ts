// The log of one file: opens it, commits the events of a turn together, delivers them, and recovers when the file could not be written.
import { BrokerError } from "../base/errors.ts";
import { ExpiringMap } from "../base/expiring-map.ts";
import { after, nextTurn, now } from "../base/runtime.ts";
import type { AppendResult, EngineListener } from "../engine/engine.ts";
import { Log } from "../log/log.ts";
import type { LogBounds } from "../log/log-options.ts";
import { sendEphemeral } from "../log/transient.ts";
import {
  deliverBatch,
  type EventToAppend,
  type KeyWindow,
  type Pending,
  refuseBatch,
  type Task,
  type WrittenEvent,
  writeBatch,
} from "./batch.ts";
import { CleanUp } from "./clean-up.ts";
import { Connection, causeOf, kindOf, openDatabase, type SqliteDatabase, TransactionError } from "./database.ts";
import { explain, refusalFor } from "./failure.ts";
import { cleanUpRuns, type RunsFile } from "./file-runs.ts";
import { beginEpoch, checkFile, configure, type FileState, markClosed, readState } from "./schema.ts";
import { SqliteStore } from "./store.ts";
import { DELETE_EXPIRED_NAMES, loadNames, NameChanges } from "./stored-names.ts";
import { StoredRuns } from "./stored-runs.ts";
import { wellFormed } from "./well-formed.ts";

/** Checked options of the engine. */
export interface FileSettings {
  readonly path: string | undefined;
  readonly database: SqliteDatabase | undefined;
  readonly bounds: LogBounds;
  readonly memoryBytes: number;
  /** Whether each commit waits for the disk. */
  readonly isSynced: boolean;
  readonly idempotencyWindow: number;
}

/** Milliseconds between two attempts to open or to write a file that failed. */
const RETRY_MS = 250;
/** The time between two attempts is at least so many times as long as the first one took. */
const RETRY_FACTOR = 20;
const NAMES_CLEAN_UP_MS = 60_000;
/** Text that may wait for a commit, in UTF-16 code units. */
const MAX_PENDING = 4 * 1024 * 1024;
/** Positions that are reserved at a time, where a commit does not wait for the disk. */
const RESERVED_POSITIONS = 10_000;

/** The parts of an open file. */
interface OpenFile {
  readonly db: Connection;
  store: SqliteStore;
  /** Positions up to here may be assigned: the file says so, on the disk. */
  reserved: number;
}

export class FileLog implements RunsFile {
  readonly runs: StoredRuns = new StoredRuns();
  readonly #settings: FileSettings;
  #file: OpenFile | undefined;
  #log: Log | undefined;
  #isDown = false;
  /** Whether the file has to be checked before it is used again. */
  #isDamaged = false;
  #wasInterrupted = false;
  #lastFailure: { readonly at: number; readonly error: Error } | undefined;
  #sessions = 0;
  #pending: Pending[] = [];
  #pendingSize = 0;
  #isScheduled = false;
  #keys: KeyWindow;
  readonly #names = new NameChanges(() => this.#schedule());
  readonly #cleaning = new CleanUp((time) => this.#cleanUp(time));
  #cancelRetry: (() => void) | undefined;
  #namesCleanedAt = -Infinity;

  constructor(settings: FileSettings) {
    this.#settings = settings;
    this.#keys = { seen: new ExpiringMap(), windowMs: settings.idempotencyWindow };
  }

  /** The newest events, in memory. */
  get log(): Log {
    return this.#log as Log;
  }

  get state(): "up" | "down" {
    return this.#isDown ? "down" : "up";
  }

  /**
   * Adds a listener. The first one opens the file.
   *
   * @throws {@link BrokerError} `engine-down`, `engine-refused`
   */
  enter(listener: EngineListener): { readonly wasInterrupted: boolean } {
    if (!this.#file) this.#openOrRefuse(listener);
    this.#sessions++;
    this.log.listeners.add(listener);
    return { wasInterrupted: this.#wasInterrupted };
  }

  /** Removes a listener. The last one closes the file. */
  leave(listener: EngineListener): void {
    this.log.listeners.delete(listener);
    if (--this.#sessions === 0) this.#close();
  }

  #openOrRefuse(listener: EngineListener): void {
    const last = this.#lastFailure;
    // Each request tries again. Many requests at once must not make the process busy with it.
    if (last && now() - last.at < RETRY_MS) throw refusalFor(last.error);
    try {
      this.#open();
      this.#lastFailure = undefined;
    } catch (cause) {
      if (cause instanceof BrokerError) throw cause;
      const error = explain("Opening", this.#settings.path, cause);
      if (error.message !== last?.error.message) listener.onError?.(error);
      this.#lastFailure = { at: now(), error };
      throw refusalFor(error);
    }
  }

  #open(): void {
    const { path, database } = this.#settings;
    const db = new Connection(database ?? openDatabase(path as string));
    try {
      configure(db);
      if (this.#isDamaged) checkFile(db);
      this.#isDamaged = false;
      const state = readState(db);
      this.#adopt(db, state);
    } catch (error) {
      if (!database) db.close();
      throw error;
    }
  }

  /** Continues with an open file: at the first start with its log, later with the log of this process as far as the file has it. */
  #adopt(db: Connection, state: FileState): void {
    const { bounds, memoryBytes, isSynced } = this.#settings;
    const log = this.#log;
    // This process knows which positions it has assigned.
    const known = log ? { ...state, head: state.intactThrough } : state;
    const continues = !log || (state.epoch === log.epoch && known.head >= log.head);
    const current = continues ? known : { ...known, epoch: beginEpoch(db) };
    const store = this.#createStore(db, current);
    const query = db.all.bind(db);
    db.transaction(() => this.runs.load(db));
    if (!isSynced) db.exec("PRAGMA synchronous = NORMAL");
    this.#file = { db, store, reserved: 0 };
    if (log && continues) {
      // A commit whose outcome was unknown did take effect.
      const committed = store.eventsAfter(log.head);
      if (committed.length > 0) loadNames(query, "key", this.#keys.seen, Date.now());
      for (const { keys, text, at } of committed) log.append(keys, text, at);
    } else {
      this.#log = new Log(store.epoch, { ...bounds, logBytes: Math.min(memoryBytes, bounds.logBytes) });
      this.#log.head = store.head;
      this.#log.restoreForgotten(store.head);
      this.#wasInterrupted = state.wasInterrupted;
      this.#keys = { ...this.#keys, seen: new ExpiringMap() };
      const { seen } = this.#keys;
      loadNames(query, "key", seen, Date.now());
      // The rows of keys are written with their events.
      seen.onForget = (name) => this.#names.forget("key", name);
      for (const listener of log?.listeners ?? []) this.#moveToLog(listener as EngineListener, log as Log);
    }
    this.#cleaning.start();
    this.runs.notify();
  }

  #createStore(db: Connection, state: FileState): SqliteStore {
    return new SqliteStore(db, state, this.#settings.bounds, (key) => (this.#log?.find(key)?.pins ?? 0) > 0);
  }

  #moveToLog(listener: EngineListener, from: Log): void {
    from.listeners.delete(listener);
    this.log.listeners.add(listener);
    listener.onLogReplaced?.(this.log);
  }

  /** Appends an event with the next commit. */
  append({ text, ...event }: EventToAppend): Promise<AppendResult> {
    this.log.checkChannels(event.keys);
    const body = wellFormed(text);
    return new Promise((resolve, reject) => this.#push({ ...event, text: body, resolve, reject }, body.length));
  }

  /** As `RunsFile.commit`. */
  commit(task: Task, size: number): void {
    if (!this.#file || this.#isDown) {
      task.reject?.(new BrokerError("engine-down", "Run refused: the file cannot be written now; try again later."));
      return;
    }
    this.#push(task, size);
  }

  #push(item: Pending, size: number): void {
    this.#pending.push(item);
    this.#pendingSize += size;
    if (this.#pendingSize > MAX_PENDING) this.#commit();
    else this.#schedule();
  }

  /** Drops from memory what retention does not keep of a channel. */
  trim(key: string): void {
    const channel = this.log.find(key);
    if (channel) this.log.trim(channel, Date.now());
  }

  /** Sends an event that is not stored, behind those that wait for the next commit. */
  sendEphemeral(keys: readonly string[], text: string): void {
    if (this.#pending.length === 0) sendEphemeral(this.log, keys, text);
    else this.#pending.push({ run: () => sendEphemeral(this.log, keys, text) });
  }

  persistNames(kind: "barred" | "lingering", names: ExpiringMap): void {
    // Another broker of this process may have changed some.
    this.#commit();
    const db = this.#file?.db;
    if (db) loadNames(db.all.bind(db), kind, names, Date.now());
    this.#names.follow(kind, names);
  }

  /** Reads from the file what was appended before the call. @throws {@link BrokerError} `engine-down` */
  read<Result>(body: (store: SqliteStore, db: Connection) => Result): Result {
    this.#commit();
    const file = this.#file;
    if (!file)
      throw new BrokerError("engine-down", "History not read: the file of the log is not open; try again later.");
    try {
      return body(file.store, file.db);
    } catch (error) {
      this.#fail(error);
      throw refusalFor(explain("Reading", this.#settings.path, error));
    }
  }

  /** As `RunsFile.readRuns`. @throws {@link BrokerError} `engine-down` */
  readRuns<Result>(body: (db: Connection, isWritable: boolean) => Result): Result {
    return this.read(({ isWritable }, db) => body(db, isWritable));
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    nextTurn(() => {
      this.#isScheduled = false;
      this.#commit();
    });
  }

  /** Writes everything that waits in one transaction, and then delivers it. */
  #commit(): void {
    const file = this.#file;
    const batch = this.#pending;
    if (!file || this.#isDown || (batch.length === 0 && this.#names.size === 0)) return;
    this.#pending = [];
    this.#pendingSize = 0;
    let written: readonly (WrittenEvent | undefined)[];
    try {
      const reserve = this.#reserve(file, batch.length);
      written = file.db.transaction(() => {
        reserve?.();
        const events = writeBatch(file.db, file.store, this.#keys, batch);
        this.#names.save(file.db.run.bind(file.db));
        return events;
      });
    } catch (error) {
      this.#fail(error, batch);
      return;
    }
    this.#names.clear();
    if (!this.#settings.isSynced) file.db.exec("PRAGMA synchronous = NORMAL");
    deliverBatch(this.log, this.#keys, batch, written);
    this.runs.notify();
  }

  /**
   * Where commits do not wait for the disk, makes sure that positions are reserved before they are assigned. Returns the write that
   * goes with the events: their commit waits for the disk, and with it all before it.
   */
  #reserve(file: OpenFile, count: number): (() => void) | undefined {
    const last = file.store.head + count;
    if (this.#settings.isSynced || last <= file.reserved) return undefined;
    file.db.exec("PRAGMA synchronous = FULL");
    file.reserved = last + RESERVED_POSITIONS;
    return () => file.db.run("INSERT OR REPLACE INTO fanwire_meta VALUES ('reserved', ?)", file.reserved);
  }

  /** The file could not be written or read: refuses what waits, and tries again until it can. */
  #fail(error: unknown, batch: readonly Pending[] = []): void {
    const cause = causeOf(error);
    const isUncertain = error instanceof TransactionError && error.isUncertain;
    const reason = explain("Writing", this.#settings.path, cause);
    const refusal = isUncertain
      ? new BrokerError("publish-outcome-unknown", "Event may be published or not: its commit failed.", {
          cause: reason,
        })
      : refusalFor(reason);
    refuseBatch(batch, refusal);
    this.#refusePending(refusalFor(reason));
    if (!this.#isDown) for (const listener of this.log.listeners) (listener as EngineListener).onError?.(reason);
    this.#isDown = true;
    if (kindOf(cause) === "damaged") this.#isDamaged = true;
    this.#reload(cause);
    this.#cancelRetry ??= after(RETRY_MS, () => this.#recover(), true);
  }

  /** Refuses the events that wait for a commit. */
  #refusePending(refusal: BrokerError): void {
    refuseBatch(this.#pending, refusal);
    this.#pending = [];
    this.#pendingSize = 0;
  }

  /** Reads the accounts again, which are ahead of the file. Closes the file where it has to be opened again before it can be trusted. */
  #reload(cause: unknown): void {
    const file = this.#file;
    if (!file) return;
    const kind = kindOf(cause);
    try {
      if (!this.#settings.database && kind !== "full" && kind !== "read-only") throw cause;
      const state = readState(file.db);
      file.store = this.#createStore(file.db, { ...state, head: state.intactThrough });
      file.store.isWritable = false;
    } catch {
      this.#file = undefined;
      try {
        if (!this.#settings.database) file.db.close();
      } catch {
        // It is not used again.
      }
    }
  }

  #recover(): void {
    this.#cancelRetry = undefined;
    if (this.#sessions === 0) return;
    const start = now();
    try {
      const file = this.#file;
      if (file) {
        file.db.transaction(() => file.db.run("INSERT OR REPLACE INTO fanwire_meta VALUES ('probe', ?)", Date.now()));
        this.#adopt(file.db, readState(file.db));
      } else {
        this.#open();
      }
      this.#isDown = false;
      this.#commit();
    } catch (error) {
      this.#reload(causeOf(error));
      // To check a large file takes long.
      const delayMs = Math.max(RETRY_MS, RETRY_FACTOR * (now() - start));
      this.#cancelRetry = after(delayMs, () => this.#recover(), true);
    }
  }

  #cleanUp(time: number): boolean {
    const file = this.#file;
    if (!file || this.#isDown) return false;
    try {
      if (time - this.#namesCleanedAt > NAMES_CLEAN_UP_MS) {
        this.#namesCleanedAt = time;
        file.db.run(DELETE_EXPIRED_NAMES, time);
      }
      const hasRuns = cleanUpRuns(file.db, this.runs);
      return file.store.cleanUp(time) || hasRuns;
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  #close(): void {
    this.#commit();
    const file = this.#file;
    this.#cleaning.stop();
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
    this.#refusePending(new BrokerError("engine-down", "Event refused: the file of the log is closed."));
    try {
      if (file && !this.#isDown) markClosed(file.db);
      if (!this.#settings.database) file?.db.close();
    } catch {
      // The next start finds a file that was not closed, which costs no event.
    }
    this.#file = this.#log = undefined;
    this.#isDown = false;
    this.#names.clear();
    this.runs.clear();
  }
}
