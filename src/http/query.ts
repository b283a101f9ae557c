// Reads the parameters of a request, and refuses names that are more likely a mistake than meant for somebody else.
import { BrokerError, type ErrorCode, quote } from "../base/errors.ts";

/** Parameters of a request to connect. */
export const CONNECT_PARAMETERS: readonly string[] = ["channel", "id", "lastEventId", "from"];
/** Parameters of a request to publish. */
export const PUBLISH_PARAMETERS: readonly string[] = ["channel", "id", "type"];

/** Other words for a parameter that publishers of other systems use. */
const SYNONYMS: ReadonlyMap<string, string> = new Map([
  ["event", "type"],
  ["to", "id"],
]);

/**
 * Checks the names of a query's parameters. `allowed` are the application's own ones. With `strict` every other unknown name is refused, and
 * without it only one that looks like a known one.
 *
 * @throws {@link BrokerError} `bad-request`, which names the nearest known parameter
 */
export function checkParameters(
  query: URLSearchParams,
  known: readonly string[],
  allowed: readonly string[],
  strict: boolean,
): void {
  for (const name of query.keys()) {
    if (known.includes(name) || allowed.includes(name)) continue;
    const meant = known.find((candidate) => isSimilar(name, candidate)) ?? (strict ? SYNONYMS.get(name) : undefined);
    if (meant === undefined && !strict) continue;
    const cure = meant === undefined ? `known are ${known.join(", ")};` : `did you mean ${meant}?`;
    throw new BrokerError(
      "bad-request",
      `Request refused: unknown query parameter ${quote(name)}; ${cure} allowQuery lets parameters of your own through.`,
    );
  }
}

/** Whether `name` is probably meant to be `known`: it differs in case, punctuation, a plural, or a letter or two of a longer name. */
function isSimilar(name: string, known: string): boolean {
  const target = known.toLowerCase();
  // The name of a client's id in the broker's own methods is clientId.
  const letters = name
    .toLowerCase()
    .replace(/[^a-z]|s$/g, "")
    .replace(/^client(?=id$)/, "");
  const most = target.length > 6 ? 2 : target.length > 3 ? 1 : 0;
  return Math.abs(letters.length - target.length) <= most && distance(letters, target) <= most;
}

/** Returns how many letters have to be added, removed or replaced to turn one word into the other (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let line = 1; line <= a.length; line++) {
    const next = [line];
    for (let column = 1; column <= b.length; column++) {
      const replaced = (row[column - 1] as number) + (a[line - 1] === b[column - 1] ? 0 : 1);
      next[column] = Math.min(replaced, (row[column] as number) + 1, (next[column - 1] as number) + 1);
    }
    row = next;
  }
  return row[b.length] as number;
}

/** Returns a parameter that may be given once. An empty one counts as absent. @throws {@link BrokerError} `code` */
export function singleParameter(
  query: URLSearchParams,
  name: string,
  code: ErrorCode = "bad-request",
): string | undefined {
  const [value, ...others] = query.getAll(name);
  if (others.length > 0) throw new BrokerError(code, `Request refused: ${name} is given more than once.`);
  return value || undefined;
}
