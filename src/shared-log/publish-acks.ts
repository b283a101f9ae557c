import { after } from "../base/runtime.ts";
import type { Position } from "../event/position.ts";

/** Milliseconds that a publisher waits for its event to come back through the feed. */
const RETURN = 1_000;

/** Publishers that wait for their events to come back through the feed. */
export class PublishAcks {
  readonly #isBack: (position: Position) => boolean;
  readonly #tooLate: () => void;
  /** In the order of their positions, which is that of the answers. */
  readonly #waiting = new Map<() => void, Position>();
  #cancel: (() => void) | undefined;

  /** `isBack` says whether an event was sent on, or nobody knows whether it will be; `tooLate` is told when one did not come in time. */
  constructor(isBack: (position: Position) => boolean, tooLate: () => void) {
    this.#isBack = isBack;
    this.#tooLate = tooLate;
  }

  /** Resolves when it is back, or does not come in time. */
  wait({ epoch, seq }: Position): Promise<void> {
    this.#cancel ??= after(RETURN, () => {
      this.#cancel = undefined;
      for (const resolve of this.#waiting.keys()) resolve();
      this.#waiting.clear();
      this.#tooLate();
    });
    return new Promise((resolve) => {
      this.#waiting.set(resolve, { epoch, seq });
    });
  }

  /** Lets those go whose events have come. */
  release(): void {
    for (const [resolve, position] of this.#waiting) {
      if (!this.#isBack(position)) return;
      this.#waiting.delete(resolve);
      resolve();
    }
    this.#cancel?.();
    this.#cancel = undefined;
  }
}
