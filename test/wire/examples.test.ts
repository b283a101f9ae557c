// The examples as they are started by a user: their page, their curl line, their sessions and tickets, and how they end.
import { once } from "node:events";
import { afterEach, describe, expect, test } from "vitest";
import { answerTo } from "../../examples/bun/answers.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import {
  type Example,
  examples,
  honoExamples,
  llmExamples,
  type RunningExample,
  startExample,
} from "../support/servers/example.ts";
import { skipIf } from "../support/skip.ts";

/** Reasons of the end events at shutdown. A Worker does not notice that its process ends; its clients come back by themselves. */
const endReasons = (name: Example): string[] => (name.startsWith("workers") ? [] : ["closing"]);

describe.each(examples)("examples/%s", (name) => {
  let running: RunningExample;
  afterEach(() => running.child.kill("SIGKILL"));

  async function start(env: Record<string, string>, last: RegExp): Promise<RunningExample> {
    running = await startExample(name, env, last);
    return running;
  }

  test("start: prints its URL and a curl line that works, and serves the page", async () => {
    const { output, url } = await start({}, /curl .*\n/);
    expect(await (await fetch(url)).text()).toContain("<html");

    const client = await new SocketClient(`${url}connect`).untilReady();
    // Splits the printed line as a shell would.
    const [, header = "", data = "", target = ""] = /^curl -H "(.*)" -d "(.*)" (\S+)$/m.exec(output) ?? [];
    const [field = "", value = ""] = header.split(": ");
    const answer = await fetch(target, { method: "POST", headers: { [field]: value }, body: data });
    expect([answer.status, await answer.json()]).toEqual([200, { id: expect.any(String), clients: 1 }]);
    await client.until(() => client.data.includes(data));
    expect((await fetch(target, { method: "POST", body: data })).status).toBe(401);
  });

  test("PUBLISH_TOKEN: is read from the environment, and not printed", async () => {
    const { output, url } = await start({ PUBLISH_TOKEN: "of my own" }, /http:\S+\s/);
    const answer = await fetch(`${url}broadcast`, {
      method: "POST",
      headers: { authorization: "Bearer of my own" },
      body: "x",
    });
    expect(answer.status).toBe(200);
    expect(output).not.toContain("of my own");
  });

  test("SIGTERM: the process ends by itself, with a client that reads and one that never reads", async () => {
    const { child, url } = await start({ PUBLISH_TOKEN: "t" }, /http:\S+\s/);
    const reads = await new SocketClient(`${url}connect`).untilReady();
    const stuck = await new SocketClient(`${url}connect`).untilReady();
    stuck.pause();
    const blocked = async (): Promise<number> =>
      ((await (await fetch(`${url}stats`)).json()) as { blocked: number }).blocked;
    while ((await blocked()) === 0) {
      await fetch(`${url}broadcast`, {
        method: "POST",
        headers: { authorization: "Bearer t" },
        body: "x".repeat(60_000),
      });
    }
    child.kill("SIGTERM");
    const [code, signal] = await once(child, "exit");
    expect([code, signal]).toEqual([0, null]);
    await expect(fetch(url)).rejects.toThrow();
    await reads.untilEnded();
    expect(reads.control("end").map(({ data }) => JSON.parse(data).reason)).toEqual(endReasons(name));
    stuck.reset();
  });
});

