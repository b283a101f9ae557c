// The broker's HTTP endpoints: routes requests, reads their parameters, asks `authorize`, and turns errors into responses.
import { BrokerError, type ErrorCode, type ErrorStage, quote, unauthorized } from "../base/errors.ts";
import { jitter, randomName } from "../base/random.ts";
import { isHeldBack } from "../base/runtime.ts";
import { isResponse } from "../base/validate.ts";
import type { PublishOptions, Sent } from "../delivery/delivery-report.ts";
import type { StreamAnswer, StreamRequest } from "../engine/engine.ts";
import type { History } from "../engine/history.ts";
import { idempotencyKeyOf, inboxKey, keysOf, keysOfReader } from "../event/channel-key.ts";
import { checkEventType, type EventInput } from "../event/event.ts";
import type { NameRules } from "../event/name-rules.ts";
import { formatPosition } from "../event/position.ts";
import type { StartOptions } from "../log/resume.ts";
import { type Authorize, type RequestedAccess, type ResolvedGrant, resolveGrant } from "./authorize.ts";
import type { AuthorizeQueue } from "./authorize-queue.ts";
import { isBatch, publishBatch } from "./batch.ts";
import { presentsToken } from "./bearer.ts";
import { type BodyBounds, readText } from "./body.ts";
import { checkRequest } from "./check-request.ts";
import type { Cors } from "./cors.ts";
import { FORGED, isForgedRequest } from "./cross-origin.ts";
import { formOf, readChange } from "./form.ts";
import {
  type ClientOverrides,
  checkClientOverrides,
  checkEventOverrides,
  type EventOverrides,
  type Overrides,
} from "./overrides.ts";
import {
  asBrokerError,
  barredResponse,
  checkMethod,
  problem,
  STREAM_HEADERS,
  streamHeaders,
  withRetryAfter,
} from "./problem.ts";
import {
  CONNECT_PARAMETERS,
  checkParameters,
  flagOf,
  HISTORY_PARAMETERS,
  historyStart,
  limitOf,
  PUBLISH_PARAMETERS,
  requestedRead,
  singleParameter,
  startOptions,
  urlOf,
} from "./query.ts";
import type { RateLimiter } from "./rate-limits.ts";

export type { ClientOverrides, EventOverrides } from "./overrides.ts";

/** Characters of a generated client id. Each has five random bits: 130 in all. */
const CLIENT_ID_LENGTH = 26;

/** The paths that `fetch` serves. */
export interface BrokerPaths {
  readonly connect: string;
  readonly broadcast: string;
  /** Path at which a client adds channels to its stream; `false` for none. */
  readonly subscribe: string | false;
  /** Path at which a client removes channels from its stream; `false` for none. */
  readonly unsubscribe: string | false;
  /** Serves the history of channels, if it is set. */
  readonly history?: string | undefined;
}

/** Options of the broker that concern requests. */
interface HttpSettings extends BodyBounds {
  readonly allowQuery: readonly string[];
  readonly authorize?: Authorize | undefined;
  readonly cors?: Cors | undefined;
  readonly errorHandler?: Overrides["errorHandler"];
  readonly paths: BrokerPaths;
  readonly publishToken?: string | undefined;
  readonly rate?: RateLimiter | undefined;
  readonly retry: number;
}

/** The broker behind the endpoints. It may be in another process. */
export interface BrokerBackend {
  readonly settings: HttpSettings;
  readonly names: NameRules;
  readonly authorizeQueue: AuthorizeQueue;
  /** Requests that were refused or failed, by code. */
  readonly failures: Partial<Record<ErrorCode, number>>;
  /** @throws {@link BrokerError} `closed` */
  checkOpen(): void;
  /** Reserves a slot for a connection. Returns a function that releases the slot, or `undefined` if there is no room. */
  reserve(): (() => void) | undefined;
  /** Whether a client id is barred. */
  isBarred(clientId: string): boolean | Promise<boolean>;
  /** Asks the runtime to keep the request's stream open while it is quiet. `context` is the second argument of the fetch handler. */
  keepOpen(request: Request, context: unknown): void;
  /** Returns the stream of a new connection, or `undefined` if the client id is barred. */
  connect(
    request: Request,
    grant: ResolvedGrant,
    clientId: string,
    start: StartOptions,
    releaseSlot: () => void,
  ): Promise<ReadableStream<Uint8Array> | undefined>;
  publish(keys: readonly string[], event: EventInput, options: PublishOptions): Promise<Sent>;
  /** Checks an event as `publish` does, and publishes nothing. Without it, `publish` alone can tell. */
  checkEvent?(event: EventInput): void;
  /** Has a request about open streams carried out by all processes. */
  requestStreams(request: StreamRequest): Promise<StreamAnswer>;
  history(keys: readonly string[], start: StartOptions, limit: number, signal?: AbortSignal): Promise<History>;
  /** Returns the last chunk of a stream (`fanwire-end`). `retry` is the time until the client comes back, in milliseconds. */
  endEvent(reason: ErrorCode | "closing", reconnect: boolean, retry: number): Uint8Array<ArrayBuffer>;
  /** Reports an error that no caller waits for. Never rejects. */
  reportError(stage: ErrorStage, error: unknown): Promise<void>;
}

