// Results of `authorize`: what each one allows a publisher. What `authorize` receives, and when it is called.
import { expect, test } from "vitest";
import type { AccessRequest, Authorize, AuthorizeResult, EventOverrides } from "../../../src/index.ts";
import {
  createCountedBody,
  deferred,
  expectUnused,
  statusAndCode,
  testPublishing,
  testReading,
} from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, problemOf, turn, withBroker } from "../../support/test-broker.ts";

const publishGrants: readonly (readonly [result: AuthorizeResult, query: string, status: number])[] = [
  [true, "", 200],
  [true, "?channel=a&channel=b", 200],
  [true, "?id=one", 200],
  [false, "?channel=a", 403],
  [{ channels: ["a", "b"] }, "?channel=a", 200],
  [{ channels: ["a", "b"] }, "?channel=a&channel=b", 200],
  [{ channels: ["a", "b"] }, "?channel=a&channel=c", 403],
  [{ channels: ["a", "b"] }, "?channel=c", 403],
  // For every client: channels and a client id do not allow that.
  [{ channels: ["a", "b"] }, "", 403],
  [{ channels: [] }, "", 403],
  [{}, "", 403],
  [{ clientId: "one" }, "", 403],
  [{ subject: "ada" }, "", 403],
  [{ clientId: "one" }, "?id=one", 200],
  [{ clientId: "one", channels: ["a"] }, "?id=one", 200],
  [{ clientId: "one", channels: ["a"] }, "?channel=a", 200],
  [{ clientId: "one" }, "?id=two", 403],
  [{ clientId: "one" }, "?channel=one", 403],
  [{ channels: ["one"] }, "?id=one", 403],
  [{}, "?id=one", 403],
  [{ channels: ["a"], expiresAt: Number.POSITIVE_INFINITY }, "?channel=a", 200],
  [{ channels: ["a"], expiresAt: new Date(8.64e15) }, "?channel=a", 200],
];
testPublishing("Grant: allows its channels and its inbox, and no event for every client", async (setup, entryPoint) => {
  for (const [result, query, status] of publishGrants) {
    // Clients may connect, so that there is a recipient.
    const broker = setup.broker({ authorize: ({ action }) => action === "connect" || result });
    for (const id of ["one", "two"]) await setup.join(broker, { id, channel: ["a", "b", "c"] });
    const body = createCountedBody();
    const answer = await entryPoint(broker, eventRequest(null, query, body.init));
    expect([result, query, answer.status]).toEqual([result, query, status]);
    if (status === 403) expect(await problemOf(answer)).toBe("forbidden");
    expect(broker.stats().published).toBe(status === 200 ? 1 : 0);
    // The body of a refused event is not read.
    expect(body.pulls() > 0).toBe(status === 200);
  }
});

testPublishing(
  "Grant: channels do not count for maxChannelsPerClient when the event is for an inbox",
  async (setup, entryPoint) => {
    const authorize: Authorize = ({ action }) => action === "connect" || { clientId: "one", channels: ["a", "b"] };
    const broker = setup.broker({ maxChannelsPerClient: 1, authorize });
    await setup.join(broker, { id: "one" });
    expect((await entryPoint(broker, eventRequest("x", "?id=one"))).status).toBe(200);
  },
);

test(
  "Grant.everybody: allows events for every client, with idempotency keys of the grant's subject",
  withBroker(async (setup) => {
    const broker = setup.broker({
      publishToken: "secret",
      authorize: ({ request }) => ({ subject: request.headers.get("x-subject") ?? "", everybody: true }),
    });
    const publish = async (headers: Record<string, string>, body: string): Promise<number> =>
      (await broker.fetch(eventRequest(body, "", { headers: { "idempotency-key": "k", ...headers } }))).status;
    expect(await publish({ "x-subject": "a" }, "one")).toBe(200);
    expect(await publish({ "x-subject": "b" }, "two")).toBe(200);
    expect(await publish({ authorization: "Bearer secret" }, "three")).toBe(200);
    expect(await publish({ "x-subject": "a" }, "two")).toBe(422);
    expect(broker.stats().published).toBe(3);
    const closed = setup.broker({ authorize: () => ({ subject: "a" }) });
    expect((await closed.fetch(eventRequest("x"))).status).toBe(403);
  }),
);

