// jwt() with the keys of a real issuer's server.
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterEach, expect, test } from "vitest";
import { createBroker } from "../../src/index.ts";
import { jwt } from "../../src/jwt.ts";

let issuer: Server | undefined;
afterEach(() => issuer?.close());

async function issue(answer: () => { status: number; body: string }): Promise<URL> {
  issuer = createServer((_, response) => {
    const { status, body } = answer();
    response.writeHead(status, { "content-type": "application/json" }).end(body);
  });
  await new Promise<void>((resolve) => issuer?.listen(0, "127.0.0.1", resolve));
  return new URL(`http://127.0.0.1:${(issuer.address() as AddressInfo).port}/keys`);
}

test("jwt({ jwks }): fetches the keys at the first token and keeps them, and an unknown key id does not cause a request each time", async () => {
  const { publicKey, privateKey } = await generateKeyPair("ES256");
  const keys = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "1" }] });
  let asked = 0;
  const jwks = await issue(() => {
    asked++;
    return { status: 200, body: keys };
  });
  const broker = createBroker({ authorize: jwt({ jwks, algorithms: ["ES256"], grant: () => true }) });
  const connect = async (kid: string): Promise<number> => {
    const token = await new SignJWT({ exp: Math.floor(Date.now() / 1000) + 60 })
      .setProtectedHeader({ alg: "ES256", kid })
      .sign(privateKey);
    const answer = await broker.fetch(
      new Request("http://fanwire.test/connect", { headers: { authorization: `Bearer ${token}` } }),
    );
    await answer.body?.cancel();
    return answer.status;
  };

  expect(asked).toBe(0);
  expect([await connect("1"), await connect("1"), await connect("other"), await connect("other")]).toEqual([
    200, 200, 401, 401,
  ]);
  expect(asked).toBe(1);
  await broker.close();
});

test.each([
  ["an error", 500, "{}"],
  ["no JSON", 200, "<html>"],
  ["no key set", 200, "[]"],
])("jwt({ jwks }): an issuer that answers %s leads to 503", async (_, status, body) => {
  const jwks = await issue(() => ({ status, body }));
  const seen: string[] = [];
  const broker = createBroker({
    authorize: jwt({ jwks, algorithms: ["ES256"], grant: () => true }),
    onError: ({ stage }) => seen.push(stage),
  });
  const { privateKey } = await generateKeyPair("ES256");
  const token = await new SignJWT({ exp: 9e9 }).setProtectedHeader({ alg: "ES256", kid: "1" }).sign(privateKey);

  const answer = await broker.fetch(
    new Request("http://fanwire.test/connect", { headers: { authorization: `Bearer ${token}` } }),
  );

  expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([503, "authorize-unavailable"]);
  expect(seen).toEqual(["authorize"]);
  await broker.close();
});
