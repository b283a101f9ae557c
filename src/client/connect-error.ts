// The error of everything in this room, and the reading of answers that refuse something.

/** Why a client has ended; or, with code `bad-event-data`, why it has left out an event. */
export class ConnectError extends Error {
  override readonly name = "ConnectError";
  /**
   * Stable: programs may rely on it. `unauthorized` (401), `not-a-stream` (200, but no event stream), `event-too-large`, `bad-event-data`,
   * `network` (no answer), `closed` (the client is closed); or the code of the server's problem details, such as `forbidden`, and `refused` if
   * the answer has none.
   */
  readonly code: string;
  /** The HTTP status, if an answer was the reason. */
  readonly status: number | undefined;
  /** The faults that a schema has found, with code `bad-event-data`. */
  readonly issues: readonly { readonly message: string }[] | undefined;

  constructor(code: string, message: string, status?: number, issues?: readonly { readonly message: string }[]) {
    super(message);
    this.code = code;
    this.status = status;
    this.issues = issues;
  }
}

/** Creates the error of an answer, with the code and the text of its problem details (RFC 9457), if it has them. */
export async function errorOf(what: string, response: Response): Promise<ConnectError> {
  const { status } = response;
  // A body that is not JSON, or breaks off, has no code.
  const { code = "refused", detail } = (await response.json().catch(() => undefined)) ?? {};
  const known = status === 401 ? "unauthorized" : status === 200 ? "not-a-stream" : code;
  return new ConnectError(known, `${what} refused: ${status} ${detail ?? response.statusText}`, status);
}

/** Whether a status means "come back later". */
export const isTemporary = (status: number): boolean => status >= 500 || status === 408 || status === 429;

/** Reads `Retry-After`, which has seconds or a date. Returns milliseconds; 0 if there is none. */
export function retryAfter(response: Response): number {
  const value = response.headers.get("retry-after") ?? "";
  const ms = Number(value) * 1000 || Date.parse(value) - Date.now();
  // A timer takes no more.
  return ms > 0 ? Math.min(ms, 2 ** 31 - 1) : 0;
}