testPublishing("authorize: a Response is the answer, and no event is published", async (setup, entryPoint) => {
  const broker = setup.broker({ authorize: () => new Response("queued elsewhere", { status: 202 }) });
  const body = createCountedBody();
  const answer = await entryPoint(broker, eventRequest(null, "", body.init));
  expect([answer.status, await answer.text(), body.pulls()]).toEqual([202, "queued elsewhere", 0]);
  expectUnused(broker);
});

testPublishing(
  "authorize: only a publisher that is allowed learns that the client is unknown",
  async (setup, entryPoint) => {
    const broker = setup.broker({ authorize: () => ({ clientId: "nobody" }) });
    expect(await statusAndCode(await entryPoint(broker, eventRequest("x", "?id=nobody")))).toEqual([
      404,
      "unknown-client",
    ]);
    expect(await statusAndCode(await entryPoint(broker, eventRequest("x", "?id=other")))).toEqual([403, "forbidden"]);
  },
);

testPublishing("Idempotency-Key: a key of one subject does not count for another one", async (setup, entryPoint) => {
  let subject: string | undefined;
  const broker = setup.broker({ authorize: () => ({ subject, channels: ["a"] }) });
  const init = { headers: { "idempotency-key": "k" } };
  for (subject of ["ada", "eve", undefined, "null", "ada"])
    expect((await entryPoint(broker, eventRequest(`by ${subject}`, "?channel=a", init))).status).toBe(200);
  expect(broker.stats().published).toBe(4);
});

test(
  "publishToken: a request with it is published without a call of authorize; for another one authorize decides",
  withBroker(async (setup) => {
    const actions: string[] = [];
    const authorize: Authorize = ({ action }) => {
      actions.push(action);
      return false;
    };
    const broker = setup.broker({ publishToken: "secret", authorize });
    const post = (token: string): Request => eventRequest("x", "", { headers: { authorization: `Bearer ${token}` } });
    expect((await broker.fetch(post("secret"))).status).toBe(200);
    expect(actions).toEqual([]);
    expect(await statusAndCode(await broker.fetch(post("guess")))).toEqual([403, "forbidden"]);
    expect(await statusAndCode(await broker.fetch(eventRequest("x")))).toEqual([403, "forbidden"]);
    expect(actions).toEqual(["publish", "publish"]);
    // The token is only for events.
    const reader = clientRequest({ headers: { authorization: "Bearer secret" } });
    expect(await statusAndCode(await broker.fetch(reader))).toEqual([403, "forbidden"]);
    expect(broker.stats()).toMatchObject({ published: 1, clients: 0 });
  }),
);

test(
  "eventHandler(): calls authorize if it is set, asks for publishToken only with requireToken, and is open with neither",
  withBroker(async (setup) => {
    const yes = { authorize: () => true };
    const no = { authorize: () => false };
    const token = { publishToken: "secret" };
    const cases: readonly (readonly [object, EventOverrides, string | undefined, number, string?])[] = [
      [{}, {}, undefined, 200],
      [token, {}, undefined, 200],
      [no, {}, undefined, 403, "forbidden"],
      [yes, {}, undefined, 200],
      [{ ...no, ...token }, {}, undefined, 403, "forbidden"],
      [{}, { requireToken: true }, undefined, 403, "publishing-closed"],
      [{}, { requireToken: true }, "secret", 403, "publishing-closed"],
      [token, { requireToken: true }, undefined, 401, "unauthorized"],
      [token, { requireToken: true }, "guess", 401, "unauthorized"],
      [token, { requireToken: true }, "secret", 200],
      [no, { requireToken: true }, undefined, 403, "forbidden"],
      [yes, { requireToken: true }, undefined, 200],
      [{ ...no, ...token }, { requireToken: true }, "secret", 200],
    ];
    for (const [options, overrides, presented, status, code] of cases) {
      const broker = setup.broker(options);
      const headers: Record<string, string> = presented === undefined ? {} : { authorization: `Bearer ${presented}` };
      const answer = await broker.eventHandler(eventRequest("x", "", { headers }), overrides);
      expect(answer.status).toBe(status);
      if (code !== undefined) expect(await problemOf(answer)).toBe(code);
      expect(broker.stats().published).toBe(status === 200 ? 1 : 0);
    }
  }),
);

