// `fetch` and `clientHandler`: statuses, codes and header fields, and that a refused client is not registered.
import { expect, test } from "vitest";
import { type Broker, BrokerError, type ErrorStage } from "../../../src/index.ts";
import { clientRequest, problemOf, withBroker } from "../../support/test-broker.ts";

const at = (path: string, init: RequestInit = {}): Request => new Request(new URL(path, "https://fanwire.test"), init);

/** Returns status, code and `Allow` of a problem response. */
async function problem(answer: Response): Promise<readonly [number, string, string | null]> {
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(answer.headers.get("cache-control")).toBe("no-store");
  return [answer.status, await problemOf(answer), answer.headers.get("allow")];
}

test(
  "fetch(): serves /connect and /broadcast by default, and answers 404 elsewhere",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const answer = await broker.fetch(at("/connect?id=one"));
    expect(answer.status).toBe(200);
    await answer.body?.cancel();
    for (const path of ["/", "/connect/", "/Connect", "/connect/x", "/broadcast/", "/nothing?x=<script>"]) {
      expect(await problem(await broker.fetch(at(path)))).toEqual([404, "not-found", null]);
    }
  }),
);

test(
  "paths: fetch() serves the paths of the options",
  withBroker(async (setup) => {
    const broker = setup.broker({ paths: { connect: "/events" }, publishToken: "secret" });
    const answer = await broker.fetch(at("/events"));
    expect(answer.status).toBe(200);
    await answer.body?.cancel();
    expect((await broker.fetch(at("/connect"))).status).toBe(404);
    expect((await broker.fetch(at("/broadcast"))).status).toBe(405);
  }),
);

test(
  "fetch(): answers other methods 405 with Allow",
  withBroker(async (setup) => {
    const broker = setup.broker({ publishToken: "secret" });
    for (const method of ["PUT", "DELETE", "PATCH"]) {
      const answer = await broker.fetch(at("/connect", { method }));
      expect(await problem(answer)).toEqual([405, "method-not-allowed", "GET, HEAD, POST, OPTIONS"]);
    }
    for (const method of ["GET", "HEAD", "PUT", "DELETE"]) {
      const answer = await broker.fetch(at("/broadcast", { method }));
      expect([answer.status, answer.headers.get("allow")]).toEqual([405, "POST, OPTIONS"]);
    }
  }),
);

test(
  "fetch(): answers OPTIONS 204 with Allow, and without CORS fields",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (const [path, allow] of [
      ["/connect", "GET, HEAD, POST, OPTIONS"],
      ["/broadcast", "POST, OPTIONS"],
    ] as const) {
      const answer = await broker.fetch(at(path, { method: "OPTIONS", headers: { origin: "https://elsewhere.test" } }));
      expect([answer.status, answer.headers.get("allow"), answer.body]).toEqual([204, allow, null]);
      expect(answer.headers.get("access-control-allow-origin")).toBeNull();
    }
  }),
);

test(
  "clientHandler(), eventHandler(): accept their own methods only",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (const method of ["PUT", "DELETE"]) {
      expect(await problem(await broker.clientHandler(at("/x", { method })))).toEqual([
        405,
        "method-not-allowed",
        "GET, HEAD, POST, OPTIONS",
      ]);
    }
    for (const method of ["GET", "PUT"]) {
      expect(await problem(await broker.eventHandler(at("/x", { method })))).toEqual([
        405,
        "method-not-allowed",
        "POST, OPTIONS",
      ]);
    }
  }),
);

test(
  "clientHandler(): a stream has exactly the listed header fields, and no hop-by-hop field",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const { response } = await setup.connect(broker, { id: "nämé\u2028 %" });
    expect(Object.fromEntries(response.headers)).toEqual({
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
      "x-content-type-options": "nosniff",
      "fanwire-client-id": encodeURIComponent("nämé\u2028 %"),
    });
  }),
);

test(
  "HEAD: is answered like GET without a body, registers no connection and replaces none",
  withBroker(async (setup) => {
    const registered: unknown[] = [];
    const broker = setup.broker({ onConnect: (event) => registered.push(event) });
    const client = await setup.join(broker, { id: "one" });
    for (const handle of [broker.fetch, broker.clientHandler]) {
      const answer = await handle(at("/connect?id=one", { method: "HEAD" }));
      expect([answer.status, answer.body]).toEqual([200, null]);
      expect(answer.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    }
    expect(broker.stats()).toMatchObject({ clients: 1, ids: 1 });
    expect(registered).toHaveLength(1);
    await broker.broadcastTo("one", "still here");
    expect((await client.nextData()).data).toBe("still here");
  }),
);

const badQueries: readonly (readonly [what: string, query: string, code: string])[] = [
  ["an id with a newline", "?id=a%0Ab", "bad-id"],
  ["an id that is too long", `?id=${"x".repeat(257)}`, "bad-id"],
  ["two ids", "?id=a&id=b", "bad-id"],
  ["an empty channel", "?channel=", "bad-channel"],
  ["a channel with NUL", "?channel=a%00", "bad-channel"],
  ["a channel that is too long", `?channel=${"x".repeat(257)}`, "bad-channel"],
  ["a reserved channel", "?channel=fanwire-common", "bad-channel"],
  ["an unknown from", "?from=newest", "bad-request"],
  ["two froms", "?from=earliest&from=earliest", "bad-request"],
];
for (const [what, query, code] of badQueries) {
  test(
    `clientHandler(): ${what} is 400 ${code}, and no client is registered`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      expect(await problem(await broker.clientHandler(at(`/connect${query}`)))).toEqual([400, code, null]);
      expect(broker.stats().clients).toBe(0);
    }),
  );
}

