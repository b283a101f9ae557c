// A queue of items that share one timeout. The broker watches blocked connections with it.
import { after, now } from "./runtime.ts";

/**
 * Calls `expire` for each item that stays in the queue for `timeoutMs`. All items share one duration, so insertion order is expiry order and
 * one timer is enough.
 */
export class TimeoutQueue<T> {
  /** Expiry time per item, in insertion order. */
  readonly #expiries = new Map<T, number>();
  readonly #timeoutMs: number;
  readonly #expire: (item: T) => void;
  #cancelTimer: (() => void) | undefined;

  constructor(timeoutMs: number, expire: (item: T) => void) {
    this.#timeoutMs = timeoutMs;
    this.#expire = expire;
  }

  get size(): number {
    return this.#expiries.size;
  }

  /** Adds an item. An item that is already queued keeps its expiry time. */
  add(item: T): void {
    if (this.#expiries.has(item)) return;
    this.#expiries.set(item, now() + this.#timeoutMs);
    if (!this.#cancelTimer) this.#startTimer();
  }

  delete(item: T): void {
    if (this.#expiries.delete(item) && this.#expiries.size === 0) this.clear();
  }

  clear(): void {
    this.#expiries.clear();
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  /** Sets the timer for the oldest item. */
  #startTimer(): void {
    const [expiry = Infinity] = this.#expiries.values();
    if (expiry === Infinity) return;
    this.#cancelTimer = after(Math.max(0, expiry - now()), () => this.expire(), true);
  }

  /** Expires the items whose time is over at `time`. By default that is now: a timer may fire up to a millisecond early by this clock. */
  expire(time: number = now() + 1): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const expired: T[] = [];
    for (const [item, expiry] of this.#expiries) {
      if (expiry > time) break;
      expired.push(item);
    }
    for (const item of expired) this.#expiries.delete(item);
    this.#startTimer();
    for (const item of expired) this.#expire(item);
  }
}
