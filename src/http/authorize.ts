// The arguments and results of `authorize`, and how a grant is applied to a request.
import { BrokerError, quote, unauthorized } from "../base/errors.ts";
import { withDefaults } from "../base/validate.ts";
import type { NameRules } from "../event/name-rules.ts";

/** The access that a request asks for. Its names are checked; the body has not been read. */
export interface AccessRequest {
  readonly request: Request;
  /** The second argument of the fetch handler, such as Bun's server or the bindings of Workers. */
  readonly context: unknown;
  /** `authorize` decides about both: a client that may read is not always allowed to publish. */
  readonly action: "connect" | "publish";
  /**
   * The requested channels. A publish without channels and without a client id is for every client. A name `fanwire-run:<id>` stands for a run of
   * `fanwire/runs`.
   */
  readonly channels: readonly string[];
  /** The client id to connect with, or to publish to. */
  readonly clientId: string | undefined;
  /**
   * A batch of events, whose lines have not been read: `channels` is empty. A grant that lists what the publisher may publish decides about all of
   * them. After `true`, and for what a grant does not list, this function is asked again, without `batch`.
   */
  readonly batch?: boolean | undefined;
  /**
   * Aborted when nobody waits for the answer any more: the deadline passed, the client left, or the broker closed. Pass it on to what you
   * call, because a request counts for `maxPending` only while it is waited for.
   */
  readonly signal: AbortSignal;
}

/** The part of an access request that a grant has to allow. */
export type RequestedAccess = Pick<AccessRequest, "action" | "channels" | "clientId" | "batch">;

/** The access that is allowed. A requested channel or client id that it does not list is answered 403. */
export interface Grant {
  /**
   * The person or program. `maxClientsPerSubject` counts by it, `duplicateIds` acts within it, and `Idempotency-Key` is separate for each. All
   * publishers without one share their keys: one that uses the key of another is refused, or its equal event is taken for a repeat.
   */
  readonly subject?: string | undefined;
  /** The client id. Without one, a connection gets a random id, and a publish cannot be for one client. */
  readonly clientId?: string | undefined;
  /**
   * All channels that are allowed. A connection that requests none reads all of them. Without channels it reads events for every client, and its
   * own inbox. A name `fanwire-run:<id>` allows to read a run of `fanwire/runs`, and no channel.
   */
  readonly channels?: readonly string[] | undefined;
  /** Whether a publish may be for every client. @default false */
  readonly everybody?: boolean | undefined;
  /** When the stream ends: a `Date`, or epoch milliseconds. @default never */
  readonly expiresAt?: Date | number | undefined;
}

/** `true` allows exactly what was requested, without a subject. `false` is answered 403. A `Response` is the answer itself. */
export type AuthorizeResult = boolean | Grant | Response;

/**
 * Decides who may read and publish what. It may throw a {@link BrokerError}, such as `unauthorized`, or `authorize-unavailable` if it cannot
 * decide now (the client comes back later). Any other error, and a result of another type, is answered 500. Those errors, and
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
  /** For a batch: whether it may have events for every client. */
  readonly everybody?: boolean;
  /** Whether nothing has to be granted, because of `publishToken`, or because nothing decides. */
  readonly everything?: boolean;
  /** The request presented `publishToken`. */
  readonly byToken?: boolean;
}

/**
 * Applies the result of `authorize` to the requested access.
 *
 * @throws {@link BrokerError} `forbidden` for access that is not granted, `unauthorized` for a grant that has expired, `bad-grant` for channels
 * that cannot exist; `TypeError` for an invalid result.
 */
export function resolveGrant(
  result: Exclude<AuthorizeResult, Response>,
  { action, channels, clientId, batch }: RequestedAccess,
  names: NameRules,
): ResolvedGrant {
  if (result === true) return { clientId, channels, expiresAt: Infinity };
  if (result === false) throw new BrokerError("forbidden", "Request refused: it is not allowed.");
  const reads = action === "connect";
  const readsAll = reads && channels.length === 0;
  const grant = checkGrant(result, readsAll, names);
  const granted = new Set([...grant.channels, ...runChannelsOf(result)]);
  const foreign = channels.find((name) => !granted.has(name));
  if (foreign !== undefined)
    throw new BrokerError("forbidden", `Request refused: channel ${quote(foreign)} is not granted.`);
  if (clientId !== undefined && clientId !== grant.clientId)
    throw new BrokerError("forbidden", `Request refused: client id ${quote(clientId)} is not granted.`);
  if (!reads && !batch && clientId === undefined && channels.length === 0 && result.everybody !== true)
    throw new BrokerError("forbidden", "Request refused: publishing to every client is not granted.");
  if (grant.expiresAt <= Date.now()) throw unauthorized("Request refused: its grant has expired.");
  if (batch) return { ...grant, everybody: result.everybody === true };
  return readsAll ? grant : { ...grant, channels };
}

/** Stands before the id of a run where `authorize` is asked about it. No channel has such a name. */
const RUN_PREFIX = "fanwire-run:";

/** Returns the name by which `authorize` is asked about a run. */
export const runChannel = (id: string): string => RUN_PREFIX + id;
const isRunChannel = (name: unknown): boolean => typeof name === "string" && name.startsWith(RUN_PREFIX);
const runChannelsOf = ({ channels }: Grant): readonly string[] => channels?.filter(isRunChannel) ?? [];

/** Checks a grant. With `readsAll` one client reads all of its channels, so their number is limited. */
function checkGrant(value: unknown, readsAll: boolean, names: NameRules): ResolvedGrant {
  try {
    const { subject, clientId, channels, expiresAt } = withDefaults<Grant>("Grant", "grant field", GRANT, value);
    if (channels !== undefined && !Array.isArray(channels)) throw new TypeError("channels must be a list");
    const end = expiresAt instanceof Date ? expiresAt.getTime() : expiresAt === undefined ? Infinity : expiresAt;
    if (typeof end !== "number" || Number.isNaN(end)) throw new TypeError("expiresAt must be a Date or a number");
    return {
      subject: subject === undefined ? undefined : names.subject(subject),
      clientId: clientId === undefined ? undefined : names.clientId(clientId),
      channels: grantedChannels(
        (channels ?? []).filter((name) => !isRunChannel(name)),
        readsAll,
        names,
      ),
      expiresAt: end,
    };
  } catch (cause) {
    if (cause instanceof BrokerError && cause.code === "bad-grant") throw cause;
    // An error of the server, also for an invalid name: the client did not choose it.
    throw new TypeError(`authorize() returned an invalid result: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** Checks the channels of a grant. Users may have made them, so one bad name must not end another user's stream for good. */
function grantedChannels(channels: readonly string[], readsAll: boolean, names: NameRules): readonly string[] {
  try {
    return names.channels(channels, readsAll ? undefined : Infinity);
  } catch (error) {
    // The name is for `onError` only: the client may not know this channel.
    const cause = new Error(
      `authorize() granted bad channels: ${(error as Error).message} Call broker.checkChannel(name) where a channel is made.`,
      { cause: error },
    );
    throw new BrokerError("bad-grant", "Request refused: its grant is invalid; try again later.", { cause });
  }
}

const GRANT = {
  subject: undefined,
  clientId: undefined,
  channels: undefined,
  everybody: undefined,
  expiresAt: undefined,
};
