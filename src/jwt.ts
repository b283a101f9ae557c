// `fanwire/jwt`: an `authorize` that verifies JSON Web Tokens with jose.
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from "jose";
import { BrokerError, unauthorized } from "./base/errors.ts";
import { checkNumbers, isPlain, withDefaults } from "./base/validate.ts";
import type { AccessRequest, Authorize, AuthorizeResult, Grant } from "./http/authorize.ts";
import { bearerTokenOf } from "./http/bearer.ts";
import { RemoteKeys } from "./http/remote-keys.ts";

/** The keys: a secret that both sides share, or the issuer's public keys. */
type Keys =
  | {
      /** The shared secret, for HS256, HS384 and HS512: at least 32, 48 or 64 bytes (RFC 7518, section 3.2). */
      readonly secret: string | Uint8Array;
      readonly jwks?: undefined;
    }
  | {
      /**
       * The issuer's public keys, or their URL. They are fetched for the first token, again every 10 minutes, and for a token with an unknown
       * key, at most once in 5 seconds. While the issuer cannot be reached, keys are used until they are an hour old.
       */
      readonly jwks: string | URL | JSONWebKeySet;
      readonly secret?: undefined;
    };

/** Options of {@link jwt}. */
export type JwtOptions = Keys & {
  /** The accepted algorithms, such as `["ES256"]`. A token that names another one is refused. */
  readonly algorithms: readonly string[];
  /** The `iss` that a token must have, or several accepted ones. @default any */
  readonly issuer?: string | string[];
  /**
   * The `aud` that a token must have, or several accepted ones. Without it, tokens that the issuer made for other services are accepted as well.
   * @default any
   */
  readonly audience?: string | string[];
  /** Seconds by which the issuer's clock may differ, from 0 to 86,400. @default 0 */
  readonly clockTolerance?: number;
  /**
   * The name of a cookie with the token, read if there is no `Authorization: Bearer …`. The EventSource of browsers can send cookies, and no
   * header fields. @default none
   */
  readonly cookie?: string;
  /**
   * Decides what the owner of a valid token may do. Called for `connect` and for `publish`; `true` allows what was requested. `subject` is the
   * token's `sub`, unless the grant has another one. `expiresAt` is never later than the token's `exp`.
   */
  readonly grant: (
    claims: JWTPayload,
    access: AccessRequest,
  ) => Exclude<AuthorizeResult, Response> | Promise<Exclude<AuthorizeResult, Response>>;
};

/**
 * Returns an `authorize` that lets a request in if it presents a valid JSON Web Token (RFC 7519). A token without `exp` is refused, and a
 * stream ends when its token expires.
 *
 * @example
 * createBroker({
 *   authorize: jwt({
 *     jwks: "https://login.example/.well-known/jwks.json",
 *     algorithms: ["ES256"],
 *     audience: "events",
 *     cookie: "__Host-session",
 *     grant: ({ sub }, { action }) => action === "connect" && { clientId: sub, channels: ["news"] },
 *   }),
 * });
 * @throws `TypeError` for a missing or unknown option, a secret that is too short, and algorithms that do not fit the kind of key;
 * `RangeError` for `clockTolerance`.
 */
