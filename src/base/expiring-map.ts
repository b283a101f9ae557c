// A map whose entries expire, with a bound that is fair to the owners of the entries.
import { now } from "./runtime.ts";

/** Default bound of a map, in names. */
const MAX_NAMES = 100_000;
/** Calls of `set` between two sweeps, at least. */
const MIN_SETS_PER_SWEEP = 1_000;
/** An owner with this many names or fewer is never the one that loses names to others. */
const FEW_NAMES = 8;

interface ExpiringEntry<T> {
  /** Expiry time, as `now()` counts. */
  readonly end: number;
  readonly value: T;
  readonly owner: string;
}

/**
 * Remembers a value for each name until the name expires. No timer runs, because it would keep a Durable Object awake: expired names are removed
 * when other names are set.
 *
 * A full map removes expired names first, and then the oldest name of the owner that has the most. If it always removed the oldest name of
 * all, one owner could push out the names of everybody else.
 */
export class ExpiringMap<T = true> {
  /** Called for every name that is set. `until` is its expiry time in epoch milliseconds. */
  onSet: ((name: string, until: number, value: T, owner: string) => void) | undefined;
  /** Called for every name that is removed before it expires, because the map is full. */
  onForget: ((name: string) => void) | undefined;
  readonly #maxNames: number;
  /** By name, in the order in which they were set. */
  readonly #entries = new Map<string, ExpiringEntry<T>>();
  /** Names by owner, each in the order in which they were set. */
  readonly #namesByOwner = new Map<string, Set<string>>();
  #setsSinceSweep = 0;
  #sizeAfterSweep = 0;
  /**
   * Names of the owner that had the most at the last search, which does not run every time. `undefined` if every owner had few.
   */
  #largest: Set<string> | undefined;
  /** The search runs again once `#largest` has no more names than this. */
  #searchAtSize = 0;
  /** Without `#largest`, the search runs again after this many removals. */
  #removalsToSearch = 0;

  /** Creates a map of at most `maxNames` names. */
  constructor(maxNames: number = MAX_NAMES) {
    this.#maxNames = maxNames;
  }

  /** Remembers a name for `ms` milliseconds from now. If the name already had a later expiry time, it keeps that. */
  set(name: string, ms: number, value: T, owner: string = ""): void {
    const time = now();
    const end = Math.max(time + ms, this.#entries.get(name)?.end ?? 0);
    this.#remove(name);
    // The map may double before it is swept again, so the cost per name stays constant.
    if (++this.#setsSinceSweep >= Math.max(MIN_SETS_PER_SWEEP, this.#sizeAfterSweep)) {
      this.#setsSinceSweep = 0;
      for (const [old, entry] of this.#entries) if (entry.end <= time) this.#remove(old);
      this.#sizeAfterSweep = this.#entries.size;
    }
    this.#dropOldest(time);
    if (end <= time) return;
    if (this.#entries.size >= this.#maxNames) this.#makeRoom();
    this.#entries.set(name, { end, value, owner });
    const names = this.#namesByOwner.get(owner);
    if (names) names.add(name);
    else this.#namesByOwner.set(owner, new Set([name]));
    this.onSet?.(name, Date.now() + end - time, value, owner);
  }

  /** Removes the two oldest names, if they have expired: after a rush of names that all last as long, each new one frees two. */
  #dropOldest(time: number): void {
    let count = 0;
    for (const [name, { end }] of this.#entries) {
      if (end > time || count++ === 2) return;
      this.#remove(name);
    }
  }

  /** Removes one name: the oldest of all if it has expired, else the oldest of the owner that has the most. */
  #makeRoom(): void {
    let [name = ""] = this.#entries.keys();
    if (this.has(name)) {
      const isDue = this.#largest ? this.#largest.size <= this.#searchAtSize : this.#removalsToSearch-- <= 0;
      if (isDue) this.#findLargest();
      [name = name] = this.#largest ?? [];
      this.onForget?.(name);
    }
    this.#remove(name);
  }

  /** Finds the owner that has the most names. */
  #findLargest(): void {
    this.#largest = undefined;
    for (const names of this.#namesByOwner.values())
      if (names.size > (this.#largest?.size ?? FEW_NAMES)) this.#largest = names;
    this.#searchAtSize = (this.#largest?.size ?? 0) / 2;
    this.#removalsToSearch = this.#maxNames / 100;
  }

  #remove(name: string): void {
    const entry = this.#entries.get(name);
    if (!entry) return;
    this.#entries.delete(name);
    const names = this.#namesByOwner.get(entry.owner);
    names?.delete(name);
    if (names?.size === 0) this.#namesByOwner.delete(entry.owner);
  }

  /** Returns the value of a name that has not expired. */
  get(name: string): T | undefined {
    const entry = this.#entries.get(name);
    return entry && entry.end > now() ? entry.value : undefined;
  }

  /** Whether a name is in the map and has not expired. */
  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  /** Number of names that are held, expired ones included. */
  get size(): number {
    return this.#entries.size;
  }

  /** Removes all names. */
  clear(): void {
    this.#entries.clear();
    this.#namesByOwner.clear();
    this.#largest = undefined;
  }
}
