// The delay before background work is tried again.
import { after } from "../base/runtime.ts";

const RETRY_MS = 250;

/** Delays that can be ended early, because nothing is left to retry for. */
export class RetryDelays {
  readonly #finishers = new Set<() => void>();

  /** Resolves after the retry delay, or when `endAll` is called. */
  wait(): Promise<void> {
    return new Promise((resolve) => {
      const finish = (): void => {
        cancel();
        this.#finishers.delete(finish);
        resolve();
      };
      const cancel = after(RETRY_MS, finish, true);
      this.#finishers.add(finish);
    });
  }

  /** Ends all delays at once. */
  endAll(): void {
    for (const finish of [...this.#finishers]) finish();
  }
}
