// Every kind of response of the HTTP handler over sockets, as a browser or a proxy sees it.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { HttpRequestOptions, HttpResponse } from "../support/clients/http-client.ts";
import { exchange, RawHttpClient } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem, expectReconnectLater } from "../support/http/problem.ts";
import {
  platformsWithWrangler,
  type Server,
  startServer,
  type TestBroker,
  usesWorkerd,
  usesWrangler,
} from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";

const PUBLISHER = { authorization: "Bearer secret" };
const EVENT_SOURCE = { accept: "text/event-stream" };
const post = (body: string, headers: Record<string, string> = {}): HttpRequestOptions => ({
  method: "POST",
  body,
  headers: { ...PUBLISHER, ...headers },
});

const LATIN = "text/plain; charset=iso-8859-1";

/** Requests that are refused, with status and code. Before them the client `one` is connected, and the idempotency key `used` is taken. */
const REFUSED: readonly (readonly [
  what: string,
  path: string,
  asked: HttpRequestOptions,
  status: number,
  code: string,
])[] = [
  ["an empty body", "broadcast", post(""), 400, "no-event-data"],
  ["no body", "broadcast", { method: "POST", headers: { ...PUBLISHER, "content-length": "0" } }, 400, "no-event-data"],
  ["a type with a newline", "broadcast?type=a%0Ab", post("x"), 400, "bad-event-type"],
  ["a reserved type", "broadcast?type=fanwire-gap", post("x"), 400, "bad-event-type"],
  ["a type of EventSource's own", "broadcast?type=error", post("x"), 400, "bad-event-type"],
  ["an empty channel", "broadcast?channel=", post("x"), 400, "bad-channel"],
  ["a channel with NUL", "broadcast?channel=a%00", post("x"), 400, "bad-channel"],
  ["a reserved channel", "broadcast?channel=fanwire-common", post("x"), 400, "bad-channel"],
  ["a target with a newline", "broadcast?id=a%0Ab", post("x"), 400, "bad-id"],
  ["a target that is too long", `broadcast?id=${"x".repeat(257)}`, post("x"), 400, "bad-id"],
  ["a target and a channel", "broadcast?id=one&channel=a", post("x"), 400, "bad-request"],
  ["a key that is too long", "broadcast", post("x", { "idempotency-key": "k".repeat(257) }), 400, "bad-key"],
  ["an event without a token", "broadcast", { method: "POST", body: "x" }, 401, "unauthorized"],
  ["an event with another token", "broadcast", post("x", { authorization: "Bearer secrets" }), 401, "unauthorized"],
  ["an event with a cookie alone", "broadcast", post("x", { authorization: "", cookie: "a=b" }), 403, "cross-origin"],
  ["an unknown target", "broadcast?id=nobody", post("x"), 404, "unknown-client"],
  ["an unknown path", "nowhere", {}, 404, "not-found"],
  ["another method", "connect", { method: "PUT", body: "x" }, 405, "method-not-allowed"],
  ["an event by GET", "broadcast", {}, 405, "method-not-allowed"],
  ["an event that is too large", "broadcast", post("x".repeat(700)), 413, "event-too-large"],
  ["a body that is too large", "broadcast", post("x".repeat(1_001)), 413, "body-too-large"],
  ["a key of another event", "broadcast", post("y", { "idempotency-key": "used" }), 422, "key-reused"],
  ["an id with a newline", "connect?id=a%0Ab", { headers: EVENT_SOURCE }, 400, "bad-id"],
  ["two ids", "connect?id=a&id=b", { headers: EVENT_SOURCE }, 400, "bad-id"],
  ["a channel to read with CR", "connect?channel=%0D", { headers: EVENT_SOURCE }, 400, "bad-channel"],
  ["an invalid start", "connect?from=newest", { headers: EVENT_SOURCE }, 400, "bad-request"],
  ["an id in use", "connect?id=one", {}, 409, "duplicate-id"],
  ["a misspelled channel", "broadcast?chanel=private", post("x"), 400, "bad-request"],
  ["a misspelled channel to read", "connect?channels=a", { headers: EVENT_SOURCE }, 400, "bad-request"],
  ["two ids to resume after", "connect?lastEventId=a-1&lastEventId=a-1", { headers: EVENT_SOURCE }, 400, "bad-request"],
  ["a compressed body", "broadcast", post("x", { "content-encoding": "gzip" }), 415, "unsupported-media-type"],
  ["another charset", "broadcast", post("x", { "content-type": LATIN }), 415, "unsupported-media-type"],
  [
    "a form of another type",
    "connect",
    post("channel=a", { "content-type": "text/plain" }),
    415,
    "unsupported-media-type",
  ],
];
/** Header fields that belong to a code, or to one of the requests. */
const FIELDS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  unauthorized: { "www-authenticate": "Bearer" },
  "an event by GET": { allow: "POST, OPTIONS" },
  "another method": { allow: "GET, HEAD, POST, OPTIONS" },
};

