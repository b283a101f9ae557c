// Remembers the channels of streams that changed them while they were open. A Worker whose socket is lost dials again with the channels that it
// knows, and the announcement of a change may have been lost with the socket.
import type { ObjectStorage } from "./cloudflare.ts";

/** Milliseconds for which the channels of a stream are remembered after its socket has closed. A Worker dials again within seconds. */
const KEPT_MS = 60_000;

/** The streams of an object that changed their channels, by the id of their connection. */
export class ChangedStreams {
  readonly #sql: ObjectStorage["sql"];
  /** Number of streams that are remembered. Most objects have none. */
  #count: number;

  constructor({ sql }: Pick<ObjectStorage, "sql">) {
    this.#sql = sql;
    sql.exec(
      "CREATE TABLE IF NOT EXISTS fanwire_changed (id TEXT PRIMARY KEY, channels TEXT NOT NULL, until INTEGER) WITHOUT ROWID",
    );
    this.#count = Number([...sql.exec("SELECT count(*) AS n FROM fanwire_changed")][0]?.n);
  }

  /** Stores the channels of an open stream. */
  set(id: string, channels: readonly string[]): void {
    this.#sql.exec("INSERT OR REPLACE INTO fanwire_changed VALUES (?, ?, NULL)", id, JSON.stringify(channels));
    this.#count++;
  }

  /** The socket of a stream has closed. */
  onClosed(id: string): void {
    if (this.#count > 0) this.#sql.exec("UPDATE fanwire_changed SET until = ? WHERE id = ?", Date.now() + KEPT_MS, id);
  }

  /** Returns the channels of a stream whose Worker dials again, and forgets them; `undefined` if it has not changed them. */
  take(id: string): readonly string[] | undefined {
    if (this.#count === 0) return undefined;
    const [row] = this.#sql.exec("DELETE FROM fanwire_changed WHERE id = ? RETURNING channels", id);
    return row && (JSON.parse(row.channels as string) as string[]);
  }

  /** Forgets streams that have ended, and those of which `isOpen` says that they were lost with an earlier instance. */
  cleanUp(isOpen: (id: string) => boolean): void {
    if (this.#count === 0) return;
    for (const { id } of [...this.#sql.exec("SELECT id FROM fanwire_changed WHERE until IS NULL")])
      if (!isOpen(id as string)) this.onClosed(id as string);
    this.#sql.exec("DELETE FROM fanwire_changed WHERE until <= ?", Date.now());
    this.#count = Number([...this.#sql.exec("SELECT count(*) AS n FROM fanwire_changed")][0]?.n);
  }
}
