import { after } from "../base/runtime.ts";

/** Milliseconds until what failed is tried again. */
const PAUSE = 250;

/** Waiting until something is tried again, until there is nothing to try for any more. */
export class RetryDelays {
  readonly #ends = new Set<() => void>();

  wait(): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        cancel();
        this.#ends.delete(end);
        resolve();
      };
      const cancel = after(PAUSE, end, true);
      this.#ends.add(end);
    });
  }

  /** Ends those that are going on. */
  end(): void {
    for (const end of [...this.#ends]) end();
  }
}
