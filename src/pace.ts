import { after, nextTurn, now } from "./runtime.ts";

/** The longest that a busy broker gathers events before it flushes, in milliseconds. */
const LONGEST_WINDOW = 8;
/** How much longer than the last flush it gathers for. */
const WINDOW_FACTOR = 2;
/** The longest that a publisher is held back for those who read, in milliseconds. */
const LONGEST_HOLD = 50;

/** Whom a publisher may have to wait for. */
interface Taker {
  /** The hold that it is waited for in; 0 for none. */
  awaited: number;
}

/**
 * When to flush, and how far a publisher may run ahead.
 *
 * Events of one turn of the event loop leave together. An idle broker flushes in the next turn; a busy one waits for about as long
 * as its last flush took, the runtime's writing included: measured to the turn after it.
 */
export class Pace {
  /** Bytes that may be appended between two flushes before publishers are held back. */
  limit: number = Infinity;
  readonly #flush: () => void;
  #since = 0;
  #requested = false;
  #measuring = false;
  #earliest = 0;
  #held: Promise<void> | undefined;
  #letGo: (() => void) | undefined;
  #awaited = 0;
  /** Counts the holds, so that who did not take its part in time is not waited for in the next one. */
  #hold = 1;
  #flushed = false;
  #cancelRelease: (() => void) | undefined;
  #cancelWindow: (() => void) | undefined;

  constructor(flush: () => void) {
    this.#flush = flush;
  }

  /** There is something to flush. */
  request(): void {
    if (this.#requested) return;
    this.#requested = true;
    if (!this.#measuring) this.#schedule();
  }

  appended(bytes: number): void {
    this.#since += bytes;
  }

  /** Flushes what was requested without waiting for its time, and lets all publishers go. */
  close(): void {
    this.#cancelWindow?.();
    this.#run();
    this.#release();
  }

  /**
   * A promise for a publisher to wait for, if it is too far ahead: it resolves when those who were handed the next flush have
   * taken it and all before it, or after {@link LONGEST_HOLD} ms. A loop of awaited publishing never leaves the microtasks
   * otherwise, and nothing would ever be written.
   */
  ready(): Promise<void> | undefined {
    if (this.#since <= this.limit) return undefined;
    this.request();
    this.#flushed = false;
    this.#cancelRelease ??= after(LONGEST_HOLD, () => this.#release());
    return (this.#held ??= new Promise((resolve) => {
      this.#letGo = resolve;
    }));
  }

  handed(taker: Taker): void {
    if (!this.#held || taker.awaited === this.#hold) return;
    taker.awaited = this.#hold;
    this.#awaited++;
  }

  /** A subscriber is up to date, or gone. */
  taken(taker: Taker): void {
    if (taker.awaited !== this.#hold) return;
    taker.awaited = 0;
    if (--this.#awaited === 0 && this.#flushed) this.#release();
  }

  #schedule(): void {
    const wait = this.#earliest - now();
    // A timer of less than a millisecond would wait for one.
    if (wait < 1) nextTurn(() => this.#run());
    else this.#cancelWindow = after(wait, () => this.#run());
  }

  #run(): void {
    if (!this.#requested) return;
    this.#requested = false;
    this.#cancelWindow = undefined;
    this.#since = 0;
    const start = now();
    this.#flush();
    this.#flushed = true;
    if (this.#awaited === 0) this.#release();
    this.#measuring = true;
    nextTurn(() => {
      this.#measuring = false;
      const end = now();
      this.#earliest = end + Math.min(LONGEST_WINDOW, (end - start) * WINDOW_FACTOR);
      if (this.#requested) this.#schedule();
    });
  }

  #release(): void {
    this.#hold++;
    this.#awaited = 0;
    this.#cancelRelease?.();
    this.#cancelRelease = undefined;
    this.#letGo?.();
    this.#held = this.#letGo = undefined;
  }
}
