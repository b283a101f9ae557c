// CORS over sockets: every kind of response, preflights, and cross-origin requests with cookies.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { HttpRequestOptions, HttpResponse } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem } from "../support/http/problem.ts";
import { platforms, type Server, startServer, type TestBroker } from "../support/servers/server.ts";

const APP = "https://app.example";
const ELSEWHERE = "https://evil.example";
const PUBLISHER = { authorization: "Bearer secret" };
const EXPOSED = "fanwire-client-id, retry-after";

/** Returns a preflight as a browser sends it before a publish. */
const preflight = (origin: string, method = "POST"): HttpRequestOptions => ({
  method: "OPTIONS",
  headers: {
    origin,
    "access-control-request-method": method,
    "access-control-request-headers": "authorization,content-type,idempotency-key",
  },
});

/** Returns the CORS header fields of a response, and `vary`. */
const corsOf = ({ headers }: Pick<HttpResponse, "headers">): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => name === "vary" || name.startsWith("access-control-")));

describe.each(platforms)("CORS on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  /** Requests one response of every kind for a page of this origin. The client id `out` is barred. */
  async function everyAnswer(
    broker: TestBroker,
    origin: string,
  ): Promise<(readonly [what: string, answer: Pick<HttpResponse, "headers" | "status">])[]> {
    await broker.control("disconnect", { id: "out", blockFor: 60_000 });
    const post = (body: string, headers: Record<string, string> = PUBLISHER): HttpRequestOptions => ({
      method: "POST",
      body,
      headers: { origin, ...headers },
    });
    const streams = [
      await new SocketClient(server.url + broker.path("connect"), { origin }).untilReady(),
      // Refused, because maxClients is 1.
      await new SocketClient(server.url + broker.path("connect"), { origin }).untilEnded(),
    ];
    const answers = [
      ["published", await broker.request("broadcast", post("x"))],
      ["400", await broker.request("broadcast", post(""))],
      ["401", await broker.request("broadcast", post("x", {}))],
      ["404", await broker.request("broadcast?id=nobody", post("x"))],
      ["404 elsewhere", await broker.request("nowhere", { headers: { origin } })],
      ["405", await broker.request("connect", { method: "PUT", headers: { origin } })],
      ["413", await broker.request("broadcast", post("x".repeat(101)))],
      ["503", await broker.request("connect", { headers: { origin } })],
      ["204 barred", await broker.request("connect?id=out", { headers: { origin } })],
      ["HEAD", await broker.request("connect", { method: "HEAD", headers: { origin } })],
      ["OPTIONS without preflight fields", await broker.request("connect", { method: "OPTIONS", headers: { origin } })],
      ["stream", streams[0] as SocketClient],
      ["stream that asks to come back", streams[1] as SocketClient],
    ] as const;
    expect(answers.map(([, { status }]) => status)).toEqual([
      200, 400, 401, 404, 404, 405, 413, 503, 204, 200, 204, 200, 200,
    ]);
    for (const stream of streams) stream.leave();
    return [...answers];
  }
  const OPTIONS = { maxClients: 1, maxBodyBytes: 100, heartbeat: 100 };

  test("cors: without the option no response has a CORS field, a preflight included", async () => {
    const broker = await server.createBroker(OPTIONS);
    for (const [what, answer] of await everyAnswer(broker, APP)) expect(corsOf(answer), what).toEqual({});
    for (const path of ["connect", "broadcast"]) {
      const answer = await broker.request(path, preflight(APP));
      expect([answer.status, corsOf(answer)]).toEqual([204, {}]);
    }
  });

  test("cors: a listed origin may read every response, any other origin none, and all responses vary by origin", async () => {
    const cors = { origins: ["https://first.example", APP] };
    const broker = await server.createBroker({ ...OPTIONS, cors });
    for (const [what, answer] of await everyAnswer(broker, APP)) {
      expect(corsOf(answer), what).toEqual({
        vary: "Origin",
        "access-control-allow-origin": APP,
        "access-control-expose-headers": EXPOSED,
      });
    }
    for (const origin of [ELSEWHERE, "null", `${APP}.evil.example`, "http://app.example", `${APP}:8443`]) {
      const other = await server.createBroker({ ...OPTIONS, cors });
      for (const [what, answer] of await everyAnswer(other, origin)) {
        expect(corsOf(answer), what).toEqual({ vary: "Origin" });
      }
    }
    expect(corsOf(await broker.request("nowhere"))).toEqual({ vary: "Origin" });
  });

  test("cors: a stream behaves the same with CORS fields: a client that does not read is blocked, and one that leaves is noticed", async () => {
    const broker = await server.createBroker({ cors: { origins: [APP] }, heartbeat: 100 });
    const open = (): Promise<SocketClient> =>
      new SocketClient(server.url + broker.path("connect"), { origin: APP }).untilReady();
    const [stuck, left, reset] = [await open(), await open(), await open()];
    stuck.pause();
    left.leave();
    reset.reset();
    await broker.untilState(({ stats }) => stats.clients === 1);
    await broker.control("flood", { count: 1_200, bytes: 10_000 });
    await broker.untilState(({ stats }) => stats.blocked === 1);
    stuck.resume();
    await stuck.until(({ data }) => data.length === 1_200);
    stuck.leave();
    const { ended } = await broker.untilState(({ stats }) => stats.clients === 0);
    expect(ended.map(({ reason }) => reason)).toEqual(["client-left", "client-left", "client-left"]);
  });

  test("cors: a preflight lists methods, header fields and maxAge for a listed origin only, and neither publishes nor connects", async () => {
    const broker = await server.createBroker({ cors: { origins: [APP], credentials: true, maxAge: 60 } });
    for (const [path, methods] of [
      ["broadcast", "POST, OPTIONS"],
      ["connect", "GET, HEAD, POST, OPTIONS"],
    ] as const) {
      const answer = await broker.request(path, preflight(APP));
      expect([answer.status, answer.headers.allow, answer.body]).toEqual([204, methods, ""]);
      expect(corsOf(answer)).toEqual({
        vary: "Origin",
        "access-control-allow-origin": APP,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": methods,
        "access-control-allow-headers": "authorization, content-type, cache-control, last-event-id, idempotency-key",
        "access-control-max-age": "60",
      });
      const other = await broker.request(path, preflight(ELSEWHERE));
      expect([other.status, corsOf(other)]).toEqual([204, { vary: "Origin" }]);
    }
    const { stats, connected } = await broker.state();
    expect([stats.published, connected]).toEqual([0, 0]);
  });

  test('cors: with "*" every origin may read, and the origin is not echoed', async () => {
    const broker = await server.createBroker({ cors: { origins: ["*"] } });
    for (const origin of [APP, "null"]) {
      const answer = await broker.request("nowhere", { headers: { origin } });
      expect(corsOf(answer)["access-control-allow-origin"]).toBe("*");
    }
  });

  test("cors: a Response of authorize is readable too, a redirect included, and keeps its own header fields", async () => {
    for (const [authorize, status, fields] of [
      ["answers", 402, { "x-price": "7", vary: "Cookie, Origin" }],
      ["redirects", 302, { location: "https://login.example/", vary: "Origin" }],
    ] as const) {
      const broker = await server.createBroker({
        authorize,
        publishToken: null,
        cors: { origins: [APP], credentials: true },
      });
      for (const asked of [{ headers: { origin: APP } }, { method: "POST", body: "x", headers: { origin: APP } }]) {
        const answer = await broker.request("method" in asked ? "broadcast" : "connect", asked);
        expect(answer.status).toBe(status);
        expect(answer.headers).toMatchObject({
          ...fields,
          "access-control-allow-origin": APP,
          "access-control-allow-credentials": "true",
        });
      }
    }
  });

  test("cors: a response of errorHandler is readable too", async () => {
    const broker = await server.createBroker({ errorHandler: "mine", cors: { origins: [APP] } });
    const answer = await broker.request("nowhere", { headers: { origin: APP } });
    expect([answer.body, corsOf(answer)["access-control-allow-origin"]]).toEqual(['{"mine":"not-found"}', APP]);
  });

  test("broadcast: an event with a cookie is 403 from a page of another origin, unless cors lists the origin with credentials", async () => {
    const broker = await server.createBroker({
      authorize: "named",
      publishToken: null,
      cors: { origins: [APP], credentials: true },
    });
    const post = (headers: Record<string, string>): HttpRequestOptions => ({
      method: "POST",
      body: "x",
      headers: { cookie: "session=1", ...headers },
    });
    const own = `http://127.0.0.1:${server.port}`;
    for (const headers of [
      { origin: ELSEWHERE },
      { origin: ELSEWHERE, "sec-fetch-site": "cross-site" },
      { origin: "null" },
      { "sec-fetch-site": "same-site" },
      { "sec-fetch-site": "none" },
      { origin: `${own}.evil.example` },
      {},
    ] as Record<string, string>[]) {
      expectProblem(await broker.request("broadcast?channel=everything", post(headers)), 403, "cross-origin");
    }
    for (const headers of [
      { origin: own },
      { origin: own, "sec-fetch-site": "same-origin" },
      { "sec-fetch-site": "same-origin" },
      { origin: APP, "sec-fetch-site": "cross-site" },
    ] as Record<string, string>[]) {
      expect((await broker.request("broadcast?channel=everything", post(headers))).status).toBe(200);
    }
    expect((await broker.state()).stats.published).toBe(4);
  });
});
