// Answers requests with runs: who may read, where the stream starts, and which status says that there is nothing to read.
import { BrokerError } from "../base/errors.ts";
import { jitter } from "../base/random.ts";
import { isHeldBack, nextTurn } from "../base/runtime.ts";
import { isResponse, withDefaults } from "../base/validate.ts";
import type { RunsCore, RunsHost } from "../broker/runs-host.ts";
import type { RunEnd, RunPage, RunRecord, RunStore } from "../engine/run-store.ts";
import { encode } from "../event/sse-format.ts";
import { type Authorize, type ResolvedGrant, runChannel } from "../http/authorize.ts";
import { asBrokerError, checkMethod, STREAM_HEADERS } from "../http/problem.ts";
import { runLost, unknownRun } from "./run-errors.ts";
import { FIRST_PAGE_BYTES, RunFollower, type SharedReads } from "./run-follower.ts";
import { positionOf } from "./run-position.ts";
import { RunStream, type RunStreams } from "./run-stream.ts";

/** Options of `runs.response`. */
export interface ResponseOptions {
  /**
   * The answer for a run that has ended. `"replay"`: its events, and the end; a client that has them all is answered 204, which stops an EventSource.
   * 204: always that. @default "replay"
   */
  readonly ended?: "replay" | 204 | undefined;
  /** The status for a run that is not known: 404 with problem details, or 204. @default 404 */
  readonly unknown?: 204 | 404 | undefined;
  /**
   * Text to send behind the last event of a run that has ended, such as `data: [DONE]\n\n`, or a function that returns it for the end: `ended`,
   * `failed` or `stopped`. @default none
   */
  readonly trailer?: string | ((end: RunEnd) => string) | undefined;
  /** Header fields to add to the response of a run. */
  readonly headers?: HeadersInit | undefined;
  /** The id of the event to start after, in place of the request's. */
  readonly after?: string | undefined;
  /** The second argument of the fetch handler, such as Bun's server: a quiet stream stays open with it, and `authorize` receives it. */
  readonly context?: unknown;
}

/** Options with their defaults. */
type CheckedOptions = ResponseOptions &
  Required<Pick<ResponseOptions, "ended" | "unknown">> & { readonly trailer: string | ((end: RunEnd) => string) };

const DEFAULTS = {
  ended: "replay",
  unknown: 404,
  trailer: "",
  headers: undefined,
  after: undefined,
  context: undefined,
};

/** Checks options, and adds their defaults. @throws `TypeError` */
export function checkResponseOptions(options: ResponseOptions): CheckedOptions {
  const all = withDefaults<CheckedOptions>("response()", "option", DEFAULTS, options);
  if (all.ended !== "replay" && all.ended !== 204)
    throw new TypeError('response() refused: ended must be "replay" or 204.');
  if (all.unknown !== 204 && all.unknown !== 404)
    throw new TypeError("response() refused: unknown must be 204 or 404.");
  if (typeof all.trailer !== "string" && typeof all.trailer !== "function")
    throw new TypeError("response() refused: trailer must be a text, or a function that returns one.");
  return all;
}

export class RunResponses {
  readonly #host: RunsHost;
  readonly #store: RunStore;
  readonly #reads: SharedReads;
  readonly #streams: RunStreams;
  readonly #authorizeOf: (run: RunRecord) => Authorize | undefined;

  constructor(
    host: RunsHost,
    store: RunStore,
    reads: SharedReads,
    streams: RunStreams,
    authorizeOf: (run: RunRecord) => Authorize | undefined,
  ) {
    this.#host = host;
    this.#store = store;
    this.#reads = reads;
    this.#streams = streams;
    this.#authorizeOf = authorizeOf;
  }

  /** Answers a request. @throws {@link BrokerError} that the caller turns into a response */
  async answer(id: string, request: Request, query: URLSearchParams, options: CheckedOptions): Promise<Response> {
    const preflight = checkMethod(request, "GET, HEAD, POST, OPTIONS");
    if (preflight) return preflight;
    const { core } = this.#host;
    const { context, ended, unknown, trailer } = options;
    const isHead = request.method === "HEAD";
    const releaseSlot = isHead ? () => undefined : core.reserve();
    let keepsSlot = false;
    try {
      const asked =
        options.after ?? (request.headers.get("last-event-id") || query.get("lastEventId") || query.get("offset"));
      const run = await this.#store.read(id, 0, asked || isHead ? 1 : FIRST_PAGE_BYTES);
      const grant = await this.#authorize(id, request, context, run);
      if (isResponse(grant)) return grant;
      if (!run && unknown === 204) return nothing();
      if (!run) throw unknownRun(id);
      if (run.end && ended === 204) return nothing();
      const after = positionOf(run, asked ?? undefined);
      if (run.end && after === run.events && (run.end === "lost" || (asked && asked !== "-1"))) {
        if (run.end === "lost") throw runLost();
        return nothing();
      }
      const headers = new Headers(options.headers);
      for (const [name, value] of Object.entries(STREAM_HEADERS)) if (!headers.has(name)) headers.set(name, value);
      if (isHead) return new Response(null, { headers });
      core.checkOpen();
      if (!releaseSlot || isHeldBack(context, request))
        throw new BrokerError("at-capacity", "Stream refused: there is no room for another client; try again later.");
      core.keepOpen(request, context);
      keepsSlot = true;
      const source = { id, generation: run.generation, after, first: after === 0 ? run : undefined };
      const stream = new RunStream(
        this.#streams,
        (listener) => new RunFollower(source, { store: this.#store, reads: this.#reads }, listener),
        typeof trailer === "string" ? () => trailer : trailer,
        {
          signal: request.signal,
          expiresAt: grant.expiresAt,
          maxConnectionAge: core.settings.maxConnectionAge,
        },
        releaseSlot,
      );
      return new Response(new ReadableStream(stream, { highWaterMark: 0 }), { headers });
    } finally {
      if (!keepsSlot) releaseSlot?.();
    }
  }

  /** Decides whether a request may read a run. @throws {@link BrokerError} `forbidden`, and as `authorize` */
  async #authorize(
    id: string,
    request: Request,
    context: unknown,
    run: RunPage | undefined,
  ): Promise<ResolvedGrant | Response> {
    const { http } = this.#host;
    const authorize = run && this.#authorizeOf(run);
    const readers = run?.readers;
    // Where the run has its own readers, the broker's `authorize` only says who the client is.
    const channels = readers === undefined || authorize ? [runChannel(id)] : [];
    const overrides = authorize ? { context, authorize } : { context };
    const requested = { action: "connect" as const, channels, clientId: undefined };
    const grant = await http.authorizeConnect(request, overrides, requested);
    if (isResponse(grant) || authorize || readers === undefined) return grant;
    const { subject } = grant;
    if (subject === undefined || !(JSON.parse(readers) as string[]).includes(subject))
      throw new BrokerError("forbidden", "Run not read: it is not for this subject.");
    return grant;
  }
}

/** The answer if there is nothing to read, which stops an EventSource. */
const nothing = (): Response => new Response(null, { status: 204, headers: { "cache-control": "no-store" } });

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
