import { expect, test } from "vitest";
import type { AccessRequest, Authorize, AuthorizeResult, EventOverrides } from "../../../src/index.ts";
import {
  deferred,
  expectUntouched,
  problem,
  publishing,
  reading,
  witnessedBody,
} from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, problemOf, scene, turn } from "../../support/test-broker.ts";

// What a verdict of `authorize` allows a publisher; what it is asked, and when.

const publishGrants: readonly (readonly [verdict: AuthorizeResult, query: string, status: number])[] = [
  [true, "", 200],
  [true, "?channel=a&channel=b", 200],
  [true, "?id=one", 200],
  [false, "?channel=a", 403],
  [{ channels: ["a", "b"] }, "?channel=a", 200],
  [{ channels: ["a", "b"] }, "?channel=a&channel=b", 200],
  [{ channels: ["a", "b"] }, "?channel=a&channel=c", 403],
  [{ channels: ["a", "b"] }, "?channel=c", 403],
  // To everybody, which is never among what a grant names.
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
publishing("a grant allows its channels and its inbox, and only true allows everybody", async (stage, door) => {
  for (const [verdict, query, status] of publishGrants) {
    // Who connects is let in, so that there is somebody to publish to.
    const broker = stage.broker({ authorize: ({ action }) => action === "connect" || verdict });
    for (const id of ["one", "two"]) await stage.join(broker, { id, channel: ["a", "b", "c"] });
    const body = witnessedBody();
    const answer = await door(broker, eventRequest(null, query, body.init));
    expect([verdict, query, answer.status]).toEqual([verdict, query, status]);
    if (status === 403) expect(await problemOf(answer)).toBe("forbidden");
    expect(broker.stats().published).toBe(status === 200 ? 1 : 0);
    // What is refused is not even read.
    expect(body.pulls() > 0).toBe(status === 200);
  }
});

publishing("a grant for an inbox does not count the channels beside it", async (stage, door) => {
  const authorize: Authorize = ({ action }) => action === "connect" || { clientId: "one", channels: ["a", "b"] };
  const broker = stage.broker({ maxChannelsPerClient: 1, authorize });
  await stage.join(broker, { id: "one" });
  expect((await door(broker, eventRequest("x", "?id=one"))).status).toBe(200);
});

publishing("authorize: a Response is the answer, and nothing is published", async (stage, door) => {
  const broker = stage.broker({ authorize: () => new Response("queued elsewhere", { status: 202 }) });
  const body = witnessedBody();
  const answer = await door(broker, eventRequest(null, "", body.init));
  expect([answer.status, await answer.text(), body.pulls()]).toEqual([202, "queued elsewhere", 0]);
  expectUntouched(broker);
});

publishing("authorize: an unknown target is told to who may publish to it, and to nobody else", async (stage, door) => {
  const broker = stage.broker({ authorize: () => ({ clientId: "nobody" }) });
  expect(await problem(await door(broker, eventRequest("x", "?id=nobody")))).toEqual([404, "unknown-client"]);
  expect(await problem(await door(broker, eventRequest("x", "?id=other")))).toEqual([403, "forbidden"]);
});

publishing("Idempotency-Key: one subject cannot take another's key", async (stage, door) => {
  let subject: string | undefined;
  const broker = stage.broker({ authorize: () => ({ subject, channels: ["a"] }) });
  const init = { headers: { "idempotency-key": "k" } };
  for (subject of ["ada", "eve", undefined, "null", "ada"])
    expect((await door(broker, eventRequest(`by ${subject}`, "?channel=a", init))).status).toBe(200);
  expect(broker.stats().published).toBe(4);
});

test(
  "publishToken: whoever presents it publishes without authorize being asked, who does not is asked about",
  scene(async (stage) => {
    const asked: string[] = [];
    const authorize: Authorize = ({ action }) => {
      asked.push(action);
      return false;
    };
    const broker = stage.broker({ publishToken: "secret", authorize });
    const post = (token: string): Request => eventRequest("x", "", { headers: { authorization: `Bearer ${token}` } });
    expect((await broker.fetch(post("secret"))).status).toBe(200);
    expect(asked).toEqual([]);
    expect(await problem(await broker.fetch(post("guess")))).toEqual([403, "forbidden"]);
    expect(await problem(await broker.fetch(eventRequest("x")))).toEqual([403, "forbidden"]);
    expect(asked).toEqual(["publish", "publish"]);
    // It is for events alone.
    const reader = clientRequest({ headers: { authorization: "Bearer secret" } });
    expect(await problem(await broker.fetch(reader))).toEqual([403, "forbidden"]);
    expect(broker.stats()).toMatchObject({ published: 1, clients: 0 });
  }),
);

test(
  "eventHandler: asks authorize where it is set, publishToken only if guarded, and is open with neither",
  scene(async (stage) => {
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
      const broker = stage.broker(options);
      const headers: Record<string, string> = presented === undefined ? {} : { authorization: `Bearer ${presented}` };
      const answer = await broker.eventHandler(eventRequest("x", "", { headers }), overrides);
      expect(answer.status).toBe(status);
      if (code !== undefined) expect(await problemOf(answer)).toBe(code);
      expect(broker.stats().published).toBe(status === 200 ? 1 : 0);
    }
  }),
);

