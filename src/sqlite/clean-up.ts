// The timer of the clean-up: drops what is over, a little at a time, so that events are sent in the meantime.
import { after, every, now } from "../base/runtime.ts";

const CLEAN_UP_MS = 1_000;
/** The pause after a step is so many times as long as the step. */
const PAUSE_FACTOR = 4;

export class CleanUp {
  readonly #step: (time: number) => boolean;
  #stopTimer: (() => void) | undefined;
  #cancelNext: (() => void) | undefined;

  /** `step` does a part of the work at a time in epoch milliseconds, and returns whether more is left. It must not throw. */
  constructor(step: (time: number) => boolean) {
    this.#step = step;
  }

  start(): void {
    this.stop();
    this.#stopTimer = every(CLEAN_UP_MS, () => this.#run());
  }

  stop(): void {
    this.#stopTimer?.();
    this.#cancelNext?.();
    this.#cancelNext = undefined;
  }

  #run(): void {
    this.#cancelNext?.();
    this.#cancelNext = undefined;
    const start = now();
    if (!this.#step(Date.now())) return;
    this.#cancelNext = after(PAUSE_FACTOR * (now() - start), () => this.#run(), true);
  }
}
