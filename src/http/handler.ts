import { BrokerError, type ErrorCode, type ErrorStage, quote, unauthorized } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { checkKnownKeys, isResponse } from "../base/validate.ts";
import type { Published, PublishOptions } from "../delivery/delivery-report.ts";
import { idempotencyKeyOf, inboxKey, keysOf } from "../event/channel-key.ts";
import { checkEventType, type EventInput } from "../event/event.ts";
import type { NameRules } from "../event/name-rules.ts";
import type { StartOptions } from "../log/resume.ts";
import { type AccessRequest, type Authorize, type ResolvedGrant, resolveGrant } from "./authorize.ts";
import type { AuthorizeQueue } from "./authorize-queue.ts";
import { presentsToken } from "./bearer.ts";
import { readText } from "./body.ts";
import type { Cors } from "./cors.ts";
import { isForgedRequest } from "./cross-origin.ts";
import { answerMethod, asBrokerError, problem, withRetryAfter } from "./problem.ts";

/** What trusted code says about a request, whichever kind it is. */
interface Overrides {
  /** What the runtime passed to its handler beside the request; Bun's server keeps quiet streams open through it. */
  readonly context?: unknown;
  /** Decides about this request, instead of the option of the same name. */
  readonly authorize?: Authorize | undefined;
  /** Answers errors of this request where the option of the same name is not set. */
  readonly errorHandler?: ((error: BrokerError, request: Request) => Response | Promise<Response>) | undefined;
}

/** What trusted code says about a client. It wins over the request's query. */
export interface ClientOverrides extends Overrides {
  readonly clientId?: string;
  readonly channels?: string | readonly string[];
  readonly lastEventId?: string;
  readonly from?: "earliest";
}

/** What trusted code says about an event. It wins over the request's query. */
export interface EventOverrides extends Overrides {
  /** The one client that it is for. */
  readonly clientId?: string;
  readonly channels?: string | readonly string[];
  readonly type?: string;
  /** Names this event, so that it is published once however often it is sent. Wins over `Idempotency-Key`. */
  readonly idempotencyKey?: string;
  /** Asks for `publishToken`, and refuses events where neither that nor `authorize` is set, as `fetch` does. @default false */
  readonly requireToken?: boolean;
}

/** 26 characters of five random bits each: 130. */
const CLIENT_ID_LENGTH = 26;

/** The broker's options that concern requests. */
export interface HttpSettings {
  readonly authorize?: Authorize | undefined;
  readonly cors?: Cors | undefined;
  readonly errorHandler?: Overrides["errorHandler"];
  readonly maxBodyBytes: number;
  readonly paths: { readonly connect: string; readonly broadcast: string };
  readonly publishToken?: string | undefined;
  readonly retry: number;
}

/** What the face has of the broker behind it, which need not be in this process. */
export interface BrokerBackend {
  readonly settings: HttpSettings;
  readonly names: NameRules;
  readonly authorizeQueue: AuthorizeQueue;
  /** Requests that were not answered as they wished. */
  readonly failures: Partial<Record<ErrorCode, number>>;
  /** @throws {@link BrokerError} `closed` */
  checkOpen(): void;
  /** Takes a place for a client; the answer gives it back. `undefined` if none is left. */
  reserve(): (() => void) | undefined;
  /** Whether this id is turned away for now. */
  isBarred(clientId: string): boolean | Promise<boolean>;
  /** Tells the runtime how long the stream of this request may be quiet; `context` is what it passed beside the request. */
  keepOpen(request: Request, context: unknown): void;
  /** The stream of a new client; `undefined` for one that is turned away. */
  connect(
    request: Request,
    admission: ResolvedGrant,
    clientId: string,
    start: StartOptions,
    place: () => void,
  ): Promise<ReadableStream<Uint8Array> | undefined>;
  publish(keys: readonly string[], event: EventInput, options: PublishOptions): Promise<Published>;
  /** The last chunk of a stream. */
  endEvent(reason: ErrorCode | "closing", reconnect: boolean): Uint8Array<ArrayBuffer>;
  /** Reports what nobody was there to receive. Never rejects. */
  reportError(stage: ErrorStage, error: unknown): Promise<void>;
}

