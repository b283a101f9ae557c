// The error class of fanwire and its closed set of codes, each with the HTTP status of its response.

/** HTTP status by error code. */
export const STATUS = {
  "bad-request": 400,
  "no-event-data": 400,
  "bad-event-type": 400,
  "bad-channel": 400,
  "bad-id": 400,
  "bad-key": 400,
  unauthorized: 401,
  forbidden: 403,
  "cross-origin": 403,
  "publishing-closed": 403,
  "unknown-client": 404,
  "unknown-stream": 404,
  "unknown-run": 404,
  "not-found": 404,
  "method-not-allowed": 405,
  "body-timeout": 408,
  "duplicate-id": 409,
  "run-exists": 409,
  "run-ended": 409,
  "run-lost": 410,
  "body-too-large": 413,
  "event-too-large": 413,
  "run-too-large": 413,
  "unsupported-media-type": 415,
  "bad-event-data": 422,
  "key-reused": 422,
  "rate-limited": 429,
  "client-left": 499,
  internal: 500,
  "body-already-read": 500,
  "at-capacity": 503,
  "authorize-timeout": 503,
  "authorize-unavailable": 503,
  "bad-grant": 503,
  closed: 503,
  "engine-down": 503,
  "engine-refused": 503,
  "publish-outcome-unknown": 503,
} as const;

/** Identifies a kind of error. Codes are stable, so programs may rely on them; messages may change. */
export type ErrorCode = keyof typeof STATUS;

/**
 * The part of the broker that reports an error which no caller waits for:
 * - `on-connect`, `on-disconnect` and `error-handler`: the hook of this name threw or rejected;
 * - `authorize`: the function threw, rejected or returned an invalid value;
 * - `snapshot`: the option threw, rejected, took too long, or returned what are not events, and the client was asked to come back;
 * - `request`: a request failed in an unexpected way and was answered with 500;
 * - `overrun`: more was published at once than the log holds, so clients that were not slow lost events and received a gap;
 * - `storage`: on Workers, the storage of a Durable Object refused a write in the background;
 * - `engine`: the engine's store failed in the background; the broker tries again;
 * - `run`: the source of a run failed, or its events could not be written; the run has ended as failed.
 */
export type ErrorStage =
  | "on-connect"
  | "on-disconnect"
  | "error-handler"
  | "authorize"
  | "snapshot"
  | "request"
  | "overrun"
  | "storage"
  | "engine"
  | "run";

/** A fault that a schema has found in the data of an event. */
export interface EventIssue {
  /** The schema's text, at most 200 characters. */
  readonly message: string;
  /** The place in the data; empty for the data as a whole. At most 10 names, of at most 40 characters. */
  readonly path: readonly (string | number)[];
}

/**
 * An error about a request, an event or the state of the broker. Wrong arguments of the calling program are `TypeError`s and `RangeError`s
 * instead.
 */
export class BrokerError extends Error {
  override readonly name = "BrokerError";
  readonly code: ErrorCode;
  /** HTTP status of the response to this error. */
  readonly status: number;
  /** Header fields of the response to this error, such as `allow` with 405. */
  readonly headers: Readonly<Record<string, string>>;
  /** The faults that the schema has found, 10 at most, with code `bad-event-data`. */
  readonly issues: readonly EventIssue[] | undefined;
  /** Of a batch that has failed in the middle: the ids of the events that were published before, in order. */
  readonly ids: readonly string[] | undefined;

  /** @throws `TypeError` for an unknown code, and for a header value that HTTP does not allow. */
  constructor(
    code: ErrorCode,
    message: string,
    {
      cause,
      headers = {},
      issues,
      ids,
    }: {
      cause?: unknown;
      headers?: Record<string, string>;
      issues?: readonly EventIssue[] | undefined;
      ids?: readonly string[] | undefined;
    } = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    // Checked here, so that the stack trace shows where the error was created, not where the response failed.
    if (!Object.hasOwn(STATUS, code))
      throw new TypeError(`BrokerError refused: "${String(code)}" is not a known code.`);
    // `Headers` of workerd accepts characters beyond Latin-1. Other runtimes throw.
    if (/[^\t -~\x80-\xff]/.test([...new Headers(headers).values()].join("")))
      throw new TypeError("BrokerError refused: a header value has a character that HTTP does not allow.");
    this.code = code;
    this.status = STATUS[code];
    this.headers = headers;
    this.issues = issues;
    this.ids = ids;
  }
}

/** Returns `value` for use in a message: quoted, escaped, and cut to 40 characters. */
export const quote = (value: string): string => JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);

/** Creates the error for a missing token, or with `invalid` for a rejected one: 401 with the `www-authenticate` field of RFC 6750, section 3. */
export const unauthorized = (message: string, cause?: unknown, invalid = false): BrokerError =>
  new BrokerError("unauthorized", message, {
    cause,
    headers: { "www-authenticate": invalid ? 'Bearer error="invalid_token"' : "Bearer" },
  });
