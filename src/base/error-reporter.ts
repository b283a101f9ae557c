// Background errors end here: errors that no caller waits for go to `onError`, and without one to the console.
import type { ErrorStage } from "./errors.ts";
import { now } from "./runtime.ts";

/** Receives an error that no caller waits for. */
export type OnError = (failure: { readonly error: unknown; readonly stage: ErrorStage }) => unknown;

/** The time for which further errors of a stage are only counted after one was printed, in milliseconds. */
const QUIET_MS = 60_000;

export class ErrorReporter {
  readonly #onError: OnError;

  constructor(onError: OnError = printer()) {
    this.#onError = onError;
  }

  /** Passes an error to `onError`. Never rejects. */
  async report(stage: ErrorStage, error: unknown): Promise<void> {
    // In a microtask of its own, because an append or a flush may be running.
    await undefined;
    try {
      await this.#onError({ error, stage });
    } catch {
      // onError is where errors end; an error of its own has no other place to go.
    }
  }

  /** Calls a hook at once, and reports what it throws or rejects with. Never rejects. */
  async callHook<T>(stage: ErrorStage, hook: ((event: T) => unknown) | undefined, event: T): Promise<void> {
    try {
      await hook?.(event);
    } catch (error) {
      await this.report(stage, error);
    }
  }
}

/** Returns an `onError` that prints the first error of each stage, and then one a minute with the number of those in between. */
function printer(): OnError {
  const stages = new Map<ErrorStage, { readonly printedAt: number; unprinted: number }>();
  return ({ error, stage }) => {
    const last = stages.get(stage);
    const time = now();
    if (last && time - last.printedAt < QUIET_MS) {
      last.unprinted++;
      return;
    }
    stages.set(stage, { printedAt: time, unprinted: 0 });
    const count = last?.unprinted ? ` and ${last.unprinted} before it` : "";
    // biome-ignore lint/suspicious/noConsole: an error that nobody reads would stay unknown
    console.error(`fanwire: error in stage "${stage}"${count}; set onError to handle errors yourself.`, error);
  };
}
