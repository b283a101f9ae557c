// What is passed in place of a `Request`: the mistakes of the first hour.
import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { clientRequest, eventRequest, withBroker } from "../../support/test-broker.ts";

type Method = "fetch" | "clientHandler" | "eventHandler" | "health" | "metrics";

/** Calls a method with any value, and returns the message of its TypeError. */
async function messageOf(broker: Broker, method: Method, value: unknown): Promise<string> {
  try {
    await broker[method](value as Request);
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
  return "none";
}

/** As much of an `IncomingMessage` of Node as frameworks pass on. */
const incoming = { httpVersion: "1.1", method: "GET", url: "/connect", headers: { host: "a" }, on: () => undefined };
const request = clientRequest();
const values: readonly (readonly [what: string, value: unknown, cure: string])[] = [
  ["http.createServer(broker.fetch)", incoming, "getRequestListener"],
  ["Express", { ...incoming, get: () => "header", query: {} }, "getRequestListener"],
  [
    "Koa",
    { req: incoming, request: { req: incoming }, url: "/connect", method: "GET", headers: {} },
    "getRequestListener",
  ],
  ["Fastify", { raw: incoming, url: "/connect", method: "GET", headers: {} }, "getRequestListener"],
  ["h3 1", { node: { req: incoming }, method: "GET", path: "/connect" }, "getRequestListener"],
  ["Hono", { req: { raw: request, url: request.url, method: "GET" }, env: {} }, "(c.req.raw)"],
  ["h3 2", { req: request, url: new URL(request.url) }, "(event.req)"],
  ["SvelteKit, Astro, Elysia, React Router", { request, url: new URL(request.url), params: {} }, "(context.request)"],
  ["a URL", "https://fanwire.test/connect", "pass a Request"],
  ["nothing", undefined, "pass a Request"],
  ["null", null, "pass a Request"],
];
for (const [what, value, cure] of values) {
  test(
    `a value of ${what} in place of a Request is a TypeError that says what to write`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      for (const method of ["fetch", "clientHandler", "eventHandler", "health", "metrics"] as const) {
        const message = await messageOf(broker, method, value);
        expect(message).toMatch(new RegExp(`^TypeError: ${method}\\(\\) refused: `));
        expect(message).toContain(cure);
        if (!cure.startsWith("pass")) expect(message).toContain(`broker.${method}(`);
      }
      expect(broker.stats()).toMatchObject({ clients: 0, failures: {} });
    }),
  );
}

test(
  "a Request of another class is a Request: a subclass, one of another realm, and an adapter's imitation",
  withBroker(async (setup) => {
    const broker = setup.broker();
    class NextRequest extends Request {}
    const { url, method, headers, signal } = clientRequest();
    for (const other of [new NextRequest(clientRequest()), { url, method, headers, signal }] as Request[]) {
      const answer = await broker.fetch(other);
      expect(answer.status).toBe(200);
      await answer.body?.cancel();
    }
    expect((await broker.eventHandler(new NextRequest(eventRequest("x")))).status).toBe(200);
  }),
);
