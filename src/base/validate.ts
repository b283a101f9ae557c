/** @throws `RangeError` for what is no number, less than `least`, or more than `most`. */
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

/** An object as `{ … }` makes it, of whichever realm: not a class's, not a list, and nothing that inherits its members. */
export function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || (Object.getPrototypeOf(prototype) === null && !Array.isArray(value));
}

/** Whether something is a Response; `@hono/node-server` has a class of its own beside the one of `fetch`. */
export const isResponse = (value: unknown): value is Response =>
  value instanceof Response || Object.prototype.toString.call(value) === "[object Response]";

/** @throws `TypeError` for what is no plain object, and for a name that is not known: mistaken, it would set nothing. */
export function checkKnownKeys(where: string, kind: string, known: ReadonlySet<string>, values: unknown): void {
  if (!isPlain(values)) throw new TypeError(`${where} refused: ${kind}s must be a plain object, such as { … }.`);
  for (const name of Object.keys(values))
    if (!known.has(name)) throw new TypeError(`${where} refused: there is no ${kind} "${name}".`);
}

/** Defaults, and over them what was set; `undefined` counts as not set. @throws as {@link checkKnownKeys} */
export function withDefaults<T>(where: string, kind: string, defaults: object, values: unknown): T {
  checkKnownKeys(where, kind, new Set(Object.keys(defaults)), values);
  const result: Record<string, unknown> = { ...defaults };
  for (const [name, value] of Object.entries(values as object)) if (value !== undefined) result[name] = value;
  return result as T;
}
