// jwt() with the keys of a real issuer's server.
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterEach, expect, test, vi } from "vitest";
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

/** An issuer whose server answers, hangs or fails, and a broker that asks it. */
async function setUpFlood(): Promise<{
  readonly state: { mode: "answers" | "hangs" | "fails"; asked: number; skippedMs: number };
  readonly connect: (kid: string) => Promise<number>;
  readonly close: () => Promise<void>;
}> {
  const { publicKey, privateKey } = await generateKeyPair("ES256");
  const body = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "good" }] });
  const state = { mode: "answers" as "answers" | "hangs" | "fails", asked: 0, skippedMs: 0 };
  issuer = createServer((_, response) => {
    state.asked++;
    if (state.mode !== "hangs") response.writeHead(state.mode === "fails" ? 500 : 200).end(body);
  });
  await new Promise<void>((resolve) => issuer?.listen(0, "127.0.0.1", resolve));
  const jwks = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}/keys`;
  for (const clock of [Date, performance]) {
    const now = clock.now.bind(clock);
    vi.spyOn(clock, "now").mockImplementation(() => now() + state.skippedMs);
  }
  const broker = createBroker({
    authorize: jwt({ jwks, algorithms: ["ES256"], grant: () => true }),
    onError: () => undefined,
  });
  const tokens = new Map<string, string>();
  for (const kid of ["good", "forged"]) {
    const signing = new SignJWT({ exp: 9e9 }).setProtectedHeader({ alg: "ES256", kid });
    tokens.set(kid, await signing.sign(privateKey));
  }
  const connect = async (kid: string): Promise<number> => {
    const headers = { authorization: `Bearer ${tokens.get(kid)}` };
    const answer = await broker.fetch(new Request("http://fanwire.test/connect", { headers }));
    await answer.body?.cancel();
    return answer.status;
  };
  const close = async (): Promise<void> => {
    vi.restoreAllMocks();
    issuer?.closeAllConnections();
    await broker.close();
  };
  return { state, connect, close };
}

/** How often each status occurs. */
const count = (statuses: readonly number[]): Record<number, number> => {
  const counts: Record<number, number> = {};
  for (const status of statuses) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
};
const times = <T>(length: number, task: () => Promise<T>): Promise<T[]> => Promise.all(Array.from({ length }, task));

test("jwt({ jwks }): an issuer that hangs and a flood of forged tokens do not affect tokens whose key is known", async () => {
  const { state, connect, close } = await setUpFlood();
  try {
    expect(await connect("good")).toBe(200);
    state.mode = "hangs";
    state.skippedMs = 60_000;

    let answered = 0;
    const flood = times(1_500, () => connect("forged").finally(() => answered++));
    await expect.poll(() => state.asked).toBe(2);
    const good = count(await times(200, () => connect("good")));
    // Some whose key is unknown still wait for the issuer; those over the limit were refused.
    expect(answered).toBeLessThan(1_500);
    const forged = count(await flood);
    console.info("the issuer hangs:", { good, forged, asked: state.asked });

    expect(good).toEqual({ 200: 200 });
    expect(forged).toEqual({ 503: 1_500 });
    expect(state.asked).toBe(2);
  } finally {
    await close();
  }
});

test("jwt({ jwks }): an issuer that fails is asked once in five seconds, however many tokens come", async () => {
  const { state, connect, close } = await setUpFlood();
  try {
    state.mode = "fails";
    const statuses: number[] = [];
    for (let round = 0; round < 100; round++) statuses.push(...(await times(3, () => connect("forged"))));
    console.info("the issuer fails:", { forged: count(statuses), asked: state.asked });
    expect(count(statuses)).toEqual({ 503: 300 });
    expect(state.asked).toBe(1);

    state.mode = "answers";
    expect(await connect("good")).toBe(503);
    state.skippedMs = 5_001;
    expect(await connect("good")).toBe(200);
    expect(state.asked).toBe(2);
    // The set is new, so an unknown key causes no request.
    expect(count(await times(100, () => connect("forged")))).toEqual({ 401: 100 });
    expect(state.asked).toBe(2);
  } finally {
    await close();
  }
});

test("jwt({ jwks }): while the issuer is down, old keys are used at once, until they are an hour old", async () => {
  const { state, connect, close } = await setUpFlood();
  try {
    expect(await connect("good")).toBe(200);
    state.mode = "hangs";
    state.skippedMs = 11 * 60_000;
    const started = performance.now();
    expect(count(await times(200, () => connect("good")))).toEqual({ 200: 200 });
    // Before the request to the issuer is given up.
    expect(performance.now() - started).toBeLessThan(4_000);
    await expect.poll(() => state.asked).toBe(2);

    issuer?.closeAllConnections();
    state.mode = "fails";
    state.skippedMs = 61 * 60_000;
    expect(await connect("good")).toBe(503);
    state.mode = "answers";
    state.skippedMs += 5_001;
    expect(await connect("good")).toBe(200);
  } finally {
    await close();
  }
});
