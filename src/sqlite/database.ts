// SQLite as bun:sqlite, node:sqlite and better-sqlite3 offer it: one form for all three, how a file is opened, and the kinds of its errors.
import { BrokerError } from "../base/errors.ts";

type SqliteValue = string | number | null | Uint8Array;

/** A prepared statement. */
interface SqliteStatement {
  run(...values: SqliteValue[]): unknown;
  all(...values: SqliteValue[]): unknown[];
  finalize?(): unknown;
  /** Whether it returns rows; only better-sqlite3 says so, and refuses `all` otherwise. */
  readonly reader?: boolean;
}

/** An open database: a `Database` of `bun:sqlite` or `better-sqlite3`, or a `DatabaseSync` of `node:sqlite`. */
export interface SqliteDatabase {
  exec(sql: string): unknown;
  prepare(sql: string): SqliteStatement;
  close(): unknown;
}

/** A row that a query returns. */
export type Row = Readonly<Record<string, SqliteValue>>;

interface Modules {
  (name: "bun:sqlite"): { readonly Database: new (path: string, options: object) => SqliteDatabase } | undefined;
  (name: "node:sqlite"): { readonly DatabaseSync: new (path: string) => SqliteDatabase } | undefined;
  (name: "node:module"): { createRequire(from: string): (name: string) => unknown };
}
interface ModuleGlobals {
  readonly process?: { readonly getBuiltinModule?: Modules };
}

/** Whether {@link openDatabase} finds a SQLite. */
export function hasSqlite(): boolean {
  return sqliteOf() !== undefined;
}

/** Returns a function that opens a file with the SQLite of the runtime, or of the package `better-sqlite3`. */
function sqliteOf(): ((path: string) => SqliteDatabase) | undefined {
  const builtin = (globalThis as ModuleGlobals).process?.getBuiltinModule;
  const bun = builtin?.("bun:sqlite");
  if (bun) return (path) => new bun.Database(path, { create: true, readwrite: true });
  const node = builtin?.("node:sqlite");
  if (node) return (path) => new node.DatabaseSync(path);
  try {
    const load = builtin?.("node:module").createRequire(import.meta.url);
    const BetterSqlite = load?.("better-sqlite3") as (new (path: string) => SqliteDatabase) | undefined;
    return BetterSqlite && ((path) => new BetterSqlite(path));
  } catch {
    return undefined;
  }
}

/**
 * Opens a file with the SQLite of the runtime: `bun:sqlite`, `node:sqlite` (Deno, and Node 22.13 or later), or the package `better-sqlite3` where
 * the program has it. Creates the file if there is none.
 *
 * @throws {@link BrokerError} `engine-refused` where there is no SQLite; the error of SQLite if the file cannot be opened
 */
export function openDatabase(path: string): SqliteDatabase {
  const open = sqliteOf();
  if (open) return open(path);
  throw new BrokerError(
    "engine-refused",
    "sqliteEngine() refused: this runtime has no SQLite. Use Bun, Deno, or Node 22.13 or later; or install better-sqlite3, or pass " +
      "`database: new Database(path)`.",
  );
}

/** Kinds of errors of SQLite. */
export type FailureKind = "busy" | "read-only" | "full" | "damaged" | "unreachable" | "too-large" | "other";

/** Kinds by the primary result code of SQLite (https://sqlite.org/rescode.html). */
const KINDS: ReadonlyMap<number, FailureKind> = new Map([
  [5, "busy"],
  [6, "busy"],
  [8, "read-only"],
  [10, "unreachable"],
  [11, "damaged"],
  [13, "full"],
  [14, "unreachable"],
  [18, "too-large"],
  [26, "damaged"],
]);
/** The same codes by their names: better-sqlite3 has no numbers. */
const NAMES: readonly (readonly [name: string, code: number])[] = [
  ["SQLITE_BUSY", 5],
  ["SQLITE_LOCKED", 6],
  ["SQLITE_READONLY", 8],
  ["SQLITE_IOERR", 10],
  ["SQLITE_CORRUPT", 11],
  ["SQLITE_FULL", 13],
  ["SQLITE_CANTOPEN", 14],
  ["SQLITE_TOOBIG", 18],
  ["SQLITE_NOTADB", 26],
];

/** Returns the kind of an error. `errcode` is that of node:sqlite, `errno` that of bun:sqlite. */
export function kindOf(error: unknown): FailureKind {
  const { code, errcode, errno, message } = Object(error) as Readonly<Record<string, unknown>>;
  // better-sqlite3 looks for the folder itself.
  if (code === undefined && /directory does not exist/.test(String(message))) return "unreachable";
  const number = errcode ?? errno ?? NAMES.find(([name]) => String(code).startsWith(name))?.[1];
  // The upper bits of an extended result code say more than is needed here.
  return (typeof number === "number" && KINDS.get(number & 0xff)) || "other";
}

/** Returns the error of SQLite behind an error of a transaction, and any other error as it is. */
export const causeOf = (error: unknown): unknown => (error instanceof TransactionError ? error.cause : error);

/** An open database with its prepared statements. */
export class Connection {
  readonly #database: SqliteDatabase;
  readonly #statements = new Map<string, SqliteStatement>();

  constructor(database: SqliteDatabase) {
    this.#database = database;
  }

  #prepare(sql: string): SqliteStatement {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  run(sql: string, ...values: SqliteValue[]): void {
    this.#prepare(sql).run(...values);
  }

  all<Result = Row>(sql: string, ...values: SqliteValue[]): Result[] {
    return this.#prepare(sql).all(...values) as Result[];
  }

  /** Runs one statement that is not used again. */
  exec(sql: string): void {
    this.#database.exec(sql);
  }

  /** Runs a statement to its end, although it returns no rows: Deno's `exec` takes one step of it (Deno 2.9). */
  finish(sql: string): void {
    const statement = this.#prepare(sql);
    if (statement.reader === false) this.exec(sql);
    else statement.all();
  }

  /** Runs `body` in a transaction, and commits it. @throws {@link TransactionError} after a rollback */
  transaction<Result>(body: () => Result): Result {
    let isCommitting = false;
    this.run("BEGIN IMMEDIATE");
    try {
      const result = body();
      isCommitting = true;
      this.run("COMMIT");
      return result;
    } catch (cause) {
      try {
        this.exec("ROLLBACK");
      } catch {
        // SQLite has already rolled back, as it does when the disk is full.
      }
      // A full disk fails before the mark that completes a commit. Any other failure may come after it.
      throw new TransactionError(cause, isCommitting && kindOf(cause) !== "full");
    }
  }

  close(): void {
    this.finalize();
    this.#database.close();
  }

  /** Ends the statements: bun:sqlite keeps a database open, and its lock, as long as there is one (Bun 1.4). */
  finalize(): void {
    for (const statement of this.#statements.values()) statement.finalize?.();
    this.#statements.clear();
  }
}

/** A transaction that failed. */
export class TransactionError extends Error {
  /** Whether the transaction may be found committed after the next start. */
  readonly isUncertain: boolean;

  constructor(cause: unknown, isUncertain: boolean) {
    super("The transaction failed.", { cause });
    this.isUncertain = isUncertain;
  }
}