test(
  "Overrides: authorize of the call wins over the option, to allow and to refuse",
  withBroker(async (setup) => {
    const callers: string[] = [];
    const returning =
      (caller: string, result: AuthorizeResult): Authorize =>
      () => {
        callers.push(caller);
        return result;
      };
    const strict = setup.broker({ authorize: returning("option", false) });
    expect((await strict.eventHandler(eventRequest("x"), { authorize: returning("call", true) })).status).toBe(200);
    await setup.join(strict, { id: "one", overrides: { authorize: returning("call", { clientId: "one" }) } });
    const lax = setup.broker({ authorize: returning("option", true) });
    const open = setup.broker();
    for (const broker of [lax, open]) {
      const no = { authorize: returning("call", false) };
      expect((await broker.eventHandler(eventRequest("x"), no)).status).toBe(403);
      expect((await broker.clientHandler(clientRequest(), no)).status).toBe(403);
      expectUnused(broker);
    }
    expect(new Set(callers)).toEqual(new Set(["call"]));
    // `undefined` counts as not given.
    expect((await strict.clientHandler(clientRequest(), { authorize: undefined })).status).toBe(403);
    expect(callers.at(-1)).toBe("option");
  }),
);

for (const authorize of [false, null, 0, "", true, "yes", {}]) {
  test(
    `Overrides: authorize ${JSON.stringify(authorize)}, which is not a function, does not switch the option off`,
    withBroker(async (setup) => {
      const broker = setup.broker({ authorize: () => false });
      const overrides = { authorize: authorize as unknown as Authorize };
      // Both an error response and an exception are fine here.
      const statusOf = (answer: Promise<Response>): Promise<number> =>
        answer.then(
          async ({ status, body }) => {
            await body?.cancel();
            return status;
          },
          () => 500,
        );
      expect(await statusOf(broker.clientHandler(clientRequest(), overrides))).toBeGreaterThanOrEqual(400);
      expect(await statusOf(broker.eventHandler(eventRequest("x"), overrides))).toBeGreaterThanOrEqual(400);
      expectUnused(broker);
    }),
  );
}

// What `authorize` receives, and when it is called.

testReading(
  "AccessRequest: has the request object, the context and the requested access",
  async ({ setup, entryPoint }) => {
    const accesses: AccessRequest[] = [];
    const broker = setup.broker({
      authorize: (access) => {
        accesses.push(access);
        return false;
      },
    });
    const context = { server: true };
    const full = clientRequest({ id: "one", channel: ["a", "b", "a"] });
    const bare = clientRequest({ id: "", query: { other: "x" } });
    await entryPoint(broker, full, { context });
    await entryPoint(broker, bare);
    expect(accesses).toMatchObject([
      { action: "connect", channels: ["a", "b"], clientId: "one" },
      { action: "connect", channels: [], clientId: undefined },
    ]);
    expect([accesses[0]?.request === full, accesses[0]?.context === context]).toEqual([true, true]);
    expect([accesses[1]?.request === bare, accesses[1]?.context]).toEqual([true, undefined]);
    // The signal is not aborted after an answer.
    expect(accesses.map(({ signal }) => signal.aborted)).toEqual([false, false]);
  },
);

testPublishing(
  "AccessRequest: has the request object, the context and the requested access",
  async (setup, entryPoint) => {
    const accesses: AccessRequest[] = [];
    const broker = setup.broker({
      authorize: (access) => {
        accesses.push(access);
        return false;
      },
    });
    const context = { server: true };
    const requests = ["?channel=a&channel=b", "?id=one&type=t", ""].map((query) => eventRequest("x", query));
    for (const request of requests) await entryPoint(broker, request, { context });
    expect(accesses).toMatchObject([
      { action: "publish", channels: ["a", "b"], clientId: undefined },
      { action: "publish", channels: [], clientId: "one" },
      { action: "publish", channels: [], clientId: undefined },
    ]);
    expect(
      accesses.map(({ request, context: received }, index) => request === requests[index] && received === context),
    ).toEqual([true, true, true]);
    expect(accesses.map(({ signal }) => signal.aborted)).toEqual([false, false, false]);
  },
);

