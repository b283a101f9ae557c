// What `authorize` receives and returns, and how a grant is applied to a request.
import { BrokerError, quote, unauthorized } from "../base/errors.ts";
import { withDefaults } from "../base/validate.ts";
import type { NameRules } from "../event/name-rules.ts";

/** The access that a request asks for. Its names are checked; the body has not been read. */
export interface AccessRequest {
  readonly request: Request;
  /** The second argument of the fetch handler, such as Bun's server or the bindings of Workers. */
  readonly context: unknown;
  /** `authorize` decides about both: a client that may read need not be one that may publish. */
  readonly action: "connect" | "publish";
  /** The requested channels. A publish with no channel and no client id is for every client. */
  readonly channels: readonly string[];
  /** The client id to connect with, or to publish to. */
  readonly clientId: string | undefined;
  /**
   * Aborted when nobody waits for the answer any more: the deadline passed, the client left, or the broker closed. Pass it on to what you
   * call, because a request counts for `maxPending` only while it is waited for.
   */
  readonly signal: AbortSignal;
}

/** The access that is allowed. A requested channel or client id that it does not list is answered 403. */
export interface Grant {
  /** The person or program. `maxClientsPerSubject` counts by it, `duplicateIds` acts within it, and `Idempotency-Key` is separate for each. */
  readonly subject?: string | undefined;
  /** The client id. Without one, a connection gets a random id, and a publish cannot be for one client. */
  readonly clientId?: string | undefined;
  /**
   * All channels that are allowed. A connection that requests none reads all of them. Without channels it reads events for every client, and its
   * own inbox.
   */
  readonly channels?: readonly string[] | undefined;
  /** Whether a publish may be for every client. @default false */
  readonly everybody?: boolean | undefined;
  /** When the stream ends: a `Date`, or epoch milliseconds. @default never */
  readonly expiresAt?: Date | number | undefined;
}

/** `true` allows exactly what was requested. `false` is answered 403. A `Response` is the answer itself. */
export type AuthorizeResult = boolean | Grant | Response;

/**
 * Decides who may read and publish what. It may throw a {@link BrokerError}, such as `unauthorized`, or `authorize-unavailable` if it cannot
 * decide now (the client is told to come back). Any other error, and a result of another type, is answered 500. Those errors, and
 * `authorize-unavailable`, go to `onError`.
 */
export type Authorize = (access: AccessRequest) => AuthorizeResult | Promise<AuthorizeResult>;

/** The access that a request is given. */
export interface ResolvedGrant {
  readonly subject?: string | undefined;
  readonly clientId: string | undefined;
  readonly channels: readonly string[];
  /** Epoch milliseconds, or `Infinity`. */
  readonly expiresAt: number;
  /** The request presented `publishToken`. */
  readonly byToken?: boolean;
}

/**
 * What a verdict allows of what was asked for.
 *
 * @throws {@link BrokerError} `forbidden`, or `unauthorized` if it is over already; `TypeError` for what is no verdict.
 */
export function resolveGrant(
  verdict: Exclude<AuthorizeResult, Response>,
  { action, channels, clientId }: Pick<AccessRequest, "action" | "channels" | "clientId">,
  names: NameRules,
): ResolvedGrant {
  if (verdict === true) return { clientId, channels, expiresAt: Infinity };
  if (verdict === false) throw new BrokerError("forbidden", "Refused: this is not allowed.");
  const reads = action === "connect";
  const granted = checkGrant(verdict, reads && channels.length === 0, names);
  const foreign = channels.find((name) => !granted.channels.includes(name));
  if (foreign !== undefined) throw new BrokerError("forbidden", `Refused: channel ${quote(foreign)} is not granted.`);
  if (clientId !== undefined && clientId !== granted.clientId)
    throw new BrokerError("forbidden", `Refused: client id ${quote(clientId)} is not granted.`);
  if (!reads && clientId === undefined && channels.length === 0 && verdict.everybody !== true)
    throw new BrokerError("forbidden", "Event refused: only some channels are granted; name those it is for.");
  if (granted.expiresAt <= Date.now()) throw unauthorized("Refused: what was granted has expired.");
  return reads && channels.length === 0 ? granted : { ...granted, channels };
}

/** A grant, if it is one; `readsAll`: all of its channels are to be read by one client. */
function checkGrant(grant: unknown, readsAll: boolean, names: NameRules): ResolvedGrant {
  try {
    const { subject, clientId, channels, expiresAt } = withDefaults<Grant>(
      "authorize()",
      "key of a grant",
      GRANT,
      grant,
    );
    if (channels !== undefined && !Array.isArray(channels)) throw new TypeError("its channels are no list");
    const end = expiresAt instanceof Date ? expiresAt.getTime() : expiresAt === undefined ? Infinity : expiresAt;
    if (typeof end !== "number" || Number.isNaN(end)) throw new TypeError("its expiresAt is no time");
    return {
      subject: subject === undefined ? undefined : names.subject(subject),
      clientId: clientId === undefined ? undefined : names.clientId(clientId),
      channels: names.channels(channels ?? [], readsAll ? undefined : Infinity),
      expiresAt: end,
    };
  } catch (cause) {
    // A bad name in it is not the client's fault.
    throw new TypeError(`authorize() gave what is no verdict and allows nothing: ${(cause as Error).message}`, {
      cause,
    });
  }
}

const GRANT = {
  subject: undefined,
  clientId: undefined,
  channels: undefined,
  everybody: undefined,
  expiresAt: undefined,
};
