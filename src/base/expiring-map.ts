import { now } from "./runtime.ts";

/** Names remembered at the most. */
const MOST = 100_000;
/** So many are added, at least, before those that are over are looked for. */
const SWEEP = 1_000;
/** Whoever has no more names than this does not have too many. */
const FEW = 8;

/** Names that something is remembered of for a while. No timer: what is over goes when others come. */
export class ExpiringMap<T = true> {
  /** Told of every name with the time it is remembered until, epoch milliseconds. */
  onSet: ((name: string, until: number, value: T, owner: string) => void) | undefined;
  /** Told of every name that is forgotten before its time, for want of room. */
  onForget: ((name: string) => void) | undefined;
  readonly #most: number;
  readonly #kept = new Map<string, { readonly end: number; readonly value: T; readonly owner: string }>();
  /** The names of each owner, the one that was set longest ago first. */
  readonly #owned = new Map<string, Set<string>>();
  #added = 0;
  /** How many the last look for those that are over has left. */
  #left = 0;
  /** Names of the owner that had the most when that was last looked for, which is not done every time; none if all have few. */
  #fullest: Set<string> | undefined;
  /** How many names of that owner are left when it is looked for again, and how many others go before that if there was none. */
  #enough = 0;
  #spared = 0;

  /** Beyond so many names the oldest are forgotten, of who has the most of them. */
  constructor(most: number = MOST) {
    this.#most = most;
  }

  /** Remembers a name for `ms` from now; a later end that it had stays. */
  set(name: string, ms: number, value: T, owner: string = ""): void {
    const time = now();
    const end = Math.max(time + ms, this.#kept.get(name)?.end ?? 0);
    this.#forget(name);
    // When there may be twice as many as were left, so that each costs the same.
    if (++this.#added >= Math.max(SWEEP, this.#left)) {
      this.#added = 0;
      for (const [old, kept] of this.#kept) if (kept.end <= time) this.#forget(old);
      this.#left = this.#kept.size;
    }
    if (end <= time) return;
    if (this.#kept.size >= this.#most) this.#makeRoom();
    this.#kept.set(name, { end, value, owner });
    const names = this.#owned.get(owner);
    if (names) names.add(name);
    else this.#owned.set(owner, new Set([name]));
    this.onSet?.(name, Date.now() + end - time, value, owner);
  }

  /** What is over goes first. Then, were it always the oldest of all, one owner could have everybody else's forgotten. */
  #makeRoom(): void {
    let [name = ""] = this.#kept.keys();
    if (this.has(name)) {
      if (this.#fullest ? this.#fullest.size <= this.#enough : this.#spared-- <= 0) this.#findFullest();
      [name = name] = this.#fullest ?? [];
      this.onForget?.(name);
    }
    this.#forget(name);
  }

  #findFullest(): void {
    this.#fullest = undefined;
    for (const names of this.#owned.values()) if (names.size > (this.#fullest?.size ?? FEW)) this.#fullest = names;
    this.#enough = (this.#fullest?.size ?? 0) / 2;
    this.#spared = this.#most / 100;
  }

  #forget(name: string): void {
    const kept = this.#kept.get(name);
    if (!kept) return;
    this.#kept.delete(name);
    const names = this.#owned.get(kept.owner);
    names?.delete(name);
    if (names?.size === 0) this.#owned.delete(kept.owner);
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
    this.#owned.clear();
    this.#fullest = undefined;
  }
}
