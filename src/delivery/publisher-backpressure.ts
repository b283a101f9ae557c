// Limits how far publishers run ahead of subscribers. A publisher that is too far ahead is held until the subscribers that had everything
// before the flush have everything again.
import { after } from "../base/runtime.ts";

/** The longest time that a publisher is held after a flush, in milliseconds. */
const MAX_HOLD_MS = 50;
/** How many holds in a row one subscriber may prolong. This bounds what a slow subscriber costs a publisher. */
const MAX_HOLDS = 8;

/**
 * Holds publishers back. A subscriber that takes nothing during a whole hold, or is still not done after {@link MAX_HOLDS}, is not waited for
 * again before it has caught up by itself.
 */
export class PublisherBackpressure<Subscriber> {
  readonly #requestFlush: () => void;
  readonly #maxHoldMs: number;
  /** Bytes appended since the last flush, as a share of those that may be appended between two flushes. */
  #ahead = 0;
  /** Counts holds. */
  #hold = 0;
  /** Subscribers that received part of a flush and may have more to come: the hold in which that began, and the one of their last progress. */
  readonly #behind = new Map<Subscriber, { readonly since: number; progressedIn: number }>();
  #held: Promise<void> | undefined;
  #resolveHeld: (() => void) | undefined;
  #hasFlushed = false;
  #cancelTimer: (() => void) | undefined;

  constructor(requestFlush: () => void, maxHoldMs: number = MAX_HOLD_MS) {
    this.#requestFlush = requestFlush;
    this.#maxHoldMs = maxHoldMs;
  }

  /** Counts an appended event. `share` is its part of what may be appended between two flushes before publishers are held. */
  appended(share: number): void {
    this.#ahead += share;
  }

  /**
   * Returns a promise for a publisher to wait for, or `undefined` if it may go on. A loop of awaited publishing never leaves the microtasks
   * otherwise, and nothing would ever be written.
   */
  ready(): Promise<void> | undefined {
    if (this.#ahead <= 1) return undefined;
    this.#hasFlushed = false;
    this.#requestFlush();
    return (this.#held ??= new Promise((resolve) => {
      this.#resolveHeld = resolve;
    }));
  }

  /** A flush begins: publishers may run ahead of it again. */
  beforeFlush(): void {
    this.#ahead = 0;
  }

  /** A flush sent its batches. From here on the hold is limited in time. */
  afterFlush(): void {
    this.#hasFlushed = true;
    this.#releaseIfCaughtUp();
    if (this.#resolveHeld) this.#cancelTimer ??= after(this.#maxHoldMs, () => this.#onTimer());
  }

  /** A subscriber that had everything received a batch of a flush. */
  sent(subscriber: Subscriber): void {
    if (this.#resolveHeld) this.#behind.set(subscriber, { since: this.#hold, progressedIn: this.#hold });
  }

  /** A subscriber asked for more. */
  progressed(subscriber: Subscriber): void {
    const entry = this.#behind.get(subscriber);
    if (entry) entry.progressedIn = this.#hold;
  }

  /** A subscriber has everything, or is gone. */
  caughtUp(subscriber: Subscriber): void {
    if (this.#behind.delete(subscriber)) this.#releaseIfCaughtUp();
  }

  /** Lets all publishers go on. */
  release(): void {
    this.#hold++;
    this.#cancelTimer?.();
    this.#resolveHeld?.();
    this.#cancelTimer = this.#held = this.#resolveHeld = undefined;
  }

  #onTimer(): void {
    // A late timer runs before the sockets are read, and a socket may be about to report that everything is taken.
    this.#cancelTimer = after(0, () => this.#giveUp());
  }

  #giveUp(): void {
    for (const [subscriber, { since, progressedIn }] of this.#behind) {
      if (progressedIn < this.#hold || this.#hold - since >= MAX_HOLDS) this.#behind.delete(subscriber);
    }
    this.release();
  }

  #releaseIfCaughtUp(): void {
    if (this.#hasFlushed && this.#behind.size === 0) this.release();
  }
}
