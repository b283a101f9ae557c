import { expect, test } from "vitest";
import type { Broker, ErrorStage } from "../../../src/index.ts";
import { clientRequest, problemOf, scene } from "../../support/test-broker.ts";

// `fetch` and `clientHandler`: statuses, codes, headers, and that nobody is registered who gets no stream.

const at = (path: string, init: RequestInit = {}): Request => new Request(new URL(path, "https://fanwire.test"), init);

/** Status, code and `Allow` of a problem answer. */
async function problem(answer: Response): Promise<readonly [number, string, string | null]> {
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(answer.headers.get("cache-control")).toBe("no-store");
  return [answer.status, await problemOf(answer), answer.headers.get("allow")];
}

test(
  "fetch: /connect and /broadcast by default, 404 elsewhere",
  scene(async (stage) => {
    const broker = stage.broker();
    const answer = await broker.fetch(at("/connect?id=one"));
    expect(answer.status).toBe(200);
    await answer.body?.cancel();
    for (const path of ["/", "/connect/", "/Connect", "/connect/x", "/broadcast/", "/nothing?x=<script>"]) {
      expect(await problem(await broker.fetch(at(path)))).toEqual([404, "not-found", null]);
    }
  }),
);

test(
  "paths: fetch answers at the paths of the options",
  scene(async (stage) => {
    const broker = stage.broker({ paths: { connect: "/events" }, publishToken: "secret" });
    const answer = await broker.fetch(at("/events"));
    expect(answer.status).toBe(200);
    await answer.body?.cancel();
    expect((await broker.fetch(at("/connect"))).status).toBe(404);
    expect((await broker.fetch(at("/broadcast"))).status).toBe(405);
  }),
);

test(
  "fetch: a method that is not answered is 405 with Allow",
  scene(async (stage) => {
    const broker = stage.broker({ publishToken: "secret" });
    for (const method of ["POST", "PUT", "DELETE", "PATCH"]) {
      const answer = await broker.fetch(at("/connect", { method }));
      expect(await problem(answer)).toEqual([405, "method-not-allowed", "GET, HEAD, OPTIONS"]);
    }
    for (const method of ["GET", "HEAD", "PUT", "DELETE"]) {
      const answer = await broker.fetch(at("/broadcast", { method }));
      expect([answer.status, answer.headers.get("allow")]).toEqual([405, "POST, OPTIONS"]);
    }
  }),
);

test(
  "fetch: OPTIONS is 204 with Allow and without CORS",
  scene(async (stage) => {
    const broker = stage.broker();
    for (const [path, allow] of [
      ["/connect", "GET, HEAD, OPTIONS"],
      ["/broadcast", "POST, OPTIONS"],
    ] as const) {
      const answer = await broker.fetch(at(path, { method: "OPTIONS", headers: { origin: "https://elsewhere.test" } }));
      expect([answer.status, answer.headers.get("allow"), answer.body]).toEqual([204, allow, null]);
      expect(answer.headers.get("access-control-allow-origin")).toBeNull();
    }
  }),
);