describe.each(platformsWithWrangler)("the HTTP handler on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  const publish = (broker: TestBroker, body: string, headers: Record<string, string> = {}): Promise<HttpResponse> =>
    exchange(server.url, broker.path("broadcast"), post(body, headers));

  /** Creates a broker that refuses each request of `REFUSED`. */
  async function createStrictBroker(): Promise<readonly [TestBroker, SocketClient]> {
    const broker = await server.createBroker({ maxEventBytes: 600, maxBodyBytes: 1_000, duplicateIds: "reject" });
    const one = await broker.join("?id=one");
    await publish(broker, "first", { "idempotency-key": "used" });
    return [broker, one];
  }

  test("broadcast: 200 with the event's id and the number of clients", async () => {
    const broker = await server.createBroker();
    const client = await broker.join();
    const answer = await publish(broker, "x");
    expect([answer.status, answer.headers["cache-control"]]).toEqual([200, "no-store"]);
    expect(answer.headers["content-type"]).toMatch(/^application\/json/);
    await client.until(() => client.data.length === 1);
    expect(JSON.parse(answer.body)).toEqual({ id: client.lastEventId, clients: 1 });
    client.leave();
  });

  test("refused requests: each has its status and code, publishes nothing, and leaves its connection usable", async () => {
    const [broker, one] = await createStrictBroker();
    const client = new RawHttpClient(server.url);
    for (const [what, path, asked, status, code] of REFUSED) {
      const answer = await client.send(broker.path(path), asked).response();
      expectProblem(answer, status, code);
      expect(answer.headers, what).toMatchObject(FIELDS[code] ?? FIELDS[what] ?? {});
    }
    expect((await client.send(broker.path("broadcast"), post("last")).response()).status).toBe(200);
    await one.until(() => one.data.includes("last"));
    expect(one.data).toEqual(["first", "last"]);
    expect((await broker.state()).connected).toBe(1);
    await client.close();
    one.leave();
  });

  test("refused requests: pipelined requests are answered in order", async () => {
    const [broker, one] = await createStrictBroker();
    const client = new RawHttpClient(server.url);
    client.socket.cork();
    for (const [, path, asked] of REFUSED) client.send(broker.path(path), asked);
    client.send(broker.path("broadcast"), post("last"));
    client.socket.uncork();
    for (const [what, , , status, code] of REFUSED) {
      // Node shows that a stream would wait for the response before it, and that is refused first.
      const isHeldBack = what === "an id in use" && platform.startsWith("node");
      expectProblem(await client.response(), isHeldBack ? 503 : status, isHeldBack ? "at-capacity" : code);
    }
    expect((await client.response()).status).toBe(200);
    await one.until(() => one.data.includes("last"));
    expect(one.data).toEqual(["first", "last"]);
    await client.close();
    one.leave();
  });

  test("HEAD: returns the head of the response to GET, errors included, without a body and without a client", async () => {
    const broker = await server.createBroker();
    const client = new RawHttpClient(server.url);
    const head = async (path: string): Promise<HttpResponse> =>
      client.send(broker.path(path), { method: "HEAD" }).response();
    const stream = await head("connect?id=me");
    expect([stream.status, stream.headers["content-type"], stream.headers["fanwire-client-id"]]).toEqual([
      200,
      "text/event-stream; charset=utf-8",
      "me",
    ]);
    expect((await head("connect?channel=")).status).toBe(400);
    expect((await head("nowhere")).status).toBe(404);
    expect((await head("broadcast")).status).toBe(405);
    expect((await client.send(broker.path("broadcast"), post("x")).response()).body).toContain('"clients":0');
    expect((await broker.state()).connected).toBe(0);
    await client.close();
  });

  test("OPTIONS: 204 with Allow", async () => {
    const broker = await server.createBroker();
    const client = new RawHttpClient(server.url);
    for (const [path, allow] of [
      ["connect", "GET, HEAD, POST, OPTIONS"],
      ["broadcast", "POST, OPTIONS"],
    ] as const) {
      const answer = await client.send(broker.path(path), { method: "OPTIONS" }).response();
      expect([answer.status, answer.headers.allow]).toEqual([204, allow]);
    }
    expectProblem(await client.send(broker.path("nowhere"), { method: "OPTIONS" }).response(), 404, "not-found");
    await client.close();
  });

  test("HTTP/1.0 without a Host, as load balancers send it for health checks, is answered like any other request", async () => {
    const broker = await server.createBroker();
    const old = (start: string, rest = ""): Promise<HttpResponse> =>
      new RawHttpClient(server.url).write(`${start} HTTP/1.0\r\n${rest}\r\n`).response();
    const nowhere = await old(`GET ${broker.path("nowhere")}`);
    const event = await old(
      `POST ${broker.path("broadcast")}`,
      "authorization: Bearer secret\r\ncontent-length: 0\r\n",
    );
    // workerd itself refuses these requests.
    if (usesWorkerd(platform)) {
      expect([nowhere.status, event.status]).toEqual([400, 400]);
      return;
    }
    expectProblem(nowhere, 404, "not-found");
    expectProblem(event, 400, "no-event-data");
  });

  test("an invalid Host is a client error, and not an internal one", async () => {
    const broker = await server.createBroker();
    for (const host of ["[", "a:99999"]) {
      const { status } = await exchange(server.url, broker.path("connect?channel="), { headers: { host } });
      // The proxy of wrangler answers by itself, with 500.
      expect([host, Math.floor(status / 100)]).toEqual([host, usesWrangler(platform) ? 5 : 4]);
    }
    expect((await broker.state()).errors).toEqual([]);
  });

  test("publishing-closed: without authorize and publishToken no event is accepted", async () => {
    const broker = await server.createBroker({ publishToken: null });
    expectProblem(await publish(broker, "x"), 403, "publishing-closed");
  });

  test("Idempotency-Key: an event that is sent twice at once over two connections is delivered once", async () => {
    const broker = await server.createBroker();
    const client = await broker.join();
    const key = { "idempotency-key": "k" };
    const answers = await Promise.all([publish(broker, "once", key), publish(broker, "once", key)]);
    const third = await publish(broker, "once", key);
    await publish(broker, "last");
    await client.until(({ data }) => data.includes("last"));
    expect(client.data).toEqual(["once", "last"]);
    const { id } = client.events[1] ?? {};
    for (const { status, body } of [...answers, third]) {
      expect([status, JSON.parse(body)]).toEqual([200, { id, clients: 1 }]);
    }
    client.leave();
  });

  test('duplicateIds "reject": an EventSource comes back, others are answered 409, until the first connection has closed', async () => {
    const broker = await server.createBroker({ duplicateIds: "reject", heartbeat: 100 });
    const first = await broker.join("?id=same");
    expectProblem(await exchange(server.url, broker.path("connect?id=same")), 409, "duplicate-id");
    const reloaded = new SocketClient(server.url + broker.path("connect?id=same"));
    await reloaded.untilEnded();
    expect(reloaded.events.map(({ event, data }) => [event, data])).toEqual([
      ["fanwire-end", '{"reason":"duplicate-id","reconnect":true}'],
    ]);
    first.reset();
    await broker.untilState(({ stats }) => stats.clients === 0);
    const second = await broker.join("?id=same");
    second.leave();
  });

  test('duplicateIds "replace": the older connection ends with fanwire-end and a long retry; the newer one receives the events', async () => {
    const broker = await server.createBroker({ duplicateIds: "replace", authorize: "named" });
    const older = await broker.join("?id=same", { "x-subject": "me" });
    const other = await broker.join("?id=same", { "x-subject": "somebody else" });
    const newer = await broker.join("?id=same", { "x-subject": "me" });
    await older.untilEnded();
    expect(older.ended).toBe("complete");
    expect(JSON.parse(older.control("end")[0]?.data ?? "")).toEqual({ reason: "replaced", reconnect: false });
    expect(older.retry).toBeGreaterThan(3_600_000);
    await exchange(server.url, broker.path("broadcast?id=same"), post("x"));
    for (const client of [newer, other]) await client.until(({ data }) => data.includes("x"));
    expect(older.data).toEqual([]);
    const { ended, stats } = await broker.state();
    expect([ended, stats.clients]).toEqual([[{ clientId: "same", reason: "replaced" }], 2]);
    newer.leave();
    other.leave();
  });

  test('duplicateIds "replace": also replaces a client that never reads, and closes its stream after timeout', async () => {
    const broker = await server.createBroker({ duplicateIds: "replace", timeout: 300, tolerance: 100 });
    await broker.control("flood", { count: 1_200, bytes: 10_000 });
    const stuck = await broker.join("?id=same&from=earliest");
    stuck.pause();
    await broker.untilState(({ stats }) => stats.blocked === 1);
    const newer = await broker.join("?id=same");
    const { stats } = await broker.untilState(({ stats: now }) => now.closing === 0);
    expect(stats).toMatchObject({ clients: 1, blocked: 0, disconnects: { replaced: 1 } });
    newer.leave();
    stuck.reset();
  });

  test("disconnect({ blockFor }): answers 204, the one status that stops an EventSource, without a body", async () => {
    const broker = await server.createBroker();
    const client = await broker.join("?id=out");
    await broker.control("disconnect", { id: "out", blockFor: 60_000 });
    await client.untilEnded();
    expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "disconnected", reconnect: false });
    const again = new RawHttpClient(server.url);
    expect((await again.send(broker.path("connect?id=out"), { headers: EVENT_SOURCE }).response()).status).toBe(204);
    expect((await again.send(broker.path("broadcast"), post("x")).response()).status).toBe(200);
    await again.close();
  });

  test("errorHandler: answers every error in its own format, but an EventSource is still asked to come back", async () => {
    const broker = await server.createBroker({ errorHandler: "mine", maxClients: 0 });
    const client = new RawHttpClient(server.url);
    for (const [path, asked, status, code] of [
      ["broadcast", { method: "POST", body: "x" }, 401, "unauthorized"],
      ["broadcast", post(""), 400, "no-event-data"],
      ["broadcast?id=nobody", post("x"), 404, "unknown-client"],
      ["nowhere", {}, 404, "not-found"],
      ["connect", { method: "PUT" }, 405, "method-not-allowed"],
      ["connect", {}, 503, "at-capacity"],
    ] as const) {
      const answer = await client.send(broker.path(path), asked).response();
      expect([answer.status, answer.headers["x-mine"], JSON.parse(answer.body)]).toEqual([
        status,
        "yes",
        { mine: code },
      ]);
    }
    expectReconnectLater(await broker.joinUntilEnded(), "at-capacity", 2_000);
    await client.close();

    const late = await server.createBroker({ errorHandler: "late" });
    const answer = await exchange(server.url, late.path("nowhere"));
    expect([answer.status, answer.body]).toEqual([404, "late not-found"]);
  });

  test("errorHandler: the default response is sent if it fails or returns nothing", async () => {
    for (const name of ["throws", "rejects", "nothing"] as const) {
      const broker = await server.createBroker({ errorHandler: name });
      const client = new RawHttpClient(server.url);
      expectProblem(await client.send(broker.path("nowhere")).response(), 404, "not-found");
      expectProblem(await client.send(broker.path("broadcast"), post("")).response(), 400, "no-event-data");
      expect((await client.send(broker.path("broadcast"), post("x")).response()).status).toBe(200);
      const failed = expect.stringMatching(/^error-handler: .*inner text/);
      expect((await broker.state()).errors).toEqual(name === "nothing" ? [] : [failed, failed]);
      await client.close();
    }
  });

  const noPipelining = skipIf(
    !platform.startsWith("node"),
    "only Node starts to answer a request while a response on its socket is open",
  );
  test(
    "pipelining: requests behind a stream on its socket get no stream, and take no place",
    noPipelining,
    async () => {
      const broker = await server.createBroker();
      const client = new RawHttpClient(server.url);
      for (let count = 0; count < 50; count++)
        client.send(broker.path(`connect?id=p${count}`), { headers: EVENT_SOURCE });
      const { stats } = await broker.untilState(({ stats }) => stats.failures["at-capacity"] === 49);
      expect(stats.clients).toBe(1);
      expect((await client.response()).status).toBe(200);
      await client.close("RST");
      await broker.untilState(({ stats }) => stats.clients === 0);
      // A stream after a response that has ended is an ordinary one.
      const next = new RawHttpClient(server.url);
      expect((await next.send(broker.path("broadcast"), post("x")).response()).status).toBe(200);
      expect((await next.send(broker.path("connect"), { headers: EVENT_SOURCE }).response()).status).toBe(200);
      expect((await broker.state()).stats.clients).toBe(1);
      await next.close("RST");
    },
  );
});