/** Answers the requests of one broker. */
export class HttpHandler {
  readonly #broker: BrokerBackend;

  constructor(broker: BrokerBackend) {
    this.#broker = broker;
  }

  async fetch(request: Request, context: unknown): Promise<Response> {
    checkRequest("fetch", request);
    const { connect, broadcast, history, subscribe, unsubscribe } = this.#broker.settings.paths;
    return this.respond(request, {}, ({ pathname, searchParams }) => {
      if (pathname === connect) return this.#connect(request, searchParams, { context });
      if (pathname === broadcast) return this.#publish(request, searchParams, { context, requireToken: true });
      if (pathname === subscribe) return this.#change("subscribe", request, searchParams, { context });
      if (pathname === unsubscribe) return this.#change("unsubscribe", request, searchParams, { context });
      if (pathname === history) return this.#history(request, searchParams, { context });
      throw new BrokerError("not-found", `Request refused: there is nothing at ${quote(pathname)}.`);
    });
  }

  async clientHandler(request: Request, overrides: ClientOverrides): Promise<Response> {
    checkClientOverrides(overrides);
    checkRequest("clientHandler", request);
    return this.respond(request, overrides, ({ searchParams }) => this.#connect(request, searchParams, overrides));
  }

  async eventHandler(request: Request, overrides: EventOverrides): Promise<Response> {
    checkEventOverrides(overrides);
    checkRequest("eventHandler", request);
    return this.respond(request, overrides, ({ searchParams }) => this.#publish(request, searchParams, overrides));
  }

  /** Answers a client. An EventSource reconnects after no other status than 200, so "come back later" is a stream that ends at once. */
  async #connect(request: Request, query: URLSearchParams, overrides: ClientOverrides): Promise<Response> {
    try {
      return await this.#openStream(request, query, overrides);
    } catch (error) {
      const { code, status, headers } = asBrokerError(error);
      const comesBack = status === 503 || status === 429 || code === "duplicate-id";
      if (!comesBack || request.method === "HEAD" || !request.headers.get("accept")?.includes("text/event-stream"))
        throw error;
      this.#countFailure(code);
      // Without an id, which the client could take for a position.
      const retry = jitter(this.#broker.settings.retry) + (Number(headers["retry-after"]) || 0) * 1000;
      const end = this.#broker.endEvent(code === "closed" ? "closing" : code, true, retry);
      return new Response(end, { headers: STREAM_HEADERS });
    }
  }

  async #openStream(request: Request, urlQuery: URLSearchParams, overrides: ClientOverrides): Promise<Response> {
    const preflight = checkMethod(request, "GET, HEAD, POST, OPTIONS");
    if (preflight) return preflight;
    const broker = this.#broker;
    const { names, settings } = broker;
    const isHead = request.method === "HEAD";
    // Node and workerd never cancel the stream of a HEAD response. So HEAD gets no stream, and needs no slot.
    const releaseSlot = isHead ? () => undefined : broker.reserve();
    try {
      // A body is not worth reading for a client that there is no room for.
      const query = request.method === "POST" && releaseSlot ? await formOf(request, urlQuery, settings) : urlQuery;
      checkParameters(query, CONNECT_PARAMETERS, settings.allowQuery, false);
      const requested = requestedRead(names, query, overrides);
      const header = request.headers.get("last-event-id") || singleParameter(query, "lastEventId");
      const start = startOptions(query, { ...overrides, lastEventId: overrides.lastEventId ?? header });
      const grant = await this.authorizeConnect(request, overrides, requested);
      if (isResponse(grant)) return grant;
      const clientId = grant.clientId ?? randomName(CLIENT_ID_LENGTH);
      const headers = streamHeaders(clientId);
      broker.checkOpen();
      // For the other requests `connect` checks this. Where the broker is elsewhere, each question is a request of its own.
      if ((isHead || !releaseSlot) && (await broker.isBarred(clientId))) return barredResponse();
      if (isHead) return new Response(null, { headers });
      if (!releaseSlot)
        throw new BrokerError("at-capacity", "Connection refused: maxClients is reached; try again later.");
      if (isHeldBack(overrides.context, request))
        throw new BrokerError("at-capacity", "Connection refused: its socket has another stream; open a new one.");
      broker.keepOpen(request, overrides.context);
      const stream = await broker.connect(request, grant, clientId, start, releaseSlot);
      return stream ? new Response(stream, { headers }) : barredResponse();
    } finally {
      releaseSlot?.();
    }
  }

  /** Answers with a part of the history that a stream with the same grant would receive. */
  async #history(request: Request, query: URLSearchParams, overrides: Overrides): Promise<Response> {
    const preflight = checkMethod(request, "GET, HEAD, OPTIONS");
    if (preflight) return preflight;
    const broker = this.#broker;
    const { names, settings } = broker;
    checkParameters(query, HISTORY_PARAMETERS, settings.allowQuery, false);
    const requested = requestedRead(names, query, {});
    const start = historyStart(query);
    const limit = limitOf(query);
    const grant = await this.authorizeConnect(request, overrides, requested);
    if (isResponse(grant)) return grant;
    const { clientId, channels } = grant;
    broker.checkOpen();
    if (clientId !== undefined && (await broker.isBarred(clientId))) return barredResponse();
    const keys = requested.channels.length > 0 ? keysOf(channels) : keysOfReader(clientId, channels);
    const history = await broker.history(keys, start, limit, request.signal);
    return Response.json(history, { headers: { "cache-control": "no-store" } });
  }

