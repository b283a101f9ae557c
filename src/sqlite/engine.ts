// The engine of a SQLite file: its options, and one session for each broker.
import { BrokerError } from "../base/errors.ts";
import { checkNumbers } from "../base/validate.ts";
import type { Engine, EngineListener, EngineSession } from "../engine/engine.ts";
import { historyLoader } from "../engine/history-loader.ts";
import { type LogOptions, resolveLogOptions } from "../log/log-options.ts";
import type { SqliteDatabase } from "./database.ts";
import { FileLog, type FileSettings } from "./file-log.ts";
import { FileRuns } from "./file-runs.ts";

/** Options of {@link sqliteEngine}. */
export interface SqliteEngineOptions extends LogOptions {
  /** The path of the file, which is created if it is missing. Its folder must exist. Required without `database`. */
  readonly path?: string | undefined;
  /**
   * An open database in place of `path`: a `Database` of `bun:sqlite` or `better-sqlite3`, or a `DatabaseSync` of `node:sqlite`. The engine locks the
   * whole file while a broker is open, and never closes the database.
   */
  readonly database?: SqliteDatabase | undefined;
  /** Bytes that the log may hold in the file; as in {@link LogOptions}. @default 268_435_456 (256 MiB) */
  readonly logBytes?: number | undefined;
  /** Bytes of the newest events that are in memory as well, 1 or more. Older ones are read from the file. @default 33_554_432 (32 MiB) */
  readonly memoryBytes?: number | undefined;
  /**
   * The failures that an answered or sent event survives. `"power"`: the end of the process and of the machine; each commit waits for the disk.
   * `"process"`: an orderly end. After any other one, events of the last moments may be missing: clients receive a gap, and no position is
   * assigned twice. @default "power"
   */
  readonly durability?: "power" | "process" | undefined;
  /**
   * Milliseconds for which an idempotency key is remembered, 0 or more; 0 remembers none. At most 100,000 keys are remembered; beyond that, the
   * subject that has the most loses its oldest one. @default 300_000
   */
  readonly idempotencyWindow?: number | undefined;
}

const WHERE = "sqliteEngine()";
const DEFAULTS = {
  path: undefined as string | undefined,
  database: undefined as SqliteDatabase | undefined,
  memoryBytes: 32 * 1024 * 1024,
  durability: "power",
  idempotencyWindow: 300_000,
};
const DEFAULT_LOG_BYTES = 256 * 1024 * 1024;
/** The approximate size of one page of events. */
const PAGE_BYTES = 48 * 1024;

/**
 * Creates an engine that keeps the log in a SQLite file. A process that is restarted, however it ended, continues the log: clients resume without a
 * gap. Events are committed before anybody receives them, those of one turn together. One process at a time has the file: while another one has
 * it, every call is refused as `engine-down`, and clients are asked to come back. Brokers that share one engine act as one.
 *
 * @example createBroker({ engine: sqliteEngine({ path: "events.db" }) })
 * @throws `RangeError` or `TypeError` for an invalid option
 */
export function sqliteEngine(options: SqliteEngineOptions): Engine {
  const { logBytes = DEFAULT_LOG_BYTES } = options ?? {};
  const bounds = resolveLogOptions<typeof DEFAULTS>(WHERE, { ...options, logBytes }, DEFAULTS);
  const { path, database, memoryBytes, durability, idempotencyWindow } = bounds;
  if ((typeof path === "string" && path !== "") === (database !== undefined))
    throw new TypeError(
      `${WHERE} refused: set either path (a string) or database, not ${path === undefined ? "neither" : "both"}.`,
    );
  if (durability !== "power" && durability !== "process")
    throw new TypeError(`${WHERE} refused: durability must be "power" or "process", not ${String(durability)}.`);
  checkNumbers(WHERE, { memoryBytes }, 1);
  checkNumbers(WHERE, { idempotencyWindow }, 0);
  const settings: FileSettings = {
    path,
    database,
    bounds,
    memoryBytes,
    isSynced: durability === "power",
    idempotencyWindow,
  };
  const file = new FileLog(settings);
  const runs = new FileRuns(file);
  return { open: (listener) => openSession(file, runs, listener) };
}

function openSession(file: FileLog, runs: FileRuns, listener: EngineListener): EngineSession {
  const { wasInterrupted } = file.enter(listener);
  const read: NonNullable<EngineSession["read"]> = async (keys, after) =>
    file.read((store) => store.read(keys, after, PAGE_BYTES));
  let isClosed = false;
  return {
    get log() {
      return file.log;
    },
    get state() {
      return file.state;
    },
    expectsReturns: wasInterrupted,
    append(keys, text, idempotencyKey, _recipient, subject) {
      if (file.state === "down")
        throw new BrokerError(
          "engine-down",
          "Event refused: the file of the log cannot be written now; try again later.",
        );
      return file.append({ keys, text, idempotencyKey, subject });
    },
    sendEphemeral: (keys, text) => file.sendEphemeral(keys, text),
    read,
    loadHistory: historyLoader(read),
    async historyBounds(keys, after, max, last) {
      const bounds = file.read((store) => store.historyBounds(keys, after, max, last));
      // A gap that the bounds announce must not be filled from memory.
      for (const key of keys) file.trim(key);
      return bounds;
    },
    head: async () => ({ epoch: file.log.epoch, seq: file.log.head }),
    persistNames: (kind, names) => file.persistNames(kind, names),
    openRuns: () => runs,
    close() {
      if (!isClosed) file.leave(listener);
      isClosed = true;
    },
  };
}
