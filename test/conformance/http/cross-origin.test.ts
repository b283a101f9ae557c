// Cross-site request forgery: requests with the credentials that a browser sends without being asked.
import { expect, test } from "vitest";
import type { AccessRequest, BrokerOptions } from "../../../src/index.ts";
import { APP_ORIGIN, EVIL_ORIGIN, type HeaderFields, post } from "../../support/http/origins.ts";
import { corsFieldsOf } from "../../support/http/responses.ts";
import { clientRequest, eventRequest, problemOf, withBroker } from "../../support/test-broker.ts";

const cookie = { cookie: "session=1" };
const basic = { authorization: "Basic eDp5" };
const site = (value: string): HeaderFields => ({ "sec-fetch-site": value });
const from = (origin: string): HeaderFields => ({ origin });
const HERE = "https://fanwire.test";

const requests: readonly (readonly [what: string, passes: boolean, headers: HeaderFields])[] = [
  ["a cookie, of the same origin", true, { ...cookie, ...site("same-origin") }],
  ["a cookie, cross-site", false, { ...cookie, ...site("cross-site") }],
  ["a cookie, same-site", false, { ...cookie, ...site("same-site") }],
  ["a cookie, typed into the address bar", false, { ...cookie, ...site("none") }],
  ["a cookie, and an empty Sec-Fetch-Site", false, { ...cookie, ...site("") }],
  ["a cookie, and two values of Sec-Fetch-Site", false, { ...cookie, ...site("same-origin, cross-site") }],
  ["a cookie, cross-site with the origin of this host", false, { ...cookie, ...site("cross-site"), ...from(HERE) }],
  // Behind a proxy that changes the host, Sec-Fetch-Site is still right.
  ["a cookie, of the same origin by another name", true, { ...cookie, ...site("same-origin"), ...from(APP_ORIGIN) }],
  ["a cookie with the origin of this host", true, { ...cookie, ...from(HERE) }],
  ["a cookie with the origin of this host over http", true, { ...cookie, ...from("http://fanwire.test") }],
  ["a cookie with another origin", false, { ...cookie, ...from(EVIL_ORIGIN) }],
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
  ["a cookie and no origin field", false, cookie],
  ["a password, of the same origin", true, { ...basic, ...site("same-origin") }],
  ["a password, cross-site", false, { ...basic, ...site("cross-site") }],
  ["a password, same-site", false, { ...basic, ...site("same-site") }],
  ["a password with the origin of this host", true, { ...basic, ...from(HERE) }],
  ["a password with another origin", false, { ...basic, ...from(EVIL_ORIGIN) }],
  ["a password with an opaque origin", false, { ...basic, ...from("null") }],
  // No browser sends this, so it is a program.
  ["a password and no origin field", true, basic],
  ["a password and a cookie, and no origin field", false, { ...basic, ...cookie }],
  ["a Kerberos ticket, cross-site", false, { authorization: "Negotiate x", ...site("cross-site") }],
  ["a token, cross-site", true, { authorization: "Bearer x", ...site("cross-site"), ...from(EVIL_ORIGIN) }],
  ["a token and a cookie, cross-site", true, { authorization: "bearer x", ...cookie, ...site("cross-site") }],
  ["a cookie and an empty token", false, { authorization: "Bearer", ...cookie, ...site("cross-site") }],
  [
    "a cookie and a scheme that only begins with Bearer",
    false,
    { authorization: "BearerX y", ...cookie, ...site("cross-site") },
  ],
  ["no credentials, cross-site", true, { ...site("cross-site"), ...from(EVIL_ORIGIN) }],
  ["no credentials, with an opaque origin", true, from("null")],
  ["no credentials and no origin field", true, {}],
];

for (const [what, passes, headers] of requests) {
  test(
    `eventHandler(), fetch(): an event with ${what} is ${passes ? "accepted" : "403 cross-origin, and authorize is not called"}`,
    withBroker(async (setup) => {
      const accesses: AccessRequest[] = [];
      const authorize = (access: AccessRequest): boolean => {
        accesses.push(access);
        return true;
      };
      const authorizing = setup.broker({ authorize });
      const open = setup.broker();
      const answers = [
        [authorizing, await authorizing.fetch(post(headers))],
        [authorizing, await authorizing.eventHandler(post(headers))],
        [open, await open.eventHandler(post(headers))],
        [open, await open.eventHandler(post(headers), { authorize, channels: "a" })],
      ] as const;
      for (const [, answer] of answers) {
        expect(answer.status).toBe(passes ? 200 : 403);
        if (!passes) expect(await problemOf(answer)).toBe("cross-origin");
      }
      expect(accesses).toHaveLength(passes ? 3 : 0);
      expect([authorizing.stats().published, open.stats().published]).toEqual(passes ? [2, 2] : [0, 0]);
    }),
  );
}