describe.each(honoExamples)("examples: %s", (name) => {
  let running: RunningExample;
  afterEach(() => running.child.kill("SIGKILL"));

  async function start(env: Record<string, string> = {}): Promise<RunningExample> {
    running = await startExample(name, { PUBLISH_TOKEN: "t", ...env }, /http:\S+\s/);
    return running;
  }

  const post = (path: string, headers: Record<string, string> = {}, body = ""): Promise<Response> =>
    fetch(running.url + path, { method: "POST", headers, body });
  const say = (text: string, cookie: string): Promise<Response> =>
    post("say", { cookie, "content-type": "application/json" }, JSON.stringify({ text }));

  /** Signs in. Returns the session cookie. */
  async function signIn(user = "anna"): Promise<string> {
    const answer = await post("login", { "content-type": "application/json" }, JSON.stringify({ user }));
    expect(answer.status).toBe(200);
    return (answer.headers.getSetCookie()[0] ?? "").split(";")[0] ?? "";
  }

  async function ticketFor(headers: Record<string, string>): Promise<string> {
    const { ticket } = (await (await post("ticket", headers)).json()) as { ticket: string };
    return ticket;
  }

  /** Returns the status of an EventSource request, and closes the stream at once. */
  async function statusOf(query: string, headers: Record<string, string> = {}): Promise<number> {
    const answer = await fetch(`${running.url}events/connect${query}`, {
      headers: { accept: "text/event-stream", ...headers },
    });
    await answer.body?.cancel();
    return answer.status;
  }

  test("start: prints its URL and a curl line that works, and serves the page", async () => {
    running = await startExample(name, {}, /curl .*\n/);
    expect(await (await fetch(running.url)).text()).toContain("<html");

    const cookie = await signIn();
    const client = await new SocketClient(`${running.url}events/connect`, { cookie }).untilReady();
    const [, header = "", data = "", target = ""] = /^curl -H "(.*)" -d "(.*)" (\S+)$/m.exec(running.output) ?? [];
    const [field = "", value = ""] = header.split(": ");
    expect((await fetch(target, { method: "POST", headers: { [field]: value }, body: data })).status).toBe(200);
    await client.until(() => client.data.includes(data));
    expect((await fetch(target, { method: "POST", body: data })).status).toBe(403);
  });

  test("PUBLISH_TOKEN: is read from the environment, and not printed", async () => {
    const { output } = await start({ PUBLISH_TOKEN: "of my own" });
    expect((await post("events/broadcast", { authorization: "Bearer of my own" }, "x")).status).toBe(200);
    expect(output).not.toContain("of my own");
  });

  test("session cookie: scripts cannot read it, other sites cannot send it, and nothing is readable without it", async () => {
    await start();
    const login = await post("login", { "content-type": "application/json" }, '{"user":"anna"}');
    const [field = ""] = login.headers.getSetCookie();
    const [cookie = "", ...attributes] = field.split("; ");
    expect(attributes).toEqual(expect.arrayContaining(["HttpOnly", "SameSite=Strict", "Path=/"]));
    expect(cookie.split("=")[1]?.length).toBeGreaterThanOrEqual(22);

    expect([await statusOf(""), await statusOf("", { cookie: "fanwire-session=guess" })]).toEqual([401, 401]);
    expect((await say("hello", "fanwire-session=guess")).status).toBe(401);
    const client = await new SocketClient(`${running.url}events/connect`, { cookie }).untilReady();
    expect(client.headers["fanwire-client-id"]).toBe("anna");
    expect((await say("hello", cookie)).status).toBe(200);
    await client.until(() => client.data.includes("anna: hello"));
    expect([await statusOf("?id=ben", { cookie }), await statusOf("?channel=x", { cookie })]).toEqual([403, 403]);
    expect((await post("events/broadcast", { cookie }, "x")).status).toBe(403);
  });

  const atHome = skipIf(name.startsWith("workers"), "the sessions of the Worker are in its storage, and not in memory");
  test(
    "login: many sessions of others end nobody's, and many of one user end only that user's oldest",
    atHome,
    async () => {
      await start();
      const [anna, first] = [await signIn("anna"), await signIn("ben")];
      for (let count = 0; count < 10; count++) await signIn("ben");
      expect([await statusOf("", { cookie: first }), await statusOf("", { cookie: anna })]).toEqual([401, 200]);

      const statuses = new Set<number>();
      for (let round = 0; round < 402; round++) {
        const logins = Array.from({ length: 25 }, (_, index) =>
          post("login", { "content-type": "application/json" }, JSON.stringify({ user: `user-${round}-${index}` })),
        );
        for (const { status } of await Promise.all(logins)) statuses.add(status);
      }
      expect([...statuses]).toEqual([200, 503]);
      expect(await statusOf("", { cookie: anna })).toBe(200);
    },
  );

  test("login: refuses a body that is not sent as JSON, because any page could send it", async () => {
    await start();
    for (const type of ["text/plain", "application/x-www-form-urlencoded"]) {
      const answer = await post("login", { "content-type": type }, '{"user":"anna"}');
      expect([answer.status, answer.headers.getSetCookie()]).toEqual([400, []]);
    }
    expect((await post("login", { "content-type": "application/json" }, '{"user":"a b"}')).status).toBe(400);
  }, 60_000);

  test("ticket: given for a session or the token, and valid once, also if it is used many times at once", async () => {
    await start();
    const cookie = await signIn();
    expect((await post("ticket")).status).toBe(401);
    expect((await post("ticket", { authorization: "Bearer guess" })).status).toBe(401);
    expect((await post("ticket", { cookie: "fanwire-session=guess" })).status).toBe(401);
    for (const headers of [{ cookie }, { authorization: "Bearer t" }] as Record<string, string>[]) {
      const ticket = await ticketFor(headers);
      expect(ticket.length).toBeGreaterThanOrEqual(22);
      const statuses = await Promise.all(Array.from({ length: 10 }, () => statusOf(`?ticket=${ticket}`)));
      expect(statuses.sort()).toEqual([200, ...Array(9).fill(401)]);
      // A ticket in the request decides alone.
      expect(await statusOf(`?ticket=${ticket}`, headers)).toBe(401);
    }
  });

  test("ticket: expires", async () => {
    await start({ TICKET_LIFE: "0" });
    const ticket = await ticketFor({ cookie: await signIn() });
    expect(await statusOf(`?ticket=${ticket}`)).toBe(401);
  });

  test("ticket: opens a stream and nothing else", async () => {
    await start();
    const ticket = await ticketFor({ cookie: await signIn() });
    for (const path of ["events/broadcast", "say", "ticket", "logout"]) {
      expect((await post(`${path}?ticket=${ticket}`, {}, "x")).status).toBeGreaterThanOrEqual(400);
    }
    expect(await statusOf(`?ticket=${ticket}`)).toBe(200);
  });

  test("ticket: with a new ticket and the last id a stream continues, and no event is lost or doubled", async () => {
    await start();
    const cookie = await signIn();
    const open = async (lastEventId: string): Promise<SocketClient> => {
      const query = new URLSearchParams({ ticket: await ticketFor({ cookie }), lastEventId });
      return new SocketClient(`${running.url}events/connect?${query}`).untilReady();
    };
    const first = await open("");
    await say("one", cookie);
    await first.until(() => first.data.length === 1);
    first.reset();
    await say("two", cookie);

    const second = await open(first.lastEventId ?? "");
    await say("three", cookie);

    await second.until(() => second.data.length === 2);
    expect([...first.data, ...second.data]).toEqual(["anna: one", "anna: two", "anna: three"]);
    expect(second.control("gap")).toEqual([]);
    expect(JSON.parse(second.control("ready")[0]?.data ?? "")).toMatchObject({ clientId: "anna", resumed: true });
  });

  test("logout: ends the streams, and makes the cookie and the tickets invalid", async () => {
    await start();
    const cookie = await signIn();
    const ticket = await ticketFor({ cookie });
    const client = await new SocketClient(`${running.url}events/connect`, { cookie }).untilReady();
    expect((await post("logout", { cookie })).status).toBe(204);
    await client.untilEnded();
    expect([await statusOf("", { cookie }), await statusOf(`?ticket=${ticket}`)]).toEqual([401, 401]);
    expect((await post("ticket", { cookie })).status).toBe(401);
  });

  test("SIGTERM: the process ends by itself, with a client that reads and one that never reads", async () => {
    const { child, url } = await start();
    const cookie = await signIn();
    const reads = await new SocketClient(`${url}events/connect`, { cookie }).untilReady();
    const stuck = await new SocketClient(`${url}events/connect`, { cookie }).untilReady();
    stuck.pause();
    const blocked = async (): Promise<number> =>
      ((await (await fetch(`${url}stats`)).json()) as { blocked: number }).blocked;
    while ((await blocked()) === 0) await post("events/broadcast", { authorization: "Bearer t" }, "x".repeat(60_000));
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([0, null]);
    await reads.untilEnded();
    expect(reads.control("end").map(({ data }) => JSON.parse(data).reason)).toEqual(endReasons(name));
    stuck.reset();
  });
});

