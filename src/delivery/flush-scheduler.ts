// Decides when to flush. Events of one turn of the event loop leave together. An idle broker flushes in the next turn; a busy one waits
// about as long as its last flush took.
import { after, nextTurn, now } from "../base/runtime.ts";

/** The longest time that a busy broker gathers events before it flushes, in milliseconds. */
const MAX_WINDOW_MS = 8;
/** The window is this many times as long as the last flush. */
const WINDOW_FACTOR = 2;

/** Milliseconds, for a runtime whose clock cannot measure a flush, or connections that answer late. */
export interface FlushTiming {
  /** Between two flushes. */
  readonly window: number;
  /** The longest time that a publisher is held after a flush. */
  readonly hold: number;
}

/** Calls `flush` when it is due. */
export class FlushScheduler {
  readonly #flush: () => void;
  /** Milliseconds between two flushes, where the runtime's clock cannot measure a flush. */
  readonly #fixedWindowMs: number | undefined;
  #isRequested = false;
  #isMeasuring = false;
  /** The earliest time of the next flush, in milliseconds of `now()`. */
  #earliest = 0;
  #cancelTimer: (() => void) | undefined;

  constructor(flush: () => void, fixedWindowMs?: number) {
    this.#flush = flush;
    this.#fixedWindowMs = fixedWindowMs;
  }

  /** Requests a flush. Requests before the flush are one. */
  request(): void {
    if (this.#isRequested) return;
    this.#isRequested = true;
    if (!this.#isMeasuring) this.#schedule();
  }

  /** Runs a requested flush at once, and stops. */
  close(): void {
    this.#cancelTimer?.();
    this.#run();
    // The timer that this flush started would only delay a next one.
    this.#cancelTimer?.();
  }

  #schedule(): void {
    const waitMs = this.#earliest - now();
    // A timer of less than a millisecond would take a whole one.
    if (waitMs < 1) nextTurn(() => this.#run());
    else this.#cancelTimer = after(waitMs, () => this.#run());
  }

  #run(): void {
    if (!this.#isRequested) return;
    this.#isRequested = false;
    this.#cancelTimer = undefined;
    const start = now();
    this.#flush();
    this.#isMeasuring = true;
    if (this.#fixedWindowMs !== undefined) {
      this.#cancelTimer = after(this.#fixedWindowMs, () => this.#measured(0));
      return;
    }
    // The runtime writes to the sockets after this turn, and that is part of what a flush takes.
    nextTurn(() => {
      const end = now();
      this.#measured(end + Math.min(MAX_WINDOW_MS, (end - start) * WINDOW_FACTOR));
    });
  }

  #measured(earliest: number): void {
    this.#isMeasuring = false;
    this.#earliest = earliest;
    if (this.#isRequested) this.#schedule();
  }
}