test(
  "overrides: authorize of this call wins over the option, both ways",
  scene(async (stage) => {
    const asked: string[] = [];
    const say =
      (who: string, verdict: AuthorizeResult): Authorize =>
      () => {
        asked.push(who);
        return verdict;
      };
    const strict = stage.broker({ authorize: say("option", false) });
    expect((await strict.eventHandler(eventRequest("x"), { authorize: say("call", true) })).status).toBe(200);
    await stage.join(strict, { id: "one", overrides: { authorize: say("call", { clientId: "one" }) } });
    const lax = stage.broker({ authorize: say("option", true) });
    const open = stage.broker();
    for (const broker of [lax, open]) {
      const no = { authorize: say("call", false) };
      expect((await broker.eventHandler(eventRequest("x"), no)).status).toBe(403);
      expect((await broker.clientHandler(clientRequest(), no)).status).toBe(403);
      expectUntouched(broker);
    }
    expect(new Set(asked)).toEqual(new Set(["call"]));
    // `undefined` is as if it was not there.
    expect((await strict.clientHandler(clientRequest(), { authorize: undefined })).status).toBe(403);
    expect(asked.at(-1)).toBe("option");
  }),
);

for (const authorize of [false, null, 0, "", true, "yes", {}]) {
  test(
    `overrides: authorize ${JSON.stringify(authorize)}, which is none, does not open what the option closes`,
    scene(async (stage) => {
      const broker = stage.broker({ authorize: () => false });
      const overrides = { authorize: authorize as unknown as Authorize };
      // Whether it is answered or thrown back at the caller is not the point here.
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
      expectUntouched(broker);
    }),
  );
}

// What it is asked, and when.

reading("Attempt: has the very request, the context, and what is asked for", async ({ stage, door }) => {
  const attempts: AccessRequest[] = [];
  const broker = stage.broker({
    authorize: (attempt) => {
      attempts.push(attempt);
      return false;
    },
  });
  const context = { server: true };
  const full = clientRequest({ id: "one", channel: ["a", "b", "a"] });
  const bare = clientRequest({ id: "", query: { other: "x" } });
  await door(broker, full, { context });
  await door(broker, bare);
  expect(attempts).toMatchObject([
    { action: "connect", channels: ["a", "b"], clientId: "one" },
    { action: "connect", channels: [], clientId: undefined },
  ]);
  expect([attempts[0]?.request === full, attempts[0]?.context === context]).toEqual([true, true]);
  expect([attempts[1]?.request === bare, attempts[1]?.context]).toEqual([true, undefined]);
  // Who got an answer was not given up on.
  expect(attempts.map(({ signal }) => signal.aborted)).toEqual([false, false]);
});

publishing("Attempt: has the very request, the context, and what is asked for", async (stage, door) => {
  const attempts: AccessRequest[] = [];
  const broker = stage.broker({
    authorize: (attempt) => {
      attempts.push(attempt);
      return false;
    },
  });
  const context = { server: true };
  const requests = ["?channel=a&channel=b", "?id=one&type=t", ""].map((query) => eventRequest("x", query));
  for (const request of requests) await door(broker, request, { context });
  expect(attempts).toMatchObject([
    { action: "publish", channels: ["a", "b"], clientId: undefined },
    { action: "publish", channels: [], clientId: "one" },
    { action: "publish", channels: [], clientId: undefined },
  ]);
  expect(
    attempts.map(({ request, context: given }, index) => request === requests[index] && given === context),
  ).toEqual([true, true, true]);
  expect(attempts.map(({ signal }) => signal.aborted)).toEqual([false, false, false]);
});

