import { answerMethod, asBrokerError, problem, withRetryAfter } from "../http/problem.ts";

/** Milliseconds that a monitor is told to wait, though it has a rhythm of its own. */
const SOON = 1_000;

/** Answers a program that watches the broker. Nobody keeps what it is told. */
export async function respondToMonitor(
  request: Request,
  type: string,
  look: () => string | Promise<string>,
): Promise<Response> {
  try {
    const answer = answerMethod(request, "GET, HEAD, OPTIONS");
    if (answer) return answer;
    const text = await look();
    const headers = { "content-type": type, "cache-control": "no-store" };
    return new Response(request.method === "HEAD" ? null : text, { headers });
  } catch (error) {
    return problem(withRetryAfter(asBrokerError(error), SOON));
  }
}
