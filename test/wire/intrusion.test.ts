// Attempts to get past the broker through the server in front of it: targets, fields and names that the two may read differently.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectClearOutcome, rawRequest, sendRaw } from "../support/http/hostile-requests.ts";
import { expectProblem } from "../support/http/problem.ts";
import { platforms, type Server, startServer } from "../support/servers/server.ts";

describe.each(platforms)("intrusion on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test("cross-origin: a target that begins with another host does not make that host the own origin", async () => {
    const broker = await server.createBroker({ authorize: "everybody" });
    const host = `127.0.0.1:${server.port}`;
    for (const [target, origin] of [
      [`//evil.test${broker.path("broadcast")}`, "http://evil.test"],
      [`/\\evil.test${broker.path("broadcast")}`, "http://evil.test"],
      [`/${broker.path("broadcast")}`, `http://${broker.name}`],
      [`${broker.path("broadcast")}?@evil.test/`, "http://evil.test"],
      [`${broker.path("broadcast")}#@evil.test/`, "http://evil.test"],
    ] as const) {
      const lines = [
        `POST ${target} HTTP/1.1`,
        `host: ${host}`,
        `origin: ${origin}`,
        "cookie: a=b",
        "content-length: 1",
      ];
      expectClearOutcome(platform, target, await sendRaw(server, target, rawRequest(lines, "x"), true));
    }
    const page = { cookie: "a=b", origin: `http://${host}` };
    expect((await broker.request("broadcast", { method: "POST", body: "x", headers: page })).status).toBe(200);
    expect((await broker.state()).stats.published).toBe(1);
  });

  test("routing: header fields that name another path, method, host or address are ignored", async () => {
    const broker = await server.createBroker({ authorize: "everybody", publishToken: null });
    const ask = (path: string, method: string, headers: Record<string, string>) =>
      broker.request(path, { method, body: "x", headers });
    for (const field of ["x-original-url", "x-rewrite-url", "x-forwarded-path", "x-forwarded-uri"])
      expectProblem(await ask("nowhere", "POST", { [field]: broker.path("broadcast") }), 404, "not-found");
    for (const field of ["x-http-method-override", "x-http-method", "x-method-override"])
      expectProblem(await ask("broadcast?_method=POST", "PUT", { [field]: "POST" }), 405, "method-not-allowed");
    const page = { cookie: "session=x", origin: "http://evil.test" };
    for (const field of ["x-forwarded-host", "x-host", "x-forwarded-server"])
      expectProblem(await ask("broadcast", "POST", { ...page, [field]: "evil.test" }), 403, "cross-origin");
    const forwarded = { ...page, forwarded: "host=evil.test;proto=http" };
    expectProblem(await ask("broadcast", "POST", forwarded), 403, "cross-origin");
    expect((await broker.state()).stats.published).toBe(0);
  });

  test("Last-Event-ID: two of them are not a position; the client receives a gap, and continues at neither of them", async () => {
    const broker = await server.createBroker();
    const first = await broker.join();
    await broker.publish("one");
    await broker.publish("two");
    await first.until(({ data }) => data.length === 2);
    const [before, after] = first.events.slice(0, 2).map(({ id }) => id ?? "");
    // The same field, with its name written in two ways.
    const twice = await broker.join("", { "last-event-id": after ?? "", "Last-Event-ID": before ?? "" });
    await twice.until(({ data }) => data.includes("two"));
    expect([twice.control("gap").length, twice.data]).toEqual([1, ["one", "two"]]);
    for (const client of [first, twice]) client.leave();
  });

  test("names: names of object properties, such as __proto__, work like any other name", async () => {
    const broker = await server.createBroker({ duplicateIds: "reject" });
    for (const name of ["__proto__", "constructor", "toString"]) {
      const one = await broker.join(`?id=${name}&channel=${name}&${name}=x`);
      const other = await broker.join("?channel=other");
      expect((await broker.request(`connect?id=${name}`)).status).toBe(409);
      const asked = {
        method: "POST",
        body: name,
        headers: { authorization: "Bearer secret", "idempotency-key": name },
      };
      const answers = [
        await broker.request(`broadcast?channel=${name}&type=${name}`, asked),
        await broker.request(`broadcast?channel=${name}&type=${name}`, asked),
      ];
      expect(answers.map(({ status }) => status)).toEqual([200, 200]);
      expect(answers[0]?.body).toBe(answers[1]?.body);
      expect((await broker.publish("for one", `?id=${name}`)).status).toBe(200);
      await broker.publish("end");
      for (const client of [one, other]) await client.until(({ data }) => data.includes("end"));
      expect(one.events.slice(1).map(({ event, data }) => [event, data])).toEqual([
        [name, name],
        [undefined, "for one"],
        [undefined, "end"],
      ]);
      expect([one.headers["fanwire-client-id"], other.data]).toEqual([name, ["end"]]);
      for (const client of [one, other]) client.leave();
    }
    expect((await broker.state()).errors).toEqual([]);
  });

  test("fanwire-client-id: the id is sent as plain ASCII, and cannot begin a header field of its own", async () => {
    const broker = await server.createBroker();
    // Cut down to bytes, the last two contain CR and LF.
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
      const client = await broker.join(`?id=${encodeURIComponent(id)}`);
      expect(client.headers["fanwire-client-id"]).toMatch(/^[\w\-.!~*'()%]+$/);
      expect(decodeURIComponent(client.headers["fanwire-client-id"] ?? "")).toBe(id);
      expect(JSON.parse(client.control("ready")[0]?.data ?? "").clientId).toBe(id);
      expect(client.headers).not.toHaveProperty("x-injected");
      client.leave();
    }
    for (const id of ["a\r\nx-injected: yes", "a\nx-injected: yes", "\r", "a\0"]) {
      const answer = await broker.request(`connect?id=${encodeURIComponent(id)}`);
      expectProblem(answer, 400, "bad-id");
      expect(answer.headers).not.toHaveProperty("x-injected");
    }
  });
});
