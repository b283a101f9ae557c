import {
  createLocalJWKSet,
  createRemoteJWKSet,
  errors,
  type JSONWebKeySet,
  type JWTPayload,
  type JWTVerifyGetKey,
  jwtVerify,
} from "jose";
import { BrokerError, unauthorized } from "./base/errors.ts";
import { checkNumbers, isPlain, withDefaults } from "./base/validate.ts";
import type { AccessRequest, Authorize, AuthorizeResult, Grant } from "./http/authorize.ts";
import { bearerTokenOf } from "./http/bearer.ts";

/** Where the keys come from: a secret that both sides have, or the issuer's public keys. */
type Keys =
  | {
      /** For HS256, HS384 and HS512: at least 32, 48 or 64 bytes (RFC 7518, section 3.2). */
      readonly secret: string | Uint8Array;
      readonly jwks?: undefined;
    }
  | {
      /** The issuer's public keys, or where they are. They are fetched at the first token, and again for a key that is not known. */
      readonly jwks: string | URL | JSONWebKeySet;
      readonly secret?: undefined;
    };

/** Options of {@link jwt}. */
export type JwtOptions = Keys & {
  /** The algorithms that are taken, such as `["ES256"]`. What the token says of itself decides nothing. */
  readonly algorithms: readonly string[];
  /** The `iss` that a token must have. @default any */
  readonly issuer?: string | string[];
  /** The `aud` that a token must have: without it, a token that the issuer made for another service is taken here as well. @default any */
  readonly audience?: string | string[];
  /** Seconds that the issuer's clock may differ, 0 or more. @default 0 */
  readonly clockTolerance?: number;
  /** A cookie that the token may be in where there is no `Authorization: Bearer …`; an EventSource can send nothing else. @default none */
  readonly cookie?: string;
  /**
   * What the owner of a token that is good may do. Asked for `connect` and for `publish`; `true` allows what was asked for. `subject` is
   * the token's `sub` unless the grant says another, and `expiresAt` is never later than its `exp`.
   */
  readonly grant: (
    claims: JWTPayload,
    attempt: AccessRequest,
  ) => Exclude<AuthorizeResult, Response> | Promise<Exclude<AuthorizeResult, Response>>;
};

/**
 * An `authorize` for who presents a JSON Web Token (RFC 7519), verified by jose. A token without `exp` is refused, and a stream ends when
 * its token does.
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
 * @throws `TypeError` for a secret that is too short, and for algorithms that do not fit the kind of key.
 */
export function jwt(options: JwtOptions): Authorize {
  const { secret, jwks, algorithms, cookie, grant, ...claims } = withDefaults<JwtOptions>(
    "jwt()",
    "option",
    OPTIONS,
    options,
  );
  for (const name of ["audience", "issuer"] as const) {
    // Of an environment variable that is not set, say: every audience would be taken.
    if (name in options && options[name] === undefined) throw new TypeError(`jwt() refused: ${name} is undefined.`);
  }
  if (typeof grant !== "function") throw new TypeError("jwt() refused: grant must be a function.");
  const clockTolerance = claims.clockTolerance ?? 0;
  checkNumbers("jwt()", { clockTolerance }, 0, 86_400);
  checkAlgorithms(algorithms, secret);
  const rules = { clockTolerance, algorithms: [...algorithms], requiredClaims: ["exp"] };
  if (claims.issuer !== undefined) Object.assign(rules, { issuer: claims.issuer });
  if (claims.audience !== undefined) Object.assign(rules, { audience: claims.audience });
  const key =
    secret === undefined ? keySet(jwks) : typeof secret === "string" ? new TextEncoder().encode(secret) : secret;

  return async (attempt) => {
    const token = bearerTokenOf(attempt.request) ?? (cookie && cookieOf(attempt.request, cookie));
    if (!token) throw unauthorized("Refused: present a token.");
    // The two signatures of jwtVerify do not take a key that may be either.
    const verified = typeof key === "function" ? jwtVerify(token, key, rules) : jwtVerify(token, key, rules);
    const { payload } = await verified.catch(refuse);
    const verdict: AuthorizeResult = await grant(payload, attempt);
    // What is no grant is judged where all verdicts are.
    if (verdict !== true && !isPlain(verdict)) return verdict;
    const { channels, clientId } = attempt;
    const given: Grant = verdict === true ? { channels, clientId, everybody: true } : verdict;
    const expiresAt = Math.min(Number(given.expiresAt ?? Infinity), ((payload.exp as number) + clockTolerance) * 1000);
    return { ...given, subject: given.subject ?? payload.sub, expiresAt };
  };
}

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

/** What is wrong with the token is answered 401. What keeps us from judging it is not the client's fault, and passes. */
function refuse(cause: unknown): never {
  const isTokens =
    cause instanceof errors.JOSEError && !(cause instanceof errors.JWKSTimeout || cause instanceof errors.JWKSInvalid);
  // That the keys could not be fetched has no class of its own.
  if (isTokens && cause.code !== "ERR_JOSE_GENERIC") throw unauthorized("Refused: the token is not good.", cause, true);
  throw new BrokerError("authorize-unavailable", "Refused: tokens cannot be checked now.", { cause });
}

function keySet(jwks: string | URL | JSONWebKeySet | undefined): JWTVerifyGetKey {
  if (jwks === undefined) throw new TypeError("jwt() refused: pass a secret or jwks.");
  if (typeof jwks === "string" || jwks instanceof URL) return createRemoteJWKSet(new URL(jwks));
  return createLocalJWKSet(jwks);
}

/** A public key taken for a secret would let everybody sign; RFC 8725, section 2.1. */
function checkAlgorithms(algorithms: readonly string[], secret: string | Uint8Array | undefined): void {
  if (!Array.isArray(algorithms) || algorithms.length === 0) throw new TypeError("jwt() refused: name the algorithms.");
  const bytes = typeof secret === "string" ? new TextEncoder().encode(secret).length : (secret?.length ?? 0);
  for (const name of algorithms as readonly unknown[]) {
    const bits = Number(/^HS(256|384|512)$/.exec(String(name))?.[1] ?? 0);
    if (bits > 0 !== (secret !== undefined) || !/^[A-Z][A-Za-z]+[0-9]*$/.test(String(name)))
      throw new TypeError(`jwt() refused: the algorithm ${String(name)} does not go with this kind of key.`);
    if (bytes * 8 < bits) throw new TypeError(`jwt() refused: a secret for HS${bits} has at least ${bits / 8} bytes.`);
  }
}

/** The first cookie of this name. RFC 6265, section 5.4. */
function cookieOf(request: Request, name: string): string | undefined {
  for (const pair of (request.headers.get("cookie") ?? "").split(";")) {
    const at = pair.indexOf("=");
    if (at > 0 && pair.slice(0, at).trim() === name) return pair.slice(at + 1).trim();
  }
  return undefined;
}
