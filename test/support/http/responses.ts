// One response of each kind that a broker can give.
import { expect } from "vitest";
import type { Broker, BrokerOptions, CorsOptions } from "../../../src/index.ts";
import type { TestSetup } from "../test-broker.ts";
import { get, type HeaderFields, options, post } from "./origins.ts";

/** A kind of response, and a request that leads to it. */
export interface ResponseKind {
  readonly name: string;
  readonly status: number;
  readonly options?: BrokerOptions;
  readonly request: (broker: Broker, headers: HeaderFields) => Promise<Response>;
}
export const responseKinds: readonly ResponseKind[] = [
  { name: "a stream of fetch", status: 200, request: (broker, headers) => broker.fetch(get(headers)) },
  { name: "a stream of clientHandler", status: 200, request: (broker, headers) => broker.clientHandler(get(headers)) },
  {
    name: "HEAD",
    status: 200,
    request: (broker, headers) => broker.fetch(new Request(get(headers), { method: "HEAD" })),
  },
  { name: "a publish to eventHandler", status: 200, request: (broker, headers) => broker.eventHandler(post(headers)) },
  {
    name: "a publish to fetch",
    status: 200,
    options: { publishToken: "secret" },
    request: (broker, headers) => broker.fetch(post({ ...headers, authorization: "Bearer secret" })),
  },
  {
    name: "204 for a barred id",
    status: 204,
    async request(broker, headers) {
      await broker.disconnect("one", { blockFor: 60_000 });
      return broker.fetch(get(headers, "?id=one"));
    },
  },
  { name: "400 to a client", status: 400, request: (broker, headers) => broker.fetch(get(headers, "?channel=")) },
  { name: "400 to an event", status: 400, request: (broker, headers) => broker.eventHandler(post(headers, "", null)) },
  {
    name: "401",
    status: 401,
    options: { publishToken: "secret" },
    request: (broker, headers) => broker.fetch(post(headers)),
  },
  { name: "403 publishing-closed", status: 403, request: (broker, headers) => broker.fetch(post(headers)) },
  {
    name: "403 forbidden",
    status: 403,
    options: { authorize: () => false },
    request: (broker, headers) => broker.fetch(get(headers)),
  },
  {
    name: "403 cross-origin",
    status: 403,
    // `cors` may trust the origin. A password with `Sec-Fetch-Site: none` is refused for every other origin.
    request: (broker, headers) =>
      broker.eventHandler(post({ ...headers, authorization: "Basic eDp5", "sec-fetch-site": "none" })),
  },
  {
    name: "404 not-found",
    status: 404,
    request: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    name: "404 unknown-client",
    status: 404,
    request: (broker, headers) => broker.eventHandler(post(headers, "?id=nobody")),
  },
  {
    name: "405",
    status: 405,
    request: (broker, headers) => broker.fetch(new Request(get(headers), { method: "DELETE" })),
  },
  {
    name: "409",
    status: 409,
    options: { duplicateIds: "reject" },
    async request(broker, headers) {
      const first = await broker.fetch(get({}, "?id=one"));
      const second = await broker.fetch(get(headers, "?id=one"));
      await first.body?.cancel();
      return second;
    },
  },
  {
    name: "413",
    status: 413,
    options: { maxBodyBytes: 1 },
    request: (broker, headers) => broker.eventHandler(post(headers, "", "too much")),
  },
  {
    name: "422",
    status: 422,
    async request(broker, headers) {
      const keyed = { ...headers, "idempotency-key": "k" };
      await broker.eventHandler(post(keyed, "", "one"));
      return broker.eventHandler(post(keyed, "", "another"));
    },
  },
  { name: "499", status: 499, request: (broker, headers) => broker.fetch(get(headers, "", AbortSignal.abort())) },
  {
    name: "500",
    status: 500,
    options: { authorize: () => Promise.reject(new Error("broken")) },
    request: (broker, headers) => broker.fetch(get(headers)),
  },
  { name: "503", status: 503, options: { maxClients: 0 }, request: (broker, headers) => broker.fetch(get(headers)) },
  {
    name: "503 authorize-timeout",
    status: 503,
    options: { authorizeTimeout: 1, authorize: () => new Promise(() => undefined) },
    request: (broker, headers) => broker.eventHandler(post(headers)),
  },
  {
    name: "200 with fanwire-end, for an EventSource in place of 503",
    status: 200,
    options: { maxClients: 0 },
    request: (broker, headers) => broker.fetch(get({ ...headers, accept: "text/event-stream" })),
  },
  {
    name: "errorHandler's Response",
    status: 404,
    options: { errorHandler: () => new Response("mine", { status: 404 }) },
    request: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    name: "errorHandler's Response with immutable headers",
    status: 302,
    options: { errorHandler: () => Response.redirect("https://fanwire.test/help", 302) },
    request: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    name: "the default response where errorHandler throws",
    status: 404,
    options: { errorHandler: () => Promise.reject(new Error("broken")) },
    request: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    name: "authorize's Response to a client",
    status: 402,
    options: { authorize: () => new Response("pay", { status: 402 }) },
    request: (broker, headers) => broker.clientHandler(get(headers)),
  },
  {
    name: "authorize's Response to an event, with immutable headers",
    status: 307,
    options: { authorize: () => Response.redirect("https://fanwire.test/login", 307) },
    request: (broker, headers) => broker.fetch(post(headers)),
  },
  { name: "OPTIONS", status: 204, request: (broker, headers) => broker.fetch(options("/connect", headers)) },
];

export const corsFieldsOf = ({ headers }: Response): string[] =>
  [...headers.keys()].filter((name) => name.startsWith("access-control-"));
export const varyOf = ({ headers }: Response): string[] => (headers.get("vary") ?? "").split(", ");

/** Makes the request of a kind, calls `check` with the response, and cancels the response's stream. */
export async function checkResponse(
  setup: TestSetup,
  { options, request, status }: ResponseKind,
  cors: CorsOptions | undefined,
  headers: HeaderFields,
  check: (response: Response) => void,
): Promise<void> {
  const broker = setup.broker({ ...options, ...(cors ? { cors } : {}) });
  const response = await request(broker, headers);
  try {
    expect(response.status).toBe(status);
    check(response);
  } finally {
    await response.body?.cancel();
  }
}