test(
  "clientHandler, eventHandler: their own methods and no other",
  scene(async (stage) => {
    const broker = stage.broker();
    for (const method of ["POST", "DELETE"]) {
      expect(await problem(await broker.clientHandler(at("/x", { method })))).toEqual([
        405,
        "method-not-allowed",
        "GET, HEAD, OPTIONS",
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
  "a stream's headers are as the design lists them, and no hop-by-hop ones",
  scene(async (stage) => {
    const broker = stage.broker();
    const { response } = await stage.connect(broker, { id: "nämé\u2028 %" });
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
  "HEAD: answers like GET without a body, registers nothing and replaces nobody",
  scene(async (stage) => {
    const registered: unknown[] = [];
    const broker = stage.broker({ onConnect: (event) => registered.push(event) });
    const client = await stage.join(broker, { id: "one" });
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

const badConnects: readonly (readonly [what: string, query: string, code: string])[] = [
  ["an id with a newline", "?id=a%0Ab", "bad-id"],
  ["an id that is too long", `?id=${"x".repeat(257)}`, "bad-id"],
  ["two ids", "?id=a&id=b", "bad-id"],
  ["an empty channel", "?channel=", "bad-channel"],
  ["a channel with NUL", "?channel=a%00", "bad-channel"],
  ["a channel that is too long", `?channel=${"x".repeat(257)}`, "bad-channel"],
  ["a reserved channel", "?channel=fanwire-common", "bad-channel"],
  ["a from that is not known", "?from=latest", "bad-request"],
  ["two froms", "?from=earliest&from=earliest", "bad-request"],
];
for (const [what, query, code] of badConnects) {
  test(
    `clientHandler: ${what} is 400 ${code}, and nobody is registered`,
    scene(async (stage) => {
      const broker = stage.broker();
      expect(await problem(await broker.clientHandler(at(`/connect${query}`)))).toEqual([400, code, null]);
      expect(broker.stats().clients).toBe(0);
    }),
  );
}

test(
  "clientHandler: an empty id counts as absent",
  scene(async (stage) => {
    const broker = stage.broker();
    expect((await stage.join(broker, { id: "" })).clientId).toMatch(/^[0-9a-v]{26}$/);
  }),
);

test(
  "overrides: id and channels of trusted code win over the query",
  scene(async (stage) => {
    const broker = stage.broker();
    const wish = { id: "asked", channel: ["asked"], overrides: { clientId: "trusted", channels: ["given"] } };
    const client = await stage.join(broker, wish);
    expect(broker.clients()).toMatchObject([{ clientId: "trusted", channels: ["given"] }]);
    await broker.broadcast("no", { channels: "asked" });
    await broker.broadcast("yes", { channels: "given" });
    expect((await client.nextData()).data).toBe("yes");
    await stage.join(broker, { channel: ["asked"], overrides: { channels: [] } });
    expect(broker.clients()[1]).toMatchObject({ channels: [] });
  }),
);

test(
  "clientHandler: a request that was aborted before is registered nowhere",
  scene(async (stage) => {
    const registered: unknown[] = [];
    const broker = stage.broker({ onConnect: (event) => registered.push(event) });
    const answer = await broker.clientHandler(clientRequest({}, AbortSignal.abort()));
    expect(answer.status).not.toBe(200);
    expect(registered).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0, disconnects: {} });
  }),
);

test(
  "clientHandler: the request's signal ends the client, once, whatever comes after it",
  scene(async (stage) => {
    const left: string[] = [];
    const broker = stage.broker({ onDisconnect: ({ reason }) => left.push(reason) });
    const client = await stage.join(broker);
    client.abort();
    await client.leave();
    await broker.broadcast("nobody");
    expect(left).toEqual(["client-left"]);
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0 });
  }),
);

test(
  "context.timeout: called with the original request and max(3 heartbeats, timeout × tolerance + heartbeat), at most 255",
  scene(async (stage) => {
    const cases = [
      [{}, 98],
      [{ timeout: 1_000, tolerance: 2, heartbeat: 8_000 }, 24],
      [{ timeout: 10_000, tolerance: 0, heartbeat: 2_000 }, 12],
      [{ timeout: 60_000, tolerance: 10 }, 255],
      [{ timeout: Number.POSITIVE_INFINITY }, 255],
      [{ heartbeat: Number.POSITIVE_INFINITY }, 255],
    ] as const;
    for (const [options, seconds] of cases) {
      const broker = stage.broker(options);
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
  "context: one without a timeout method is left alone",
  scene(async (stage) => {
    const broker = stage.broker();
    for (const context of [undefined, null, 7, "x", {}, { timeout: 7 }]) {
      const answer = await broker.fetch(at("/connect"), context);
      expect(answer.status).toBe(200);
      await answer.body?.cancel();
    }
  }),
);

test(
  "errorHandler: what throws or rejects gives the default answer and goes to onError",
  scene(async (stage) => {
    for (const fail of [
      () => {
        throw new Error("handler broke");
      },
      () => Promise.reject(new Error("handler broke")),
    ]) {
      const errors: { stage: ErrorStage; error: unknown }[] = [];
      const broker = stage.broker({ errorHandler: fail, onError: (event) => errors.push(event) });
      const answer = await broker.clientHandler(at("/connect?channel="));
      expect(await problem(answer)).toEqual([400, "bad-channel", null]);
      expect(errors).toMatchObject([{ stage: "error-handler", error: { message: "handler broke" } }]);
    }
  }),
);

test(
  "errorHandler: an async one is awaited",
  scene(async (stage) => {
    const broker = stage.broker({ errorHandler: async ({ status }) => new Response("mine", { status }) });
    const answer = await broker.fetch(at("/nothing"));
    expect([answer.status, await answer.text()]).toEqual([404, "mine"]);
  }),
);

test(
  "500: an error of the inside goes to onError, and none of its text to the client",
  scene(async (stage) => {
    const errors: { stage: ErrorStage; error: unknown }[] = [];
    const inner = stage.engine();
    const engine: typeof inner = {
      open(follower) {
        return {
          ...inner.open(follower),
          append() {
            throw new Error("secret detail of the inside");
          },
        };
      },
    };
    const broker: Broker = stage.broker({ engine, onError: (event) => errors.push(event) });
    const answer = await broker.eventHandler(at("/broadcast", { method: "POST", body: "x" }));
    const text = await answer.clone().text();
    expect(await problem(answer)).toEqual([500, "internal", null]);
    expect(text).not.toContain("secret detail");
    expect(errors).toMatchObject([{ stage: "request", error: { message: "secret detail of the inside" } }]);
  }),
);
