// Errors in the application's own format, and bearer tokens.
import { expect, test } from "vitest";
import { type Authorize, BrokerError, bearer, type ErrorCode } from "../../../src/index.ts";
import {
  ACCEPT_ANY,
  createCountedBody,
  expectUnused,
  neverAnswers,
  type ReportedError,
  SECRET,
  statusAndCode,
  testPublishing,
  testReading,
} from "../../support/http/entry-points.ts";
import {
  type ConnectOptions,
  clientRequest,
  eventRequest,
  problemOf,
  Recorder,
  withBroker,
} from "../../support/test-broker.ts";

test(
  "errorHandler: answers a request that authorize refused, with its code; if it throws, the default answer is sent",
  withBroker(async (setup) => {
    const cases: readonly (readonly [ErrorCode, number, Authorize])[] = [
      ["forbidden", 403, () => false],
      ["forbidden", 403, () => ({ channels: ["b"] })],
      ["unauthorized", 401, () => ({ channels: ["a"], expiresAt: 0 })],
      ["unauthorized", 401, bearer("token")],
      ["internal", 500, () => Promise.reject(new Error(SECRET))],
      ["authorize-timeout", 503, neverAnswers],
    ];
    for (const [code, status, authorize] of cases) {
      const seen: unknown[] = [];
      const own = setup.broker({
        authorize,
        authorizeTimeout: 5,
        errorHandler(error, request) {
          seen.push(error.code, error.status, error instanceof BrokerError, request);
          return new Response(`mine: ${error.code} ${error.message}`, { status: error.status });
        },
      });
      for (const request of [clientRequest({ channel: "a", headers: ACCEPT_ANY }), eventRequest("x", "?channel=a")]) {
        const answer = await own.fetch(request);
        expect(answer.status).toBe(status);
        const text = await answer.text();
        expect(text).toContain(`mine: ${code}`);
        expect(text).not.toContain("secret");
        expect(seen.splice(0)).toEqual([code, status, true, request]);
      }
      const errors = new Recorder<ReportedError>();
      const broken = setup.broker({
        authorize,
        authorizeTimeout: 5,
        errorHandler: () => Promise.reject(new Error(SECRET)),
        onError: (event) => event.stage === "error-handler" && errors.record(event),
      });
      const answer = await broken.fetch(clientRequest({ channel: "a", headers: ACCEPT_ANY }));
      const text = await answer.text();
      expect([answer.status, JSON.parse(text)]).toMatchObject([status, { code }]);
      expect(text).not.toContain("secret");
      expect(await errors.next()).toMatchObject({ error: { message: SECRET } });
    }
  }),
);

// Bearer tokens.

const presenting = (authorization: string): ConnectOptions => ({ headers: { authorization, ...ACCEPT_ANY } });

testReading(
  "bearer(): accepts each of its tokens, whatever the case and spaces of the scheme",
  async ({ setup, connect }) => {
    const broker = setup.broker({ authorize: bearer(["old-token", "new-token"]) });
    for (const scheme of ["Bearer ", "bearer ", "BEARER ", "Bearer    "])
      for (const token of ["old-token", "new-token"]) await connect(broker, presenting(scheme + token));
    expect(broker.stats().clients).toBe(8);
  },
);

testReading("bearer(): answers everything else 401 with www-authenticate", async ({ setup, entryPoint }) => {
  const broker = setup.broker({ authorize: bearer(["secret", "sécret-two", "€uro", "ab"]) });
  const wrong = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer s",
    "Bearer secre",
    "Bearer secrets",
    "Bearer secretsecret",
    "Bearer Secret",
    "Bearer ecret",
    "Bearer terces",
    "Bearer secret,secret",
    "Bearer secret secret",
    "Bearer secret, Bearer secret",
    "Bearer secretsécret-two",
    "Bearer secret-two",
    "Bearer s\u00c3\u00a9cret-two",
    "Bearer sécret-tw",
    // This character is the low byte of the euro sign.
    "Bearer \u00acuro",
    "Bearer aa",
    "Bearer bb",
    "Bearer ba",
    "Bearer abab",
    "Bearer a",
    "Bearer undefined",
    "Bearer [object Object]",
    `Bearer ${"secret".repeat(1_000)}`,
    "Basic secret",
    "Basic c2VjcmV0OnNlY3JldA==",
    "secret",
    "Bearersecret",
    "Digest Bearer secret",
    "Token secret",
  ];
  for (const authorization of wrong) {
    const answer = await entryPoint(broker, clientRequest(presenting(authorization)));
    expect([authorization, answer.status, answer.headers.get("www-authenticate")]).toEqual([
      authorization,
      401,
      "Bearer",
    ]);
    expect(await problemOf(answer)).toBe("unauthorized");
  }
  const bare = await entryPoint(broker, clientRequest());
  expect([bare.status, bare.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
  // A token in the query is ignored, because it ends up in logs.
  for (const name of ["token", "access_token", "authorization"])
    expect((await entryPoint(broker, clientRequest({ query: { [name]: "secret" } }))).status).toBe(401);
  expectUnused(broker);
});

testReading("bearer(): a token in Latin-1 is compared as it is", async ({ setup, connect }) => {
  const broker = setup.broker({ authorize: bearer("sécret") });
  await connect(broker, presenting("Bearer sécret"));
  expect(broker.stats().clients).toBe(1);
});

testPublishing("bearer(): answers 401 without reading the body, and 200 with the token", async (setup, entryPoint) => {
  const broker = setup.broker({ authorize: bearer("secret") });
  const body = createCountedBody();
  const refused = await entryPoint(broker, eventRequest(null, "", body.init));
  expect([refused.status, refused.headers.get("www-authenticate"), body.pulls()]).toEqual([401, "Bearer", 0]);
  expectUnused(broker);
  expect(
    (await entryPoint(broker, eventRequest("x", "", { headers: { authorization: "Bearer secret" } }))).status,
  ).toBe(200);
});

testReading("bearer(): a token allows exactly its grant", async ({ setup, entryPoint, connect }) => {
  const broker = setup.broker({ authorize: bearer("secret", { subject: "service", channels: ["a"] }) });
  await connect(broker, presenting("Bearer secret"));
  expect(broker.clients()).toMatchObject([{ subject: "service", channels: ["a"] }]);
  const otherChannel = { ...presenting("Bearer secret"), channel: "b" };
  expect(await statusAndCode(await entryPoint(broker, clientRequest(otherChannel)))).toEqual([403, "forbidden"]);
  const none = setup.broker({ authorize: bearer("secret", false) });
  expect((await entryPoint(none, clientRequest(presenting("Bearer secret")))).status).toBe(403);
});

test("bearer(): a missing token is a TypeError, so it cannot leave the broker open", () => {
  const missing: readonly unknown[] = [
    undefined,
    null,
    "",
    0,
    7,
    true,
    false,
    {},
    [],
    [""],
    ["a", ""],
    ["a", undefined],
    [null],
    [["a"]],
  ];
  for (const token of missing) expect(() => bearer(token as string)).toThrow(TypeError);
});
