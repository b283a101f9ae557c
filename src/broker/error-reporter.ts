// Background errors end here: errors that no caller waits for go to `onError`.
import type { ErrorStage } from "../base/errors.ts";

/** Receives an error that no caller waits for. */
export type OnError = (failure: { readonly error: unknown; readonly stage: ErrorStage }) => unknown;

export class ErrorReporter {
  readonly #onError: OnError | undefined;

  constructor(onError: OnError | undefined) {
    this.#onError = onError;
  }

  /** Passes an error to `onError`. Never rejects. */
  async report(stage: ErrorStage, error: unknown): Promise<void> {
    // In a microtask of its own, because an append or a flush may be running.
    await undefined;
    try {
      await this.#onError?.({ error, stage });
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
