import { after, nextTurn, now } from "./runtime.ts";

/** The longest that a busy broker gathers events before it flushes, in milliseconds. */
const LONGEST_WINDOW = 8;
/** How much longer than the last flush it gathers for. */
const WINDOW_FACTOR = 2;
/** The longest that a publisher is held back for those who read, in milliseconds. */
const LONGEST_HOLD = 50;

/**
 * When to flush, and how far publishers may run ahead of the takers.
 *
 * Events of one turn of the event loop leave together. An idle broker flushes in the next turn; a busy one waits for about as long
 * as its last flush took, the runtime's writing included: measured to the turn after it.
 *
 * A publisher that is too far ahead is held back until those who take what they are given have all of it. Who took nothing during
 * a whole hold is not waited for again before it takes something.
 */
export class Pace<Taker> {
  /** Bytes of the log that may be filled between two flushes before publishers are held back. */
  limit: number = Infinity;
  readonly #flush: () => void;
  #since = 0;
  #requested = false;
  #measuring = false;
  #earliest = 0;
  #cancelWindow: (() => void) | undefined;

  /** Takers that were given something and may have more to come, with the hold in which that was. Only kept under pressure. */
  readonly #behind = new Map<Taker, number>();
  #pressed = false;
  #hold = 0;
  #held: Promise<void> | undefined;
  #letGo: (() => void) | undefined;
  #flushed = false;
  #cancelHold: (() => void) | undefined;

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
   * A promise for a publisher to wait for, if it is too far ahead. A loop of awaited publishing never leaves the microtasks
   * otherwise, and nothing would ever be written.
   */
  ready(): Promise<void> | undefined {
    if (this.#since <= this.limit) return undefined;
    this.#pressed = true;
    this.#flushed = false;
    this.request();
    this.#cancelHold ??= after(LONGEST_HOLD, () => this.#giveUp());
    return (this.#held ??= new Promise((resolve) => {
      this.#letGo = resolve;
    }));
  }

  /** A taker was given something. */
  handed(taker: Taker): void {
    if (this.#pressed) this.#behind.set(taker, this.#hold);
  }

  /** A taker has all there is, or is gone. */
  taken(taker: Taker): void {
    if (this.#behind.delete(taker)) this.#releaseIfTaken();
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
    if (this.#since <= this.limit && !this.#held) {
      this.#pressed = false;
      this.#behind.clear();
    }
    this.#since = 0;
    const start = now();
    this.#flush();
    this.#flushed = true;
    this.#releaseIfTaken();
    this.#measuring = true;
    nextTurn(() => {
      this.#measuring = false;
      const end = now();
      this.#earliest = end + Math.min(LONGEST_WINDOW, (end - start) * WINDOW_FACTOR);
      if (this.#requested) this.#schedule();
    });
  }

  #giveUp(): void {
    for (const [taker, hold] of this.#behind) if (hold < this.#hold) this.#behind.delete(taker);
    this.#release();
  }

  #releaseIfTaken(): void {
    if (this.#flushed && this.#behind.size === 0) this.#release();
  }

  #release(): void {
    this.#hold++;
    this.#cancelHold?.();
    this.#letGo?.();
    this.#cancelHold = this.#held = this.#letGo = undefined;
  }
}
