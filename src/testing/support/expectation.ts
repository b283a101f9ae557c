import { after, now } from "../../base/runtime.ts";

/** Milliseconds between two looks at a condition. */
const LOOK = 2;

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 400 ? `${text.slice(0, 400)}…` : text;
};

/** Something is not as it is required. */
class Unmet extends Error {}

const failure = (what: string, expected: string, seen: unknown): Unmet =>
  new Unmet(`${what}: expected ${expected}, saw ${show(seen)}.`);

/** An error of a case, said as what is not as it is required. */
export function asUnmet(id: string, error: unknown): Error {
  if (error instanceof Unmet) return new Error(`${id}: ${error.message}`, { cause: error });
  return new Error(`${id}: expected no error, saw ${String(error)}`, { cause: error });
}

/** @throws {@link Unmet} unless it holds. */
export function check(holds: boolean, what: string, expected: string, seen: unknown): void {
  if (!holds) throw failure(what, expected, seen);
}

/** @throws {@link Unmet} unless both have the same JSON. */
export function equal(what: string, seen: unknown, expected: unknown): void {
  check(JSON.stringify(seen) === JSON.stringify(expected), what, show(expected), seen);
}

/** Lets so many milliseconds pass. */
const pause = (ms: number): Promise<void> => new Promise((resolve) => void after(ms, resolve));

/** Waits until `look` answers with something, and answers with that. @throws {@link Unmet} after `patience` milliseconds. */
export async function until<T>(
  patience: number,
  what: string,
  expected: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  seen: () => unknown = () => "nothing of it",
): Promise<T> {
  const end = now() + patience;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (now() >= end) throw failure(what, `${expected} within ${patience} ms`, seen());
    await pause(LOOK);
  }
}

/** What a promise comes to. @throws {@link Unmet} if it is not settled after `patience` milliseconds, and what it rejects with. */
export async function inTime<T>(patience: number, what: string, promise: T | Promise<T>): Promise<T> {
  let cancel = (): void => undefined;
  const late = new Promise<never>((_, reject) => {
    cancel = after(patience, () => reject(failure(what, `an answer within ${patience} ms`, "none")));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    cancel();
  }
}

/** Checks that a promise rejects with one of these codes, and answers with it. */
export async function rejects(
  patience: number,
  what: string,
  promise: Promise<unknown>,
  codes: readonly string[],
): Promise<string> {
  const settled = promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error, code: (error as { code?: unknown } | null)?.code }),
  );
  const outcome = await inTime(patience, what, settled);
  if (!("error" in outcome)) throw failure(what, `a rejection with ${codes.join(" or ")}`, outcome.value);
  const { code, error } = outcome;
  if (typeof code !== "string" || !codes.includes(code))
    throw failure(what, `a rejection with ${codes.join(" or ")}`, `${String(error)} (code ${String(code)})`);
  return code;
}

/** Tries again what is refused with `engine-down`, which had no effect, and answers with what it comes to. */
export function persist<T extends object>(patience: number, what: string, attempt: () => Promise<T>): Promise<T> {
  return until(patience, what, "to be done", () =>
    attempt().catch((error: unknown) => {
      const { code } = error as { code?: string };
      check(code === "engine-down", what, "to be done, or engine-down", String(error));
      return undefined;
    }),
  );
}
