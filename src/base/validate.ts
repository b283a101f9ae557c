// Checks of arguments and options. Each one throws before anything has happened.

/**
 * Checks that each value is a number from `least` to `most`. `where` is the call that a message names.
 *
 * @throws `RangeError`
 */
export function checkNumbers(
  where: string,
  values: Readonly<Record<string, unknown>>,
  least: number,
  most: number = Infinity,
): void {
  for (const [name, value] of Object.entries(values)) {
    if (typeof value === "number" && value >= least && value <= most) continue;
    const range = most === Infinity ? `${least} or more` : `from ${least} to ${most}`;
    throw new RangeError(`${where} refused: ${name} must be a number, ${range}, not ${String(value)}.`);
  }
}

/** Whether a value is an object as `{ … }` creates it, of any realm: not of a class, not a list, and without inherited members. */
export function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || (Object.getPrototypeOf(prototype) === null && !Array.isArray(value));
}

/** Whether a value is a `Response`. `@hono/node-server` has a class of its own besides the one of `fetch`. */
export const isResponse = (value: unknown): value is Response =>
  value instanceof Response || Object.prototype.toString.call(value) === "[object Response]";

/** New names of options that were renamed before the first release, by old name. */
const RENAMED: Readonly<Record<string, string>> = {
  channel: "channels",
  for: "blockFor",
  guarded: "requireToken",
  id: "clientId",
  key: "idempotencyKey",
  keyWindow: "idempotencyWindow",
  maxAge: "maxConnectionAge",
  over: "spreadOver",
};

/**
 * Checks that `values` is a plain object with known names only, because a misspelled option would set nothing.
 *
 * @throws `TypeError`
 */
export function checkKnownKeys(where: string, kind: string, known: ReadonlySet<string>, values: unknown): void {
  if (!isPlain(values)) throw new TypeError(`${where} refused: ${kind}s must be a plain object, such as { … }.`);
  for (const name of Object.keys(values)) {
    if (known.has(name)) continue;
    const renamed = RENAMED[name];
    const cure =
      renamed !== undefined && known.has(renamed)
        ? `it is called "${renamed}" now`
        : `known are ${[...known].join(", ")}`;
    throw new TypeError(`${where} refused: there is no ${kind} "${name}"; ${cure}.`);
  }
}

/** Returns the defaults, overridden by the given values; `undefined` counts as not given. @throws as {@link checkKnownKeys} */
export function withDefaults<T>(where: string, kind: string, defaults: object, values: unknown): T {
  checkKnownKeys(where, kind, new Set(Object.keys(defaults)), values);
  const result: Record<string, unknown> = { ...defaults };
  for (const [name, value] of Object.entries(values as object)) if (value !== undefined) result[name] = value;
  return result as T;
}
