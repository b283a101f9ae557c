import { expect, test } from "vitest";
import type { AccessRequest } from "../../../src/index.ts";
import { APP, EVIL, type Headers, post } from "../../support/http/origins.ts";
import { corsFieldsOf } from "../../support/http/responses.ts";
import { eventRequest, problemOf, scene } from "../../support/test-broker.ts";

// Who may publish with the credentials that a browser sends by itself.

const cookie = { cookie: "session=1" };
const basic = { authorization: "Basic eDp5" };
const site = (value: string): Headers => ({ "sec-fetch-site": value });
const from = (origin: string): Headers => ({ origin });
const HERE = "https://fanwire.test";

const attempts: readonly (readonly [what: string, passes: boolean, headers: Headers])[] = [
  ["a cookie, of the same origin", true, { ...cookie, ...site("same-origin") }],
  ["a cookie, cross-site", false, { ...cookie, ...site("cross-site") }],
  ["a cookie, same-site", false, { ...cookie, ...site("same-site") }],
  ["a cookie, typed by the user", false, { ...cookie, ...site("none") }],
  ["a cookie, of a site with no name", false, { ...cookie, ...site("") }],
  ["a cookie, of two sites", false, { ...cookie, ...site("same-origin, cross-site") }],
  ["a cookie, cross-site with the origin of this host", false, { ...cookie, ...site("cross-site"), ...from(HERE) }],
  // Behind a proxy that changes the host, the browser still knows best.
  ["a cookie, of the same origin by another name", true, { ...cookie, ...site("same-origin"), ...from(APP) }],
  ["a cookie with the origin of this host", true, { ...cookie, ...from(HERE) }],
  ["a cookie with the origin of this host before its TLS ends", true, { ...cookie, ...from("http://fanwire.test") }],
  ["a cookie with another origin", false, { ...cookie, ...from(EVIL) }],
  ["a cookie with another port", false, { ...cookie, ...from(`${HERE}:8443`) }],
  ["a cookie with a subdomain", false, { ...cookie, ...from("https://sub.fanwire.test") }],
  ["a cookie with an origin that ends in this host", false, { ...cookie, ...from("https://evil-fanwire.test") }],
  [
    "a cookie with an origin that begins with this host",
    false,
    { ...cookie, ...from("https://fanwire.test.evil.test") },
  ],
  ["a cookie with a host and no scheme", false, { ...cookie, ...from("fanwire.test") }],
  ["a cookie with an opaque origin", false, { ...cookie, ...from("null") }],
  ["a cookie with an empty origin", false, { ...cookie, ...from("") }],
  ["a cookie and nothing that tells", false, cookie],
  ["a password, of the same origin", true, { ...basic, ...site("same-origin") }],
  ["a password, cross-site", false, { ...basic, ...site("cross-site") }],
  ["a password, same-site", false, { ...basic, ...site("same-site") }],
  ["a password with the origin of this host", true, { ...basic, ...from(HERE) }],
  ["a password with another origin", false, { ...basic, ...from(EVIL) }],
  ["a password with an opaque origin", false, { ...basic, ...from("null") }],
  // What no browser sends is a program.
  ["a password and nothing that tells", true, basic],
  ["a password and a cookie, and nothing that tells", false, { ...basic, ...cookie }],
  ["a Kerberos ticket, cross-site", false, { authorization: "Negotiate x", ...site("cross-site") }],
  ["a token, cross-site", true, { authorization: "Bearer x", ...site("cross-site"), ...from(EVIL) }],
  ["a token and a cookie, cross-site", true, { authorization: "bearer x", ...cookie, ...site("cross-site") }],
  ["a cookie and a token that is none", false, { authorization: "Bearer", ...cookie, ...site("cross-site") }],
  [
    "a cookie and what only begins like a token",
    false,
    { authorization: "BearerX y", ...cookie, ...site("cross-site") },
  ],
  ["no credentials, cross-site", true, { ...site("cross-site"), ...from(EVIL) }],
  ["no credentials, with an opaque origin", true, from("null")],
  ["no credentials and nothing that tells", true, {}],
];

for (const [what, passes, headers] of attempts) {
  test(
    `eventHandler, fetch: an event with ${what} is ${passes ? "accepted" : "403 cross-origin, and authorize is not asked"}`,
    scene(async (stage) => {
      const asked: AccessRequest[] = [];
      const authorize = (attempt: AccessRequest): boolean => {
        asked.push(attempt);
        return true;
      };
      const deciding = stage.broker({ authorize });
      const open = stage.broker();
      const answers = [
        [deciding, await deciding.fetch(post(headers))],
        [deciding, await deciding.eventHandler(post(headers))],
        [open, await open.eventHandler(post(headers))],
        [open, await open.eventHandler(post(headers), { authorize, channels: "a" })],
      ] as const;
      for (const [, answer] of answers) {
        expect(answer.status).toBe(passes ? 200 : 403);
        if (!passes) expect(await problemOf(answer)).toBe("cross-origin");
      }
      expect(asked).toHaveLength(passes ? 3 : 0);
      expect([deciding.stats().published, open.stats().published]).toEqual(passes ? [2, 2] : [0, 0]);
    }),
  );
}

