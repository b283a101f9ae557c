// Spreads the reading of history over turns of the event loop, so that live delivery, new connections and I/O come between.
import { nextTurn } from "../base/runtime.ts";

/** The work of one turn. A unit is an event or a channel that is looked at, or 64 bytes that are copied: 2 to 3 ms on a slow core. */
const TURN_BUDGET = 8_192;
/** Number of positions that a subscriber may be behind to be served at once: live delivery comes before those that read history. */
const NEAR_HEAD = 1_024;

/** Subscribers that are behind and wait for their turn. All of them share the budget of a turn, in the order in which they asked. */
export class ReplayQueue<Subscriber> {
  readonly #serve: (subscriber: Subscriber) => void;
  readonly #waiting = new Set<Subscriber>();
  #remaining: number = TURN_BUDGET;
  #isScheduled = false;

  constructor(serve: (subscriber: Subscriber) => void) {
    this.#serve = serve;
  }

  /** Returns whether a subscriber that is `behind` positions behind the head may read now. Otherwise it is served in a later turn. */
  admit(subscriber: Subscriber, behind: number): boolean {
    if (behind <= NEAR_HEAD || (this.#waiting.size === 0 && this.#remaining > 0)) return true;
    this.#waiting.add(subscriber);
    this.#schedule();
    return false;
  }

  /** Counts the work that a subscriber has caused. */
  spend(work: number): void {
    this.#remaining -= work;
    this.#schedule();
  }

  has(subscriber: Subscriber): boolean {
    return this.#waiting.has(subscriber);
  }

  delete(subscriber: Subscriber): boolean {
    return this.#waiting.delete(subscriber);
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    nextTurn(() => this.#takeTurn());
  }

  #takeTurn(): void {
    this.#isScheduled = false;
    this.#remaining = TURN_BUDGET;
    for (const subscriber of this.#waiting) {
      if (this.#remaining <= 0) break;
      this.#waiting.delete(subscriber);
      this.#serve(subscriber);
    }
    if (this.#waiting.size > 0) this.#schedule();
  }
}
