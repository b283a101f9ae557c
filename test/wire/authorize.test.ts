// Authorization over sockets: status codes, what a client may read, clients that leave before the decision, and grants that expire.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type HttpRequestOptions, RawHttpClient } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem } from "../support/http/problem.ts";
import {
  isHub,
  platformsWithWrangler,
  type Server,
  startServer,
  type TestBroker,
  usesWorkerd,
  usesWrangler,
} from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";

const as = (role: string): Record<string, string> => ({ authorization: `Bearer ${role}` });

describe.each(platformsWithWrangler)("authorize on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  const connect = (broker: TestBroker, query: string, headers: Record<string, string>): Promise<SocketClient> =>
    new SocketClient(server.url + broker.path(`connect${query}`), headers).untilReady();

  test("connect and broadcast: 401 for a request without credentials, 403 for access that is not granted", async () => {
    const broker = await server.createBroker({ authorize: "roles" });
    const post = (role: string): HttpRequestOptions => ({ method: "POST", body: "x", headers: as(role) });
    for (const [path, asked, status, code] of [
      ["connect", {}, 401, "unauthorized"],
      ["connect", { headers: { accept: "text/event-stream" } }, 401, "unauthorized"],
      ["connect", { headers: as("stranger") }, 403, "forbidden"],
      ["connect", { headers: as("publisher") }, 403, "forbidden"],
      ["connect?channel=other", { headers: as("reader") }, 403, "forbidden"],
      ["connect?channel=open&channel=other", { headers: as("reader") }, 403, "forbidden"],
      ["connect?id=somebody", { headers: as("reader") }, 403, "forbidden"],
      ["broadcast?channel=open", { method: "POST", body: "x" }, 401, "unauthorized"],
      ["broadcast?channel=open", post("reader"), 403, "forbidden"],
      ["broadcast?channel=open", post("stranger"), 403, "forbidden"],
      ["broadcast", post("publisher"), 403, "forbidden"],
      ["broadcast?channel=other", post("publisher"), 403, "forbidden"],
      ["broadcast?channel=open&channel=other", post("publisher"), 403, "forbidden"],
      ["broadcast?id=reader", post("publisher"), 403, "forbidden"],
    ] as const) {
      const answer = await broker.request(path, asked);
      expectProblem(answer, status, code);
      expect(answer.headers["www-authenticate"]).toBe(status === 401 ? "Bearer" : undefined);
    }
    for (const [headers, status] of [
      [{}, 401],
      [as("stranger"), 403],
      [as("reader"), 200],
    ] as const) {
      expect((await broker.request("connect", { method: "HEAD", headers })).status).toBe(status);
    }
    const { stats, connected } = await broker.state();
    expect([stats.published, connected]).toEqual([0, 0]);
  });

  test("connect: a reader receives what it was granted and nothing else, also in the replay", async () => {
    const broker = await server.createBroker({ authorize: "roles" });
    await broker.publish("before, secret", "?channel=other");
    await broker.publish("before", "?channel=open");
    const reader = await connect(broker, "?from=earliest", as("reader"));
    expect(JSON.parse(reader.control("ready")[0]?.data ?? "").clientId).toBe("reader");
    await broker.publish("secret", "?channel=other");
    const asked = { method: "POST", body: "open", headers: as("publisher") };
    expect(JSON.parse((await broker.request("broadcast?channel=open", asked)).body).clients).toBe(1);
    await broker.publish("mine", "?id=reader");
    await reader.until(({ data }) => data.includes("mine"));
    expect(reader.data).toEqual(["before", "open", "mine"]);
    // The last id of a client does not give its rights to another one.
    const other = await broker.request("connect", { headers: { "last-event-id": reader.lastEventId ?? "" } });
    expectProblem(other, 401, "unauthorized");
    reader.leave();
  });

  test("authorize: a Response is sent as it is, for GET, HEAD and POST", async () => {
    const broker = await server.createBroker({ authorize: "answers", publishToken: null });
    const client = new RawHttpClient(server.url);
    for (const [path, method, body] of [
      ["connect", "GET", "pay first"],
      ["connect", "HEAD", ""],
      ["broadcast", "POST", "pay first"],
    ] as const) {
      const answer = await client.send(broker.path(path), { method, body: method === "POST" ? "x" : "" }).response();
      expect([answer.status, answer.headers["x-price"], answer.body]).toEqual([402, "7", body]);
    }
    await client.close();
  });

  test("authorize: a Response from fetch() is sent as it is too, and grants nothing", async () => {
    const broker = await server.createBroker({ authorize: "relays", publishToken: null });
    const client = new RawHttpClient(server.url);
    for (const [path, method, body] of [
      ["connect", "HEAD", ""],
      ["broadcast", "POST", "denied"],
      ["connect", "GET", "denied"],
    ] as const) {
      const answer = await client.send(broker.path(path), { method, body: method === "POST" ? "x" : "" }).response();
      expect([method, answer.status, answer.body]).toEqual([method, 200, body]);
      expect(answer.headers["content-type"] ?? "").not.toContain("text/event-stream");
    }
    const { stats, connected } = await broker.state();
    expect([stats.published, connected]).toEqual([0, 0]);
    await client.close();
  });

  test("authorize: an error and an invalid result are 500, grant nothing, and their text goes to onError only", async () => {
    for (const [name, said] of [
      ["throws", /^authorize: .*inner text/],
      ["rejects", /^authorize: .*inner text/],
      ["nonsense", /^authorize: /],
      ["gives an error", /^authorize: /],
      ["gives a list", /^authorize: /],
      ["gives a map", /^authorize: /],
    ] as const) {
      const broker = await server.createBroker({ authorize: name, publishToken: null });
      expectProblem(await broker.request("connect"), 500, "internal");
      expectProblem(await broker.request("connect", { headers: { accept: "text/event-stream" } }), 500, "internal");
      expectProblem(await broker.request("broadcast", { method: "POST", body: "x" }), 500, "internal");
      const { errors, stats, connected } = await broker.state();
      expect([name, stats.published, connected]).toEqual([name, 0, 0]);
      expect(errors).toHaveLength(3);
      for (const error of errors) expect(error).toMatch(said);
    }
  });

  test(
    "authorize: runs before the body, so a body that never ends is answered at once and not read",
    skipIf(usesWrangler(platform), "wrangler's proxy reads the whole body first"),
    async () => {
      const closes = usesWorkerd(platform) || platform.startsWith("deno");
      const open = await server.createBroker({ authorize: "answers", publishToken: null });
      const roles = await server.createBroker({ authorize: "roles", publishToken: null });
      for (const [broker, headers, status] of [
        [roles, {}, 401],
        [roles, as("reader"), 403],
        [open, {}, 402],
      ] as const) {
        const chunked = new RawHttpClient(server.url);
        chunked.send(broker.path("broadcast"), {
          method: "POST",
          headers: { ...headers, "transfer-encoding": "chunked" },
        });
        chunked.chunk("half an ev");
        const sized = new RawHttpClient(server.url);
        sized.send(broker.path("broadcast"), { method: "POST", headers: { ...headers, "content-length": "1000" } });
        const answers = [await chunked.response(), await sized.response()];
        expect(answers.map((answer) => answer.status)).toEqual([status, status]);

        // The server skips the rest of the body. Then the connection stays usable, or it closes as the response said.
        chunked.chunk("ent").chunk();
        sized.write("x".repeat(1_000));
        for (const client of [chunked, sized]) {
          if (closes) await client.untilClosed();
          else expect((await client.send(broker.path("connect"), { method: "OPTIONS" }).response()).status).toBe(204);
          await client.close();
        }
        expect(answers.map((answer) => answer.headers.connection === "close")).toEqual([closes, closes]);
      }
    },
  );

  describe.each(["FIN", "RST"] as const)("a client that leaves by %s while authorize runs", (how) => {
    // workerd notices a FIN only at its next write, and there is nothing to write to before there is a stream. Behind a proxy the same is true of an RST.
    const unnoticed = usesWorkerd(platform) && (how === "FIN" || usesWrangler(platform));

    test("connect: the client is never registered", async () => {
      const broker = await server.createBroker({ authorize: "waits", heartbeat: 100 });
      const client = new RawHttpClient(server.url);
      client.send(broker.path("connect?id=gone"), { headers: { accept: "text/event-stream" } });
      await broker.untilState(({ stats }) => stats.pending === 1);
      await client.close(how);
      if (!unnoticed) await broker.untilState(({ stats }) => stats.pending === 0);
      await broker.control("decide");
      const isOver = (ended: number): boolean => ended === (unnoticed ? 1 : 0);
      const state = await broker.untilState(
        ({ stats, ended }) => stats.pending === 0 && stats.clients === 0 && isOver(ended.length),
      );
      expect([state.connected, state.stats.failures]).toEqual(unnoticed ? [1, {}] : [0, { "client-left": 1 }]);
      // The client leaves nothing behind: its inbox does not linger.
      expect((await broker.publish("x", "?id=gone")).status).toBe(unnoticed ? 200 : 404);
    });

    test(
      "connect: the client is never registered if it waits for the engine's subscription",
      skipIf(isHub(platform), "the engine of an object cannot be replaced from outside"),
      async () => {
        const broker = await server.createBroker({ engine: { breakable: true }, heartbeat: 100 });
        await broker.control("break", { subscribe: "waits" });
        const gone = new RawHttpClient(server.url);
        gone.send(broker.path("connect?id=gone"));
        const stays = new SocketClient(server.url + broker.path("connect?id=stays"));
        await broker.untilState(({ subscribing }) => subscribing === 2);
        await gone.close(how);
        if (!unnoticed) await broker.untilState(({ aborted }) => aborted === 1);
        await broker.control("decide");
        await stays.untilReady();
        const { connected, ended } = await broker.untilState(
          ({ stats, connected: total }) => stats.clients === 1 && total === (unnoticed ? 2 : 1),
        );
        expect([connected, ended.map(({ reason }) => reason)]).toEqual(unnoticed ? [2, ["client-left"]] : [1, []]);
        expect((await broker.publish("x", "?id=stays")).status).toBe(200);
        await stays.until(({ data }) => data.includes("x"));
        stays.leave();
      },
    );

    test("broadcast: the event is not published", async () => {
      const broker = await server.createBroker({ authorize: "waits", publishToken: null });
      const client = new RawHttpClient(server.url);
      client.send(broker.path("broadcast"), { method: "POST", body: "gone" });
      await broker.untilState(({ stats }) => stats.pending === 1);
      await client.close(how);
      if (!unnoticed) await broker.untilState(({ stats }) => stats.pending === 0);
      await broker.control("decide");
      const { stats } = await broker.untilState(({ stats }) => stats.pending === 0);
      expect([stats.published, stats.failures]).toEqual(unnoticed ? [1, {}] : [0, { "client-left": 1 }]);
    });
  });

  test("expiresAt: the stream ends with fanwire-end, the client may reconnect, and later events are not sent", async () => {
    const broker = await server.createBroker({ authorize: "briefly", retry: 3_000 });
    await broker.publish("in time");
    const stays = await connect(broker, "?for=600000", {});
    const client = await connect(broker, "?for=300&id=brief&from=earliest", {});
    await client.untilEnded();
    await broker.publish("too late");
    await stays.until(({ data }) => data.includes("too late"));
    expect(client.ended).toBe("complete");
    expect(client.events.at(-1)).toEqual({
      id: undefined,
      event: "fanwire-end",
      data: JSON.stringify({ reason: "expired", reconnect: true }),
    });
    expect(client.retry).toBeGreaterThanOrEqual(1_500);
    expect(client.data).toEqual(["in time"]);
    const { ended, stats } = await broker.state();
    expect([ended, stats.clients]).toEqual([[{ clientId: "brief", reason: "expired" }], 1]);
    stays.leave();
  });

  test(
    "expiresAt: a client that never reads is disconnected and no longer counted",
    skipIf(usesWrangler(platform), "wrangler's proxy reads ahead of a client that never reads"),
    async () => {
      const broker = await server.createBroker({ authorize: "briefly", timeout: 60_000 });
      await broker.control("flood", { count: 1_200, bytes: 10_000 });
      const stuck = await connect(broker, "?for=1500&id=stuck&from=earliest", {});
      stuck.pause();
      await broker.untilState(({ stats, ended }) => stats.blocked === 1 || ended.length === 1);
      const { ended, stats } = await broker.untilState(({ stats }) => stats.clients === 0);
      expect(ended).toEqual([{ clientId: "stuck", reason: "expired" }]);
      expect(stats).toMatchObject({ blocked: 0, closing: 0, ids: 0, channels: 0 });
      // From now on it reads only data that was in flight, without an end event.
      stuck.resume();
      await stuck.untilEnded();
      expect([stuck.control("end"), stuck.data.length < 1_200]).toEqual([[], true]);
    },
  );

  test("expiresAt: an expired grant is 401", async () => {
    const broker = await server.createBroker({ authorize: "briefly" });
    expectProblem(await broker.request("connect?for=-1"), 401, "unauthorized");
  });
});
