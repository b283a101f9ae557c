import { now } from "./runtime.ts";

/** Names remembered at the most; beyond it the oldest are forgotten. */
const MOST = 100_000;
/** So many are added, at least, before those that are over are looked for. */
const SWEEP = 1_000;

/** Names that something is remembered of for a while. No timer: what is over goes when others come. */
export class Deadlines<T = true> {
  /** Told of every name with the time it is remembered until, epoch milliseconds. */
  onSet: ((name: string, until: number, value: T) => void) | undefined;
  readonly #kept = new Map<string, { readonly end: number; readonly value: T }>();
  #added = 0;

  /** Remembers a name for `ms` from now; a later end that it had stays. */
  set(name: string, ms: number, value: T): void {
    const time = now();
    const end = Math.max(time + ms, this.#kept.get(name)?.end ?? 0);
    this.#kept.delete(name);
    // As often as there are names, so that each costs the same.
    if (++this.#added >= Math.max(SWEEP, this.#kept.size)) {
      this.#added = 0;
      for (const [old, kept] of this.#kept) if (kept.end <= time) this.#kept.delete(old);
    }
    if (end <= time) return;
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size < MOST) break;
      this.#kept.delete(oldest);
    }
    this.#kept.set(name, { end, value });
    this.onSet?.(name, Date.now() + end - time, value);
  }

  get(name: string): T | undefined {
    const kept = this.#kept.get(name);
    return kept && kept.end > now() ? kept.value : undefined;
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  clear(): void {
    this.#kept.clear();
  }
}