/** The broker's HTTP face: requests in, responses out, and errors in the form of the user's choice. */
export class HttpHandler {
  readonly #core: BrokerBackend;

  constructor(core: BrokerBackend) {
    this.#core = core;
  }

  fetch(request: Request, context: unknown): Promise<Response> {
    const { connect, broadcast } = this.#core.settings.paths;
    return this.#answer(request, {}, ({ pathname, searchParams }) => {
      if (pathname === connect) return this.#connect(request, searchParams, { context });
      if (pathname === broadcast) return this.#publish(request, searchParams, { context, requireToken: true });
      throw new BrokerError("not-found", `There is nothing at ${quote(pathname)}.`);
    });
  }

  async clientHandler(request: Request, overrides: ClientOverrides): Promise<Response> {
    checkOverrides(overrides, CLIENT_OVERRIDES);
    return this.#answer(request, overrides, ({ searchParams }) => this.#connect(request, searchParams, overrides));
  }

  async eventHandler(request: Request, overrides: EventOverrides): Promise<Response> {
    checkOverrides(overrides, EVENT_OVERRIDES);
    return this.#answer(request, overrides, ({ searchParams }) => this.#publish(request, searchParams, overrides));
  }

  async #connect(request: Request, query: URLSearchParams, overrides: ClientOverrides): Promise<Response> {
    const preflight = answerMethod(request, "GET, HEAD, OPTIONS");
    if (preflight) return preflight;
    const core = this.#core;
    const { names } = core;
    const id = overrides.clientId ?? single(query, "id", "bad-id");
    const attempt: RequestedAccess = {
      action: "connect",
      channels: names.channels(overrides.channels ?? query.getAll("channel")),
      clientId: id === undefined ? undefined : names.clientId(id),
    };
    const start = startOf(request, query, overrides);
    // A HEAD response with a stream is never cancelled on Node and workerd, so it gets none, and needs no place.
    const place = request.method === "HEAD" ? () => undefined : core.reserve();
    try {
      const authorize = overrides.authorize ?? core.settings.authorize;
      // A page of another site could take the place of its visitor's own tabs, though it is not let read.
      if (authorize && isForgedRequest(request, core.settings.cors, false))
        throw new BrokerError("cross-origin", FORGED);
      const admission = authorize ? await this.#ask(authorize, request, overrides, attempt) : { ...attempt, ...OPEN };
      if (isResponse(admission)) return admission;
      const clientId = admission.clientId ?? randomName(CLIENT_ID_LENGTH);
      const headers = streamHeaders(clientId);
      core.checkOpen();
      const isHead = request.method === "HEAD";
      // Of the others `connect` knows it, and where the broker is elsewhere each question is a request.
      if ((isHead || !place) && (await core.isBarred(clientId))) return turnAway();
      if (isHead) return new Response(null, { headers });
      if (!place) throw new BrokerError("at-capacity", "Connection refused: there are too many clients.");
      core.keepOpen(request, overrides.context);
      const stream = await core.connect(request, admission, clientId, start, place);
      return stream ? new Response(stream, { headers }) : turnAway();
    } finally {
      place?.();
    }
  }

  async #publish(request: Request, query: URLSearchParams, overrides: EventOverrides): Promise<Response> {
    const preflight = answerMethod(request, "POST, OPTIONS");
    if (preflight) return preflight;
    const core = this.#core;
    const { names, settings } = core;
    const trusted = overrides.clientId !== undefined || overrides.channels !== undefined;
    // An id left empty by a mistake is refused below: the event would be for everybody.
    const asked = query.has("id") ? (single(query, "id", "bad-id") ?? "") : undefined;
    const id = trusted ? overrides.clientId : asked;
    const channels = trusted ? overrides.channels : query.has("channel") ? query.getAll("channel") : undefined;
    const type = overrides.type ?? single(query, "type", "bad-event-type");
    if (id !== undefined && channels !== undefined) {
      throw new BrokerError("bad-request", "Event refused: it is for one client or for channels, not both.");
    }
    const attempt: RequestedAccess = {
      action: "publish",
      channels: names.targets(channels),
      clientId: id === undefined ? undefined : names.clientId(id),
    };
    if (type) checkEventType(type);
    const key = overrides.idempotencyKey ?? request.headers.get("idempotency-key") ?? undefined;
    if (key !== undefined) names.idempotencyKey(key);
    const admission = await this.#mayPublish(request, overrides, attempt);
    if (isResponse(admission)) return admission;
    core.checkOpen();

    const data = await readText(request, settings.maxBodyBytes);
    if (data === "") throw new BrokerError("no-event-data", "no event data provided");
    // A body may take its time, and what was granted may be over by its end.
    if (admission.expiresAt <= Date.now()) throw unauthorized("Event refused: what was granted has expired.");
    const keys = id === undefined ? keysOf(attempt.channels) : [inboxKey(id)];
    const event: EventInput = type ? { data, event: type } : data;
    // A key holds for who presents it: nobody can take another one's and so have its event taken for a repeated one.
    const { subject = null, byToken = false } = admission;
    const nonce = key === undefined ? undefined : idempotencyKeyOf(JSON.stringify([byToken, subject]), key);
    const published = await core.publish(keys, event, { idempotencyKey: nonce, recipient: id });
    return Response.json(published, { headers: { "cache-control": "no-store" } });
  }

  /** Who may publish: who presents the token, and whom `authorize` lets. */
  #mayPublish(
    request: Request,
    overrides: EventOverrides,
    attempt: RequestedAccess,
  ): ResolvedGrant | Promise<ResolvedGrant | Response> {
    const { settings } = this.#core;
    const { publishToken, cors } = settings;
    const authorize = overrides.authorize ?? settings.authorize;
    if (isForgedRequest(request, cors, true)) throw new BrokerError("cross-origin", FORGED);
    const guard = overrides.requireToken ? publishToken : undefined;
    if (guard !== undefined && presentsToken(request, [guard])) return { ...attempt, ...OPEN, byToken: true };
    if (authorize) return this.#ask(authorize, request, overrides, attempt);
    if (!overrides.requireToken) return { ...attempt, ...OPEN };
    if (guard !== undefined) throw unauthorized("Event refused: present the publish token as Authorization: Bearer.");
    throw new BrokerError(
      "publishing-closed",
      "Events are not accepted here: set the option authorize or publishToken, or mount eventHandler behind your own check.",
    );
  }

  async #ask(
    authorize: Authorize,
    request: Request,
    { context }: Overrides,
    attempt: RequestedAccess,
  ): Promise<ResolvedGrant | Response> {
    const core = this.#core;
    try {
      const verdict = await core.authorizeQueue.run(authorize, { request, context, ...attempt });
      return isResponse(verdict) ? verdict : resolveGrant(verdict, attempt, core.names);
    } catch (error) {
      if (error instanceof BrokerError && error.code !== "authorize-unavailable") throw error;
      void core.reportError("authorize", error);
      throw asBrokerError(error);
    }
  }

  async #answer(request: Request, overrides: Overrides, handle: (url: URL) => Promise<Response>): Promise<Response> {
    const core = this.#core;
    const { cors } = core.settings;
    const fail = (thrown: unknown): Promise<Response> => {
      if (!(thrown instanceof BrokerError)) void core.reportError("request", thrown);
      return this.#answerError(request, overrides, withRetryAfter(asBrokerError(thrown), core.settings.retry));
    };
    let response: Response;
    try {
      response = await handle(urlOf(request));
    } catch (thrown) {
      response = await fail(thrown);
    }
    if (!cors) return response;
    try {
      return cors.apply(request, response);
    } catch (thrown) {
      // The application gave a response that cannot be sent, such as one that was read before.
      return cors.apply(request, await fail(thrown));
    }
  }

  async #answerError(request: Request, overrides: Overrides, error: BrokerError): Promise<Response> {
    const core = this.#core;
    const { code, status } = error;
    core.failures[code] = (core.failures[code] ?? 0) + 1;
    // EventSource never comes back after a 503. It is told to come back later, and nothing that it could take for a position.
    if (status === 503 && request.method === "GET" && request.headers.get("accept")?.includes("text/event-stream")) {
      return new Response(core.endEvent(code === "closed" ? "closing" : code, true), { headers: STREAM_HEADERS });
    }
    const handler = core.settings.errorHandler ?? overrides.errorHandler;
    try {
      const answer: unknown = (await handler?.(error, request)) ?? problem(error);
      if (isResponse(answer)) return answer;
      throw new TypeError("errorHandler() gave no Response.");
    } catch (failure) {
      void core.reportError("error-handler", failure);
      return problem(error);
    }
  }
}

