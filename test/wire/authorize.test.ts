import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Asked, PlainClient } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem } from "../support/http/problem.ts";
import {
  isHub,
  onWorkerd,
  onWrangler,
  type Server,
  type Stage,
  startServer,
  withWrangler,
} from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";

const as = (role: string): Record<string, string> => ({ authorization: `Bearer ${role}` });

describe.each(withWrangler)("authorize on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  const connect = (stage: Stage, query: string, headers: Record<string, string>): Promise<SocketClient> =>
    new SocketClient(server.url + stage.path(`connect${query}`), headers).ready();

  test("401 for who presents nothing, 403 for what is not granted, reading and publishing", async () => {
    const stage = await server.stage({ authorize: "roles" });
    const post = (role: string): Asked => ({ method: "POST", body: "x", headers: as(role) });
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
      const answer = await stage.ask(path, asked);
      expectProblem(answer, status, code);
      expect(answer.headers["www-authenticate"]).toBe(status === 401 ? "Bearer" : undefined);
    }
    for (const [headers, status] of [
      [{}, 401],
      [as("stranger"), 403],
      [as("reader"), 200],
    ] as const) {
      expect((await stage.ask("connect", { method: "HEAD", headers })).status).toBe(status);
    }
    const { stats, connected } = await stage.state();
    expect([stats.published, connected]).toEqual([0, 0]);
  });

  test("a reader reads what is granted and nothing else, its replay included", async () => {
    const stage = await server.stage({ authorize: "roles" });
    await stage.publish("before, secret", "?channel=other");
    await stage.publish("before", "?channel=open");
    const reader = await connect(stage, "?from=earliest", as("reader"));
    expect(JSON.parse(reader.control("ready")[0]?.data ?? "").clientId).toBe("reader");
    await stage.publish("secret", "?channel=other");
    const asked = { method: "POST", body: "open", headers: as("publisher") };
    expect(JSON.parse((await stage.ask("broadcast?channel=open", asked)).body).clients).toBe(1);
    await stage.publish("mine", "?id=reader");
    await reader.until(({ data }) => data.includes("mine"));
    expect(reader.data).toEqual(["before", "open", "mine"]);
    // Whoever has its last id may still not read what that one could.
    const other = await stage.ask("connect", { headers: { "last-event-id": reader.lastEventId ?? "" } });
    expectProblem(other, 401, "unauthorized");
    reader.leave();
  });

  test("a Response is the answer itself, to GET, HEAD and POST", async () => {
    const stage = await server.stage({ authorize: "answers", publishToken: null });
    const client = new PlainClient(server.url);
    for (const [path, method, body] of [
      ["connect", "GET", "pay first"],
      ["connect", "HEAD", ""],
      ["broadcast", "POST", "pay first"],
    ] as const) {
      const answer = await client.ask(stage.path(path), { method, body: method === "POST" ? "x" : "" }).answer();
      expect([answer.status, answer.headers["x-price"], answer.body]).toEqual([402, "7", body]);
    }
    await client.leave();
  });

  test("a Response that came by fetch is the answer itself as well, and lets nobody in", async () => {
    const stage = await server.stage({ authorize: "relays", publishToken: null });
    const client = new PlainClient(server.url);
    for (const [path, method, body] of [
      ["connect", "HEAD", ""],
      ["broadcast", "POST", "denied"],
      ["connect", "GET", "denied"],
    ] as const) {
      const answer = await client.ask(stage.path(path), { method, body: method === "POST" ? "x" : "" }).answer();
      expect([method, answer.status, answer.body]).toEqual([method, 200, body]);
      expect(answer.headers["content-type"] ?? "").not.toContain("text/event-stream");
    }
    const { stats, connected } = await stage.state();
    expect([stats.published, connected]).toEqual([0, 0]);
    await client.leave();
  });

  test("what it throws, and what is no verdict, is 500: nobody is let in, onError has the text and the client has not", async () => {
    for (const [name, said] of [
      ["throws", /^authorize: .*inner text/],
      ["rejects", /^authorize: .*inner text/],
      ["nonsense", /^authorize: /],
      ["gives an error", /^authorize: /],
      ["gives a list", /^authorize: /],
      ["gives a map", /^authorize: /],
    ] as const) {
      const stage = await server.stage({ authorize: name, publishToken: null });
      expectProblem(await stage.ask("connect"), 500, "internal");
      expectProblem(await stage.ask("connect", { headers: { accept: "text/event-stream" } }), 500, "internal");
      expectProblem(await stage.ask("broadcast", { method: "POST", body: "x" }), 500, "internal");
      const { errors, stats, connected } = await stage.state();
      expect([name, stats.published, connected]).toEqual([name, 0, 0]);
      expect(errors).toHaveLength(3);
      for (const error of errors) expect(error).toMatch(said);
    }
  });

  test(
    "it is asked before the body: a body that never ends is answered at once, and not read",
    skipIf(onWrangler(platform), "wrangler's proxy reads the whole body first"),
    async () => {
      const closes = onWorkerd(platform) || platform.startsWith("deno");
      const open = await server.stage({ authorize: "answers", publishToken: null });
      const roles = await server.stage({ authorize: "roles", publishToken: null });
      for (const [stage, headers, status] of [
        [roles, {}, 401],
        [roles, as("reader"), 403],
        [open, {}, 402],
      ] as const) {
        const chunked = new PlainClient(server.url);
        chunked.ask(stage.path("broadcast"), {
          method: "POST",
          headers: { ...headers, "transfer-encoding": "chunked" },
        });
        chunked.chunk("half an ev");
        const sized = new PlainClient(server.url);
        sized.ask(stage.path("broadcast"), { method: "POST", headers: { ...headers, "content-length": "1000" } });
        const answers = [await chunked.answer(), await sized.answer()];
        expect(answers.map((answer) => answer.status)).toEqual([status, status]);

        // What is left of the body is skipped. Then the connection goes on, or it ends as the answer said.
        chunked.chunk("ent").chunk();
        sized.write("x".repeat(1_000));
        for (const client of [chunked, sized]) {
          if (closes) await client.end();
          else expect((await client.ask(stage.path("connect"), { method: "OPTIONS" }).answer()).status).toBe(204);
          await client.leave();
        }
        expect(answers.map((answer) => answer.headers.connection === "close")).toEqual([closes, closes]);
      }
    },
  );

  describe.each(["FIN", "RST"] as const)("who leaves by %s while it is decided", (how) => {
    // workerd tells of a FIN at the next write only, and before a stream is there is nothing to write to. Behind a proxy it is the same of a RST.
    const unnoticed = onWorkerd(platform) && (how === "FIN" || onWrangler(platform));

    test("is never registered", async () => {
      const stage = await server.stage({ authorize: "waits", heartbeat: 100 });
      const client = new PlainClient(server.url);
      client.ask(stage.path("connect?id=gone"), { headers: { accept: "text/event-stream" } });
      await stage.until(({ stats }) => stats.pending === 1);
      await client.leave(how);
      if (!unnoticed) await stage.until(({ stats }) => stats.pending === 0);
      await stage.tell("decide");
      const isOver = (ended: number): boolean => ended === (unnoticed ? 1 : 0);
      const state = await stage.until(
        ({ stats, ended }) => stats.pending === 0 && stats.clients === 0 && isOver(ended.length),
      );
      expect([state.connected, state.stats.failures]).toEqual(unnoticed ? [1, {}] : [0, { "client-left": 1 }]);
      // Nothing of it is left that counts: its inbox does not linger.
      expect((await stage.publish("x", "?id=gone")).status).toBe(unnoticed ? 200 : 404);
    });

    test(
      "is never registered if the engine's subscription was what it waited for",
      skipIf(isHub(platform), "the engine of an object cannot be replaced from outside"),
      async () => {
        const stage = await server.stage({ engine: { breakable: true }, heartbeat: 100 });
        await stage.tell("break", { subscribe: "waits" });
        const gone = new PlainClient(server.url);
        gone.ask(stage.path("connect?id=gone"));
        const stays = new SocketClient(server.url + stage.path("connect?id=stays"));
        await stage.until(({ subscribing }) => subscribing === 2);
        await gone.leave(how);
        if (!unnoticed) await stage.until(({ aborted }) => aborted === 1);
        await stage.tell("decide");
        await stays.ready();
        const { connected, ended } = await stage.until(({ stats }) => stats.clients === 1);
        expect([connected, ended.map(({ reason }) => reason)]).toEqual(unnoticed ? [2, ["client-left"]] : [1, []]);
        expect((await stage.publish("x", "?id=stays")).status).toBe(200);
        await stays.until(({ data }) => data.includes("x"));
        stays.leave();
      },
    );

    test("publishes nothing", async () => {
      const stage = await server.stage({ authorize: "waits", publishToken: null });
      const client = new PlainClient(server.url);
      client.ask(stage.path("broadcast"), { method: "POST", body: "gone" });
      await stage.until(({ stats }) => stats.pending === 1);
      await client.leave(how);
      if (!unnoticed) await stage.until(({ stats }) => stats.pending === 0);
      await stage.tell("decide");
      const { stats } = await stage.until(({ stats }) => stats.pending === 0);
      expect([stats.published, stats.failures]).toEqual(unnoticed ? [1, {}] : [0, { "client-left": 1 }]);
    });
  });

  test("expiresAt: the stream ends with fanwire-end and may come back; what was not granted any more is not sent", async () => {
    const stage = await server.stage({ authorize: "briefly", retry: 3_000 });
    await stage.publish("in time");
    const stays = await connect(stage, "?for=600000", {});
    const client = await connect(stage, "?for=300&id=brief&from=earliest", {});
    await client.end();
    await stage.publish("too late");
    await stays.until(({ data }) => data.includes("too late"));
    expect(client.ended).toBe("complete");
    expect(client.events.at(-1)).toEqual({
      id: undefined,
      event: "fanwire-end",
      data: JSON.stringify({ reason: "expired", reconnect: true }),
    });
    expect(client.retry).toBeGreaterThanOrEqual(1_500);
    expect(client.data).toEqual(["in time"]);
    const { ended, stats } = await stage.state();
    expect([ended, stats.clients]).toEqual([[{ clientId: "brief", reason: "expired" }], 1]);
    stays.leave();
  });

  test(
    "expiresAt: a client that never reads is cut off and not counted any more",
    skipIf(onWrangler(platform), "wrangler's proxy reads ahead of a client that never reads"),
    async () => {
      const stage = await server.stage({ authorize: "briefly", timeout: 60_000 });
      await stage.tell("flood", { count: 1_200, bytes: 10_000 });
      const stuck = await connect(stage, "?for=1500&id=stuck&from=earliest", {});
      stuck.stall();
      await stage.until(({ stats, ended }) => stats.blocked === 1 || ended.length === 1);
      const { ended, stats } = await stage.until(({ stats }) => stats.clients === 0);
      expect(ended).toEqual([{ clientId: "stuck", reason: "expired" }]);
      expect(stats).toMatchObject({ blocked: 0, closing: 0, ids: 0, channels: 0 });
      // What it reads now is what was in flight, and no end that it could take for a polite one.
      stuck.resume();
      await stuck.end();
      expect(stuck.ended).not.toBe("complete");
      expect([stuck.control("end"), stuck.data.length < 1_200]).toEqual([[], true]);
    },
  );

  test("expiresAt: a grant that is over already is 401", async () => {
    const stage = await server.stage({ authorize: "briefly" });
    expectProblem(await stage.ask("connect?for=-1"), 401, "unauthorized");
  });
});