test(
  "eventHandler(): the port of the host is compared",
  withBroker(async (setup) => {
    const broker = setup.broker();
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
  "cors.origins: a listed origin may publish with its visitor's credentials, and a similar one may not",
  withBroker(async (setup) => {
    const broker = setup.broker({ cors: { origins: [APP_ORIGIN], credentials: true } });
    const cases: readonly (readonly [string, number])[] = [
      [APP_ORIGIN, 200],
      [EVIL_ORIGIN, 403],
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
  'cors.origins: "*" lets every page read, and no page publish with its visitor\'s credentials',
  withBroker(async (setup) => {
    const broker = setup.broker({ cors: { origins: ["*"] } });
    for (const origin of [APP_ORIGIN, EVIL_ORIGIN, "null"]) {
      const answer = await broker.eventHandler(post({ ...cookie, origin, ...site("cross-site") }));
      expect([answer.status, await problemOf(answer)]).toEqual([403, "cross-origin"]);
    }
    expect((await broker.eventHandler(post({ origin: EVIL_ORIGIN, ...site("cross-site") }))).status).toBe(200);
    // A listed origin is not trusted with cookies unless `credentials` is set.
    const both = setup.broker({ cors: { origins: ["*", APP_ORIGIN] } });
    for (const origin of [APP_ORIGIN, EVIL_ORIGIN])
      expect((await both.eventHandler(post({ ...cookie, origin }))).status).toBe(403);
  }),
);

test(
  "eventHandler(): the body is not read if the origin is not trusted",
  withBroker(async (setup) => {
    let pulls = 0;
    const body = new ReadableStream<Uint8Array>({ pull: () => void pulls++ }, { highWaterMark: 0 });
    const init = { body, duplex: "half", headers: { ...cookie, ...site("cross-site") } } as RequestInit;
    expect((await setup.broker().eventHandler(eventRequest(null, "", init))).status).toBe(403);
    expect(pulls).toBe(0);
  }),
);

test(
  "errorHandler: answers cross-origin errors too, and the page cannot read the answer",
  withBroker(async (setup) => {
    const codes: string[] = [];
    const broker = setup.broker({
      errorHandler: ({ code, status }) => {
        codes.push(code);
        return new Response("mine", { status });
      },
    });
    const answer = await broker.eventHandler(post({ ...cookie, ...from(EVIL_ORIGIN) }));
    expect([answer.status, await answer.text(), corsFieldsOf(answer), codes]).toEqual([
      403,
      "mine",
      [],
      ["cross-origin"],
    ]);
  }),
);

test(
  "clientHandler(): without authorize, a cookie from another origin is accepted, and CORS keeps the page from reading",
  withBroker(async (setup) => {
    const broker = setup.broker({ cors: { origins: [APP_ORIGIN] } });
    const client = await setup.join(broker, { headers: { ...cookie, origin: EVIL_ORIGIN, ...site("cross-site") } });
    expect(corsFieldsOf(client.response)).toEqual([]);
  }),
);

// Connections that `authorize` decides about.

test(
  "authorize: a page of another origin cannot replace its visitor's own connection with the visitor's cookie",
  withBroker(async (setup) => {
    const options: BrokerOptions = { authorize: () => true, duplicateIds: "replace" };
    const broker = setup.broker(options);
    const client = await setup.join(broker, { id: "me", headers: cookie });
    for (const headers of [
      { ...cookie, "sec-fetch-site": "cross-site" },
      { ...cookie, "sec-fetch-site": "same-site" },
      { ...cookie, origin: "https://evil.test" },
      { ...cookie, origin: "null" },
      { authorization: "Basic eA==", "sec-fetch-site": "cross-site" },
    ] as Record<string, string>[]) {
      const answer = await broker.fetch(clientRequest({ id: "me", headers }));
      expect([answer.status, await problemOf(answer)]).toEqual([403, "cross-origin"]);
    }
    await broker.broadcastTo("me", "still here");
    expect((await client.nextData()).data).toBe("still here");
  }),
);

test(
  "authorize: pages of the same origin, a typed address, programs and trusted origins may connect",
  withBroker(async (setup) => {
    const cors = { origins: ["https://friend.test"], credentials: true };
    for (const headers of [
      { ...cookie },
      { ...cookie, "sec-fetch-site": "same-origin" },
      { ...cookie, "sec-fetch-site": "none" },
      { ...cookie, origin: "https://fanwire.test" },
      { ...cookie, origin: "https://friend.test", "sec-fetch-site": "cross-site" },
      { authorization: "Bearer x", ...cookie, "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "cross-site" },
    ] as Record<string, string>[]) {
      const answer = await setup.broker({ authorize: () => true, cors }).fetch(clientRequest({ id: "me", headers }));
      expect([headers, answer.status]).toEqual([headers, 200]);
      await answer.body?.cancel();
    }
  }),
);

test(
  "cross-origin: the default port of the scheme may be present or missing, as proxies add it",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorize: () => true });
    const statusOf = async (host: string, origin: string): Promise<number> =>
      (
        await broker.fetch(
          new Request(`http://${host}/broadcast`, { method: "POST", body: "x", headers: { ...cookie, origin } }),
        )
      ).status;
    expect(await statusOf("h.test:443", "https://h.test")).toBe(200);
    expect(await statusOf("h.test", "https://h.test")).toBe(200);
    expect(await statusOf("h.test:8443", "https://h.test:8443")).toBe(200);
    expect(await statusOf("h.test:444", "https://h.test")).toBe(403);
    expect(await statusOf("h.test", "https://h.test:8443")).toBe(403);
  }),
);