  /** Changes the channels of the stream whose secret a client presents. `authorize` is asked about those that are added. */
  async #change(
    type: "subscribe" | "unsubscribe",
    request: Request,
    query: URLSearchParams,
    overrides: Overrides,
  ): Promise<Response> {
    const preflight = checkMethod(request, "POST, OPTIONS");
    if (preflight) return preflight;
    const broker = this.#broker;
    const { secret, channels } = await readChange(request, query, broker.settings, broker.names);
    const isAdding = type === "subscribe";
    const requested: RequestedAccess = { action: "connect", channels: isAdding ? channels : [], clientId: undefined };
    const grant = await this.authorizeConnect(request, overrides, requested);
    if (isResponse(grant)) return grant;
    const { subject } = grant;
    const { clients, position } = await broker.requestStreams({ type, secret, subject, channels });
    if (clients === 0)
      throw new BrokerError("unknown-stream", "Request refused: no open stream of this subject has this secret.");
    const answer = isAdding && position ? { position: formatPosition(position.epoch, position.seq) } : {};
    return Response.json(answer, { headers: { "cache-control": "no-store" } });
  }

  /** Lets a reader in that `authorize` allows, within `rate`. */
  async authorizeConnect(
    request: Request,
    overrides: ClientOverrides,
    requested: RequestedAccess,
  ): Promise<ResolvedGrant | Response> {
    const { settings } = this.#broker;
    const authorize = overrides.authorize ?? settings.authorize;
    // A page of another site could otherwise replace its visitor's own connections, although it cannot read the answer.
    if (authorize && isForgedRequest(request, settings.cors, false)) throw new BrokerError("cross-origin", FORGED);
    settings.rate?.("connects", request);
    const grant = authorize
      ? await this.#authorize(authorize, request, overrides, requested)
      : { ...requested, ...UNLIMITED };
    if (!isResponse(grant)) settings.rate?.("connects", request, grant);
    return grant;
  }

  async #publish(request: Request, query: URLSearchParams, overrides: EventOverrides): Promise<Response> {
    const preflight = checkMethod(request, "POST, OPTIONS");
    if (preflight) return preflight;
    const broker = this.#broker;
    const { names, settings } = broker;
    checkParameters(query, PUBLISH_PARAMETERS, settings.allowQuery, true);
    if (isBatch(request, overrides)) {
      const decide = (overrides.authorize ?? settings.authorize) as Authorize;
      return publishBatch(broker, request, query, overrides, {
        admit: (requested) => this.#authorizePublish(request, overrides, requested),
        ask: (requested) => this.#authorize(decide, request, overrides, requested),
      });
    }
    const isOverridden = overrides.clientId !== undefined || overrides.channels !== undefined;
    // An empty `?id=` counts as given, and is refused below: without an id the event would go to every client.
    const requestedId = query.has("id") ? (singleParameter(query, "id", "bad-id") ?? "") : undefined;
    const clientId = isOverridden ? overrides.clientId : requestedId;
    const channels = isOverridden ? overrides.channels : query.has("channel") ? query.getAll("channel") : undefined;
    const type = overrides.type ?? singleParameter(query, "type", "bad-event-type");
    if (clientId !== undefined && channels !== undefined) {
      throw new BrokerError("bad-request", "Event refused: it is for one client or for channels, not both.");
    }
    const requested: RequestedAccess = {
      action: "publish",
      channels: names.targets(channels),
      clientId: clientId === undefined ? undefined : names.clientId(clientId),
    };
    if (type) checkEventType(type);
    const key = overrides.idempotencyKey ?? request.headers.get("idempotency-key") ?? undefined;
    if (key !== undefined) names.idempotencyKey(key);
    const ephemeral = overrides.ephemeral ?? flagOf(query, "ephemeral");
    if (ephemeral && key !== undefined)
      throw new BrokerError("bad-request", "Event refused: an ephemeral event is not stored, and cannot have a key.");
    const grant = await this.#authorizePublish(request, overrides, requested);
    if (isResponse(grant)) return grant;
    settings.rate?.("publishes", request, grant);
    broker.checkOpen();
    const data = overrides.data === undefined ? await readText(request, settings) : overrides.data;
    if (data === "" || (data as Partial<Uint8Array> | null)?.byteLength === 0)
      throw new BrokerError("no-event-data", "no event data provided");
    // A body may be slow, and the grant may have expired when it is complete.
    if (grant.expiresAt <= Date.now()) throw unauthorized("Event refused: its grant has expired.");
    settings.rate?.("bytes", request, grant, data);
    const keys = clientId === undefined ? keysOf(requested.channels) : [inboxKey(clientId)];
    const event: EventInput = type ? { data, event: type } : { data };
    // Each publisher has its own keys. A publisher with another one's key could otherwise have that one's event taken for a repeat.
    const { subject, byToken = false } = grant;
    const idempotencyKey = key === undefined ? undefined : idempotencyKeyOf(JSON.stringify([byToken, subject]), key);
    const options = { idempotencyKey, recipient: clientId, subject, ephemeral, isBody: true };
    const published = await broker.publish(keys, event, options);
    return Response.json(published, { headers: { "cache-control": "no-store" } });
  }

  /** Lets a publisher in that presents the token, or that `authorize` allows. */
  #authorizePublish(
    request: Request,
    overrides: EventOverrides,
    requested: RequestedAccess,
  ): ResolvedGrant | Promise<ResolvedGrant | Response> {
    const { settings } = this.#broker;
    const authorize = overrides.authorize ?? settings.authorize;
    if (isForgedRequest(request, settings.cors, true)) throw new BrokerError("cross-origin", FORGED);
    settings.rate?.("publishes", request);
    const token = overrides.requireToken ? settings.publishToken : undefined;
    if (token !== undefined && presentsToken(request, [token])) return { ...requested, ...UNLIMITED, byToken: true };
    if (authorize) return this.#authorize(authorize, request, overrides, requested);
    if (!overrides.requireToken) return { ...requested, ...UNLIMITED };
    if (token !== undefined) throw unauthorized("Event refused: present the publish token as Authorization: Bearer.");
    throw new BrokerError("publishing-closed", "Event refused: publishing is closed; set authorize or publishToken.");
  }

  async #authorize(
    authorize: Authorize,
    request: Request,
    { context }: Overrides,
    requested: RequestedAccess,
  ): Promise<ResolvedGrant | Response> {
    const broker = this.#broker;
    try {
      const result = await broker.authorizeQueue.run(authorize, { request, context, ...requested });
      return isResponse(result) ? result : resolveGrant(result, requested, broker.names);
    } catch (error) {
      const failure = asBrokerError(error);
      const isBadGrant = failure.code === "bad-grant";
      if (!isBadGrant && failure === error && failure.code !== "authorize-unavailable") throw error;
      void broker.reportError("authorize", (isBadGrant && failure.cause) || error);
      throw failure;
    }
  }

  /** Answers a request: turns errors into responses, and applies `cors`. */
  async respond(request: Request, overrides: Overrides, handle: (url: URL) => Promise<Response>): Promise<Response> {
    const broker = this.#broker;
    const { cors, retry } = broker.settings;
    const fail = (thrown: unknown): Promise<Response> => {
      const isExpected = thrown instanceof BrokerError && thrown.code !== "body-already-read";
      if (!isExpected) void broker.reportError("request", thrown);
      return this.#respondWithError(request, overrides, withRetryAfter(asBrokerError(thrown), retry));
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
      // The application returned a response that cannot be sent, such as one whose body was read before.
      return cors.apply(request, await fail(thrown));
    }
  }

  async #respondWithError(request: Request, overrides: Overrides, error: BrokerError): Promise<Response> {
    const broker = this.#broker;
    this.#countFailure(error.code);
    const handler = broker.settings.errorHandler ?? overrides.errorHandler;
    try {
      const response: unknown = (await handler?.(error, request)) ?? problem(error);
      if (isResponse(response)) return response;
      throw new TypeError("errorHandler() must return a Response.");
    } catch (failure) {
      void broker.reportError("error-handler", failure);
      return problem(error);
    }
  }

  #countFailure(code: ErrorCode): void {
    const { failures } = this.#broker;
    failures[code] = (failures[code] ?? 0) + 1;
  }
}

/** Turns requested access into a grant that allows all of it, without an end. */
const UNLIMITED = { expiresAt: Infinity, everything: true };
