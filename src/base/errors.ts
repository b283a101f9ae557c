/** Every code, and the HTTP status that answers it. */
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
  "not-found": 404,
  "method-not-allowed": 405,
  "duplicate-id": 409,
  "body-too-large": 413,
  "event-too-large": 413,
  "key-reused": 422,
  "client-left": 499,
  internal: 500,
  "at-capacity": 503,
  "authorize-timeout": 503,
  "authorize-unavailable": 503,
  closed: 503,
  "engine-down": 503,
  "engine-refused": 503,
  "publish-outcome-unknown": 503,
} as const;

/** What went wrong, in a form that programs may rely on. */
export type ErrorCode = keyof typeof STATUS;

/**
 * Where an error came from that no caller waits for: a hook (`on-connect`, `on-disconnect`, `error-handler`), `authorize`, a `request` that was
 * answered 500, or `overrun`: more was published at once than the log holds, so that clients that were not slow lost events and received a
 * gap. `storage`, on Workers: the storage of an object refused a write that nobody waits for. `engine`: the store that processes share failed,
 * and is tried again.
 */
export type ErrorStage =
  | "on-connect"
  | "on-disconnect"
  | "error-handler"
  | "authorize"
  | "request"
  | "overrun"
  | "storage"
  | "engine";

/**
 * Every error that fanwire raises about a request, an event or its own state. Wrong arguments of the calling program are
 * `TypeError`s and `RangeError`s.
 */
export class BrokerError extends Error {
  override readonly name = "BrokerError";
  readonly code: ErrorCode;
  /** The HTTP status that answers it. */
  readonly status: number;
  /** Header fields that belong into the answer, such as `allow` with 405. */
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    code: ErrorCode,
    message: string,
    { cause, headers = {} }: { cause?: unknown; headers?: Record<string, string> } = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    // What cannot be answered is to be found where it was made.
    if (!Object.hasOwn(STATUS, code)) throw new TypeError(`BrokerError refused: there is no code "${String(code)}".`);
    // workerd takes what is beyond Latin-1, where the others throw.
    if (/[^\t -~\x80-\xff]/.test([...new Headers(headers).values()].join("")))
      throw new TypeError("BrokerError refused: a header field has a character that none can have.");
    this.code = code;
    this.status = STATUS[code];
    this.headers = headers;
  }
}

/** `value` as it may stand in a message: quoted, escaped and short. */
export const quote = (value: string): string => JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);

/** The answer to who has to present a token: 401, with the field that RFC 6750, section 3 asks for; `invalid` if there was one. */
export const unauthorized = (message: string, cause?: unknown, invalid = false): BrokerError =>
  new BrokerError("unauthorized", message, {
    cause,
    headers: { "www-authenticate": invalid ? 'Bearer error="invalid_token"' : "Bearer" },
  });
