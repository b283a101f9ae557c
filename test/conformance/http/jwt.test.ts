// `jwt()` through `fetch`: which tokens are accepted, where they may be, and what they allow for how long.
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { expect, test, vi } from "vitest";
import type { AccessRequest, AuthorizeResult } from "../../../src/index.ts";
import { type JwtOptions, jwt } from "../../../src/jwt.ts";
import { clientRequest, eventRequest, problemOf, type TestSetup, withBroker } from "../../support/test-broker.ts";

/** Waits until a check passes. On a busy machine that may take longer than the second that vitest would wait. */
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000 });

const SECRET = "a secret of at least thirty-two bytes";
const inAnHour = (): number => Math.floor(Date.now() / 1000) + 3600;

const sign = (claims: JWTPayload, secret = SECRET, alg = "HS256"): Promise<string> =>
  new SignJWT({ exp: inAnHour(), ...claims }).setProtectedHeader({ alg }).sign(new TextEncoder().encode(secret));

const asReader = ({ sub, channels }: JWTPayload, { action }: AccessRequest): Exclude<AuthorizeResult, Response> =>
  action === "connect" && { clientId: sub, channels: channels as string[] };

const withSecret = (rest: Partial<JwtOptions> = {}): JwtOptions =>
  ({ secret: SECRET, algorithms: ["HS256"], grant: asReader, ...rest }) as JwtOptions;

/** Connects with a token. Returns the registered client, or status, `WWW-Authenticate` and code. */
async function connectWith(
  setup: TestSetup,
  options: JwtOptions,
  headers: Record<string, string>,
  channel: string[] = [],
): Promise<unknown> {
  const broker = setup.broker({ authorize: jwt(options) });
  const answer = await broker.fetch(clientRequest({ headers, channel }));
  if (answer.status !== 200)
    return [answer.status, answer.headers.get("www-authenticate"), await problemOf(answer)].filter(Boolean);
  const [client] = broker.clients();
  await answer.body?.cancel();
  return client;
}
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

test(
  "jwt(): a valid token gives the grant made from its claims, with sub as subject",
  withBroker(async (setup) => {
    const token = await sign({ sub: "ada", channels: ["news", "ada"] });
    expect(await connectWith(setup, withSecret(), bearer(token))).toMatchObject({
      clientId: "ada",
      subject: "ada",
      channels: ["news", "ada"],
    });
    expect(await connectWith(setup, withSecret(), bearer(token), ["news"])).toMatchObject({ channels: ["news"] });
    expect(await connectWith(setup, withSecret(), bearer(token), ["secrets"])).toEqual([403, "forbidden"]);
    const everything = withSecret({ grant: () => true });
    expect(await connectWith(setup, everything, bearer(token), ["secrets"])).toMatchObject({
      subject: "ada",
      channels: ["secrets"],
    });
  }),
);

test(
  "jwt(): a missing or invalid token is 401, and the answer does not say why",
  withBroker(async (setup) => {
    const [head = "", body = "", signature = ""] = (await sign({ sub: "ada", channels: [] })).split(".");
    const forged = btoa(JSON.stringify({ sub: "eve", exp: inAnHour(), channels: [] })).replaceAll("=", "");
    const none = btoa(JSON.stringify({ alg: "none" })).replaceAll("=", "");
    expect(await connectWith(setup, withSecret(), {})).toEqual([401, "Bearer", "unauthorized"]);
    for (const token of [
      "x",
      "a.b.c",
      `${head}.${forged}.${signature}`,
      `${none}.${body}.`,
      `${head}.${body}.`,
      `${head}.${body}`,
      await sign({ sub: "ada" }, "another secret of thirty-two bytes!!"),
      await sign({ sub: "ada" }, SECRET.repeat(2), "HS512"),
      await sign({ sub: "ada", exp: inAnHour() - 3601 }),
      await sign({ sub: "ada", nbf: inAnHour() }),
    ]) {
      expect(await connectWith(setup, withSecret(), bearer(token))).toEqual([
        401,
        'Bearer error="invalid_token"',
        "unauthorized",
      ]);
    }
  }),
);

test(
  "jwt(): a token without exp is refused, because it would never expire",
  withBroker(async (setup) => {
    const token = await new SignJWT({ sub: "ada" })
      .setProtectedHeader({ alg: "HS256" })
      .sign(new TextEncoder().encode(SECRET));
    expect(await connectWith(setup, withSecret(), bearer(token))).toMatchObject([
      401,
      expect.anything(),
      "unauthorized",
    ]);
  }),
);

