import { unauthorized } from "../base/errors.ts";
import type { Authorize, AuthorizeResult } from "./authorize.ts";

/** The token of `Authorization: Bearer …`. RFC 6750, section 2.1. */
export const bearerTokenOf = (request: Request): string | undefined =>
  /^Bearer +(\S.*)$/i.exec(request.headers.get("authorization") ?? "")?.[1];

/** Compares in a time that depends on the presented token's length alone. */
function sameToken(presented: string, expected: string): boolean {
  let difference = presented.length ^ expected.length;
  for (let index = 0; index < presented.length; index++) {
    difference |= presented.charCodeAt(index) ^ expected.charCodeAt(index % expected.length);
  }
  return difference === 0;
}

/** Whether a request presents one of these tokens. All are compared, so that the time does not tell which one it was. */
export function presentsToken(request: Request, tokens: readonly string[]): boolean {
  const presented = bearerTokenOf(request);
  return presented !== undefined && tokens.filter((token) => sameToken(presented, token)).length > 0;
}

/**
 * An `authorize` for who presents a token as `Authorization: Bearer …`; compared in constant time. Several tokens let one be
 * replaced without a pause. Browsers' `EventSource` cannot send it; it is for programs, and for publishers.
 *
 * @example createBroker({ authorize: bearer(process.env.TOKEN) });
 * @throws `TypeError` for a token that is empty or no string: everybody could present it.
 */
export function bearer(
  token: string | readonly string[] | undefined,
  grant: Exclude<AuthorizeResult, Response> = true,
): Authorize {
  const tokens: readonly unknown[] = Array.isArray(token) ? token : [token];
  if (tokens.length === 0 || !tokens.every(isToken))
    throw new TypeError("bearer() refused: each token must be a string that is not empty.");
  return ({ request }) => {
    if (!presentsToken(request, tokens)) throw unauthorized("Refused: present a token as Authorization: Bearer.");
    return grant;
  };
}

/** Whether something may be a token. */
export const isToken = (token: unknown): token is string => typeof token === "string" && token !== "";
