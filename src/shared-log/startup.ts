// Lets the first calls wait until the store has reported whether it is reachable. Afterwards a call that cannot be served is refused at once.
import { after, keepAlive } from "../base/runtime.ts";

/** The time from opening a session until the store reports its state for the first time. */
export class Startup {
  readonly #ended: Promise<void>;
  #isPending = true;
  #end: (() => void) | undefined;

  /** The startup ends by itself after `timeoutMs`. */
  constructor(timeoutMs: number) {
    this.#ended = new Promise((resolve) => {
      const cancelTimer = after(timeoutMs, resolve, true);
      this.#end = () => {
        cancelTimer();
        resolve();
      };
    });
    // Set in the first reaction, and not in `end`: an event that is published right after `end` must come after the events that wait.
    void this.#ended.then(() => {
      this.#isPending = false;
    });
  }

  /** Resolves when the startup ends. Callers that await this continue in the order of their calls, and keep the process alive. */
  get ended(): Promise<void> {
    return keepAlive(this.#ended);
  }

  get isPending(): boolean {
    return this.#isPending;
  }

  end(): void {
    this.#end?.();
  }
}
