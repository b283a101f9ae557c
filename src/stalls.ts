import { after, now } from "./runtime.ts";

/** What may be stuck. */
export interface Stallable {
  /** When its time is over; kept here while it waits. */
  due: number;
}

/** Those who are blocked although there is something for them. One queue, because all of them have the same time. */
export class Stalls<T extends Stallable> {
  readonly #waiting = new Set<T>();
  readonly #timeout: number;
  readonly #expire: (stuck: T) => void;
  #cancel: (() => void) | undefined;

  constructor(timeout: number, expire: (stuck: T) => void) {
    this.#timeout = timeout;
    this.#expire = expire;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Begins the time of one who does not wait yet. */
  add(stuck: T): void {
    if (this.#timeout === Infinity || this.#waiting.has(stuck)) return;
    stuck.due = now() + this.#timeout;
    this.#waiting.add(stuck);
    this.#cancel ??= after(this.#timeout, () => this.#check(), true);
  }

  delete(stuck: T): void {
    if (this.#waiting.delete(stuck) && this.#waiting.size === 0) this.clear();
  }

  clear(): void {
    this.#waiting.clear();
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #check(): void {
    this.#cancel = undefined;
    const time = now();
    for (const stuck of this.#waiting) {
      // A timer may fire a little early by this clock.
      if (stuck.due > time + 1) {
        this.#cancel ??= after(stuck.due - time, () => this.#check(), true);
        return;
      }
      this.#waiting.delete(stuck);
      this.#expire(stuck);
    }
  }
}