test(
  "jwt(): the token's issuer and audience must be the configured ones",
  withBroker(async (setup) => {
    const strict = withSecret({ issuer: "https://login.test", audience: "events" });
    const token = (iss: string, aud: string) => sign({ sub: "ada", channels: [], iss, aud });
    expect(await connectWith(setup, strict, bearer(await token("https://login.test", "events")))).toMatchObject({
      subject: "ada",
    });
    for (const other of [await token("https://evil.test", "events"), await token("https://login.test", "mail")])
      expect(await connectWith(setup, strict, bearer(other))).toMatchObject([401, expect.anything(), "unauthorized"]);
  }),
);

test(
  "jwt(): the cookie is read only if the option names it, and the header wins",
  withBroker(async (setup) => {
    const [ada, bob] = [await sign({ sub: "ada", channels: [] }), await sign({ sub: "bob", channels: [] })];
    const cookie = `theme=dark; __Host-session=${ada} ; x`;
    const named = withSecret({ cookie: "__Host-session" });
    expect(await connectWith(setup, named, { cookie })).toMatchObject({ subject: "ada" });
    expect(await connectWith(setup, named, { cookie, ...bearer(bob) })).toMatchObject({ subject: "bob" });
    expect(await connectWith(setup, withSecret(), { cookie })).toEqual([401, "Bearer", "unauthorized"]);
    expect(await connectWith(setup, withSecret({ cookie: "session" }), { cookie })).toEqual([
      401,
      "Bearer",
      "unauthorized",
    ]);
  }),
);

test(
  "jwt(): the stream ends when the token expires, or earlier if the grant says so, and never later",
  withBroker(async (setup) => {
    const time = Date.now();
    const expiring = async (expiresAt: number | undefined, clockTolerance = 0): Promise<number> => {
      const authorize = jwt(withSecret({ clockTolerance, grant: () => ({ expiresAt }) }));
      const request = clientRequest({ headers: bearer(await sign({ sub: "ada", exp: Math.floor(time / 1000) + 60 })) });
      const access = { request, context: undefined, action: "connect", channels: [], clientId: undefined } as const;
      const result = await authorize({ ...access, signal: new AbortController().signal });
      return Number((result as { expiresAt: number }).expiresAt);
    };
    const end = (Math.floor(time / 1000) + 60) * 1000;
    expect(await expiring(undefined)).toBe(end);
    expect(await expiring(time + 10)).toBe(time + 10);
    expect(await expiring(time + 1_000_000)).toBe(end);
    expect(await expiring(undefined, 30)).toBe(end + 30_000);

    const token = await sign({ sub: "ada", exp: Math.floor(Date.now() / 1000) - 1 });
    const broker = setup.broker({ authorize: jwt(withSecret({ clockTolerance: 2, grant: () => true })) });
    const answer = await broker.fetch(clientRequest({ headers: bearer(token) }));
    const text = await answer.text();
    expect(text).toContain('"reason":"expired"');
  }),
);

test(
  "jwt(): grant decides who publishes, and a cookie counts only from the same origin",
  withBroker(async (setup) => {
    const grant = ({ role }: JWTPayload, { action }: AccessRequest): boolean =>
      action === "publish" && role === "writer";
    const broker = setup.broker({ authorize: jwt(withSecret({ cookie: "session", grant })) });
    const [writer, reader] = [await sign({ role: "writer" }), await sign({ role: "reader" })];
    const publish = async (headers: Record<string, string>): Promise<number> =>
      (await broker.fetch(eventRequest("hello", "", { headers }))).status;
    expect(await publish(bearer(writer))).toBe(200);
    expect(await publish(bearer(reader))).toBe(403);
    expect(await publish({})).toBe(401);
    expect(await publish({ cookie: `session=${writer}` })).toBe(403);
  }),
);

test(
  "jwt(): finds public keys by kid, and an unknown key is 401",
  withBroker(async (setup) => {
    const [ours, other] = [await generateKeyPair("ES256"), await generateKeyPair("ES256")];
    const jwks = { keys: [{ ...(await exportJWK(ours.publicKey)), kid: "1", alg: "ES256" }] };
    const options: JwtOptions = { jwks, algorithms: ["ES256"], grant: asReader };
    const token = (key: CryptoKey, kid: string): Promise<string> =>
      new SignJWT({ sub: "ada", channels: [], exp: inAnHour() }).setProtectedHeader({ alg: "ES256", kid }).sign(key);
    expect(await connectWith(setup, options, bearer(await token(ours.privateKey, "1")))).toMatchObject({
      subject: "ada",
    });
    for (const bad of [
      await token(other.privateKey, "1"),
      await token(ours.privateKey, "2"),
      await sign({ sub: "ada" }),
    ])
      expect(await connectWith(setup, options, bearer(bad))).toMatchObject([401, expect.anything(), "unauthorized"]);
  }),
);

