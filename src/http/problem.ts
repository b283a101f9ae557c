// Errors as responses: problem details (RFC 9457), `Retry-After`, and the check of methods.
import { BrokerError, quote } from "../base/errors.ts";

/** Returns the problem details of an error. */
export function problem(error: BrokerError): Response {
  const { code, status, message, issues } = error;
  return Response.json(
    { title: code.replaceAll("-", " "), status, code, detail: message, issues },
    { status, headers: { ...error.headers, "content-type": "application/problem+json", "cache-control": "no-store" } },
  );
}

/** Returns a `BrokerError` as it is. Turns any other error into `internal`, whose message reveals nothing of it. */
export const asBrokerError = (error: unknown): BrokerError =>
  error instanceof BrokerError
    ? error
    : new BrokerError("internal", "Request failed: internal error.", { cause: error });

/** Adds `Retry-After` to an error with status 503 that has none, from `retry` in milliseconds. */
export function withRetryAfter(error: BrokerError, retry: number): BrokerError {
  const { code, status, message, cause, headers } = error;
  if (status !== 503 || "retry-after" in headers) return error;
  const seconds = Math.max(1, Math.ceil(retry / 1000));
  return new BrokerError(code, message, { cause, headers: { ...headers, "retry-after": String(seconds) } });
}

/**
 * Checks a request's method against a list such as `GET, HEAD, OPTIONS`. Returns the answer to OPTIONS, and `undefined` for other methods of
 * the list.
 *
 * @throws {@link BrokerError} `method-not-allowed`
 */
export function checkMethod(request: Request, allow: string): Response | undefined {
  const { method } = request;
  if (method === "OPTIONS") return new Response(null, { status: 204, headers: { allow } });
  if (allow.split(", ").includes(method)) return undefined;
  throw new BrokerError("method-not-allowed", `Request refused: method ${quote(method)} is not allowed.`, {
    headers: { allow },
  });
}
