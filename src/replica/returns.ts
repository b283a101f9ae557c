import type { Position } from "../position.ts";
import { after } from "../runtime.ts";

/** Milliseconds that a publisher waits for its event to come back through the feed. */
const RETURN = 1_000;

/** Publishers that wait for their events to come back through the feed. */
export class Returns {
  readonly #isBack: (position: Position) => boolean;
  readonly #tooLate: () => void;
  #waiting: (Position & { readonly resolve: () => void })[] = [];
  #cancel: (() => void) | undefined;

  /** `isBack` says whether an event was handed on, or nobody knows whether it will be; `tooLate` is told when one did not come in time. */
  constructor(isBack: (position: Position) => boolean, tooLate: () => void) {
    this.#isBack = isBack;
    this.#tooLate = tooLate;
  }

  /** Resolves when it is back, or does not come in time. */
  wait({ epoch, seq }: Position): Promise<void> {
    this.#cancel ??= after(RETURN, () => {
      this.#cancel = undefined;
      for (const { resolve } of this.#waiting.splice(0)) resolve();
      this.#tooLate();
    });
    return new Promise((resolve) => {
      this.#waiting.push({ epoch, seq, resolve });
    });
  }

  /** Lets those go whose events have come. */
  release(): void {
    if (this.#waiting.length === 0) return;
    this.#waiting = this.#waiting.filter((each) => {
      if (!this.#isBack(each)) return true;
      each.resolve();
      return false;
    });
    if (this.#waiting.length > 0) return;
    this.#cancel?.();
    this.#cancel = undefined;
  }
}