test(
  "jwt(): if keys cannot be fetched, the answer is 503, onError is called, and an EventSource comes back later",
  withBroker(async (setup) => {
    const errors: string[] = [];
    const broker = setup.broker({
      authorize: jwt({ jwks: "http://127.0.0.1:9/keys", algorithms: ["ES256"], grant: () => true }),
      onError: (event) => errors.push(event.stage),
    });
    const { privateKey } = await generateKeyPair("ES256");
    const token = await new SignJWT({ exp: inAnHour() }).setProtectedHeader({ alg: "ES256" }).sign(privateKey);
    const answer = await broker.fetch(clientRequest({ headers: { accept: "*/*", ...bearer(token) } }));
    expect([answer.status, await problemOf(answer)]).toEqual([503, "authorize-unavailable"]);
    expect(answer.headers.get("retry-after")).not.toBeNull();
    const stream = await broker.fetch(clientRequest({ headers: bearer(token) }));
    expect([stream.status, await stream.text()]).toEqual([200, expect.stringContaining("authorize-unavailable")]);
    expect(errors).toEqual(["authorize", "authorize"]);
  }),
);

/** Replaces `fetch` and lets time pass, for a broker with `jwks` whose tokens have the key id `kid`. */
async function withIssuer(
  setup: TestSetup,
  work: (issuer: {
    /** Answers a request for the keys. */
    answer: (signal: AbortSignal) => Response | Promise<Response>;
    asked: number;
    skippedMs: number;
    readonly keys: string;
    readonly connect: (kid: string) => Promise<Response>;
  }) => Promise<void>,
): Promise<void> {
  const { publicKey, privateKey } = await generateKeyPair("ES256");
  const keys = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "1" }] });
  const jwks = "https://login.test/keys";
  const broker = setup.broker({ authorize: jwt({ jwks, algorithms: ["ES256"], grant: () => true }) });
  const connect = async (kid: string): Promise<Response> => {
    const token = await new SignJWT({ exp: 9e9 }).setProtectedHeader({ alg: "ES256", kid }).sign(privateKey);
    return broker.fetch(clientRequest({ headers: { accept: "*/*", ...bearer(token) } }));
  };
  const issuer = { answer: (): Response => new Response(keys), asked: 0, skippedMs: 0, keys, connect };
  const realNow = performance.now;
  vi.stubGlobal("fetch", (url: string, { signal }: { signal: AbortSignal }) => {
    expect(url).toBe(jwks);
    issuer.asked++;
    return (issuer.answer as (signal: AbortSignal) => Response)(signal);
  });
  performance.now = () => realNow.call(performance) + issuer.skippedMs;
  try {
    await work(issuer);
  } finally {
    performance.now = realNow;
    vi.unstubAllGlobals();
  }
}

/** Returns the status of a response, and ends its stream. */
async function statusOf(response: Promise<Response>): Promise<number> {
  const { status, body } = await response;
  await body?.cancel();
  return status;
}

test(
  "jwt(): keys that could not be fetched are not fetched again within five seconds, nor for an unknown key",
  withBroker((setup) =>
    withIssuer(setup, async (issuer) => {
      issuer.answer = () => new Response(null, { status: 500 });
      for (let count = 0; count < 5; count++) expect(await statusOf(issuer.connect("1"))).toBe(503);
      expect(issuer.asked).toBe(1);
      issuer.answer = () => new Response(issuer.keys);
      expect(await statusOf(issuer.connect("1"))).toBe(503);
      issuer.skippedMs += 5_000;
      expect(await statusOf(issuer.connect("1"))).toBe(200);
      for (let count = 0; count < 5; count++) expect(await statusOf(issuer.connect("unknown"))).toBe(401);
      expect(issuer.asked).toBe(2);
      issuer.skippedMs += 5_000;
      for (let count = 0; count < 5; count++) expect(await statusOf(issuer.connect("unknown"))).toBe(401);
      expect(issuer.asked).toBe(3);
    }),
  ),
);

test(
  "jwt(): of the requests that need a new key 50 wait, the others come back later, and a known key never waits",
  withBroker((setup) =>
    withIssuer(setup, async (issuer) => {
      expect(await statusOf(issuer.connect("1"))).toBe(200);
      issuer.skippedMs += 5_000;
      let answerAll = (): void => undefined;
      const answered = new Promise<void>((resolve) => {
        answerAll = resolve;
      });
      issuer.answer = () => answered.then(() => new Response(issuer.keys));
      const statuses: number[] = [];
      const forged = Array.from({ length: 60 }, async () => statuses.push(await statusOf(issuer.connect("unknown"))));
      await eventually(() => expect(statuses).toEqual(Array(10).fill(503)));
      expect(await statusOf(issuer.connect("1"))).toBe(200);
      answerAll();
      await Promise.all(forged);
      expect(statuses.slice(10)).toEqual(Array(50).fill(401));
      // Nobody waits any more.
      issuer.skippedMs += 5_000;
      expect(await statusOf(issuer.connect("unknown"))).toBe(401);
    }),
  ),
);

