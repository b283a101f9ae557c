import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Answer, Asked } from "../support/clients/http-client.ts";
import { exchange, PlainClient } from "../support/clients/http-client.ts";
import type { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem, expectToldToComeBack } from "../support/http/problem.ts";
import {
  onWorkerd,
  onWrangler,
  type Server,
  type Stage,
  startServer,
  withWrangler,
} from "../support/servers/server.ts";

// Every situation that the HTTP face has an answer for, over sockets: what comes is what a browser or a proxy would see.

const PUBLISHER = { authorization: "Bearer secret" };
const EVENT_SOURCE = { accept: "text/event-stream" };
const post = (body: string, headers: Record<string, string> = {}): Asked => ({
  method: "POST",
  body,
  headers: { ...PUBLISHER, ...headers },
});

/** What is refused, and with what. `one` is connected; a key and an event of 600 bytes were taken before. */
const REFUSED: readonly (readonly [what: string, path: string, asked: Asked, status: number, code: string])[] = [
  ["an empty body", "broadcast", post(""), 400, "no-event-data"],
  ["no body", "broadcast", { method: "POST", headers: { ...PUBLISHER, "content-length": "0" } }, 400, "no-event-data"],
  ["a type with a newline", "broadcast?type=a%0Ab", post("x"), 400, "bad-event-type"],
  ["a reserved type", "broadcast?type=fanwire-gap", post("x"), 400, "bad-event-type"],
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
  ["a target that is not there", "broadcast?id=nobody", post("x"), 404, "unknown-client"],
  ["a path that is none", "nowhere", {}, 404, "not-found"],
  ["another method", "connect", { method: "PUT", body: "x" }, 405, "method-not-allowed"],
  ["an event by GET", "broadcast", {}, 405, "method-not-allowed"],
  ["an event that is too large", "broadcast", post("x".repeat(700)), 413, "event-too-large"],
  ["a body that is too large", "broadcast", post("x".repeat(1_001)), 413, "body-too-large"],
  ["a key of another event", "broadcast", post("y", { "idempotency-key": "used" }), 422, "key-reused"],
  ["an id with a newline", "connect?id=a%0Ab", { headers: EVENT_SOURCE }, 400, "bad-id"],
  ["two ids", "connect?id=a&id=b", { headers: EVENT_SOURCE }, 400, "bad-id"],
  ["a channel to read with CR", "connect?channel=%0D", { headers: EVENT_SOURCE }, 400, "bad-channel"],
  ["a start that is none", "connect?from=latest", { headers: EVENT_SOURCE }, 400, "bad-request"],
  ["an id that is taken", "connect?id=one", { headers: EVENT_SOURCE }, 409, "duplicate-id"],
];
/** Header fields that belong to a status, or to a code. */
const FIELDS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  unauthorized: { "www-authenticate": "Bearer" },
  "an event by GET": { allow: "POST, OPTIONS" },
  "another method": { allow: "GET, HEAD, OPTIONS" },
};