test(
  "Attempt: has what trusted code says instead of the query",
  scene(async (stage) => {
    const attempts: AccessRequest[] = [];
    const authorize: Authorize = (attempt) => {
      attempts.push(attempt);
      return false;
    };
    const broker = stage.broker({ authorize });
    await broker.clientHandler(clientRequest({ id: "asked", channel: "asked" }), {
      clientId: "given",
      channels: "given",
    });
    await broker.eventHandler(eventRequest("x", "?channel=asked"), { clientId: "given" });
    await broker.eventHandler(eventRequest("x", "?id=asked"), { channels: ["given"] });
    expect(attempts).toMatchObject([
      { action: "connect", channels: ["given"], clientId: "given" },
      { action: "publish", channels: [], clientId: "given" },
      { action: "publish", channels: ["given"], clientId: undefined },
    ]);
  }),
);

publishing("authorize: is asked before anything of the body is read", async (stage, door) => {
  const body = witnessedBody();
  const pullsThen: number[] = [];
  const broker = stage.broker({
    authorize: async () => {
      await turn();
      pullsThen.push(body.pulls());
      return true;
    },
  });
  const client = await stage.join(broker);
  const answer = await door(broker, eventRequest(null, "", body.init));
  expect([answer.status, (await client.nextData()).data]).toEqual([200, "from the body"]);
  expect(pullsThen).toEqual([0, 0]);
  expect(body.pulls()).toBeGreaterThan(0);
});

publishing("authorize: is not asked about a query that is bad", async (stage, door) => {
  let asked = 0;
  const authorize: Authorize = () => {
    asked++;
    return true;
  };
  const broker = stage.broker({ authorize });
  const bad: readonly (readonly [string, string])[] = [
    ["?channel=", "bad-channel"],
    ["?channel=fanwire-x", "bad-channel"],
    ["?id=a&id=b", "bad-id"],
    ["?id=a%0Ab", "bad-id"],
    ["?id=a&channel=b", "bad-request"],
    ["?type=a&type=b", "bad-event-type"],
  ];
  for (const [query, code] of bad) {
    const body = witnessedBody();
    expect(await problem(await door(broker, eventRequest(null, query, body.init)))).toEqual([400, code]);
    expect(body.pulls()).toBe(0);
  }
  const long = { headers: { "idempotency-key": "k".repeat(257) } };
  expect(await problem(await door(broker, eventRequest("x", "", long)))).toEqual([400, "bad-key"]);
  expect(asked).toBe(0);
  expectUntouched(broker);
});

reading(
  "authorize: is not asked about a query that is bad, nor for OPTIONS or a wrong method",
  async ({ stage, door }) => {
    let asked = 0;
    const authorize: Authorize = () => {
      asked++;
      return true;
    };
    const broker = stage.broker({ authorize });
    for (const query of [{ channel: "" }, { channel: "fanwire-x" }, { id: "a\nb" }, { from: "latest" }])
      expect((await door(broker, clientRequest({ query }))).status).toBe(400);
    for (const [method, status] of [
      ["OPTIONS", 204],
      ["DELETE", 405],
      ["PUT", 405],
    ] as const)
      expect((await door(broker, new Request(clientRequest(), { method }))).status).toBe(status);
    expect(asked).toBe(0);
    expectUntouched(broker);
  },
);

reading("HEAD: is authorised as GET is, and registers nobody", async ({ stage, door }) => {
  const actions: string[] = [];
  const broker = stage.broker({
    authorize: ({ action, clientId }) => {
      actions.push(action);
      return clientId === "one";
    },
  });
  const head = (id: string): Request => new Request(clientRequest({ id }), { method: "HEAD" });
  const [yes, no] = [await door(broker, head("one")), await door(broker, head("two"))];
  expect([yes.status, yes.body, no.status]).toEqual([200, null, 403]);
  expect(actions).toEqual(["connect", "connect"]);
  expectUntouched(broker);
});

reading("HEAD: takes no place from a client that comes meanwhile, and needs none", async ({ stage, door, enter }) => {
  const verdict = deferred<AuthorizeResult>();
  const broker = stage.broker({ maxClients: 1, authorize: () => verdict.promise });
  const head = (): Promise<Response> => door(broker, new Request(clientRequest(), { method: "HEAD" }));
  const early = head();
  const entering = enter(broker);
  verdict.resolve(true);
  await entering;
  expect([(await early).status, (await head()).status]).toEqual([200, 200]);
  expect(broker.stats().clients).toBe(1);
});
