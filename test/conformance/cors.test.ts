import { expect, test } from "vitest";
import type { Attempt, Broker, BrokerOptions, CorsOptions } from "../../src/index.ts";
import { eventRequest, problemOf, type Scene, scene } from "../support/scene.ts";

// What pages of other origins may do: read answers (CORS), and publish with their visitor's credentials.
// No runtime here strips Origin, Cookie or Sec-Fetch-* from a Request, as a browser would.

const APP = "https://app.example";
const EVIL = "https://evil.test";
const ANY = "*/*";

type Headers = Readonly<Record<string, string>>;
const get = (headers: Headers, query = "", signal?: AbortSignal): Request =>
  new Request(`https://fanwire.test/connect${query}`, {
    headers: { accept: ANY, ...headers },
    ...(signal ? { signal } : {}),
  });
const post = (headers: Headers, query = "", body: string | null = "x"): Request =>
  eventRequest(body, query, { headers });
const options = (path: string, headers: Headers): Request =>
  new Request(`https://fanwire.test${path}`, { method: "OPTIONS", headers });

/** One answer of each kind that there is. */
interface Kind {
  readonly what: string;
  readonly status: number;
  readonly options?: BrokerOptions;
  readonly ask: (broker: Broker, headers: Headers) => Promise<Response>;
}
const kinds: readonly Kind[] = [
  { what: "a stream of fetch", status: 200, ask: (broker, headers) => broker.fetch(get(headers)) },
  { what: "a stream of clientHandler", status: 200, ask: (broker, headers) => broker.clientHandler(get(headers)) },
  { what: "HEAD", status: 200, ask: (broker, headers) => broker.fetch(new Request(get(headers), { method: "HEAD" })) },
  { what: "a publish to eventHandler", status: 200, ask: (broker, headers) => broker.eventHandler(post(headers)) },
  {
    what: "a publish to fetch",
    status: 200,
    options: { publishToken: "secret" },
    ask: (broker, headers) => broker.fetch(post({ ...headers, authorization: "Bearer secret" })),
  },
  {
    what: "204 to who is turned away",
    status: 204,
    async ask(broker, headers) {
      await broker.disconnect("one", { for: 60_000 });
      return broker.fetch(get(headers, "?id=one"));
    },
  },
  { what: "400 to a client", status: 400, ask: (broker, headers) => broker.fetch(get(headers, "?channel=")) },
  { what: "400 to an event", status: 400, ask: (broker, headers) => broker.eventHandler(post(headers, "", null)) },
  {
    what: "401",
    status: 401,
    options: { publishToken: "secret" },
    ask: (broker, headers) => broker.fetch(post(headers)),
  },
  { what: "403 publishing-closed", status: 403, ask: (broker, headers) => broker.fetch(post(headers)) },
  {
    what: "403 forbidden",
    status: 403,
    options: { authorize: () => false },
    ask: (broker, headers) => broker.fetch(get(headers)),
  },
  {
    what: "403 cross-origin",
    status: 403,
    // An origin that CORS names would be let through, so this one has another visitor.
    ask: (broker, headers) =>
      broker.eventHandler(post({ ...headers, authorization: "Basic eDp5", "sec-fetch-site": "none" })),
  },
  {
    what: "404 not-found",
    status: 404,
    ask: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    what: "404 unknown-client",
    status: 404,
    ask: (broker, headers) => broker.eventHandler(post(headers, "?id=nobody")),
  },
  {
    what: "405",
    status: 405,
    ask: (broker, headers) => broker.fetch(new Request(get(headers), { method: "DELETE" })),
  },
  {
    what: "409",
    status: 409,
    options: { duplicateIds: "reject" },
    async ask(broker, headers) {
      const first = await broker.fetch(get({}, "?id=one"));
      const second = await broker.fetch(get(headers, "?id=one"));
      await first.body?.cancel();
      return second;
    },
  },
  {
    what: "413",
    status: 413,
    options: { maxBodyBytes: 1 },
    ask: (broker, headers) => broker.eventHandler(post(headers, "", "too much")),
  },
  {
    what: "422",
    status: 422,
    async ask(broker, headers) {
      const keyed = { ...headers, "idempotency-key": "k" };
      await broker.eventHandler(post(keyed, "", "one"));
      return broker.eventHandler(post(keyed, "", "another"));
    },
  },
  { what: "499", status: 499, ask: (broker, headers) => broker.fetch(get(headers, "", AbortSignal.abort())) },
  {
    what: "500",
    status: 500,
    options: { authorize: () => Promise.reject(new Error("broken")) },
    ask: (broker, headers) => broker.fetch(get(headers)),
  },
  { what: "503", status: 503, options: { maxClients: 0 }, ask: (broker, headers) => broker.fetch(get(headers)) },
  {
    what: "503 authorize-timeout",
    status: 503,
    options: { authorizeTimeout: 1, authorize: () => new Promise(() => undefined) },
    ask: (broker, headers) => broker.eventHandler(post(headers)),
  },
  {
    what: "what an EventSource is told in place of 503",
    status: 200,
    options: { maxClients: 0 },
    ask: (broker, headers) => broker.fetch(get({ ...headers, accept: "text/event-stream" })),
  },
  {
    what: "errorHandler's Response",
    status: 404,
    options: { errorHandler: () => new Response("mine", { status: 404 }) },
    ask: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    what: "errorHandler's Response, whose fields cannot be changed",
    status: 302,
    options: { errorHandler: () => Response.redirect("https://fanwire.test/help", 302) },
    ask: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    what: "the default answer where errorHandler throws",
    status: 404,
    options: { errorHandler: () => Promise.reject(new Error("broken")) },
    ask: (broker, headers) => broker.fetch(new Request("https://fanwire.test/x", { headers })),
  },
  {
    what: "authorize's Response to a client",
    status: 402,
    options: { authorize: () => new Response("pay", { status: 402 }) },
    ask: (broker, headers) => broker.clientHandler(get(headers)),
  },
  {
    what: "authorize's Response to an event, whose fields cannot be changed",
    status: 307,
    options: { authorize: () => Response.redirect("https://fanwire.test/login", 307) },
    ask: (broker, headers) => broker.fetch(post(headers)),
  },
  { what: "OPTIONS", status: 204, ask: (broker, headers) => broker.fetch(options("/connect", headers)) },
];