describe.each(withWrangler)("the HTTP face on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  const publish = (stage: Stage, body: string, headers: Record<string, string> = {}): Promise<Answer> =>
    exchange(server.url, stage.path("broadcast"), post(body, headers));

  /** A stage on which each of `REFUSED` is refused. */
  async function strict(): Promise<readonly [Stage, SocketClient]> {
    const stage = await server.stage({ maxEventBytes: 600, maxBodyBytes: 1_000, duplicateIds: "reject" });
    const one = await stage.join("?id=one");
    await publish(stage, "first", { "idempotency-key": "used" });
    return [stage, one];
  }

  test("published: 200 with the id that clients see and how many there are", async () => {
    const stage = await server.stage();
    const client = await stage.join();
    const answer = await publish(stage, "x");
    expect([answer.status, answer.headers["cache-control"]]).toEqual([200, "no-store"]);
    expect(answer.headers["content-type"]).toMatch(/^application\/json/);
    await client.until(() => client.data.length === 1);
    expect(JSON.parse(answer.body)).toEqual({ id: client.lastEventId, clients: 1 });
    client.leave();
  });

  test("refused: each has its status and code, publishes nothing, and leaves its connection for the next request", async () => {
    const [stage, one] = await strict();
    const client = new PlainClient(server.url);
    for (const [what, path, asked, status, code] of REFUSED) {
      const answer = await client.ask(stage.path(path), asked).answer();
      expectProblem(answer, status, code);
      expect(answer.headers, what).toMatchObject(FIELDS[code] ?? FIELDS[what] ?? {});
    }
    expect((await client.ask(stage.path("broadcast"), post("last")).answer()).status).toBe(200);
    await one.until(() => one.data.includes("last"));
    expect(one.data).toEqual(["first", "last"]);
    expect((await stage.state()).connected).toBe(1);
    await client.leave();
    one.leave();
  });

  test("refused: requests that were sent before the answer to the last one are answered in order", async () => {
    const [stage, one] = await strict();
    const client = new PlainClient(server.url);
    client.socket.cork();
    for (const [, path, asked] of REFUSED) client.ask(stage.path(path), asked);
    client.ask(stage.path("broadcast"), post("last"));
    client.socket.uncork();
    for (const [, , , status, code] of REFUSED) expectProblem(await client.answer(), status, code);
    expect((await client.answer()).status).toBe(200);
    await one.until(() => one.data.includes("last"));
    expect(one.data).toEqual(["first", "last"]);
    await client.leave();
    one.leave();
  });

  test("HEAD: the head of the answer to GET, errors included; no body, no client, and the connection goes on", async () => {
    const stage = await server.stage();
    const client = new PlainClient(server.url);
    const head = async (path: string): Promise<Answer> => client.ask(stage.path(path), { method: "HEAD" }).answer();
    const stream = await head("connect?id=me");
    expect([stream.status, stream.headers["content-type"], stream.headers["fanwire-client-id"]]).toEqual([
      200,
      "text/event-stream; charset=utf-8",
      "me",
    ]);
    expect((await head("connect?channel=")).status).toBe(400);
    expect((await head("nowhere")).status).toBe(404);
    expect((await head("broadcast")).status).toBe(405);
    expect((await client.ask(stage.path("broadcast"), post("x")).answer()).body).toContain('"clients":0');
    expect((await stage.state()).connected).toBe(0);
    await client.leave();
  });

  test("OPTIONS: 204 with Allow", async () => {
    const stage = await server.stage();
    const client = new PlainClient(server.url);
    for (const [path, allow] of [
      ["connect", "GET, HEAD, OPTIONS"],
      ["broadcast", "POST, OPTIONS"],
    ] as const) {
      const answer = await client.ask(stage.path(path), { method: "OPTIONS" }).answer();
      expect([answer.status, answer.headers.allow]).toEqual([204, allow]);
    }
    expectProblem(await client.ask(stage.path("nowhere"), { method: "OPTIONS" }).answer(), 404, "not-found");
    await client.leave();
  });

  test("HTTP/1.0 without a Host, as probes of load balancers have it, is answered like any other", async () => {
    const stage = await server.stage();
    const old = (start: string, rest = ""): Promise<Answer> =>
      new PlainClient(server.url).write(`${start} HTTP/1.0\r\n${rest}\r\n`).answer();
    const nowhere = await old(`GET ${stage.path("nowhere")}`);
    const event = await old(`POST ${stage.path("broadcast")}`, "authorization: Bearer secret\r\ncontent-length: 0\r\n");
    // workerd itself refuses it.
    if (onWorkerd(platform)) {
      expect([nowhere.status, event.status]).toEqual([400, 400]);
      return;
    }
    expectProblem(nowhere, 404, "not-found");
    expectProblem(event, 400, "no-event-data");
  });

  test("a Host that is none is the sender's fault, and no error of the inside", async () => {
    const stage = await server.stage();
    for (const host of ["[", "a:99999"]) {
      const { status } = await exchange(server.url, stage.path("connect?channel="), { headers: { host } });
      // The proxy of wrangler answers by itself, with 500.
      expect([host, Math.floor(status / 100)]).toEqual([host, onWrangler(platform) ? 5 : 4]);
    }
    expect((await stage.state()).errors).toEqual([]);
  });

  test("publishing-closed: without authorize and publishToken no event is accepted", async () => {
    const stage = await server.stage({ publishToken: null });
    expectProblem(await publish(stage, "x"), 403, "publishing-closed");
  });

  test("Idempotency-Key: sent twice at once over two connections, an event is delivered once", async () => {
    const stage = await server.stage();
    const client = await stage.join();
    const key = { "idempotency-key": "k" };
    const answers = await Promise.all([publish(stage, "once", key), publish(stage, "once", key)]);
    const third = await publish(stage, "once", key);
    await publish(stage, "last");
    await client.until(({ data }) => data.includes("last"));
    expect(client.data).toEqual(["once", "last"]);
    const { id } = client.events[1] ?? {};
    for (const { status, body } of [...answers, third]) {
      expect([status, JSON.parse(body)]).toEqual([200, { id, clients: 1 }]);
    }
    client.leave();
  });

  test("duplicateIds reject: 409 while the first is there, and not after it has left", async () => {
    const stage = await server.stage({ duplicateIds: "reject", heartbeat: 100 });
    const first = await stage.join("?id=same");
    const refused = await exchange(server.url, stage.path("connect?id=same"), { headers: EVENT_SOURCE });
    expectProblem(refused, 409, "duplicate-id");
    first.reset();
    await stage.until(({ stats }) => stats.clients === 0);
    const second = await stage.join("?id=same");
    second.leave();
  });

  test("duplicateIds replace: the older ends with fanwire-end and is not to take its place back; the newer receives", async () => {
    const stage = await server.stage({ duplicateIds: "replace", authorize: "named" });
    const older = await stage.join("?id=same", { "x-subject": "me" });
    const other = await stage.join("?id=same", { "x-subject": "somebody else" });
    const newer = await stage.join("?id=same", { "x-subject": "me" });
    await older.end();
    expect(older.ended).toBe("complete");
    expect(JSON.parse(older.control("end")[0]?.data ?? "")).toEqual({ reason: "replaced", reconnect: false });
    expect(older.retry).toBeGreaterThan(3_600_000);
    await exchange(server.url, stage.path("broadcast?id=same"), post("x"));
    for (const client of [newer, other]) await client.until(({ data }) => data.includes("x"));
    expect(older.data).toEqual([]);
    const { ended, stats } = await stage.state();
    expect([ended, stats.clients]).toEqual([[{ clientId: "same", reason: "replaced" }], 2]);
    newer.leave();
    other.leave();
  });

  test("duplicateIds replace: a client that never reads is replaced as well, and cut off", async () => {
    const stage = await server.stage({ duplicateIds: "replace", timeout: 300, tolerance: 100 });
    await stage.tell("flood", { count: 1_200, bytes: 10_000 });
    const stuck = await stage.join("?id=same&from=earliest");
    stuck.stall();
    await stage.until(({ stats }) => stats.blocked === 1);
    const newer = await stage.join("?id=same");
    const { stats } = await stage.until(({ stats: now }) => now.closing === 0);
    expect(stats).toMatchObject({ clients: 1, blocked: 0, disconnects: { replaced: 1 } });
    newer.leave();
    stuck.reset();
  });

  test("disconnect({ blockFor }): the one status that stops an EventSource, without a body", async () => {
    const stage = await server.stage();
    const client = await stage.join("?id=out");
    await stage.tell("disconnect", { id: "out", blockFor: 60_000 });
    await client.end();
    expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "disconnected", reconnect: false });
    const again = new PlainClient(server.url);
    expect((await again.ask(stage.path("connect?id=out"), { headers: EVENT_SOURCE }).answer()).status).toBe(204);
    expect((await again.ask(stage.path("broadcast"), post("x")).answer()).status).toBe(200);
    await again.leave();
  });

  test("errorHandler: answers every error in its own form, but an EventSource is told to come back still", async () => {
    const stage = await server.stage({ errorHandler: "mine", maxClients: 0 });
    const client = new PlainClient(server.url);
    for (const [path, asked, status, code] of [
      ["broadcast", { method: "POST", body: "x" }, 401, "unauthorized"],
      ["broadcast", post(""), 400, "no-event-data"],
      ["broadcast?id=nobody", post("x"), 404, "unknown-client"],
      ["nowhere", {}, 404, "not-found"],
      ["connect", { method: "PUT" }, 405, "method-not-allowed"],
      ["connect", {}, 503, "at-capacity"],
    ] as const) {
      const answer = await client.ask(stage.path(path), asked).answer();
      expect([answer.status, answer.headers["x-mine"], JSON.parse(answer.body)]).toEqual([
        status,
        "yes",
        { mine: code },
      ]);
    }
    expectToldToComeBack(await stage.knock(), "at-capacity", 2_000);
    await client.leave();

    const late = await server.stage({ errorHandler: "late" });
    const answer = await exchange(server.url, late.path("nowhere"));
    expect([answer.status, answer.body]).toEqual([404, "late not-found"]);
  });

  test("errorHandler: where it fails itself, or answers nothing, the default answer is given", async () => {
    for (const name of ["throws", "rejects", "nothing"] as const) {
      const stage = await server.stage({ errorHandler: name });
      const client = new PlainClient(server.url);
      expectProblem(await client.ask(stage.path("nowhere")).answer(), 404, "not-found");
      expectProblem(await client.ask(stage.path("broadcast"), post("")).answer(), 400, "no-event-data");
      expect((await client.ask(stage.path("broadcast"), post("x")).answer()).status).toBe(200);
      const failed = expect.stringMatching(/^error-handler: .*inner text/);
      expect((await stage.state()).errors).toEqual(name === "nothing" ? [] : [failed, failed]);
      await client.leave();
    }
  });
});
