const STATUS = {
  "bad-request": 400,
  "no-event-data": 400,
  "bad-event-type": 400,
  "bad-channel": 400,
  "bad-id": 400,
  unauthorized: 401,
  "publishing-closed": 403,
  "unknown-client": 404,
  "not-found": 404,
  "method-not-allowed": 405,
  "body-too-large": 413,
  "event-too-large": 413,
  "client-left": 499,
  internal: 500,
  closed: 503,
  "engine-refused": 503,
} as const;

/** What went wrong, in a form that programs may rely on. */
export type ErrorCode = keyof typeof STATUS;

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
    this.code = code;
    this.status = STATUS[code];
    this.headers = headers;
  }
}

/** `value` as it may stand in a message: quoted, escaped and short. */
export const quote = (value: string): string => JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
