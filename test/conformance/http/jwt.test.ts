import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { expect, test } from "vitest";
import type { AccessRequest, AuthorizeResult } from "../../../src/index.ts";
import { type JwtOptions, jwt } from "../../../src/jwt.ts";
import { clientRequest, eventRequest, problemOf, type Scene, scene } from "../../support/test-broker.ts";

// Tokens through `fetch`: which ones are good, where they may be, and what they allow for how long.

const SECRET = "a secret of at least thirty-two bytes";
const inAnHour = (): number => Math.floor(Date.now() / 1000) + 3600;

const sign = (claims: JWTPayload, secret = SECRET, alg = "HS256"): Promise<string> =>
  new SignJWT({ exp: inAnHour(), ...claims }).setProtectedHeader({ alg }).sign(new TextEncoder().encode(secret));

const asReader = ({ sub, channels }: JWTPayload, { action }: AccessRequest): Exclude<AuthorizeResult, Response> =>
  action === "connect" && { clientId: sub, channels: channels as string[] };

const withSecret = (rest: Partial<JwtOptions> = {}): JwtOptions =>
  ({ secret: SECRET, algorithms: ["HS256"], grant: asReader, ...rest }) as JwtOptions;

/** Connects with a token; the client's id and channels, or status and code. */
async function connectWith(
  stage: Scene,
  options: JwtOptions,
  headers: Record<string, string>,
  channel: string[] = [],
): Promise<unknown> {
  const broker = stage.broker({ authorize: jwt(options) });
  const answer = await broker.fetch(clientRequest({ headers, channel }));
  if (answer.status !== 200)
    return [answer.status, answer.headers.get("www-authenticate"), await problemOf(answer)].filter(Boolean);
  const [client] = broker.clients();
  await answer.body?.cancel();
  return client;
}
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

test(
  "jwt: a good token gives what grant makes of its claims, with sub as subject",
  scene(async (stage) => {
    const token = await sign({ sub: "ada", channels: ["news", "ada"] });
    expect(await connectWith(stage, withSecret(), bearer(token))).toMatchObject({
      clientId: "ada",
      subject: "ada",
      channels: ["news", "ada"],
    });
    expect(await connectWith(stage, withSecret(), bearer(token), ["news"])).toMatchObject({ channels: ["news"] });
    expect(await connectWith(stage, withSecret(), bearer(token), ["secrets"])).toEqual([403, "forbidden"]);
    const everything = withSecret({ grant: () => true });
    expect(await connectWith(stage, everything, bearer(token), ["secrets"])).toMatchObject({
      subject: "ada",
      channels: ["secrets"],
    });
  }),
);

test(
  "jwt: no token, and one that is not good, is 401 and tells nothing of why",
  scene(async (stage) => {
    const [head = "", body = "", mark = ""] = (await sign({ sub: "ada", channels: [] })).split(".");
    const forged = btoa(JSON.stringify({ sub: "eve", exp: inAnHour(), channels: [] })).replaceAll("=", "");
    const none = btoa(JSON.stringify({ alg: "none" })).replaceAll("=", "");
    expect(await connectWith(stage, withSecret(), {})).toEqual([401, "Bearer", "unauthorized"]);
    for (const token of [
      "x",
      "a.b.c",
      `${head}.${forged}.${mark}`,
      `${none}.${body}.`,
      `${head}.${body}.`,
      `${head}.${body}`,
      await sign({ sub: "ada" }, "another secret of thirty-two bytes!!"),
      await sign({ sub: "ada" }, SECRET.repeat(2), "HS512"),
      await sign({ sub: "ada", exp: inAnHour() - 3601 }),
      await sign({ sub: "ada", nbf: inAnHour() }),
    ]) {
      expect(await connectWith(stage, withSecret(), bearer(token))).toEqual([
        401,
        'Bearer error="invalid_token"',
        "unauthorized",
      ]);
    }
  }),
);

