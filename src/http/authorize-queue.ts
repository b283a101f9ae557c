// Runs `authorize` for a bounded number of requests at a time, each with a deadline.
import { BrokerError, type ErrorCode } from "../base/errors.ts";
import { after, now } from "../base/runtime.ts";
import type { AccessRequest, Authorize, AuthorizeResult } from "./authorize.ts";

export class AuthorizeQueue {
  readonly #maxPending: number;
  readonly #timeoutMs: number;
  /** For each waiting request: a function that rejects it because the broker closes, and when it began to wait. */
  readonly #waiting = new Map<() => void, number>();
  #isClosed = false;

  constructor(maxPending: number, timeoutMs: number) {
    this.#maxPending = maxPending;
    this.#timeoutMs = timeoutMs;
  }

  /** The number of requests that wait for an answer. */
  get pending(): number {
    return this.#waiting.size;
  }

  /**
   * Calls `authorize` and returns its result.
   *
   * @throws {@link BrokerError} `at-capacity`, `authorize-timeout`, `client-left`, `closed`; and what `authorize` throws.
   */
  async run(authorize: Authorize, access: Omit<AccessRequest, "signal">): Promise<AuthorizeResult> {
    const { signal } = access.request;
    if (this.#isClosed) throw new BrokerError("closed", "Request refused: the broker is closed.");
    if (this.pending >= this.#maxPending) this.#forgetAbandoned();
    if (this.pending >= this.#maxPending)
      throw new BrokerError(
        "at-capacity",
        `Request refused: ${this.#maxPending} others wait for authorize (maxPending); try again later.`,
      );
    const abort = new AbortController();
    let release = (): void => undefined;
    try {
      const givenUp = new Promise<never>((_, reject) => {
        const giveUp = (code: ErrorCode, reason: string): void => {
          reject(new BrokerError(code, `Request refused: ${reason}.`));
          abort.abort();
        };
        const onLeft = (): void => giveUp("client-left", "the client has left");
        const onClose = (): void => giveUp("closed", "the broker is closing; try again later");
        const cancelTimer = after(this.#timeoutMs, () =>
          giveUp("authorize-timeout", "authorize took longer than authorizeTimeout; try again later"),
        );
        signal.addEventListener("abort", onLeft);
        this.#waiting.set(onClose, now());
        release = () => {
          cancelTimer();
          signal.removeEventListener("abort", onLeft);
          this.#waiting.delete(onClose);
        };
        if (signal.aborted) onLeft();
      });
      // Nothing else handles this rejection if authorize throws synchronously.
      givenUp.catch(() => undefined);
      return await Promise.race([givenUp, authorize({ ...access, signal: abort.signal })]);
    } finally {
      release();
    }
  }

  /** Forgets requests whose deadline is long over. A Worker may end together with its request, and then its timers never fire. */
  #forgetAbandoned(): void {
    for (const [onClose, since] of this.#waiting) {
      if (now() - since < this.#timeoutMs * 2) return;
      this.#waiting.delete(onClose);
    }
  }

  /** Rejects every waiting request, and every later one. */
  close(): void {
    this.#isClosed = true;
    for (const onClose of this.#waiting.keys()) onClose();
  }
}