const corsFieldsOf = ({ headers }: Response): string[] =>
  [...headers.keys()].filter((name) => name.startsWith("access-control-"));
const varyOf = ({ headers }: Response): string[] => (headers.get("vary") ?? "").split(", ");

/** Asks, looks at the answer, and leaves no stream behind. */
async function look(
  stage: Scene,
  { options, ask, status }: Kind,
  cors: CorsOptions | undefined,
  headers: Headers,
  body: (answer: Response) => void,
): Promise<void> {
  const broker = stage.broker({ ...options, ...(cors ? { cors } : {}) });
  const answer = await ask(broker, headers);
  try {
    expect(answer.status).toBe(status);
    body(answer);
  } finally {
    await answer.body?.cancel();
  }
}

for (const kind of kinds) {
  test(
    `cors: off, ${kind.what} has no field of it, whoever asks`,
    scene(async (stage) => {
      for (const headers of [{ origin: APP }, { origin: "null" }, {}] as Headers[]) {
        await look(stage, kind, undefined, headers, (answer) => {
          expect([corsFieldsOf(answer), answer.headers.get("vary")]).toEqual([[], null]);
        });
      }
    }),
  );

  test(
    `cors: ${kind.what} may be read by an origin that is named`,
    scene(async (stage) => {
      for (const credentials of [false, true]) {
        // Where the cookie of a page is what is refused, that of an origin that is trusted with it is not.
        const status = kind.what === "403 cross-origin" && credentials ? 200 : kind.status;
        await look(
          stage,
          { ...kind, status },
          { origins: ["https://other.example", APP], credentials },
          { origin: APP },
          (answer) => {
            const { headers } = answer;
            expect(headers.get("access-control-allow-origin")).toBe(APP);
            expect(headers.get("access-control-allow-credentials")).toBe(credentials ? "true" : null);
            expect(headers.get("access-control-expose-headers")).toBe("fanwire-client-id, retry-after");
            expect(headers.get("access-control-allow-methods")).toBeNull();
            expect(varyOf(answer)).toContain("Origin");
          },
        );
      }
    }),
  );

  test(
    `cors: ${kind.what} has Vary and nothing else for another origin, or for none`,
    scene(async (stage) => {
      for (const headers of [{ origin: EVIL }, { origin: "null" }, {}] as Headers[]) {
        await look(stage, kind, { origins: [APP], credentials: true }, headers, (answer) => {
          expect([corsFieldsOf(answer), varyOf(answer)]).toEqual([[], ["Origin"]]);
        });
      }
    }),
  );

  test(
    `cors: ${kind.what} may be read by every origin with "*", and never with credentials`,
    scene(async (stage) => {
      for (const origin of [APP, EVIL, "null"]) {
        await look(stage, kind, { origins: ["*"] }, { origin }, (answer) => {
          expect(answer.headers.get("access-control-allow-origin")).toBe("*");
          expect(answer.headers.get("access-control-allow-credentials")).toBeNull();
          expect(varyOf(answer)).toContain("Origin");
        });
      }
      await look(stage, kind, { origins: ["*"] }, {}, (answer) => expect(corsFieldsOf(answer)).toEqual([]));
    }),
  );
}