const FORGED =
  "Refused: a page of another origin may not use its visitor's cookies, unless cors.origins names it and cors.credentials is set.";
/** The one status that stops an EventSource. */
const turnAway = (): Response => new Response(null, { status: 204, headers: { "cache-control": "no-store" } });

/** What a request asks for. */
type RequestedAccess = Pick<AccessRequest, "action" | "channels" | "clientId">;
/** Everything that was asked for, for ever. */
const OPEN = { expiresAt: Infinity };

/** @throws {@link BrokerError} `bad-request` for a Host that makes no URL. Bun gives the path alone to who sends none. */
function urlOf({ url }: Request): URL {
  try {
    return new URL(url, "http://localhost");
  } catch (cause) {
    throw new BrokerError("bad-request", "Request refused: its URL is none.", { cause });
  }
}

const COMMON_OVERRIDES = ["context", "authorize", "errorHandler", "clientId", "channels"];
const CLIENT_OVERRIDES = new Set([...COMMON_OVERRIDES, "lastEventId", "from"]);
const EVENT_OVERRIDES = new Set([...COMMON_OVERRIDES, "type", "idempotencyKey", "requireToken"]);

/** A router that passes its server or context beside the request would have its properties taken for overrides. */
function checkOverrides(overrides: Overrides, known: ReadonlySet<string>): void {
  checkKnownKeys("Handler", "override", known, overrides);
  for (const name of ["authorize", "errorHandler"] as const) {
    const value: unknown = overrides[name];
    // What is none must not stand for the option of that name and decide nothing.
    if (value !== undefined && typeof value !== "function")
      throw new TypeError(`Handler refused: ${name} must be a function.`);
  }
}

/** A parameter that may be given once; empty counts as absent. */
function single(query: URLSearchParams, name: string, code: ErrorCode): string | undefined {
  const [value, ...others] = query.getAll(name);
  if (others.length > 0) throw new BrokerError(code, `Request refused: ${name} is given more than once.`);
  return value || undefined;
}

function startOf(request: Request, query: URLSearchParams, overrides: ClientOverrides): StartOptions {
  const from = overrides.from ?? single(query, "from", "bad-request");
  if (from !== undefined && from !== "earliest")
    throw new BrokerError("bad-request", `Request refused: from=${quote(from)} is not "earliest".`);
  return {
    lastEventId:
      overrides.lastEventId ?? (request.headers.get("last-event-id") || query.get("lastEventId") || undefined),
    from,
  };
}

const STREAM_HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
  "x-content-type-options": "nosniff",
};
const streamHeaders = (clientId: string): Record<string, string> => ({
  ...STREAM_HEADERS,
  "fanwire-client-id": encodeURIComponent(clientId),
});
