// Publishes events over HTTP. A repeated request has the same idempotency key, so that no event is doubled.
import { ConnectError, errorOf, isTemporary, retryAfter } from "./connect-error.ts";
import type { EventMap, EventName } from "./events.ts";
import { resolveUrl } from "./options.ts";

/** Options of `publisher()`. */
export interface PublisherOptions {
  /** The bearer token, or a function that returns one before each attempt. @default no `Authorization` */
  readonly token?: string | (() => string | Promise<string>) | undefined;
  /** The function that sends requests. @default the global `fetch` */
  readonly fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
  /**
   * Milliseconds for which an event is sent again, 0 or more. Keep it below the server's `idempotencyWindow` (5 minutes).
   * @default 60,000
   */
  readonly retryFor?: number | undefined;
}

/** Options of one event. */
export interface PublishOptions {
  /** Sent once, to those who can take it now, and not stored. It is not sent again after a failure. @default false */
  readonly ephemeral?: boolean | undefined;
  /** Identifies the event: a second call with the same key publishes nothing. @default a random key */
  readonly idempotencyKey?: string | undefined;
  /** Gives up when it is aborted. The event may have been published by then. */
  readonly signal?: AbortSignal | undefined;
}

/** The answer of the server about an event that it has published. */
export interface PublishAnswer {
  /** The id of the event. Absent for an ephemeral one. */
  readonly id?: string;
  /** The connections of the answering process that it is for. */
  readonly clients: number;
}

/** An event to publish: a text without a type, or a type with its data. */
export type Publishable<Events> =
  | string
  | { [Name in EventName<Events>]: { readonly event: Name; readonly data: Events[Name] } }[EventName<Events>]
  | { readonly event?: undefined; readonly data: unknown };

/** An event of a batch: as for `broadcast()`, with what it is for. Without channels and client it is for every client. */
export type BatchEvent<Events> =
  | string
  | (Exclude<Publishable<Events>, string> & {
      readonly channels?: string | readonly string[] | undefined;
      readonly clientId?: string | undefined;
      /** Identifies this event. @default one of its own, from the key of the batch */
      readonly idempotencyKey?: string | undefined;
    });

/** Publishes events to one broker. */
export interface Publisher<Events = EventMap> {
  /**
   * Publishes an event to channels, or without them to every client. Await it to keep an order: calls that are not awaited may be published in
   * any order.
   *
   * @throws {@link ConnectError} with the server's code, such as `forbidden`; `network` if no answer came in time: then the event may have been
   * published. `TypeError` for data that JSON cannot express.
   */
  broadcast(
    event: Publishable<Events>,
    options?: PublishOptions & { readonly channels?: string | readonly string[] | undefined },
  ): Promise<PublishAnswer>;
  /** Publishes an event to one client. Otherwise the same. */
  broadcastTo(clientId: string, event: Publishable<Events>, options?: PublishOptions): Promise<PublishAnswer>;
  /**
   * Publishes events in their order, with one request. All of them are checked before the first one is published. Returns their ids, in order. The
   * server takes 1,000 events at most, and `maxBodyBytes` (64 KiB). Without events nothing is sent.
   *
   * @throws {@link BatchError} as `broadcast()`, with the ids of what was published
   */
  batch(
    events: readonly BatchEvent<Events>[],
    options?: Omit<PublishOptions, "ephemeral">,
  ): Promise<{ readonly ids: readonly string[] }>;
}

/** Why a batch has failed, or failed in the middle. A repeat with the same `idempotencyKey` and the same events doubles nothing. */
export class BatchError extends ConnectError {
  /** The ids of the events before the one that failed, in order. `undefined` if the batch was refused, or if there was no answer. */
  readonly ids: readonly string[] | undefined;

  constructor({ code, message, status }: ConnectError, ids: readonly string[] | undefined) {
    super(code, message, status);
    this.ids = ids;
  }
}

/** The first pause, in milliseconds. Each one is twice as long, up to `MAX_PAUSE`. */
const PAUSE = 250;
const MAX_PAUSE = 10_000;

/**
 * Creates a publisher for the address of `POST /broadcast`.
 *
 * ```ts
 * const events = publisher<{ price: { ada: number } }>("https://events.example/broadcast", { token: "…" });
 * await events.broadcast({ event: "price", data: { ada: 0.42 } }, { channels: "market" });
 * ```
 *
 * @throws `TypeError` for a URL that is not valid.
 */