test(
  "jwt: a token without exp is refused, it would never end",
  scene(async (stage) => {
    const token = await new SignJWT({ sub: "ada" })
      .setProtectedHeader({ alg: "HS256" })
      .sign(new TextEncoder().encode(SECRET));
    expect(await connectWith(stage, withSecret(), bearer(token))).toMatchObject([
      401,
      expect.anything(),
      "unauthorized",
    ]);
  }),
);

test(
  "jwt: issuer and audience are those that were set",
  scene(async (stage) => {
    const strict = withSecret({ issuer: "https://login.test", audience: "events" });
    const token = (iss: string, aud: string) => sign({ sub: "ada", channels: [], iss, aud });
    expect(await connectWith(stage, strict, bearer(await token("https://login.test", "events")))).toMatchObject({
      subject: "ada",
    });
    for (const other of [await token("https://evil.test", "events"), await token("https://login.test", "mail")])
      expect(await connectWith(stage, strict, bearer(other))).toMatchObject([401, expect.anything(), "unauthorized"]);
  }),
);

test(
  "jwt: a cookie is read where it is named, and the header goes before it",
  scene(async (stage) => {
    const [ada, bob] = [await sign({ sub: "ada", channels: [] }), await sign({ sub: "bob", channels: [] })];
    const cookie = `theme=dark; __Host-session=${ada} ; x`;
    const named = withSecret({ cookie: "__Host-session" });
    expect(await connectWith(stage, named, { cookie })).toMatchObject({ subject: "ada" });
    expect(await connectWith(stage, named, { cookie, ...bearer(bob) })).toMatchObject({ subject: "bob" });
    expect(await connectWith(stage, withSecret(), { cookie })).toEqual([401, "Bearer", "unauthorized"]);
    expect(await connectWith(stage, withSecret({ cookie: "session" }), { cookie })).toEqual([
      401,
      "Bearer",
      "unauthorized",
    ]);
  }),
);

test(
  "jwt: the stream ends with the token, or before it if the grant says so, never later",
  scene(async (stage) => {
    const time = Date.now();
    const seen: unknown[] = [];
    const expiring = async (expiresAt: number | undefined, clockTolerance = 0): Promise<number> => {
      const authorize = jwt(withSecret({ clockTolerance, grant: () => ({ expiresAt }) }));
      const request = clientRequest({ headers: bearer(await sign({ sub: "ada", exp: Math.floor(time / 1000) + 60 })) });
      const attempt = { request, context: undefined, action: "connect", channels: [], clientId: undefined } as const;
      const verdict = await authorize({ ...attempt, signal: new AbortController().signal });
      seen.push(verdict);
      return Number((verdict as { expiresAt: number }).expiresAt);
    };
    const end = (Math.floor(time / 1000) + 60) * 1000;
    expect(await expiring(undefined)).toBe(end);
    expect(await expiring(time + 10)).toBe(time + 10);
    expect(await expiring(time + 1_000_000)).toBe(end);
    expect(await expiring(undefined, 30)).toBe(end + 30_000);

    const token = await sign({ sub: "ada", exp: Math.floor(Date.now() / 1000) - 1 });
    const broker = stage.broker({ authorize: jwt(withSecret({ clockTolerance: 2, grant: () => true })) });
    const answer = await broker.fetch(clientRequest({ headers: bearer(token) }));
    const text = await answer.text();
    expect(text).toContain('"reason":"expired"');
  }),
);

