import { BrokerError, quote } from "../base/errors.ts";

/** An error as RFC 9457 problem details. What is not a {@link BrokerError} says nothing of itself. */
export function problem(error: BrokerError): Response {
  const { code, status, message } = error;
  return Response.json(
    { title: code.replaceAll("-", " "), status, code, detail: message },
    { status, headers: { ...error.headers, "content-type": "application/problem+json", "cache-control": "no-store" } },
  );
}

/** `error` as something that may be answered; its own text stays inside. */
export const asBrokerError = (error: unknown): BrokerError =>
  error instanceof BrokerError
    ? error
    : new BrokerError("internal", "Something went wrong on this side.", { cause: error });

/** Tells who is to come back when, after `retry` milliseconds. */
export function withRetryAfter(error: BrokerError, retry: number): BrokerError {
  const { code, status, message, cause, headers } = error;
  if (status !== 503 || "retry-after" in headers) return error;
  const seconds = Math.max(1, Math.ceil(retry / 1000));
  return new BrokerError(code, message, { cause, headers: { ...headers, "retry-after": String(seconds) } });
}

/** Answers what is not for the handler. @throws {@link BrokerError} `method-not-allowed` */
export function answerMethod(request: Request, allow: string): Response | undefined {
  if (request.method === "OPTIONS") return new Response(null, { status: 204, headers: { allow } });
  if (allow.split(", ").includes(request.method)) return undefined;
  throw new BrokerError("method-not-allowed", `${quote(request.method)} is not answered here.`, { headers: { allow } });
}
