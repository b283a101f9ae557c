import { readText } from "./body.ts";
import type { Core, Start } from "./core.ts";
import { BrokerError, type ErrorCode, quote } from "./errors.ts";
import type { EventInput } from "./event.ts";
import { checkChannels, checkClientId, inboxKey, keysOf } from "./names.ts";
import { problem, toBrokerError } from "./problem.ts";
import { randomName } from "./random.ts";

/** What trusted code says about a client. It wins over the request's query. */
export interface ClientOverrides {
  readonly id?: string;
  readonly channels?: string | readonly string[];
  readonly lastEventId?: string;
  readonly from?: "earliest";
  /** What the runtime passed to its handler beside the request; Bun's server keeps quiet streams open through it. */
  readonly context?: unknown;
}

/** What trusted code says about an event. It wins over the request's query. */
export interface EventOverrides {
  /** The one client that it is for. */
  readonly id?: string;
  readonly channels?: string | readonly string[];
  readonly type?: string;
}

/** 26 characters of five random bits each: 130. */
const CLIENT_ID_LENGTH = 26;
/** Bun's `server.timeout` takes no more seconds than this. */
const LONGEST_IDLE = 255;

/** The broker's HTTP face: requests in, responses out, and errors in the form of the user's choice. */
export class HttpFace {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  fetch(request: Request, context: unknown): Promise<Response> {
    return this.#answer(request, ({ pathname, searchParams }) => {
      const { connect, broadcast } = this.#core.settings.paths;
      const allow = pathname === connect ? "GET, HEAD, OPTIONS" : pathname === broadcast ? "POST, OPTIONS" : undefined;
      if (!allow) throw new BrokerError("not-found", `There is nothing at ${quote(pathname)}.`);
      if (request.method === "OPTIONS") return new Response(null, { status: 204, headers: { allow } });
      if (pathname === connect) return this.#connect(request, searchParams, { context }, allow);
      return this.#publish(request, searchParams, {}, allow, () => this.#authorize(request));
    });
  }

  async clientHandler(request: Request, overrides: ClientOverrides): Promise<Response> {
    checkOverrides(overrides);
    return this.#answer(request, ({ searchParams }) => this.#connect(request, searchParams, overrides, "GET, HEAD"));
  }

  async eventHandler(request: Request, overrides: EventOverrides): Promise<Response> {
    checkOverrides(overrides);
    return this.#answer(request, ({ searchParams }) => this.#publish(request, searchParams, overrides, "POST"));
  }

  async #connect(
    request: Request,
    query: URLSearchParams,
    overrides: ClientOverrides,
    allow: string,
  ): Promise<Response> {
    checkMethod(request, allow);
    const core = this.#core;
    const id = overrides.id ?? single(query, "id", "bad-id");
    const clientId = id === undefined ? randomName(CLIENT_ID_LENGTH) : checkClientId(id);
    const channels = checkChannels(overrides.channels ?? query.getAll("channel"));
    const start = startOf(request, query, overrides);
    const headers = streamHeaders(clientId);
    if (core.barred.has(clientId)) return new Response(null, { status: 204 });
    // A HEAD response with a stream is never cancelled on Node and workerd.
    if (request.method === "HEAD") return new Response(null, { headers });
    keepOpen(overrides.context, request, core.settings);
    try {
      return new Response(await core.connect(request, clientId, channels, start), { headers });
    } catch (error) {
      // EventSource never comes back after a 503. It is told to come back later, and nothing that it could take for a position.
      const eventSource = request.headers.get("accept")?.includes("text/event-stream");
      if (!eventSource || !(error instanceof BrokerError) || error.code !== "closed") throw error;
      return new Response(core.farewell("closing", true), { headers });
    }
  }

  async #publish(
    request: Request,
    query: URLSearchParams,
    overrides: EventOverrides,
    allow: string,
    authorize?: () => void,
  ): Promise<Response> {
    checkMethod(request, allow);
    authorize?.();
    const { settings } = this.#core;
    this.#core.checkOpen();
    const trusted = overrides.id !== undefined || overrides.channels !== undefined;
    const id = trusted ? overrides.id : single(query, "id", "bad-id");
    const channels = trusted ? overrides.channels : query.has("channel") ? query.getAll("channel") : undefined;
    const type = overrides.type ?? single(query, "type", "bad-event-type");
    if (id !== undefined && channels !== undefined) {
      throw new BrokerError("bad-request", "Event refused: it is for one client or for channels, not both.");
    }
    const keys = id === undefined ? keysOf(channels) : [inboxKey(checkClientId(id))];
    const data = await readText(request, settings.maxBodyBytes);
    if (data === "") throw new BrokerError("no-event-data", "no event data provided");
    if (id !== undefined) this.#core.checkRecipient(id);
    const event: EventInput = type ? { data, event: type } : data;
    const published = await this.#core.publish(keys, event);
    return Response.json(published, { headers: { "cache-control": "no-store" } });
  }

  /** Who may publish through `fetch`. */
  #authorize(request: Request): void {
    const { publishToken } = this.#core.settings;
    if (publishToken === undefined) {
      throw new BrokerError(
        "publishing-closed",
        "Events are not accepted here: set the option publishToken, or mount eventHandler behind your own check.",
      );
    }
    const [, token] = /^Bearer +(.+)$/i.exec(request.headers.get("authorization") ?? "") ?? [];
    if (token === undefined || !sameToken(token, publishToken)) {
      throw new BrokerError("unauthorized", "Event refused: present the publish token as Authorization: Bearer.", {
        headers: { "www-authenticate": "Bearer" },
      });
    }
  }

  async #answer(request: Request, handle: (url: URL) => Response | Promise<Response>): Promise<Response> {
    try {
      return await handle(new URL(request.url));
    } catch (thrown) {
      const error = toBrokerError(thrown);
      if (error.code === "internal") void this.#core.background("request", thrown);
      try {
        return (await this.#core.settings.errorHandler?.(error, request)) ?? problem(error);
      } catch (failure) {
        void this.#core.background("error-handler", failure);
        return problem(error);
      }
    }
  }
}

