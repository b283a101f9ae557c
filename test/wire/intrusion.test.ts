import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectClear, provoke, raw } from "../support/http/hostile-requests.ts";
import { expectProblem } from "../support/http/problem.ts";
import { platforms, type Server, startServer } from "../support/servers/server.ts";

// Attempts to get past the broker by way of the server in front of it: what a target, a field or a name is to one of them and not to the other.

describe.each(platforms)("intrusion on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test("a target that begins with another host does not make a page of that host one of this", async () => {
    const stage = await server.stage({ authorize: "everybody" });
    const host = `127.0.0.1:${server.port}`;
    for (const [target, origin] of [
      [`//evil.test${stage.path("broadcast")}`, "http://evil.test"],
      [`/\\evil.test${stage.path("broadcast")}`, "http://evil.test"],
      [`/${stage.path("broadcast")}`, `http://${stage.name}`],
      [`${stage.path("broadcast")}?@evil.test/`, "http://evil.test"],
      [`${stage.path("broadcast")}#@evil.test/`, "http://evil.test"],
    ] as const) {
      const lines = [
        `POST ${target} HTTP/1.1`,
        `host: ${host}`,
        `origin: ${origin}`,
        "cookie: a=b",
        "content-length: 1",
      ];
      expectClear(platform, target, await provoke(server, target, raw(lines, "x"), true));
    }
    const page = { cookie: "a=b", origin: `http://${host}` };
    expect((await stage.ask("broadcast", { method: "POST", body: "x", headers: page })).status).toBe(200);
    expect((await stage.state()).stats.published).toBe(1);
  });

  test("fields that name another path, method, host or address count for nothing", async () => {
    const stage = await server.stage({ authorize: "everybody", publishToken: null });
    const ask = (path: string, method: string, headers: Record<string, string>) =>
      stage.ask(path, { method, body: "x", headers });
    for (const field of ["x-original-url", "x-rewrite-url", "x-forwarded-path", "x-forwarded-uri"])
      expectProblem(await ask("nowhere", "POST", { [field]: stage.path("broadcast") }), 404, "not-found");
    for (const field of ["x-http-method-override", "x-http-method", "x-method-override"])
      expectProblem(await ask("broadcast?_method=POST", "PUT", { [field]: "POST" }), 405, "method-not-allowed");
    const page = { cookie: "session=x", origin: "http://evil.test" };
    for (const field of ["x-forwarded-host", "x-host", "x-forwarded-server"])
      expectProblem(await ask("broadcast", "POST", { ...page, [field]: "evil.test" }), 403, "cross-origin");
    const forwarded = { ...page, forwarded: "host=evil.test;proto=http" };
    expectProblem(await ask("broadcast", "POST", forwarded), 403, "cross-origin");
    expect((await stage.state()).stats.published).toBe(0);
  });

  test("Last-Event-ID twice is no position: a gap is told, and nobody goes on where only one of them is", async () => {
    const stage = await server.stage();
    const first = await stage.join();
    await stage.publish("one");
    await stage.publish("two");
    await first.until(({ data }) => data.length === 2);
    const [before, after] = first.events.slice(0, 2).map(({ id }) => id ?? "");
    // One field, written in two ways.
    const twice = await stage.join("", { "last-event-id": after ?? "", "Last-Event-ID": before ?? "" });
    await twice.until(({ data }) => data.includes("two"));
    expect([twice.control("gap").length, twice.data]).toEqual([1, ["one", "two"]]);
    for (const client of [first, twice]) client.leave();
  });

  test("names that every object has are names like any other, all the way", async () => {
    const stage = await server.stage({ duplicateIds: "reject" });
    for (const name of ["__proto__", "constructor", "toString"]) {
      const one = await stage.join(`?id=${name}&channel=${name}&${name}=x`);
      const other = await stage.join("?channel=other");
      expect((await stage.ask(`connect?id=${name}`)).status).toBe(409);
      const asked = {
        method: "POST",
        body: name,
        headers: { authorization: "Bearer secret", "idempotency-key": name },
      };
      const answers = [
        await stage.ask(`broadcast?channel=${name}&type=${name}`, asked),
        await stage.ask(`broadcast?channel=${name}&type=${name}`, asked),
      ];
      expect(answers.map(({ status }) => status)).toEqual([200, 200]);
      expect(answers[0]?.body).toBe(answers[1]?.body);
      expect((await stage.publish("for one", `?id=${name}`)).status).toBe(200);
      await stage.publish("end");
      for (const client of [one, other]) await client.until(({ data }) => data.includes("end"));
      expect(one.events.slice(1).map(({ event, data }) => [event, data])).toEqual([
        [name, name],
        [undefined, "for one"],
        [undefined, "end"],
      ]);
      expect([one.headers["fanwire-client-id"], other.data]).toEqual([name, ["end"]]);
      for (const client of [one, other]) client.leave();
    }
    expect((await stage.state()).errors).toEqual([]);
  });

  test("an id is in the head as plain ASCII, and begins no field of its own", async () => {
    const stage = await server.stage();
    // The last two end in the bytes of CR and LF where a text is cut down to bytes.
    for (const id of [
      "a b",
      "\u{1f600}",
      "\u00e9",
      "\u2028",
      '";,=',
      "%0d%0a",
      "\u010d\u010ax-injected: yes",
      "\u560d\u560ax-injected: yes",
    ]) {
      const client = await stage.join(`?id=${encodeURIComponent(id)}`);
      expect(client.headers["fanwire-client-id"]).toMatch(/^[\w\-.!~*'()%]+$/);
      expect(decodeURIComponent(client.headers["fanwire-client-id"] ?? "")).toBe(id);
      expect(JSON.parse(client.control("ready")[0]?.data ?? "").clientId).toBe(id);
      expect(client.headers).not.toHaveProperty("x-injected");
      client.leave();
    }
    for (const id of ["a\r\nx-injected: yes", "a\nx-injected: yes", "\r", "a\0"]) {
      const answer = await stage.ask(`connect?id=${encodeURIComponent(id)}`);
      expectProblem(answer, 400, "bad-id");
      expect(answer.headers).not.toHaveProperty("x-injected");
    }
  });
});
