// Holds back the answer to a publisher until its event has come back through the feed, so that the event is visible here first.
import { after } from "../base/runtime.ts";
import type { Position } from "../event/position.ts";

/** The longest time that a publisher waits for its event to come back through the feed. */
const TIMEOUT_MS = 1_000;

/** Publishers that wait for their events to come back through the feed. */
export class PublishAcks {
  readonly #isSettled: (position: Position) => boolean;
  readonly #onTimeout: () => void;
  /** In order of position, because the store answers in that order. */
  readonly #waiting = new Map<() => void, Position>();
  #cancelTimer: (() => void) | undefined;

  /**
   * `isSettled` returns whether the event at a position was delivered, or can no longer be expected. `onTimeout` is called when an event did
   * not come back in time.
   */
  constructor(isSettled: (position: Position) => boolean, onTimeout: () => void) {
    this.#isSettled = isSettled;
    this.#onTimeout = onTimeout;
  }

  /** Resolves when the event at a position is settled, or after the timeout. */
  wait({ epoch, seq }: Position): Promise<void> {
    this.#cancelTimer ??= after(TIMEOUT_MS, () => {
      this.#cancelTimer = undefined;
      for (const resolve of this.#waiting.keys()) resolve();
      this.#waiting.clear();
      this.#onTimeout();
    });
    return new Promise((resolve) => {
      this.#waiting.set(resolve, { epoch, seq });
    });
  }

  /** Lets publishers continue whose events are settled. */
  release(): void {
    for (const [resolve, position] of this.#waiting) {
      if (!this.#isSettled(position)) return;
      this.#waiting.delete(resolve);
      resolve();
    }
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }
}
