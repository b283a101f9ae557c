import type { Connection, StreamConnection } from "../delivery/stream-connection.ts";
import { after, now } from "./runtime.ts";

/** How long a response may be on its way, at least, before the first of its stream is read. */
const LONGEST_START = 60_000;
/** How long a client that never reads may hold up its end where `timeout` is Infinity. */
const LONGEST_DEPARTURE = 30_000;

/** Milliseconds that a client may take to read its end. */
export const departureOf = (timeout: number): number => (timeout === Infinity ? LONGEST_DEPARTURE : timeout);

/** Who is watched: those who are blocked with something to receive, whose stream has not begun, and who have nothing but their end to receive. */
export interface Watches {
  readonly stalled: TimeoutQueue<Connection>;
  readonly starting: TimeoutQueue<StreamConnection>;
  readonly closing: TimeoutQueue<Connection>;
}

export const watch = (timeout: number, tolerance: number): Watches => ({
  stalled: new TimeoutQueue(timeout, (client) => client.onTimeout(tolerance)),
  starting: new TimeoutQueue(Math.max(LONGEST_START, timeout * Math.max(1, tolerance)), (client) =>
    client.onNeverRead(),
  ),
  closing: new TimeoutQueue(departureOf(timeout), (client) =>
    client.abort("closing", new Error("Stream ended: its client did not read the end in time.")),
  ),
});

/** Those who are blocked although there is something for them. One queue, because all of them have the same time. */
export class TimeoutQueue<T> {
  /** When the time of each is over. */
  readonly #waiting = new Map<T, number>();
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
    if (this.#waiting.has(stuck)) return;
    this.#waiting.set(stuck, now() + this.#timeout);
    if (!this.#cancel) this.#arm();
  }

  delete(stuck: T): void {
    if (this.#waiting.delete(stuck) && this.#waiting.size === 0) this.clear();
  }

  clear(): void {
    this.#waiting.clear();
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Sets the timer for the one who has waited longest. */
  #arm(): void {
    const [due = Infinity] = this.#waiting.values();
    if (due === Infinity) return;
    this.#cancel = after(Math.max(0, due - now()), () => this.#check(), true);
  }

  #check(): void {
    this.#cancel = undefined;
    // A timer may fire a little early by this clock.
    const time = now() + 1;
    const over: T[] = [];
    for (const [stuck, due] of this.#waiting) {
      if (due > time) break;
      over.push(stuck);
    }
    for (const stuck of over) this.#waiting.delete(stuck);
    this.#arm();
    for (const stuck of over) this.#expire(stuck);
  }
}
