// Bearer tokens: reads them from a request, compares them in constant time, and makes an `authorize` of them.
import { unauthorized } from "../base/errors.ts";
import type { Authorize, AuthorizeResult } from "./authorize.ts";

/** Returns the token of `Authorization: Bearer …` (RFC 6750, section 2.1). */
export const bearerTokenOf = (request: Request): string | undefined =>
  /^Bearer +(\S.*)$/i.exec(request.headers.get("authorization") ?? "")?.[1];

/** Compares two tokens in a time that depends only on the length of the presented one. */
function isSameToken(presented: string, expected: string): boolean {
  let difference = presented.length ^ expected.length;
  for (let index = 0; index < presented.length; index++) {
    difference |= presented.charCodeAt(index) ^ expected.charCodeAt(index % expected.length);
  }
  return difference === 0;
}

/** Whether a request presents one of these tokens. Compares all of them, so that the time does not reveal which one it was. */
export function presentsToken(request: Request, tokens: readonly string[]): boolean {
  const presented = bearerTokenOf(request);
  return presented !== undefined && tokens.filter((token) => isSameToken(presented, token)).length > 0;
}

/**
 * Returns an `authorize` that lets a request in if it presents a token as `Authorization: Bearer …`. Tokens are compared in constant time. With
 * several tokens, one can be replaced without a pause. The `EventSource` of browsers cannot send this header, so it is for programs, and for
 * publishers.
 *
 * @example createBroker({ authorize: bearer(process.env.TOKEN) });
 * @throws `TypeError` for a token that is not a string, or is empty: every request could present it.
 */
export function bearer(
  token: string | readonly string[] | undefined,
  grant: Exclude<AuthorizeResult, Response> = true,
): Authorize {
  const tokens: readonly unknown[] = Array.isArray(token) ? token : [token];
  if (tokens.length === 0 || !tokens.every(isToken))
    throw new TypeError("bearer() refused: each token must be a string that is not empty.");
  return ({ request }) => {
    if (!presentsToken(request, tokens))
      throw unauthorized("Request refused: present a token as Authorization: Bearer.");
    return grant;
  };
}

/** Whether a value can be a token: a string that is not empty. */
export const isToken = (token: unknown): token is string => typeof token === "string" && token !== "";
