import { expect } from "vitest";
import type { Broker, BrokerOptions, CorsOptions } from "../../../src/index.ts";
import type { Scene } from "../test-broker.ts";
import { get, type Headers, options, post } from "./origins.ts";

/** One answer of each kind that there is. */
export interface Kind {
  readonly what: string;
  readonly status: number;
  readonly options?: BrokerOptions;
  readonly ask: (broker: Broker, headers: Headers) => Promise<Response>;
}
export const kinds: readonly Kind[] = [
  { what: "a stream of fetch", status: 200, ask: (broker, headers) => broker.fetch(get(headers)) },
  { what: "a stream of clientHandler", status: 200, ask: (broker, headers) => broker.clientHandler(get(headers)) },
  { what: "HEAD", status: 200, ask: (broker, headers) => broker.fetch(new Request(get(headers), { method: "HEAD" })) },
  { what: "a publish to eventHandler", status: 200, ask: (broker, headers) => broker.eventHandler(post(headers)) },
  {
    what: "a publish to fetch",
    status: 200,
    options: { publishToken: "secret" },
    ask: (broker, headers) => broker.fetch(post({ ...headers, authorization: "Bearer secret" })),
  },
  {
    what: "204 to who is turned away",
    status: 204,
    async ask(broker, headers) {
      await broker.disconnect("one", { blockFor: 60_000 });
      return broker.fetch(get(headers, "?id=one"));
    },
  },
  { what: "400 to a client", status: 400, ask: (broker, headers) => broker.fetch(get(headers, "?channel=")) },
  { what: "400 to an event", status: 400, ask: (broker, headers) => broker.eventHandler(post(headers, "", null)) },
  {
    what: "401",
    status: 401,
    options: { publishToken: "secret" },
    ask: (broker, headers) => broker.fetch(post(headers)),
  },
  { what: "403 publishing-closed", status: 403, ask: (broker, headers) => broker.fetch(post(headers)) },
  {
    what: "403 forbidden",
    status: 403,
    options: { authorize: () => false },
    ask: (broker, headers) => broker.fetch(get(headers)),
  },
  {
    what: "403 cross-origin",
    status: 403,
    // An origin that CORS names would be let through, so this one has another visitor.
    ask: (broker, headers) =>
      broker.eventHandler(post({ ...headers, authorization: "Basic eDp5", "sec-fetch-site": "none" })),
  },
  {
    what: "404 not-found",
    status: 404,
    ask: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    what: "404 unknown-client",
    status: 404,
    ask: (broker, headers) => broker.eventHandler(post(headers, "?id=nobody")),
  },
  {
    what: "405",
    status: 405,
    ask: (broker, headers) => broker.fetch(new Request(get(headers), { method: "DELETE" })),
  },
  {
    what: "409",
    status: 409,
    options: { duplicateIds: "reject" },
    async ask(broker, headers) {
      const first = await broker.fetch(get({}, "?id=one"));
      const second = await broker.fetch(get(headers, "?id=one"));
      await first.body?.cancel();
      return second;
    },
  },
  {
    what: "413",
    status: 413,
    options: { maxBodyBytes: 1 },
    ask: (broker, headers) => broker.eventHandler(post(headers, "", "too much")),
  },
  {
    what: "422",
    status: 422,
    async ask(broker, headers) {
      const keyed = { ...headers, "idempotency-key": "k" };
      await broker.eventHandler(post(keyed, "", "one"));
      return broker.eventHandler(post(keyed, "", "another"));
    },
  },
  { what: "499", status: 499, ask: (broker, headers) => broker.fetch(get(headers, "", AbortSignal.abort())) },
  {
    what: "500",
    status: 500,
    options: { authorize: () => Promise.reject(new Error("broken")) },
    ask: (broker, headers) => broker.fetch(get(headers)),
  },
  { what: "503", status: 503, options: { maxClients: 0 }, ask: (broker, headers) => broker.fetch(get(headers)) },
  {
    what: "503 authorize-timeout",
    status: 503,
    options: { authorizeTimeout: 1, authorize: () => new Promise(() => undefined) },
    ask: (broker, headers) => broker.eventHandler(post(headers)),
  },
  {
    what: "what an EventSource is told in place of 503",
    status: 200,
    options: { maxClients: 0 },
    ask: (broker, headers) => broker.fetch(get({ ...headers, accept: "text/event-stream" })),
  },
  {
    what: "errorHandler's Response",
    status: 404,
    options: { errorHandler: () => new Response("mine", { status: 404 }) },
    ask: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    what: "errorHandler's Response, whose fields cannot be changed",
    status: 302,
    options: { errorHandler: () => Response.redirect("https://fanwire.test/help", 302) },
    ask: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    what: "the default answer where errorHandler throws",
    status: 404,
    options: { errorHandler: () => Promise.reject(new Error("broken")) },
    ask: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    what: "authorize's Response to a client",
    status: 402,
    options: { authorize: () => new Response("pay", { status: 402 }) },
    ask: (broker, headers) => broker.clientHandler(get(headers)),
  },
  {
    what: "authorize's Response to an event, whose fields cannot be changed",
    status: 307,
    options: { authorize: () => Response.redirect("https://fanwire.test/login", 307) },
    ask: (broker, headers) => broker.fetch(post(headers)),
  },
  { what: "OPTIONS", status: 204, ask: (broker, headers) => broker.fetch(options("/connect", headers)) },
];

export const corsFieldsOf = ({ headers }: Response): string[] =>
  [...headers.keys()].filter((name) => name.startsWith("access-control-"));
export const varyOf = ({ headers }: Response): string[] => (headers.get("vary") ?? "").split(", ");

/** Asks, looks at the answer, and leaves no stream behind. */
export async function look(
  stage: Scene,
  { options, ask, status }: Kind,
  cors: CorsOptions | undefined,
  headers: Headers,
  body: (answer: Response) => void,
): Promise<void> {
  const broker = stage.broker({ ...options, ...(cors ? { cors } : {}) });
  const answer = await ask(broker, headers);
  try {
    expect(answer.status).toBe(status);
    body(answer);
  } finally {
    await answer.body?.cancel();
  }
}
