// `jwt()`: each check of a token by itself, because one that depends on another lets tokens in.
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { expect, test } from "vitest";
import { type JwtOptions, jwt } from "../../../src/jwt.ts";
import { clientRequest, eventRequest, type TestSetup, withBroker } from "../../support/test-broker.ts";

// Long enough for every algorithm, so that only `algorithms` tells them apart.
const SECRET = "a secret of sixty-four bytes, which is enough for HS512 as well!";
const inAnHour = (): number => Math.floor(Date.now() / 1000) + 3600;
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

const sign = (claims: JWTPayload, alg = "HS256", key: CryptoKey | Uint8Array = new TextEncoder().encode(SECRET)) =>
  new SignJWT({ sub: "ada", exp: inAnHour(), ...claims }).setProtectedHeader({ alg }).sign(key);

const withSecret = (options: Partial<JwtOptions> = {}): JwtOptions =>
  ({ secret: SECRET, algorithms: ["HS256"], grant: () => true, ...options }) as JwtOptions;

/** Connects with these header fields. Returns the subject of the client, or the status of a refusal. */
async function connectWith(
  setup: TestSetup,
  options: JwtOptions,
  headers: Record<string, string>,
): Promise<string | number | undefined> {
  const broker = setup.broker({ authorize: jwt(options) });
  const answer = await broker.fetch(clientRequest({ headers }));
  const [client] = broker.clients();
  await answer.body?.cancel();
  return answer.status === 200 ? client?.subject : answer.status;
}

const checkedClaims: readonly (readonly [
  what: string,
  options: Partial<JwtOptions>,
  good: JWTPayload,
  JWTPayload[],
])[] = [
  ["audience", { audience: "events" }, { aud: "events" }, [{ aud: "mail" }, {}]],
  ["issuer", { issuer: "https://login.test" }, { iss: "https://login.test" }, [{ iss: "https://evil.test" }, {}]],
  ["a list of audiences", { audience: ["events", "news"] }, { aud: ["a", "news"] }, [{ aud: ["a", "b"] }, {}]],
  ["a list of issuers", { issuer: ["one", "two"] }, { iss: "two" }, [{ iss: "three" }, {}]],
  // Each of two is checked, and none in place of the other.
  [
    "audience beside issuer",
    { audience: "events", issuer: "login" },
    { aud: "events", iss: "login" },
    [{ aud: "events" }, { iss: "login" }, { aud: "login", iss: "events" }],
  ],
];
test.for(checkedClaims)("jwt(): %s is checked by itself", ([, options, good, bad]) =>
  withBroker(async (setup) => {
    expect(await connectWith(setup, withSecret(options), bearer(await sign(good)))).toBe("ada");
    for (const claims of bad)
      expect(await connectWith(setup, withSecret(options), bearer(await sign(claims))), JSON.stringify(claims)).toBe(
        401,
      );
  })(),
);

test(
  "jwt(): a token with an algorithm that fits the secret and is not listed is refused",
  withBroker(async (setup) => {
    const tokens = await Promise.all(["HS256", "HS384", "HS512"].map((alg) => sign({}, alg)));
    const statuses = async (...algorithms: string[]): Promise<unknown[]> =>
      Promise.all(tokens.map((token) => connectWith(setup, withSecret({ algorithms }), bearer(token))));
    expect(await statuses("HS256")).toEqual(["ada", 401, 401]);
    expect(await statuses("HS384", "HS512")).toEqual([401, "ada", "ada"]);
  }),
);

test(
  "jwt(): a token with an algorithm that fits the public key and is not listed is refused",
  withBroker(async (setup) => {
    const { publicKey, privateKey } = await generateKeyPair("RS256", { extractable: true });
    // Issuers may leave out `alg`, and then one key fits several algorithms.
    const jwks = { keys: [await exportJWK(publicKey)] };
    const sameKey = await crypto.subtle.importKey(
      "pkcs8",
      await crypto.subtle.exportKey("pkcs8", privateKey),
      { name: "RSASSA-PKCS1-v1_5", hash: "SHA-512" },
      false,
      ["sign"],
    );
    const tokens = [await sign({}, "RS256", privateKey), await sign({}, "RS512", sameKey)];
    const statuses = async (...algorithms: string[]): Promise<unknown[]> =>
      Promise.all(tokens.map((token) => connectWith(setup, { jwks, algorithms, grant: () => true }, bearer(token))));
    expect(await statuses("RS256")).toEqual(["ada", 401]);
    expect(await statuses("RS512")).toEqual([401, "ada"]);
  }),
);

test(
  "jwt(): the secret may be bytes",
  withBroker(async (setup) => {
    const secret = crypto.getRandomValues(new Uint8Array(32));
    const other = crypto.getRandomValues(new Uint8Array(32));
    expect(await connectWith(setup, withSecret({ secret }), bearer(await sign({}, "HS256", secret)))).toBe("ada");
    expect(await connectWith(setup, withSecret({ secret }), bearer(await sign({}, "HS256", other)))).toBe(401);
  }),
);

test(
  "jwt(): a cookie counts by its whole name, in its case, and the first of several",
  withBroker(async (setup) => {
    const [ada, eve] = [await sign({}), await sign({ sub: "eve" })];
    const named = withSecret({ cookie: "session" });
    const subjectOf = (cookie: string): Promise<unknown> => connectWith(setup, named, { cookie });
    for (const name of ["session_id", "my_session", "sessio", "Session", "SESSION"]) {
      expect(await subjectOf(`${name}=${eve}`), name).toBe(401);
      expect(await subjectOf(`${name}=${eve}; session=${ada}`), name).toBe("ada");
    }
    // Browsers send the cookie with the more specific path first (RFC 6265, section 5.4).
    expect(await subjectOf(`session=${ada}; session=${eve}`)).toBe("ada");
    expect(await subjectOf(`session=${eve}; session=${ada}`)).toBe("eve");
  }),
);

test(
  "jwt(): the subject of the grant goes before the token's sub, for clients and for publishers",
  withBroker(async (setup) => {
    const broker = setup.broker({
      maxClientsPerSubject: 1,
      authorize: jwt(withSecret({ grant: ({ team }) => ({ subject: String(team), everybody: true }) })),
    });
    const headersOf = async (sub: string, team: string) => bearer(await sign({ sub, team }));
    await setup.join(broker, { headers: await headersOf("ada", "red") });
    await setup.join(broker, { headers: await headersOf("ada", "blue") });
    expect(broker.clients().map(({ subject }) => subject)).toEqual(["red", "blue"]);
    // The one place of the team is taken.
    const refused = clientRequest({ headers: { ...(await headersOf("bob", "red")), accept: "*/*" } });
    expect((await broker.fetch(refused)).status).toBe(503);

    const publish = async (sub: string, team: string): Promise<number> => {
      const headers = { ...(await headersOf(sub, team)), "idempotency-key": "k" };
      return (await broker.fetch(eventRequest("x", "", { headers }))).status;
    };
    // Idempotency keys belong to a subject.
    expect([await publish("ada", "red"), await publish("bob", "red"), await publish("ada", "blue")]).toEqual([
      200, 200, 200,
    ]);
    expect(broker.stats().published).toBe(2);
  }),
);