test(
  "jwt(): while the issuer is down, keys are used until they are an hour old, and it is asked once in five seconds",
  withBroker((setup) =>
    withIssuer(setup, async (issuer) => {
      expect(await statusOf(issuer.connect("1"))).toBe(200);
      issuer.answer = () => Promise.reject(new TypeError("connection refused"));
      issuer.skippedMs = 600_000;
      for (let count = 0; count < 5; count++) expect(await statusOf(issuer.connect("1"))).toBe(200);
      expect(issuer.asked).toBe(2);
      expect(await statusOf(issuer.connect("unknown"))).toBe(503);
      issuer.skippedMs = 3_500_000;
      expect(await statusOf(issuer.connect("1"))).toBe(200);
      issuer.skippedMs = 3_600_000;
      expect(await statusOf(issuer.connect("1"))).toBe(503);
      issuer.answer = () => new Response(issuer.keys);
      issuer.skippedMs += 5_000;
      expect(await statusOf(issuer.connect("1"))).toBe(200);
    }),
  ),
);

test(
  "jwt(): an invalid result of grant allows nothing, and a Response is the answer",
  withBroker(async (setup) => {
    const token = await sign({ sub: "ada" });
    for (const given of [0, "", [], new Date(), undefined, null, { channel: "a" }]) {
      const options = withSecret({ grant: () => given as unknown as boolean });
      expect(await connectWith(setup, options, bearer(token))).toEqual([500, "internal"]);
    }
    const broker = setup.broker({
      authorize: jwt(withSecret({ grant: () => new Response(null, { status: 402 }) as never })),
    });
    expect((await broker.fetch(clientRequest({ headers: bearer(token) }))).status).toBe(402);
  }),
);

test(
  "jwt(): sub is the subject if the grant has none, for publishers as well",
  withBroker(async (setup) => {
    const token = await sign({ sub: "ada" });
    const withoutSubject = withSecret({ grant: () => ({ subject: undefined }) });
    expect(await connectWith(setup, withoutSubject, bearer(token))).toMatchObject({ subject: "ada" });
    const broker = setup.broker({ authorize: jwt(withSecret({ grant: () => true })) });
    const publish = async (sub: string): Promise<number> => {
      const headers = { ...bearer(await sign({ sub })), "idempotency-key": "k" };
      return (await broker.fetch(eventRequest(`from ${sub}`, "", { headers }))).status;
    };
    expect([await publish("ada"), await publish("bob")]).toEqual([200, 200]);
    expect(broker.stats().published).toBe(2);
  }),
);

const wrongOptions: readonly (readonly [what: string, options: object])[] = [
  ["no key", { secret: undefined }],
  ["no algorithm", { algorithms: [] }],
  ["algorithms that are a string", { algorithms: "HS256" }],
  ["the algorithm none", { algorithms: ["none"] }],
  ["a public-key algorithm with a secret", { algorithms: ["RS256"] }],
  ["a secret that is too short", { secret: "short" }],
  ["a secret too short for one of them", { algorithms: ["HS256", "HS512"] }],
  ["an option that does not exist", { audiences: "events" }],
  ["an audience that is not set", { audience: undefined }],
  ["an issuer that is not set", { issuer: undefined }],
  ["no grant", { grant: undefined }],
  ["a secret's algorithm with public keys", { secret: undefined, jwks: { keys: [] } }],
];
test("jwt(): clockTolerance must be a number of seconds, or the call is refused", () => {
  for (const clockTolerance of [-1, Number.NaN, Infinity, "5"])
    expect(() => jwt(withSecret({ clockTolerance: clockTolerance as number }))).toThrow(RangeError);
});

for (const [what, options] of wrongOptions) {
  test(`jwt(): ${what} is refused at the call`, () => {
    expect(() => jwt({ ...withSecret(), ...options } as JwtOptions)).toThrow(TypeError);
  });
}

test(
  "jwt(): true for a batch grants nothing by itself, and the grant is asked again for what its lines are for",
  withBroker(async (setup) => {
    const grant = (_: JWTPayload, { batch, channels }: AccessRequest): boolean => batch || channels.includes("own");
    const broker = setup.broker({ authorize: jwt(withSecret({ grant })) });
    const headers = { ...bearer(await sign({ sub: "ada" })), "content-type": "application/x-ndjson" };
    const send = async (line: string) => (await broker.fetch(eventRequest(line, "", { headers }))).status;
    expect(await send('{"data":"x","channels":"own"}')).toBe(200);
    expect(await send('{"data":"x","channels":"other"}')).toBe(403);
    expect(await send('{"data":"x"}')).toBe(403);
    expect(broker.stats().published).toBe(1);
  }),
);
