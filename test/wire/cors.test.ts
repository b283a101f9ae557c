import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Answer, Asked } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem } from "../support/http/problem.ts";
import { platforms, type Server, type Stage, startServer } from "../support/servers/server.ts";

const APP = "https://app.example";
const ELSEWHERE = "https://evil.example";
const PUBLISHER = { authorization: "Bearer secret" };
const EXPOSED = "fanwire-client-id, retry-after";

/** What `curl -X OPTIONS` would send as a browser does before a publish. */
const preflight = (origin: string, method = "POST"): Asked => ({
  method: "OPTIONS",
  headers: {
    origin,
    "access-control-request-method": method,
    "access-control-request-headers": "authorization,content-type,idempotency-key",
  },
});

/** The fields of an answer that are about other origins. */
const corsOf = ({ headers }: Pick<Answer, "headers">): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => name === "vary" || name.startsWith("access-control-")));

describe.each(platforms)("CORS on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  /** One answer of every kind to a page of this origin. `out` is an id that is turned away. */
  async function everyAnswer(
    stage: Stage,
    origin: string,
  ): Promise<(readonly [what: string, answer: Pick<Answer, "headers" | "status">])[]> {
    await stage.tell("disconnect", { id: "out", blockFor: 60_000 });
    const post = (body: string, headers: Record<string, string> = PUBLISHER): Asked => ({
      method: "POST",
      body,
      headers: { origin, ...headers },
    });
    const streams = [
      await new SocketClient(server.url + stage.path("connect"), { origin }).ready(),
      // There is room for one.
      await new SocketClient(server.url + stage.path("connect"), { origin }).end(),
    ];
    const answers = [
      ["published", await stage.ask("broadcast", post("x"))],
      ["400", await stage.ask("broadcast", post(""))],
      ["401", await stage.ask("broadcast", post("x", {}))],
      ["404", await stage.ask("broadcast?id=nobody", post("x"))],
      ["404 elsewhere", await stage.ask("nowhere", { headers: { origin } })],
      ["405", await stage.ask("connect", { method: "PUT", headers: { origin } })],
      ["413", await stage.ask("broadcast", post("x".repeat(101)))],
      ["503", await stage.ask("connect", { headers: { origin } })],
      ["204 out", await stage.ask("connect?id=out", { headers: { origin } })],
      ["HEAD", await stage.ask("connect", { method: "HEAD", headers: { origin } })],
      ["OPTIONS that is no preflight", await stage.ask("connect", { method: "OPTIONS", headers: { origin } })],
      ["stream", streams[0] as SocketClient],
      ["stream that is told to come back", streams[1] as SocketClient],
    ] as const;
    expect(answers.map(([, { status }]) => status)).toEqual([
      200, 400, 401, 404, 404, 405, 413, 503, 204, 200, 204, 200, 200,
    ]);
    for (const stream of streams) stream.leave();
    return [...answers];
  }
  const OPTIONS = { maxClients: 1, maxBodyBytes: 100, heartbeat: 100 };

  test("off: no answer has a field for other origins, a preflight included", async () => {
    const stage = await server.stage(OPTIONS);
    for (const [what, answer] of await everyAnswer(stage, APP)) expect(corsOf(answer), what).toEqual({});
    for (const path of ["connect", "broadcast"]) {
      const answer = await stage.ask(path, preflight(APP));
      expect([answer.status, corsOf(answer)]).toEqual([204, {}]);
    }
  });

  test("an origin that is named reads every answer, and another one none; all of them vary", async () => {
    const cors = { origins: ["https://first.example", APP] };
    const stage = await server.stage({ ...OPTIONS, cors });
    for (const [what, answer] of await everyAnswer(stage, APP)) {
      expect(corsOf(answer), what).toEqual({
        vary: "Origin",
        "access-control-allow-origin": APP,
        "access-control-expose-headers": EXPOSED,
      });
    }
    for (const origin of [ELSEWHERE, "null", `${APP}.evil.example`, "http://app.example", `${APP}:8443`]) {
      const other = await server.stage({ ...OPTIONS, cors });
      for (const [what, answer] of await everyAnswer(other, origin)) {
        expect(corsOf(answer), what).toEqual({ vary: "Origin" });
      }
    }
    expect(corsOf(await stage.ask("nowhere"))).toEqual({ vary: "Origin" });
  });

  test("a stream is the same with the fields of CORS on it: who does not read is blocked, who leaves is noticed", async () => {
    const stage = await server.stage({ cors: { origins: [APP] }, heartbeat: 100 });
    const open = (): Promise<SocketClient> =>
      new SocketClient(server.url + stage.path("connect"), { origin: APP }).ready();
    const [stuck, left, reset] = [await open(), await open(), await open()];
    stuck.stall();
    left.leave();
    reset.reset();
    await stage.until(({ stats }) => stats.clients === 1);
    await stage.tell("flood", { count: 1_200, bytes: 10_000 });
    await stage.until(({ stats }) => stats.blocked === 1);
    stuck.resume();
    await stuck.until(({ data }) => data.length === 1_200);
    stuck.leave();
    const { ended } = await stage.until(({ stats }) => stats.clients === 0);
    expect(ended.map(({ reason }) => reason)).toEqual(["client-left", "client-left", "client-left"]);
  });

  test("a preflight: methods, fields and how long, for an origin that is named only; it publishes and connects nothing", async () => {
    const stage = await server.stage({ cors: { origins: [APP], credentials: true, maxAge: 60 } });
    for (const [path, methods] of [
      ["broadcast", "POST, OPTIONS"],
      ["connect", "GET, HEAD, OPTIONS"],
    ] as const) {
      const answer = await stage.ask(path, preflight(APP));
      expect([answer.status, answer.headers.allow, answer.body]).toEqual([204, methods, ""]);
      expect(corsOf(answer)).toEqual({
        vary: "Origin",
        "access-control-allow-origin": APP,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": methods,
        "access-control-allow-headers": "authorization, content-type, cache-control, last-event-id, idempotency-key",
        "access-control-max-age": "60",
      });
      const other = await stage.ask(path, preflight(ELSEWHERE));
      expect([other.status, corsOf(other)]).toEqual([204, { vary: "Origin" }]);
    }
    const { stats, connected } = await stage.state();
    expect([stats.published, connected]).toEqual([0, 0]);
  });

  test("*: every origin may read, and it is not echoed", async () => {
    const stage = await server.stage({ cors: { origins: ["*"] } });
    for (const origin of [APP, "null"]) {
      const answer = await stage.ask("nowhere", { headers: { origin } });
      expect(corsOf(answer)["access-control-allow-origin"]).toBe("*");
    }
  });

  test("a Response of authorize is readable as well, a redirect included, and keeps its own fields", async () => {
    for (const [authorize, status, fields] of [
      ["answers", 402, { "x-price": "7", vary: "Cookie, Origin" }],
      ["redirects", 302, { location: "https://login.example/", vary: "Origin" }],
    ] as const) {
      const stage = await server.stage({ authorize, publishToken: null, cors: { origins: [APP], credentials: true } });
      for (const asked of [{ headers: { origin: APP } }, { method: "POST", body: "x", headers: { origin: APP } }]) {
        const answer = await stage.ask("method" in asked ? "broadcast" : "connect", asked);
        expect(answer.status).toBe(status);
        expect(answer.headers).toMatchObject({
          ...fields,
          "access-control-allow-origin": APP,
          "access-control-allow-credentials": "true",
        });
      }
    }
  });

  test("an answer of errorHandler is readable as well", async () => {
    const stage = await server.stage({ errorHandler: "mine", cors: { origins: [APP] } });
    const answer = await stage.ask("nowhere", { headers: { origin: APP } });
    expect([answer.body, corsOf(answer)["access-control-allow-origin"]]).toEqual(['{"mine":"not-found"}', APP]);
  });

  test("an event that its visitor's cookie authorises is 403 from a page of another origin, whatever it is allowed to read", async () => {
    const stage = await server.stage({
      authorize: "named",
      publishToken: null,
      cors: { origins: [APP], credentials: true },
    });
    const post = (headers: Record<string, string>): Asked => ({
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
      expectProblem(await stage.ask("broadcast?channel=everything", post(headers)), 403, "cross-origin");
    }
    for (const headers of [
      { origin: own },
      { origin: own, "sec-fetch-site": "same-origin" },
      { "sec-fetch-site": "same-origin" },
      { origin: APP, "sec-fetch-site": "cross-site" },
    ] as Record<string, string>[]) {
      expect((await stage.ask("broadcast?channel=everything", post(headers))).status).toBe(200);
    }
    expect((await stage.state()).stats.published).toBe(4);
  });
});