/** A router that passes its server or context beside the request would have its properties taken for overrides. */
function checkOverrides(overrides: object): void {
  const prototype: unknown = Object.getPrototypeOf(overrides);
  if (prototype === Object.prototype || prototype === null) return;
  throw new TypeError(
    "Handler refused: overrides must be a plain object; write (request, context) => handler(request, { … }).",
  );
}

function checkMethod(request: Request, allow: string): void {
  if (allow.split(", ").includes(request.method)) return;
  throw new BrokerError("method-not-allowed", `${quote(request.method)} is not answered here.`, { headers: { allow } });
}

/** A parameter that may be given once; empty counts as absent. */
function single(query: URLSearchParams, name: string, code: ErrorCode): string | undefined {
  const [value, ...others] = query.getAll(name);
  if (others.length > 0) throw new BrokerError(code, `Request refused: ${name} is given more than once.`);
  return value || undefined;
}

function startOf(request: Request, query: URLSearchParams, overrides: ClientOverrides): Start {
  const from = overrides.from ?? single(query, "from", "bad-request");
  if (from !== undefined && from !== "earliest")
    throw new BrokerError("bad-request", `Request refused: from=${quote(from)} is not "earliest".`);
  return {
    lastEventId:
      overrides.lastEventId ?? (request.headers.get("last-event-id") || query.get("lastEventId") || undefined),
    from,
  };
}

const streamHeaders = (clientId: string): Record<string, string> => ({
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
  "x-content-type-options": "nosniff",
  "fanwire-client-id": encodeURIComponent(clientId),
});

/**
 * Tells a runtime that cuts idle connections how long this one may be quiet: long enough for the broker's own rule to come first,
 * and short enough that a dead socket is still closed. Bun wants the very request that it passed.
 */
function keepOpen(context: unknown, request: Request, { heartbeat, timeout, tolerance }: Core["settings"]): void {
  const server = context as { timeout?: (request: Request, seconds: number) => void } | null | undefined;
  if (typeof server?.timeout !== "function") return;
  const quiet = Math.max(3 * heartbeat, timeout * Math.max(1, tolerance) + heartbeat);
  server.timeout(request, Math.min(LONGEST_IDLE, Math.ceil(quiet / 1000)));
}

/** Compares in a time that depends on the presented token's length alone. */
function sameToken(presented: string, expected: string): boolean {
  let difference = presented.length ^ expected.length;
  for (let index = 0; index < presented.length; index++) {
    difference |= presented.charCodeAt(index) ^ expected.charCodeAt(index % expected.length);
  }
  return difference === 0;
}
