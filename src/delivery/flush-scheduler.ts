import { after, nextTurn, now } from "../base/runtime.ts";

/** The longest that a busy broker gathers events before it flushes, in milliseconds. */
const LONGEST_WINDOW = 8;
/** How much longer than the last flush it gathers for. */
const WINDOW_FACTOR = 2;
/** The longest that a publisher is held back after a flush for those who read, in milliseconds. */
const LONGEST_HOLD = 50;
/** How many holds in a row one taker may draw out; a slow one costs the publisher no more than this. */
const MOST_HOLDS = 8;

/** Milliseconds, where the runtime's clock or what lies between the broker and its takers asks for others. */
export interface FlushTiming {
  /** Between two flushes; nothing is measured. */
  readonly window: number;
  /** The longest that a publisher is held back after a flush. */
  readonly hold: number;
}

/**
 * When to flush, and how far publishers may run ahead of the takers.
 *
 * Events of one turn of the event loop leave together. An idle broker flushes in the next turn; a busy one waits for about as long
 * as its last flush took, the runtime's writing included: measured to the turn after it.
 *
 * A publisher that is too far ahead is held back until those who had everything before the flush have everything again. Who takes
 * nothing during a whole hold, or is still not done after several, is not waited for again before it has caught up by itself.
 */
export class Pace<Taker> {
  readonly #flush: () => void;
  readonly #rhythm: FlushTiming | undefined;
  #since = 0;
  #requested = false;
  #measuring = false;
  #earliest = 0;
  #cancelWindow: (() => void) | undefined;

  /** Who was given part of a flush and may have more to come: in which hold that began, and when it last took something. */
  readonly #behind = new Map<Taker, { readonly since: number; moved: number }>();
  #hold = 0;
  #held: Promise<void> | undefined;
  #letGo: (() => void) | undefined;
  #flushed = false;
  #cancelHold: (() => void) | undefined;

  constructor(flush: () => void, rhythm?: FlushTiming) {
    this.#flush = flush;
    this.#rhythm = rhythm;
  }

  /** There is something to flush. */
  request(): void {
    if (this.#requested) return;
    this.#requested = true;
    if (!this.#measuring) this.#schedule();
  }

  /** Something was appended: a share of what may be appended between two flushes before publishers are held back. */
  appended(share: number): void {
    this.#since += share;
  }

  /** Flushes what was requested without waiting for its time, and lets all publishers go. */
  close(): void {
    this.#cancelWindow?.();
    this.#run();
    // Nothing comes that would have to wait for the one after it.
    this.#cancelWindow?.();
    this.#release();
  }

  /**
   * A promise for a publisher to wait for, if it is too far ahead. A loop of awaited publishing never leaves the microtasks
   * otherwise, and nothing would ever be written.
   */
  ready(): Promise<void> | undefined {
    if (this.#since <= 1) return undefined;
    this.#flushed = false;
    this.request();
    return (this.#held ??= new Promise((resolve) => {
      this.#letGo = resolve;
    }));
  }

  /** A taker that had everything was given something in a flush. */
  sent(taker: Taker): void {
    if (this.#letGo) this.#behind.set(taker, { since: this.#hold, moved: this.#hold });
  }

  /** A taker came for more. */
  moved(taker: Taker): void {
    const entry = this.#behind.get(taker);
    if (entry) entry.moved = this.#hold;
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
    this.#since = 0;
    const start = now();
    this.#flush();
    this.#flushed = true;
    this.#releaseIfTaken();
    if (this.#letGo) this.#cancelHold ??= after(this.#rhythm?.hold ?? LONGEST_HOLD, () => this.#holdIsOver());
    this.#measuring = true;
    if (this.#rhythm) {
      this.#cancelWindow = after(this.#rhythm.window, () => this.#measured(0));
      return;
    }
    nextTurn(() => {
      const end = now();
      this.#measured(end + Math.min(LONGEST_WINDOW, (end - start) * WINDOW_FACTOR));
    });
  }

  #measured(earliest: number): void {
    this.#measuring = false;
    this.#earliest = earliest;
    if (this.#requested) this.#schedule();
  }

  #holdIsOver(): void {
    // A late timer comes before what the sockets have to say, which may be that all is taken.
    this.#cancelHold = after(0, () => this.#giveUp());
  }

  #giveUp(): void {
    for (const [taker, { since, moved }] of this.#behind) {
      if (moved < this.#hold || this.#hold - since >= MOST_HOLDS) this.#behind.delete(taker);
    }
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
