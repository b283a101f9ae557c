// Names that outlive the process: idempotency keys, barred ids and lingering ids, with their expiry.
import type { ExpiringMap } from "../base/expiring-map.ts";

/** The use of a name. */
export type NameKind = "key" | "barred" | "lingering";

export const NAMES_TABLE = `CREATE TABLE IF NOT EXISTS fanwire_names (
  kind TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, until INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID`;
export const INSERT_NAME = "INSERT OR REPLACE INTO fanwire_names VALUES (?, ?, ?, ?, ?)";
export const DELETE_NAME = "DELETE FROM fanwire_names WHERE kind = ? AND name = ?";
export const DELETE_EXPIRED_NAMES = "DELETE FROM fanwire_names WHERE until <= ?";

type Query = (sql: string, ...values: (string | number)[]) => Iterable<unknown>;

/** Adds the stored names of one kind to a map. `time` is in epoch milliseconds. */
export function loadNames<T>(query: Query, kind: NameKind, names: ExpiringMap<T>, time: number): void {
  for (const row of query("SELECT * FROM fanwire_names WHERE kind = ? AND until > ? ORDER BY until", kind, time)) {
    const { name, owner, until, value } = row as { name: string; owner: string; until: number; value: string };
    names.set(name, until - time, JSON.parse(value), owner);
  }
}

/** The values of a row, for {@link INSERT_NAME}. */
type NameRow = [kind: NameKind, name: string, owner: string, until: number, value: string];

/** Returns the row of a name. `until` is its expiry in epoch milliseconds, or `Infinity`. */
export const rowOf = (kind: NameKind, name: string, owner: string, until: number, value: unknown): NameRow => [
  kind,
  name,
  owner,
  Math.min(Math.ceil(until), Number.MAX_SAFE_INTEGER),
  JSON.stringify(value),
];

/** Changes of names that wait for the next transaction. */
export class NameChanges {
  readonly #onChanged: () => void;
  /** By kind and name. A deleted name has no row. */
  readonly #changes = new Map<
    string,
    { readonly kind: NameKind; readonly name: string; readonly row: NameRow | undefined }
  >();

  /** `onChanged` is called when a name waits to be written. */
  constructor(onChanged: () => void) {
    this.#onChanged = onChanged;
  }

  get size(): number {
    return this.#changes.size;
  }

  /** Stores every later change of a map. */
  follow<T>(kind: NameKind, names: ExpiringMap<T>): void {
    names.onSet = (name, until, value, owner) => this.#add(kind, name, rowOf(kind, name, owner, until, value));
    names.onForget = (name) => this.forget(kind, name);
  }

  /** Deletes a stored name. */
  forget(kind: NameKind, name: string): void {
    this.#add(kind, name, undefined);
  }

  #add(kind: NameKind, name: string, row: NameRow | undefined): void {
    this.#changes.set(`${kind} ${name}`, { kind, name, row });
    this.#onChanged();
  }

  /** Writes the changes, in a transaction. They wait until {@link clear}, in case it fails. */
  save(run: (sql: string, ...values: (string | number)[]) => unknown): void {
    for (const { kind, name, row } of this.#changes.values())
      if (row) run(INSERT_NAME, ...row);
      else run(DELETE_NAME, kind, name);
  }

  clear(): void {
    this.#changes.clear();
  }
}
