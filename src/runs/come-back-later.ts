// The answer to an EventSource that should come back later, because the broker is full or closing.

import type { BrokerError } from "../base/errors.ts";
import { jitter } from "../base/random.ts";
import { nextTurn } from "../base/runtime.ts";
import type { RunsCore } from "../broker/runs-host.ts";
import { encode } from "../event/sse-format.ts";
import { asBrokerError, STREAM_HEADERS } from "../http/problem.ts";

/**
 * Answers an EventSource that should come back later with a stream that breaks off: a status such as 503 would stop it for good, and a clean end
 * would look like the end of the run. Throws every other error, and the errors of other clients.
 */
export function comeBackLater(thrown: unknown, request: Request, { settings, failures }: RunsCore): Response {
  const error = asBrokerError(thrown);
  const { code, status, headers } = error;
  const isLater = status === 503 || status === 429;
  if (!isLater || request.method === "HEAD" || !request.headers.get("accept")?.includes("text/event-stream"))
    throw thrown;
  failures[code] = (failures[code] ?? 0) + 1;
  const ms = jitter(settings.retry) + (Number(headers["retry-after"]) || 0) * 1000;
  return new Response(new ReadableStream(new Refusal(ms, error), { highWaterMark: 0 }), { headers: STREAM_HEADERS });
}

class Refusal implements UnderlyingDefaultSource<Uint8Array> {
  readonly #retry: number;
  readonly #error: BrokerError;

  constructor(retry: number, error: BrokerError) {
    this.#retry = retry;
    this.#error = error;
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    controller.enqueue(encode(`retry: ${this.#retry}\n\n`));
  }

  /** The runtime has sent the first chunk, or does so in this turn. An error would overtake it. */
  pull(controller: ReadableStreamDefaultController<Uint8Array>): void {
    nextTurn(() => controller.error(this.#error));
  }
}