describe.each(llmExamples)("examples: %s", (name) => {
  let running: RunningExample;
  afterEach(() => running.child.kill("SIGKILL"));

  const request = (path: string, method: string, headers: Record<string, string> = {}): Promise<Response> =>
    fetch(running.url + path, { method, headers, ...(method === "POST" ? { body: "hello" } : {}) });

  test("start: prints its URL and a curl line that asks the model, and serves the page", async () => {
    running = await startExample(name, {}, /curl .*\n/);
    expect(await (await fetch(running.url)).text()).toContain("<html");
    const [, header = "", data = "", target = ""] = /^curl -H "(.*)" -d "(.*)" (\S+)$/m.exec(running.output) ?? [];
    const [field = "", value = ""] = header.split(": ");
    const answer = await fetch(target, { method: "POST", headers: { [field]: value }, body: data });
    expect(answer.status).toBe(200);
    expect((await fetch(target, { method: "POST", headers: { [field]: value }, body: data })).status).toBe(409);
    const reader = await new SocketClient(target).untilEnded();
    expect([reader.ended, reader.events.at(-1)?.event]).toEqual(["complete", "end"]);
    expect(reader.data.slice(0, -1).join("")).toBe(answerTo(data));
    expect((await answer.text()).match(/^data: ended$/m)).not.toBeNull();
    // Who has everything is not asked to come back.
    expect((await fetch(target, { headers: { "last-event-id": reader.lastEventId ?? "" } })).status).toBe(204);
  });

  test("PUBLISH_TOKEN: is read from the environment, not printed, and needed to ask and to stop", async () => {
    running = await startExample(name, { PUBLISH_TOKEN: "of my own" }, /http:\S+\s/);
    expect(running.output).not.toContain("of my own");
    for (const method of ["POST", "DELETE"])
      for (const headers of [{}, { authorization: "Bearer guess" }])
        expect((await request("answers/a", method, headers)).status).toBe(401);
    expect((await request("answers/a", "GET")).status).toBe(404);
    const headers = { authorization: "Bearer of my own" };
    const answer = await request("answers/a", "POST", headers);
    expect(answer.status).toBe(200);
    expect(await (await request("answers/a", "DELETE", headers)).json()).toEqual({ stopped: true });
    expect(await answer.text()).toContain("event: end\n");
    expect([(await request("nowhere", "GET")).status, (await request("answers/a%20b", "GET")).status]).toEqual([
      404, 404,
    ]);
  });

  test("SIGTERM: the process ends by itself, in the middle of an answer", async () => {
    running = await startExample(name, { PUBLISH_TOKEN: "t" }, /http:\S+\s/);
    const { child, url } = running;
    await (await request("answers/a", "POST", { authorization: "Bearer t" })).body?.cancel();
    const reader = await new SocketClient(`${url}answers/a`).until(({ data }) => data.length > 3);
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([0, null]);
    await reader.untilEnded();
    expect(reader.ended).not.toBe("complete");
  });
});
