// Answers programs that watch the broker: load balancers and Prometheus.
import { checkRequest } from "../http/check-request.ts";
import { asBrokerError, checkMethod, problem, withRetryAfter } from "../http/problem.ts";

/** `Retry-After` of a failed check, in milliseconds. A monitor has its own interval, so this is only a formality. */
const RETRY_MS = 1_000;

/**
 * Answers GET, HEAD and OPTIONS with a text of type `contentType`, which must not be cached. Errors are problem details. `method` is the
 * broker's method that was called.
 */
export async function respondToMonitor(
  method: "health" | "metrics",
  request: Request,
  contentType: string,
  read: () => string | Promise<string>,
): Promise<Response> {
  checkRequest(method, request);
  try {
    const preflight = checkMethod(request, "GET, HEAD, OPTIONS");
    if (preflight) return preflight;
    const text = await read();
    const headers = { "content-type": contentType, "cache-control": "no-store" };
    return new Response(request.method === "HEAD" ? null : text, { headers });
  } catch (error) {
    return problem(withRetryAfter(asBrokerError(error), RETRY_MS));
  }
}
