// The options of `connect()`, and the request that they make.
import type { StandardSchema } from "./events.ts";

/** Header fields, as `fetch` takes them. */
export type HeaderFields = Headers | Readonly<Record<string, string>> | [string, string][];

/** Options of `connect()`. */
export interface ConnectOptions<Events> {
  /** The channels to read. @default all that the server grants */
  readonly channels?: string | readonly string[] | undefined;
  /** The client id, which `broadcastTo()` addresses. @default one that the server chooses, at each connection */
  readonly clientId?: string | undefined;
  /**
   * Header fields of each request, or a function that returns them. It is asked before each request, and once more after an answer with status
   * 401, so it can renew a token. If it fails, the client tries again later.
   */
  readonly headers?: HeaderFields | (() => HeaderFields | Promise<HeaderFields>) | undefined;
  /** `POST` sends the parameters as a form, for lists of channels that are too long for a URL. @default "GET", or "POST" with a `body` */
  readonly method?: "GET" | "POST" | undefined;
  /** A body of your own, for a server that wants one. It is sent again at each connection, so it cannot be a stream. */
  readonly body?: string | URLSearchParams | FormData | Blob | ArrayBuffer | undefined;
  /** The function that sends requests, such as `(url, init) => fetch(url, { ...init, credentials: "include" })`. @default the global `fetch` */
  readonly fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
  /** The id after which to begin. It goes before one in `storage`; an empty one starts again without an id. */
  readonly lastEventId?: string | undefined;
  /** Closes the client when it is aborted. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Milliseconds without a byte, comments included, after which the connection counts as dead; `Infinity` turns this off.
   * @default three heartbeats of the server, which `fanwire-ready` tells; 30,000 if it does not; none on a stream that is not fanwire's
   */
  readonly silence?: number | undefined;
  /**
   * Keeps the last id over a reload, such as `sessionStorage`. Use it if the page keeps what it has shown, too: otherwise a page that is loaded
   * again has nothing, and should start without an id. @default none
   */
  readonly storage?: Pick<Storage, "getItem" | "setItem"> | undefined;
  /**
   * Schemas of the values, by event type. An event that does not fit is left out and reported as `error` with the code `bad-event-data`. Each
   * gets the parsed data if it is JSON; if that does not fit, or is no JSON, it gets the text. @default none
   */
  readonly schemas?: { readonly [Name in keyof Events]?: StandardSchema<Events[Name]> } | undefined;
}

/** Options whose event types do not matter. */
export type AnyOptions = ConnectOptions<Record<string, unknown>>;

/** Turns a list, a single name or nothing into a list. */
export const listOf = (names: string | readonly string[] | undefined): readonly string[] | undefined =>
  names === undefined ? undefined : [names].flat();

/** The part of a page's globals that a request depends on. Elsewhere there are none of them. */
const page = globalThis as {
  readonly location?: { readonly href: string };
  readonly navigator?: { readonly serviceWorker?: { readonly controller: unknown } };
};

/** Asks the browser, which throws where a page is in a sandbox, where cookies are blocked, or where a storage is full. Then there is nothing. */
export function allowed<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch {
    return undefined;
  }
}

/** Resolves a URL against the page's. @throws `TypeError` for one that is not valid; outside of a page it has to be absolute */
export const resolveUrl = (url: string | URL): URL => new URL(url, page.location?.href);

/** Asks for the header fields of a request. */
export const headersOf = async ({ headers }: AnyOptions): Promise<Headers> =>
  new Headers(typeof headers === "function" ? await headers() : (headers ?? {}));

/** The state that the next request of a stream depends on. */
export interface RequestPlan {
  readonly url: URL;
  readonly options: AnyOptions;
  /** The id after which it continues; empty for a new stream. */
  readonly resumeId: string;
  /** The channels that it asks for; `undefined` for all that are granted. */
  readonly wanted: readonly string[] | undefined;
}

/** Creates the next request of a stream. */
export async function requestFor({
  url,
  options,
  wanted,
  resumeId,
}: RequestPlan): Promise<[url: string, init: RequestInit]> {
  const { clientId, body, method = body === undefined ? "GET" : "POST" } = options;
  const headers = await headersOf(options);
  headers.set("accept", "text/event-stream");
  // A header value consists of bytes, and ids of other servers may be any text.
  if (resumeId) headers.set("last-event-id", String.fromCharCode(...new TextEncoder().encode(resumeId)));
  const target = new URL(url);
  const form = method === "POST" && body === undefined ? new URLSearchParams() : undefined;
  const parameters = form ?? target.searchParams;
  if (clientId !== undefined) parameters.set("id", clientId);
  // A service worker may create a request of its own, without these headers. A server that has both takes the header.
  if (resumeId && allowed(() => page.navigator?.serviceWorker?.controller)) parameters.set("lastEventId", resumeId);
  for (const channel of wanted ?? []) parameters.append("channel", channel);
  const sent = method === "POST" ? (form ?? body) : undefined;
  return [target.href, { method, headers, cache: "no-store", body: sent } as RequestInit];
}
