// Answers: problem details (RFC 9457), `Retry-After`, the check of methods, and the heads of streams.
import { BrokerError, quote } from "../base/errors.ts";

/** Returns the problem details of an error. */
export function problem(error: BrokerError): Response {
  const { code, status, message, issues, ids } = error;
  return Response.json(
    { title: code.replaceAll("-", " "), status, code, detail: message, issues, ids },
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
  const { code, status, message, cause, headers, ids } = error;
  if (status !== 503 || "retry-after" in headers) return error;
  const seconds = Math.max(1, Math.ceil(retry / 1000));
  return new BrokerError(code, message, { cause, headers: { ...headers, "retry-after": String(seconds) }, ids });
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

/** The answer to a barred client: 204 is the only status that stops an EventSource. */
export const barredResponse = (): Response =>
  new Response(null, { status: 204, headers: { "cache-control": "no-store" } });

export const STREAM_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  // nginx does not buffer a response with this field.
  "x-accel-buffering": "no",
  "x-content-type-options": "nosniff",
};

/** Returns the header fields of a client's stream. */
export const streamHeaders = (clientId: string): Record<string, string> => ({
  ...STREAM_HEADERS,
  "fanwire-client-id": encodeURIComponent(clientId),
});
