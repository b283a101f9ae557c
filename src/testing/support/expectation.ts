// Checks of cases, without a test runner. A check that fails throws an error that says what was expected and what was seen.
import { after, now } from "../../base/runtime.ts";

/** Milliseconds between two checks of a condition. */
const POLL_MS = 2;

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 400 ? `${text.slice(0, 400)}…` : text;
};

/** A requirement is not met. */
class FailedExpectation extends Error {}

const failure = (subject: string, expected: string, seen: unknown): FailedExpectation =>
  new FailedExpectation(`${subject}: expected ${expected}, saw ${show(seen)}.`);

/** Returns the error that a case rejects with. Any error is reported as an expectation that failed. */
export function toCaseError(id: string, error: unknown): Error {
  if (error instanceof FailedExpectation) return new Error(`${id}: ${error.message}`, { cause: error });
  return new Error(`${id}: expected no error, saw ${String(error)}`, { cause: error });
}

/** @throws {@link FailedExpectation} unless `holds` */
export function check(holds: boolean, subject: string, expected: string, seen: unknown): void {
  if (!holds) throw failure(subject, expected, seen);
}

/** @throws {@link FailedExpectation} unless both values have the same JSON */
export function equal(subject: string, seen: unknown, expected: unknown): void {
  check(JSON.stringify(seen) === JSON.stringify(expected), subject, show(expected), seen);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => void after(ms, resolve));

/**
 * Calls `find` until it returns something other than `undefined` and `false`, and returns that. `seen` says in the error what there was
 * instead.
 *
 * @throws {@link FailedExpectation} after `timeout` milliseconds
 */
export async function until<T>(
  timeout: number,
  subject: string,
  expected: string,
  find: () => T | undefined | false | Promise<T | undefined | false>,
  seen: () => unknown = () => "nothing of it",
): Promise<T> {
  const end = now() + timeout;
  for (;;) {
    const found = await find();
    if (found !== undefined && found !== false) return found;
    if (now() >= end) throw failure(subject, `${expected} within ${timeout} ms`, seen());
    await pause(POLL_MS);
  }
}

/** Settles as a promise does. @throws {@link FailedExpectation} if the promise is not settled after `timeout` milliseconds */
export async function withTimeout<T>(timeout: number, subject: string, promise: T | Promise<T>): Promise<T> {
  let cancel = (): void => undefined;
  const late = new Promise<never>((_, reject) => {
    cancel = after(timeout, () => reject(failure(subject, `an answer within ${timeout} ms`, "none")));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    cancel();
  }
}

/** Checks that a promise rejects with one of these codes, and returns the code. */
export async function expectRejection(
  timeout: number,
  subject: string,
  promise: Promise<unknown>,
  codes: readonly string[],
): Promise<string> {
  const settled = promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error, code: (error as { code?: unknown } | null)?.code }),
  );
  const outcome = await withTimeout(timeout, subject, settled);
  if (!("error" in outcome)) throw failure(subject, `a rejection with ${codes.join(" or ")}`, outcome.value);
  const { code, error } = outcome;
  if (typeof code !== "string" || !codes.includes(code))
    throw failure(subject, `a rejection with ${codes.join(" or ")}`, `${String(error)} (code ${String(code)})`);
  return code;
}

/** Repeats an attempt that is refused with `engine-down`, which had no effect, and returns the result of the first one that succeeds. */
export function retryWhileDown<T extends object>(
  timeout: number,
  subject: string,
  attempt: () => Promise<T>,
): Promise<T> {
  return until(timeout, subject, "to be done", () =>
    attempt().catch((error: unknown) => {
      const { code } = error as { code?: string };
      check(code === "engine-down", subject, "to be done, or engine-down", String(error));
      return undefined;
    }),
  );
}