test(
  "cors.origins: an origin that only looks like a named one gets nothing",
  scene(async (stage) => {
    const broker = stage.broker({ cors: { origins: [APP, "http://localhost:3000"] } });
    const similar = [
      "http://app.example",
      "https://app.example:8443",
      "https://app.example:443",
      "https://APP.example",
      "HTTPS://app.example",
      "https://app.example/",
      "https://app.example.",
      "https://app.example.evil.test",
      "https://evil-app.example",
      "https://sub.app.example",
      "https://app.exampl",
      "https://app-example",
      "https://user@app.example",
      "app.example",
      "//app.example",
      `${APP}, ${EVIL}`,
      `${APP} ${EVIL}`,
      "http://localhost",
      "http://localhost:30000",
      "https://localhost:3000",
      "null",
      "*",
      "",
    ];
    for (const origin of similar) {
      const answer = await broker.fetch(get({ origin }, "?channel="));
      expect([origin, corsFieldsOf(answer), varyOf(answer)]).toEqual([origin, [], ["Origin"]]);
      const preflight = await broker.fetch(options("/connect", { origin, "access-control-request-method": "GET" }));
      expect([origin, corsFieldsOf(preflight), varyOf(preflight)]).toEqual([origin, [], ["Origin"]]);
    }
    for (const origin of [APP, "http://localhost:3000"])
      expect((await broker.fetch(get({ origin }, "?channel="))).headers.get("access-control-allow-origin")).toBe(
        origin,
      );
  }),
);

test(
  "cors.origins: a name with a star in it is no pattern",
  scene(async (stage) => {
    let broker: Broker;
    try {
      broker = stage.broker({ cors: { origins: ["https://*.example"] } });
    } catch (error) {
      expect(error).toBeInstanceOf(TypeError);
      return;
    }
    const answer = await broker.fetch(get({ origin: APP }, "?channel="));
    expect(corsFieldsOf(answer)).toEqual([]);
  }),
);

test(
  "cors.origins: a list that the caller changes later changes nothing",
  scene(async (stage) => {
    const origins = [APP];
    const broker = stage.broker({ cors: { origins } });
    origins.push(EVIL, "*");
    const answer = await broker.fetch(get({ origin: EVIL }, "?channel="));
    expect(corsFieldsOf(answer)).toEqual([]);
  }),
);

test(
  "cors.origins: what a browser would never send as an origin is a TypeError",
  scene(async (stage) => {
    const wrong: readonly unknown[] = [
      "https://app.example/",
      "https://app.example/path",
      "https://app.example?x",
      "https://app.example#x",
      "https://user@app.example",
      "https://app.example:443",
      "http://app.example:80",
      "https://APP.example",
      " https://app.example",
      "https://app.example ",
      "https://bücher.example",
      "app.example",
      "//app.example",
      "localhost:3000",
      "null",
      "",
      "**",
      "file:///page.html",
      "data:text/html,x",
      "about:blank",
      7,
      null,
      undefined,
      {},
      /app/,
    ];
    for (const origin of wrong) {
      const origins = [APP, origin] as string[];
      expect(() => stage.broker({ cors: { origins } }), `${String(origin)}`).toThrow(TypeError);
    }
    for (const cors of [{}, { origins: APP }, { origins: null }, { origins: new Set([APP]) }, true, "*"])
      expect(() => stage.broker({ cors: cors as unknown as CorsOptions })).toThrow(TypeError);
  }),
);

test(
  'cors: "*" together with credentials is a TypeError, wherever it stands',
  scene(async (stage) => {
    for (const origins of [["*"], [APP, "*"], ["*", APP]])
      expect(() => stage.broker({ cors: { origins, credentials: true } })).toThrow(TypeError);
    for (const maxAge of [-1, Number.NaN])
      expect(() => stage.broker({ cors: { origins: [APP], maxAge } })).toThrow(RangeError);
  }),
);