test(
  "AccessRequest: has the overrides in place of the query",
  withBroker(async (setup) => {
    const accesses: AccessRequest[] = [];
    const authorize: Authorize = (access) => {
      accesses.push(access);
      return false;
    };
    const broker = setup.broker({ authorize });
    await broker.clientHandler(clientRequest({ id: "asked", channel: "asked" }), {
      clientId: "given",
      channels: "given",
    });
    await broker.eventHandler(eventRequest("x", "?channel=asked"), { clientId: "given" });
    await broker.eventHandler(eventRequest("x", "?id=asked"), { channels: ["given"] });
    expect(accesses).toMatchObject([
      { action: "connect", channels: ["given"], clientId: "given" },
      { action: "publish", channels: [], clientId: "given" },
      { action: "publish", channels: ["given"], clientId: undefined },
    ]);
  }),
);

testPublishing("authorize: is called before the body is read", async (setup, entryPoint) => {
  const body = createCountedBody();
  const pullsThen: number[] = [];
  const broker = setup.broker({
    authorize: async () => {
      await turn();
      pullsThen.push(body.pulls());
      return true;
    },
  });
  const client = await setup.join(broker);
  const answer = await entryPoint(broker, eventRequest(null, "", body.init));
  expect([answer.status, (await client.nextData()).data]).toEqual([200, "from the body"]);
  expect(pullsThen).toEqual([0, 0]);
  expect(body.pulls()).toBeGreaterThan(0);
});

testPublishing("authorize: is not called for an invalid query", async (setup, entryPoint) => {
  let calls = 0;
  const authorize: Authorize = () => {
    calls++;
    return true;
  };
  const broker = setup.broker({ authorize });
  const bad: readonly (readonly [string, string])[] = [
    ["?channel=", "bad-channel"],
    ["?channel=fanwire-x", "bad-channel"],
    ["?id=a&id=b", "bad-id"],
    ["?id=a%0Ab", "bad-id"],
    ["?id=a&channel=b", "bad-request"],
    ["?type=a&type=b", "bad-event-type"],
  ];
  for (const [query, code] of bad) {
    const body = createCountedBody();
    expect(await statusAndCode(await entryPoint(broker, eventRequest(null, query, body.init)))).toEqual([400, code]);
    expect(body.pulls()).toBe(0);
  }
  const long = { headers: { "idempotency-key": "k".repeat(257) } };
  expect(await statusAndCode(await entryPoint(broker, eventRequest("x", "", long)))).toEqual([400, "bad-key"]);
  expect(calls).toBe(0);
  expectUnused(broker);
});

testReading(
  "authorize: is not called for an invalid query, for OPTIONS, or for a wrong method",
  async ({ setup, entryPoint }) => {
    let calls = 0;
    const authorize: Authorize = () => {
      calls++;
      return true;
    };
    const broker = setup.broker({ authorize });
    for (const query of [{ channel: "" }, { channel: "fanwire-x" }, { id: "a\nb" }, { from: "newest" }, { last: "0" }])
      expect((await entryPoint(broker, clientRequest({ query }))).status).toBe(400);
    for (const [method, status] of [
      ["OPTIONS", 204],
      ["DELETE", 405],
      ["PUT", 405],
    ] as const)
      expect((await entryPoint(broker, new Request(clientRequest(), { method }))).status).toBe(status);
    expect(calls).toBe(0);
    expectUnused(broker);
  },
);

testReading("HEAD: is authorised like GET, and registers no client", async ({ setup, entryPoint }) => {
  const actions: string[] = [];
  const broker = setup.broker({
    authorize: ({ action, clientId }) => {
      actions.push(action);
      return clientId === "one";
    },
  });
  const head = (id: string): Request => new Request(clientRequest({ id }), { method: "HEAD" });
  const [yes, no] = [await entryPoint(broker, head("one")), await entryPoint(broker, head("two"))];
  expect([yes.status, yes.body, no.status]).toEqual([200, null, 403]);
  expect(actions).toEqual(["connect", "connect"]);
  expectUnused(broker);
});

testReading(
  "HEAD: takes no slot from a client that connects at the same time, and needs none",
  async ({ setup, entryPoint, connect }) => {
    const decision = deferred<AuthorizeResult>();
    const broker = setup.broker({ maxClients: 1, authorize: () => decision.promise });
    const head = (): Promise<Response> => entryPoint(broker, new Request(clientRequest(), { method: "HEAD" }));
    const early = head();
    const entering = connect(broker);
    decision.resolve(true);
    await entering;
    expect([(await early).status, (await head()).status]).toEqual([200, 200]);
    expect(broker.stats().clients).toBe(1);
  },
);