test(
  "clientHandler(): an empty id counts as absent",
  withBroker(async (setup) => {
    const broker = setup.broker();
    expect((await setup.join(broker, { id: "" })).clientId).toMatch(/^[0-9a-v]{26}$/);
  }),
);

test(
  "ClientOverrides: clientId and channels win over the query",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const overrides = { clientId: "trusted", channels: ["given"] };
    const client = await setup.join(broker, { id: "asked", channel: ["asked"], overrides });
    expect(broker.clients()).toMatchObject([{ clientId: "trusted", channels: ["given"] }]);
    await broker.broadcast("no", { channels: "asked" });
    await broker.broadcast("yes", { channels: "given" });
    expect((await client.nextData()).data).toBe("yes");
    await setup.join(broker, { channel: ["asked"], overrides: { channels: [] } });
    expect(broker.clients()[1]).toMatchObject({ channels: [] });
  }),
);

test(
  "clientHandler(): a request that was aborted before the call is not registered",
  withBroker(async (setup) => {
    const registered: unknown[] = [];
    const broker = setup.broker({ onConnect: (event) => registered.push(event) });
    const answer = await broker.clientHandler(clientRequest({}, AbortSignal.abort()));
    expect(answer.status).not.toBe(200);
    expect(registered).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0, disconnects: {} });
  }),
);

test(
  "clientHandler(): the request's signal ends the connection once, whatever follows",
  withBroker(async (setup) => {
    const reasons: string[] = [];
    const broker = setup.broker({ onDisconnect: ({ reason }) => reasons.push(reason) });
    const client = await setup.join(broker);
    client.abort();
    await client.leave();
    await broker.broadcast("nobody");
    expect(reasons).toEqual(["client-left"]);
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0 });
  }),
);

test(
  "context.timeout: is called with the original request and 8 s more than max(3 heartbeats, timeout × tolerance + heartbeat), at most 255 s",
  withBroker(async (setup) => {
    const cases = [
      [{}, 106],
      [{ timeout: 1_000, tolerance: 2, heartbeat: 8_000 }, 32],
      [{ timeout: 10_000, tolerance: 0, heartbeat: 2_000 }, 20],
      [{ timeout: 60_000, tolerance: 10 }, 255],
      [{ timeout: Number.POSITIVE_INFINITY }, 255],
      [{ heartbeat: Number.POSITIVE_INFINITY }, 255],
    ] as const;
    for (const [options, seconds] of cases) {
      const broker = setup.broker(options);
      const calls: unknown[] = [];
      const server = {
        timeout(...args: unknown[]) {
          calls.push(this === server, ...args);
        },
      };
      const request = at("/connect");
      await (await broker.fetch(request, server)).body?.cancel();
      expect(calls).toEqual([true, request, seconds]);
      expect(calls[1]).toBe(request);
      await (await broker.clientHandler(request, { context: server })).body?.cancel();
      expect(calls).toHaveLength(6);
    }
  }),
);

test(
  "context: a value without a timeout method is ignored",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (const context of [undefined, null, 7, "x", {}, { timeout: 7 }]) {
      const answer = await broker.fetch(at("/connect"), context);
      expect(answer.status).toBe(200);
      await answer.body?.cancel();
    }
  }),
);

test(
  "errorHandler: if it throws or rejects, the default answer is sent and onError is called",
  withBroker(async (setup) => {
    for (const fail of [
      () => {
        throw new Error("handler broke");
      },
      () => Promise.reject(new Error("handler broke")),
    ]) {
      const errors: { stage: ErrorStage; error: unknown }[] = [];
      const broker = setup.broker({ errorHandler: fail, onError: (event) => errors.push(event) });
      const answer = await broker.clientHandler(at("/connect?channel="));
      expect(await problem(answer)).toEqual([400, "bad-channel", null]);
      expect(errors).toMatchObject([{ stage: "error-handler", error: { message: "handler broke" } }]);
    }
  }),
);

test(
  "errorHandler: a promise is awaited",
  withBroker(async (setup) => {
    const broker = setup.broker({ errorHandler: async ({ status }) => new Response("mine", { status }) });
    const answer = await broker.fetch(at("/nothing"));
    expect([answer.status, await answer.text()]).toEqual([404, "mine"]);
  }),
);

test(
  "internal: an unexpected error goes to onError, and its message is not sent to the client",
  withBroker(async (setup) => {
    const errors: { stage: ErrorStage; error: unknown }[] = [];
    const inner = setup.engine();
    const engine: typeof inner = {
      open(listener) {
        return {
          ...inner.open(listener),
          append() {
            throw new Error("secret detail of the inside");
          },
        };
      },
    };
    const broker: Broker = setup.broker({ engine, onError: (event) => errors.push(event) });
    const answer = await broker.eventHandler(at("/broadcast", { method: "POST", body: "x" }));
    const text = await answer.clone().text();
    expect(await problem(answer)).toEqual([500, "internal", null]);
    expect(text).not.toContain("secret detail");
    expect(errors).toMatchObject([{ stage: "request", error: { message: "secret detail of the inside" } }]);
  }),
);

test("BrokerError: an unknown code, or a header field that cannot be sent, is refused by the constructor", () => {
  expect(() => new BrokerError("no-such-code" as "forbidden", "x")).toThrow(TypeError);
  expect(() => new BrokerError("forbidden", "x", { headers: { "x-why": "za\u017c\u00f3\u0142\u0107" } })).toThrow(
    TypeError,
  );
});