export function publisher<Events = EventMap>(url: string | URL, options: PublisherOptions = {}): Publisher<Events> {
  const base = resolveUrl(url);
  return {
    broadcast: (event, { channels = [], ...rest } = {}) =>
      publish(
        base,
        options,
        event,
        [channels].flat().map((channel) => ["channel", channel]),
        rest,
      ),
    broadcastTo: (clientId, event, rest = {}) => publish(base, options, event, [["id", clientId]], rest),
    batch: (events, rest = {}) => publishBatch(base, options, events, rest),
  };
}

async function publish(
  base: URL,
  options: PublisherOptions,
  input: string | { readonly event?: string | undefined; readonly data: unknown },
  target: [string, string][],
  { ephemeral, idempotencyKey = randomKey(), signal }: PublishOptions,
): Promise<PublishAnswer> {
  const { event, data } = typeof input === "string" ? { event: undefined, data: input } : input;
  const body = typeof data === "string" ? data : toJson("broadcast()", data);
  const url = new URL(base);
  for (const [name, value] of target) url.searchParams.append(name, value);
  if (event !== undefined && event !== "message") url.searchParams.set("type", event);
  if (ephemeral) url.searchParams.set("ephemeral", "true");
  const key = ephemeral ? undefined : idempotencyKey;
  return post(url, options, { what: "broadcast()", type: "text/plain; charset=utf-8", body, key, signal });
}

async function publishBatch(
  base: URL,
  options: PublisherOptions,
  events: readonly (string | { readonly event?: string | undefined; readonly data: unknown })[],
  { idempotencyKey: key = randomKey(), signal }: PublishOptions,
): Promise<{ readonly ids: readonly string[] }> {
  if (events.length === 0) return { ids: [] };
  const lines = events.map((input) => {
    if (typeof input === "string") return JSON.stringify({ data: input });
    toJson("batch()", input.data);
    // Also fields that are not known, which the server refuses: without its `channels` an event would go to every client.
    return JSON.stringify(input.event === "message" ? { ...input, event: undefined } : input);
  });
  let ids: readonly string[] | undefined;
  const read = async (response: Response): Promise<void> => {
    ids = (await response.json().catch(() => undefined))?.ids ?? ids;
  };
  try {
    const request = { what: "batch()", type: "application/x-ndjson", body: lines.join("\n"), key, signal, read };
    return await post(base, options, request);
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    throw new BatchError(error, ids);
  }
}

/** Returns data as JSON. @throws `TypeError` for what JSON cannot express */
function toJson(what: string, data: unknown): string {
  const text: string | undefined = JSON.stringify(data);
  if (text === undefined) throw new TypeError(`${what} refused: JSON cannot express its data (${typeof data}).`);
  return text;
}

interface Post {
  /** The call that an error names. */
  readonly what: string;
  readonly type: string;
  readonly body: string;
  /** The idempotency key. Without one it is sent once. */
  readonly key: string | undefined;
  readonly signal: AbortSignal | undefined;
  /** Reads an answer that refuses something. */
  readonly read?: (response: Response) => Promise<void>;
}

/** Sends a request, and sends it again after a failure for as long as that may help. */
async function post<T>(
  url: URL,
  { token, fetch: send = fetch, retryFor = 60_000 }: PublisherOptions,
  { what, type, body, key, signal, read }: Post,
): Promise<T> {
  const end = Date.now() + (key === undefined ? 0 : retryFor);
  for (let pause = PAUSE; ; pause = Math.min(pause * 2, MAX_PAUSE)) {
    signal?.throwIfAborted();
    const headers = new Headers({ "content-type": type });
    if (key !== undefined) headers.set("idempotency-key", key);
    let error: ConnectError;
    let wait = pause * (0.5 + Math.random() / 2);
    try {
      if (token !== undefined)
        headers.set("authorization", `Bearer ${typeof token === "function" ? await token() : token}`);
      const response = await send(url.href, { method: "POST", headers, body, ...(signal ? { signal } : {}) });
      if (response.ok) return await response.json();
      await read?.(response.clone());
      error = await errorOf(what, response);
      if (!isTemporary(response.status)) throw error;
      wait = Math.max(wait, retryAfter(response));
    } catch (cause) {
      if (cause instanceof ConnectError || signal?.aborted) throw cause;
      // Also an answer that broke off: the event may have been published, and its key finds it.
      error = new ConnectError("network", `${what} failed: no answer came; it may have been published: ${cause}`);
    }
    if (Date.now() + wait > end) throw error;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

/** Returns a key with 128 random bits. Not `randomUUID()`, which pages without TLS do not have. */
const randomKey = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