test(
  "cors: a preflight is answered with the methods and headers of its path, and authorize is not asked",
  scene(async (stage) => {
    const asked: Attempt[] = [];
    const broker = stage.broker({
      cors: { origins: [APP], credentials: true, maxAge: 5 },
      authorize: (attempt) => {
        asked.push(attempt);
        return false;
      },
    });
    const preflight = (method: string): Headers => ({
      origin: APP,
      "access-control-request-method": method,
      "access-control-request-headers": "authorization,last-event-id",
      cookie: "session=1",
      "sec-fetch-site": "cross-site",
    });
    const answers = [
      [await broker.fetch(options("/connect", preflight("GET"))), "GET, HEAD, OPTIONS"],
      [await broker.clientHandler(options("/anywhere", preflight("GET"))), "GET, HEAD, OPTIONS"],
      [await broker.fetch(options("/broadcast", preflight("POST"))), "POST, OPTIONS"],
      [await broker.eventHandler(options("/anywhere", preflight("POST"))), "POST, OPTIONS"],
    ] as const;
    for (const [answer, methods] of answers) {
      const { headers } = answer;
      expect([answer.status, answer.body]).toEqual([204, null]);
      expect(headers.get("access-control-allow-origin")).toBe(APP);
      expect(headers.get("access-control-allow-credentials")).toBe("true");
      expect(headers.get("access-control-allow-methods")).toBe(methods);
      expect(headers.get("access-control-allow-headers")?.split(", ")).toEqual(
        expect.arrayContaining(["authorization", "content-type", "last-event-id", "idempotency-key"]),
      );
      expect(headers.get("access-control-max-age")).toBe("5");
      expect(varyOf(answer)).toContain("Origin");
    }
    expect(asked).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 0, pending: 0, engine: "idle" });
  }),
);

test(
  "cors.maxAge: ten minutes by default, and 0 keeps nothing",
  scene(async (stage) => {
    const preflight = options("/connect", { origin: APP, "access-control-request-method": "GET" });
    for (const [maxAge, told] of [
      [undefined, "600"],
      [0, "0"],
    ] as const) {
      const broker = stage.broker({ cors: { origins: [APP], ...(maxAge === undefined ? {} : { maxAge }) } });
      expect((await broker.fetch(preflight)).headers.get("access-control-max-age")).toBe(told);
    }
  }),
);

test(
  "cors: a preflight gets no more than Vary where the origin is not named, and nothing where cors is off",
  scene(async (stage) => {
    const headers = { origin: EVIL, "access-control-request-method": "POST" };
    const on = await stage.broker({ cors: { origins: [APP] } }).fetch(options("/broadcast", headers));
    expect([on.status, corsFieldsOf(on), varyOf(on)]).toEqual([204, [], ["Origin"]]);
    const off = await stage.broker().fetch(options("/broadcast", headers));
    expect([off.status, corsFieldsOf(off), off.headers.get("vary")]).toEqual([204, [], null]);
    const nowhere = await stage.broker({ cors: { origins: [APP] } }).fetch(options("/x", { ...headers, origin: APP }));
    expect([nowhere.status, nowhere.headers.get("access-control-allow-origin")]).toEqual([404, APP]);
  }),
);

test(
  "cors: fields that a Response has of its own are kept",
  scene(async (stage) => {
    const make = (): Response =>
      new Response("own", { status: 402, headers: { vary: "Accept-Encoding, Cookie", "x-own": "yes" } });
    const broker = stage.broker({ cors: { origins: [APP] }, authorize: make, errorHandler: make });
    for (const request of [get({ origin: APP }), get({ origin: APP }, "?channel=")]) {
      const answer = await broker.fetch(request);
      expect([answer.status, answer.headers.get("x-own"), await answer.text()]).toEqual([402, "yes", "own"]);
      expect(varyOf(answer)).toEqual(["Accept-Encoding", "Cookie", "Origin"]);
    }
    const redirect = stage.broker({
      cors: { origins: [APP] },
      authorize: () => Response.redirect("https://fanwire.test/login"),
    });
    expect((await redirect.fetch(get({ origin: APP }))).headers.get("location")).toBe("https://fanwire.test/login");
  }),
);

test(
  "cors: a Response that is given again and again tells one origin nothing of another",
  scene(async (stage) => {
    // Without a body a Response may be answered any number of times.
    const denied = new Response(null, { status: 403 });
    const broker = stage.broker({
      cors: { origins: [APP, "https://other.example"], credentials: true },
      authorize: () => denied,
    });
    expect((await broker.fetch(get({ origin: APP }))).headers.get("access-control-allow-origin")).toBe(APP);
    for (const origin of [EVIL, "null"]) {
      const answer = await broker.fetch(get({ origin }));
      expect([corsFieldsOf(answer), varyOf(answer)]).toEqual([[], ["Origin"]]);
    }
    expect([...denied.headers]).toEqual([]);
  }),
);

// Publishing with the credentials that a browser sends by itself.

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
      const asked: Attempt[] = [];
      const authorize = (attempt: Attempt): boolean => {
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