test(
  "eventHandler: the port of this host counts",
  scene(async (stage) => {
    const broker = stage.broker();
    const at = (url: string, origin: string): Request =>
      new Request(url, { method: "POST", body: "x", headers: { ...cookie, origin } });
    const cases = [
      ["http://fanwire.test:8080/", "http://fanwire.test:8080", 200],
      ["http://fanwire.test:8080/", "http://fanwire.test", 403],
      ["http://fanwire.test:8080/", "http://fanwire.test:80801", 403],
      ["http://fanwire.test:80/", "http://fanwire.test", 200],
      ["http://fanwire.test/", "http://fanwire.test:8080", 403],
      ["http://[::1]:8080/", "http://[::1]:8080", 200],
    ] as const;
    for (const [url, origin, status] of cases)
      expect([url, origin, (await broker.eventHandler(at(url, origin))).status]).toEqual([url, origin, status]);
  }),
);

test(
  "cors.origins: a named origin may publish with its visitor's credentials, one that only looks like it may not",
  scene(async (stage) => {
    const broker = stage.broker({ cors: { origins: [APP], credentials: true } });
    const cases: readonly (readonly [string, number])[] = [
      [APP, 200],
      [EVIL, 403],
      ["http://app.example", 403],
      ["https://app.example.evil.test", 403],
      ["https://sub.app.example", 403],
      ["https://app.example:8443", 403],
      ["null", 403],
    ];
    for (const [origin, status] of cases) {
      for (const credentials of [cookie, basic]) {
        const answers = [
          await broker.eventHandler(post({ ...credentials, origin, ...site("cross-site") })),
          await broker.eventHandler(post({ ...credentials, origin })),
        ];
        expect([origin, ...answers.map((answer) => answer.status)]).toEqual([origin, status, status]);
      }
    }
  }),
);

test(
  'cors.origins: "*" lets every page read, and none publish with its visitor\'s credentials',
  scene(async (stage) => {
    const broker = stage.broker({ cors: { origins: ["*"] } });
    for (const origin of [APP, EVIL, "null"]) {
      const answer = await broker.eventHandler(post({ ...cookie, origin, ...site("cross-site") }));
      expect([answer.status, await problemOf(answer)]).toEqual([403, "cross-origin"]);
    }
    expect((await broker.eventHandler(post({ origin: EVIL, ...site("cross-site") }))).status).toBe(200);
    // To be named is not to be trusted with cookies.
    const both = stage.broker({ cors: { origins: ["*", APP] } });
    for (const origin of [APP, EVIL]) expect((await both.eventHandler(post({ ...cookie, origin }))).status).toBe(403);
  }),
);

test(
  "publishing: nothing of the body is read where the origin is not trusted",
  scene(async (stage) => {
    let pulls = 0;
    const body = new ReadableStream<Uint8Array>({ pull: () => void pulls++ }, { highWaterMark: 0 });
    const init = { body, duplex: "half", headers: { ...cookie, ...site("cross-site") } } as RequestInit;
    expect((await stage.broker().eventHandler(eventRequest(null, "", init))).status).toBe(403);
    expect(pulls).toBe(0);
  }),
);

test(
  "errorHandler: answers cross-origin as well, and the origin learns no more than that",
  scene(async (stage) => {
    const codes: string[] = [];
    const broker = stage.broker({
      errorHandler: ({ code, status }) => {
        codes.push(code);
        return new Response("mine", { status });
      },
    });
    const answer = await broker.eventHandler(post({ ...cookie, ...from(EVIL) }));
    expect([answer.status, await answer.text(), corsFieldsOf(answer), codes]).toEqual([
      403,
      "mine",
      [],
      ["cross-origin"],
    ]);
  }),
);

test(
  "connecting: a cookie from another origin is no reason to refuse, CORS keeps the page from reading",
  scene(async (stage) => {
    const broker = stage.broker({ cors: { origins: [APP] } });
    const client = await stage.join(broker, { headers: { ...cookie, origin: EVIL, ...site("cross-site") } });
    expect(corsFieldsOf(client.response)).toEqual([]);
  }),
);
