import { expect, test } from "vitest";
import { type Authorize, BrokerError, bearer, type ErrorCode } from "../../../src/index.ts";
import {
  ANY,
  expectUntouched,
  never,
  problem,
  publishing,
  type Reported,
  reading,
  SECRET,
  witnessedBody,
} from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, problemOf, scene, type Wish, Witness } from "../../support/test-broker.ts";

// Errors in the application's own format, and tokens.

test(
  "errorHandler: answers what authorize refuses, with its code, and what it throws gives the default answer",
  scene(async (stage) => {
    const cases: readonly (readonly [ErrorCode, number, Authorize])[] = [
      ["forbidden", 403, () => false],
      ["forbidden", 403, () => ({ channels: ["b"] })],
      ["unauthorized", 401, () => ({ channels: ["a"], expiresAt: 0 })],
      ["unauthorized", 401, bearer("token")],
      ["internal", 500, () => Promise.reject(new Error(SECRET))],
      ["authorize-timeout", 503, never],
    ];
    for (const [code, status, authorize] of cases) {
      const seen: unknown[] = [];
      const own = stage.broker({
        authorize,
        authorizeTimeout: 5,
        errorHandler(error, request) {
          seen.push(error.code, error.status, error instanceof BrokerError, request);
          return new Response(`mine: ${error.code} ${error.message}`, { status: error.status });
        },
      });
      for (const request of [clientRequest({ channel: "a", headers: ANY }), eventRequest("x", "?channel=a")]) {
        const answer = await own.fetch(request);
        expect(answer.status).toBe(status);
        const text = await answer.text();
        expect(text).toContain(`mine: ${code}`);
        expect(text).not.toContain("secret");
        expect(seen.splice(0)).toEqual([code, status, true, request]);
      }
      const errors = new Witness<Reported>();
      const broken = stage.broker({
        authorize,
        authorizeTimeout: 5,
        errorHandler: () => Promise.reject(new Error(SECRET)),
        onError: (event) => event.stage === "error-handler" && errors.see(event),
      });
      const answer = await broken.fetch(clientRequest({ channel: "a", headers: ANY }));
      const text = await answer.text();
      expect([answer.status, JSON.parse(text)]).toMatchObject([status, { code }]);
      expect(text).not.toContain("secret");
      expect(await errors.next()).toMatchObject({ error: { message: SECRET } });
    }
  }),
);

// Tokens.

const presenting = (authorization: string): Wish => ({ headers: { authorization, ...ANY } });

reading(
  "bearer: lets in who presents one of the tokens, whatever the scheme's case and spaces",
  async ({ stage, enter }) => {
    const broker = stage.broker({ authorize: bearer(["old-token", "new-token"]) });
    for (const scheme of ["Bearer ", "bearer ", "BEARER ", "Bearer    "])
      for (const token of ["old-token", "new-token"]) await enter(broker, presenting(scheme + token));
    expect(broker.stats().clients).toBe(8);
  },
);

reading("bearer: 401 with www-authenticate for everything else", async ({ stage, door }) => {
  const broker = stage.broker({ authorize: bearer(["secret", "sécret-two", "€uro", "ab"]) });
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
    // The low byte of the euro sign.
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
    const answer = await door(broker, clientRequest(presenting(authorization)));
    expect([authorization, answer.status, answer.headers.get("www-authenticate")]).toEqual([
      authorization,
      401,
      "Bearer",
    ]);
    expect(await problemOf(answer)).toBe("unauthorized");
  }
  const bare = await door(broker, clientRequest());
  expect([bare.status, bare.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
  // A token in the query ends up in logs, so it is none.
  for (const name of ["token", "access_token", "authorization"])
    expect((await door(broker, clientRequest({ query: { [name]: "secret" } }))).status).toBe(401);
  expectUntouched(broker);
});

reading("bearer: a token of Latin-1 is compared as it comes", async ({ stage, enter }) => {
  const broker = stage.broker({ authorize: bearer("sécret") });
  await enter(broker, presenting("Bearer sécret"));
  expect(broker.stats().clients).toBe(1);
});

publishing("bearer: 401 without reading the body, 200 with the token", async (stage, door) => {
  const broker = stage.broker({ authorize: bearer("secret") });
  const body = witnessedBody();
  const refused = await door(broker, eventRequest(null, "", body.init));
  expect([refused.status, refused.headers.get("www-authenticate"), body.pulls()]).toEqual([401, "Bearer", 0]);
  expectUntouched(broker);
  expect((await door(broker, eventRequest("x", "", { headers: { authorization: "Bearer secret" } }))).status).toBe(200);
});

reading("bearer: a grant is all that its token allows", async ({ stage, door, enter }) => {
  const broker = stage.broker({ authorize: bearer("secret", { subject: "service", channels: ["a"] }) });
  await enter(broker, presenting("Bearer secret"));
  expect(broker.clients()).toMatchObject([{ subject: "service", channels: ["a"] }]);
  const wish = { ...presenting("Bearer secret"), channel: "b" };
  expect(await problem(await door(broker, clientRequest(wish)))).toEqual([403, "forbidden"]);
  const none = stage.broker({ authorize: bearer("secret", false) });
  expect((await door(none, clientRequest(presenting("Bearer secret")))).status).toBe(403);
});

test("bearer: a token that is missing is a TypeError, and opens nothing", () => {
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