test(
  "jwt: publishing is for whom grant lets, and by a cookie only from the same origin",
  scene(async (stage) => {
    const grant = ({ role }: JWTPayload, { action }: AccessRequest): boolean =>
      action === "publish" && role === "writer";
    const broker = stage.broker({ authorize: jwt(withSecret({ cookie: "session", grant })) });
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
  "jwt: public keys by kid; a key that is not there is 401",
  scene(async (stage) => {
    const [ours, other] = [await generateKeyPair("ES256"), await generateKeyPair("ES256")];
    const jwks = { keys: [{ ...(await exportJWK(ours.publicKey)), kid: "1", alg: "ES256" }] };
    const options: JwtOptions = { jwks, algorithms: ["ES256"], grant: asReader };
    const token = (key: CryptoKey, kid: string): Promise<string> =>
      new SignJWT({ sub: "ada", channels: [], exp: inAnHour() }).setProtectedHeader({ alg: "ES256", kid }).sign(key);
    expect(await connectWith(stage, options, bearer(await token(ours.privateKey, "1")))).toMatchObject({
      subject: "ada",
    });
    for (const bad of [
      await token(other.privateKey, "1"),
      await token(ours.privateKey, "2"),
      await sign({ sub: "ada" }),
    ])
      expect(await connectWith(stage, options, bearer(bad))).toMatchObject([401, expect.anything(), "unauthorized"]);
  }),
);

test(
  "jwt: keys that cannot be fetched are 503 and go to onError; an EventSource is told to come back",
  scene(async (stage) => {
    const errors: string[] = [];
    const broker = stage.broker({
      authorize: jwt({ jwks: "http://127.0.0.1:9/keys", algorithms: ["ES256"], grant: () => true }),
      onError: ({ stage: at }) => errors.push(at),
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

test(
  "jwt: what grant gives and is no verdict allows nothing, and a Response is the answer",
  scene(async (stage) => {
    const token = await sign({ sub: "ada" });
    for (const given of [0, "", [], new Date(), undefined, null, { channel: "a" }]) {
      const options = withSecret({ grant: () => given as unknown as boolean });
      expect(await connectWith(stage, options, bearer(token))).toEqual([500, "internal"]);
    }
    const broker = stage.broker({
      authorize: jwt(withSecret({ grant: () => new Response(null, { status: 402 }) as never })),
    });
    expect((await broker.fetch(clientRequest({ headers: bearer(token) }))).status).toBe(402);
  }),
);

test(
  "jwt: sub is the subject where the grant says none, for publishers as well",
  scene(async (stage) => {
    const token = await sign({ sub: "ada" });
    const silent = withSecret({ grant: () => ({ subject: undefined }) });
    expect(await connectWith(stage, silent, bearer(token))).toMatchObject({ subject: "ada" });
    const broker = stage.broker({ authorize: jwt(withSecret({ grant: () => true })) });
    const publish = async (sub: string): Promise<number> => {
      const headers = { ...bearer(await sign({ sub })), "idempotency-key": "k" };
      return (await broker.fetch(eventRequest(`from ${sub}`, "", { headers }))).status;
    };
    expect([await publish("ada"), await publish("bob")]).toEqual([200, 200]);
    expect(broker.stats().published).toBe(2);
  }),
);

const wrong: readonly (readonly [what: string, options: object])[] = [
  ["no key", { secret: undefined }],
  ["no algorithm", { algorithms: [] }],
  ["algorithms that are a string", { algorithms: "HS256" }],
  ["none", { algorithms: ["none"] }],
  ["a public-key algorithm with a secret", { algorithms: ["RS256"] }],
  ["a secret that is too short", { secret: "short" }],
  ["a secret too short for one of them", { algorithms: ["HS256", "HS512"] }],
  ["an option that does not exist", { audiences: "events" }],
  ["an audience that is not set", { audience: undefined }],
  ["an issuer that is not set", { issuer: undefined }],
  ["no grant", { grant: undefined }],
  ["a secret's algorithm with public keys", { secret: undefined, jwks: { keys: [] } }],
];
test("jwt: a tolerance that is no number of seconds is refused when it is made", () => {
  for (const clockTolerance of [-1, Number.NaN, Infinity, "5"])
    expect(() => jwt(withSecret({ clockTolerance: clockTolerance as number }))).toThrow(RangeError);
});

for (const [what, options] of wrong) {
  test(`jwt: ${what} is refused when it is made`, () => {
    expect(() => jwt({ ...withSecret(), ...options } as JwtOptions)).toThrow(TypeError);
  });
}
