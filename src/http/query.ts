// Reads the parameters of a request, and refuses names that are more likely a mistake than meant for somebody else.
import { BrokerError, type ErrorCode, quote } from "../base/errors.ts";
import { DEFAULT_LIMIT, MAX_LIMIT } from "../engine/history.ts";
import type { NameRules } from "../event/name-rules.ts";
import { findStartFault, type StartOptions } from "../log/resume.ts";
import type { RequestedAccess } from "./authorize.ts";
import type { ClientOverrides } from "./overrides.ts";

/** Parameters of a request to connect. */
export const CONNECT_PARAMETERS: readonly string[] = ["channel", "id", "lastEventId", "from", "last"];
/** Parameters of a request for history. */
export const HISTORY_PARAMETERS: readonly string[] = ["channel", "id", "after", "from", "limit"];
/** Parameters of a request to change the channels of a stream. */
export const CHANGE_PARAMETERS: readonly string[] = ["channel", "secret"];
/** Parameters of a request to publish. */
export const PUBLISH_PARAMETERS: readonly string[] = ["channel", "id", "type", "ephemeral"];

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
    const meant = known.find((candidate) => isSimilar(name, candidate)) ?? (strict ? synonymOf(name) : undefined);
    if (meant === undefined && !strict) continue;
    const cure = meant === undefined ? `known are ${known.join(", ")}.` : `did you mean ${meant}?`;
    throw new BrokerError(
      "bad-request",
      `Request refused: unknown parameter ${quote(name)}; ${cure} List your own in allowQuery.`,
    );
  }
}

/** Returns the parameter that publishers of other systems know by another name. */
const synonymOf = (name: string): string | undefined => (name === "event" ? "type" : name === "to" ? "id" : undefined);

/** Whether `name` is probably meant to be `known`: it differs in case, punctuation, a plural, or a letter or two of a longer name. */
function isSimilar(name: string, known: string): boolean {
  // The name of a client's id in the broker's own methods is clientId.
  const letters = name.toLowerCase().replace(/[^a-z]|s$|^client(?=.?id$)/g, "");
  // One letter makes other words of "last", such as "lat" and "list".
  const most = known.length > 6 ? 2 : known.length > 3 && known !== "last" ? 1 : 0;
  return isWithin(letters, known.toLowerCase(), most);
}

/** Whether one word becomes the other if at most `most` letters are added, removed or replaced (Levenshtein). */
function isWithin(a: string, b: string, most: number): boolean {
  if (a === b || most === 0) return a === b;
  const [restA, restB] = [a.slice(1), b.slice(1)];
  if (a[0] === b[0]) return isWithin(restA, restB, most);
  return [restA, a].some((other) => isWithin(other, restB, most - 1)) || isWithin(restA, b, most - 1);
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

/** Returns a parameter that is `true` or `false`. @throws {@link BrokerError} `bad-request` */
export function flagOf(query: URLSearchParams, name: string): boolean {
  const value = singleParameter(query, name);
  if (value === undefined || value === "true" || value === "false") return value === "true";
  throw new BrokerError("bad-request", `Request refused: ${name}=${quote(value)} is neither "true" nor "false".`);
}

/** Returns where a client starts to read. An override of `from` or `last` replaces both of the query. @throws {@link BrokerError} `bad-request` */
export function startOptions(query: URLSearchParams, overrides: StartOptions): StartOptions {
  const text = singleParameter(query, "last");
  const asked = { from: singleParameter(query, "from"), last: /^\d+$/.test(text ?? "") ? Number(text) : text };
  const { lastEventId } = overrides;
  const { from, last } = overrides.from === undefined && overrides.last === undefined ? asked : overrides;
  const fault = findStartFault(from, last);
  if (fault) throw new BrokerError("bad-request", `Request refused: ${fault}`);
  return { lastEventId, from, last } as StartOptions;
}

/** Returns where a part of the history begins. @throws {@link BrokerError} `bad-request` */
export function historyStart(query: URLSearchParams): StartOptions {
  const from = singleParameter(query, "from") ?? "earliest";
  if (from !== "earliest")
    throw new BrokerError("bad-request", `Request refused: from=${quote(from)} is not "earliest".`);
  return { lastEventId: singleParameter(query, "after"), from };
}

/** Returns how many events a request for history asks for. @throws {@link BrokerError} `bad-request` */
export function limitOf(query: URLSearchParams): number {
  const limit = singleParameter(query, "limit") ?? String(DEFAULT_LIMIT);
  const value = /^\d{1,9}$/.test(limit) ? Number(limit) : Infinity;
  if (value <= MAX_LIMIT) return value;
  throw new BrokerError(
    "bad-request",
    `Request refused: limit=${quote(limit)} is not a number from 0 to ${MAX_LIMIT}.`,
  );
}

/** Returns what a client asks to read. Overrides win over the query. */
export function requestedRead(names: NameRules, query: URLSearchParams, overrides: ClientOverrides): RequestedAccess {
  const clientId = overrides.clientId ?? singleParameter(query, "id", "bad-id");
  return {
    action: "connect",
    channels: names.channels(overrides.channels ?? query.getAll("channel")),
    clientId: clientId === undefined ? undefined : names.clientId(clientId),
  };
}

/** Returns the URL of a request. If it has no Host, Bun's URL is the path alone. @throws {@link BrokerError} `bad-request` for a Host that makes no URL */
export function urlOf({ url }: Request): URL {
  try {
    return new URL(url, "http://localhost");
  } catch (cause) {
    throw new BrokerError("bad-request", "Request refused: its URL or Host is invalid.", { cause });
  }
}