export function jwt(options: JwtOptions): Authorize {
  const { secret, jwks, algorithms, cookie, grant, ...claims } = withDefaults<JwtOptions>(
    "jwt()",
    "option",
    OPTIONS,
    options,
  );
  for (const name of ["audience", "issuer"] as const) {
    // An environment variable that is not set must not turn the check off.
    if (name in options && options[name] === undefined)
      throw new TypeError(`jwt() refused: ${name} is undefined; set it, or leave it out to accept any.`);
  }
  if (typeof grant !== "function") throw new TypeError("jwt() refused: grant must be a function.");
  const clockTolerance = claims.clockTolerance ?? 0;
  checkNumbers("jwt()", { clockTolerance }, 0, MAX_CLOCK_TOLERANCE_S);
  checkAlgorithms(algorithms, secret);
  const rules = { clockTolerance, algorithms: [...algorithms], requiredClaims: ["exp"] };
  if (claims.issuer !== undefined) Object.assign(rules, { issuer: claims.issuer });
  if (claims.audience !== undefined) Object.assign(rules, { audience: claims.audience });
  const key =
    secret === undefined ? keySet(jwks) : typeof secret === "string" ? new TextEncoder().encode(secret) : secret;

  return async (access) => {
    const token = bearerTokenOf(access.request) ?? (cookie && cookieOf(access.request, cookie));
    if (!token) throw unauthorized("Request refused: present a token.");
    // The compiler finds no signature of jwtVerify for a key that may be a function or a secret.
    const verifying =
      typeof key === "function" ? jwtVerify(token, key(access.signal), rules) : jwtVerify(token, key, rules);
    const { payload } = await verifying.catch(refuse);
    const result: AuthorizeResult = await grant(payload, access);
    // The broker checks results that are not grants.
    if (result !== true && !isPlain(result)) return result;
    const { channels, clientId, batch } = access;
    // The targets of a batch are not known yet, so nothing is granted, and the broker asks again.
    const granted: Grant = result === true ? { channels, clientId, everybody: !batch } : result;
    const tokenEnd = ((payload.exp as number) + clockTolerance) * 1000;
    const expiresAt = Math.min(Number(granted.expiresAt ?? Infinity), tokenEnd);
    return { ...granted, subject: granted.subject ?? payload.sub, expiresAt };
  };
}

/** The largest `clockTolerance`, a day in seconds. */
const MAX_CLOCK_TOLERANCE_S = 86_400;

const OPTIONS = {
  secret: undefined,
  jwks: undefined,
  algorithms: undefined,
  issuer: undefined,
  audience: undefined,
  clockTolerance: undefined,
  cookie: undefined,
  grant: undefined,
};

/** Answers 401 for an invalid token. If the keys are not available, that is not the client's fault, and it can come back later. */
function refuse(cause: unknown): never {
  if (cause instanceof BrokerError) throw cause;
  if (cause instanceof errors.JOSEError && !(cause instanceof errors.JWKSInvalid))
    throw unauthorized("Request refused: its token is invalid or has expired.", cause, true);
  throw new BrokerError("authorize-unavailable", "Request refused: tokens cannot be checked now; try again later.", {
    cause,
  });
}

/** Returns a function that finds the keys of tokens, for a request with this signal. */
function keySet(jwks: string | URL | JSONWebKeySet | undefined): (signal: AbortSignal) => JWTVerifyGetKey {
  if (jwks === undefined) throw new TypeError("jwt() refused: there is no key; pass secret or jwks.");
  if (typeof jwks === "string" || jwks instanceof URL) {
    const remote = new RemoteKeys(
      new URL(jwks).href,
      (json) => createLocalJWKSet(json as JSONWebKeySet),
      (error) => error instanceof errors.JWKSNoMatchingKey,
    );
    return (signal) => (header, token) => remote.find((keys) => keys(header, token), signal);
  }
  const local = createLocalJWKSet(jwks);
  return () => local;
}

/**
 * Checks that the algorithms fit the kind of key. If a public key were used as a secret, everybody could sign tokens (RFC 8725, section 2.1).
 */
function checkAlgorithms(algorithms: readonly string[], secret: string | Uint8Array | undefined): void {
  if (!Array.isArray(algorithms) || algorithms.length === 0)
    throw new TypeError('jwt() refused: algorithms must be a list that is not empty, such as ["ES256"].');
  const bytes = typeof secret === "string" ? new TextEncoder().encode(secret).length : (secret?.length ?? 0);
  for (const name of algorithms as readonly unknown[]) {
    const bits = Number(/^HS(256|384|512)$/.exec(String(name))?.[1] ?? 0);
    if (bits > 0 !== (secret !== undefined) || !/^[A-Z][A-Za-z]+[0-9]*$/.test(String(name)))
      throw new TypeError(
        `jwt() refused: algorithm ${String(name)} does not fit the key; HS… needs a secret, others need jwks.`,
      );
    if (bytes * 8 < bits)
      throw new TypeError(`jwt() refused: a secret for HS${bits} must have at least ${bits / 8} bytes.`);
  }
}

/** Returns the value of the first cookie with a name (RFC 6265, section 5.4). */
function cookieOf(request: Request, name: string): string | undefined {
  for (const pair of (request.headers.get("cookie") ?? "").split(";")) {
    const at = pair.indexOf("=");
    if (at > 0 && pair.slice(0, at).trim() === name) return pair.slice(at + 1).trim();
  }
  return undefined;
}
