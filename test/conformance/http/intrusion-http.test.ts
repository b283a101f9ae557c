// Hostile requests: what responses reveal, and what can be injected into header fields and streams.
import fc from "fast-check";
import { expect, test } from "vitest";
import { type AccessRequest, type Broker, bearer } from "../../../src/index.ts";
import {
  ACCEPT_ANY,
  HOUR_MS,
  neverAnswers,
  statusAndCode,
  testPublishing,
  testReading,
  withClockAhead,
} from "../../support/http/entry-points.ts";
import { responseKinds } from "../../support/http/responses.ts";
import { clientRequest, eventRequest, problemOf, Recorder, turn, withBroker } from "../../support/test-broker.ts";

/** Texts that could begin a header field or a field of a stream. The low bytes of U+010D and U+010A are those of CR and LF. */
const BREAKS = ["\r\n", "\n", "\r", "\0", "\u010d\u010a", "\u2028", "\u0085", ": ", ":", "data: x", "x-injected: yes"];
const breaking = fc
  .array(fc.oneof(fc.constantFrom(...BREAKS), fc.string({ unit: "binary", maxLength: 3 })), { maxLength: 8 })
  .map((parts) => parts.join(""));

test(
  "fanwire-client-id: for any id, the field is ASCII that decodes to this id, or the answer is 400",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxClientsPerId: Infinity });
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(breaking, async (id) => {
        const answer = await broker.clientHandler(clientRequest(), { clientId: id });
        const field = answer.headers.get("fanwire-client-id");
        expect([...answer.headers.keys()]).not.toContain("x-injected");
        if (answer.status === 200) {
          accepted++;
          expect(field).toMatch(/^[\w\-.!~*'()%]+$/);
          expect(decodeURIComponent(field ?? "")).toBe(id);
          await answer.body?.cancel();
        } else {
          expect([field, ...(await statusAndCode(answer))]).toEqual([null, 400, "bad-id"]);
        }
      }),
      { seed: 20261125, numRuns: 300, examples: [["\u010d\u010ax-injected: yes"], ["a\r\nx-injected: yes"]] },
    );
    expect(accepted).toBeGreaterThan(30);
  }),
);

/** Types that a careless parser could take for one of the broker's own, or for another field. */
const TYPES = [
  " fanwire-end",
  "\tfanwire-end",
  "\u00a0fanwire-end",
  "\u200bfanwire-end",
  "\ufefffanwire-end",
  "Fanwire-end",
  "Error",
  " open",
  "errors",
  "FANWIRE-END",
  "fanwire\u2010end",
  "fanwire_end",
  "fanwire",
  ":fanwire-end",
  "event: fanwire-end",
  "id: 7",
  "retry: 7",
  "\u2028id: 7",
  "\u0085id: 7",
];
testPublishing("type: one that only looks like the broker's own arrives unchanged", async (setup, entryPoint) => {
  const broker = setup.broker({ authorize: () => true });
  const client = await setup.join(broker);
  const { length } = client.retries;
  for (const type of TYPES) {
    const answer = await entryPoint(broker, eventRequest("x", `?type=${encodeURIComponent(type)}`));
    const { id } = (await answer.json()) as { id: string };
    expect(await client.next()).toEqual({ id, event: type, data: "x" });
    expect(type.startsWith("fanwire-")).toBe(false);
  }
  for (const type of [
    "fanwire-end",
    "fanwire-",
    "error",
    "open",
    "a\r\nid: 7",
    "a\nevent: fanwire-end",
    "a\rdata: y",
    "a\0",
  ])
    expect([
      type,
      await statusAndCode(await entryPoint(broker, eventRequest("x", `?type=${encodeURIComponent(type)}`))),
    ]).toEqual([type, [400, "bad-event-type"]]);
  await broker.broadcast("end");
  expect(await client.next()).toMatchObject({ event: undefined, data: "end" });
  expect(client.retries).toHaveLength(length);
});

// Error bodies.

const CANARY = "canary-7f3a";
for (const kind of responseKinds.filter(({ status }) => status >= 400)) {
  test(
    `error bodies: ${kind.name} reveals nothing of the request's header fields and body`,
    withBroker(async (setup) => {
      const headers = {
        accept: "*/*",
        authorization: `Bearer ${CANARY}`,
        referer: `https://${CANARY}.test/`,
        "user-agent": CANARY,
        "last-event-id": CANARY,
        "x-forwarded-for": CANARY,
        // Some servers answer with the request's content type.
        "content-type": `text/html;${CANARY}`,
      };
      const answer = await kind.request(setup.broker(kind.options), headers);
      expect(answer.status).toBe(kind.status);
      const fields = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
      expect(`${fields}\n${await answer.text()}`).not.toMatch(/canary|\bat .*:\d+:\d+|\.[jt]s\b|node_modules|broken/);
    }),
  );
}

/** Longer than the forty characters that an error quotes. */
const MARKUP = `<img src=x onerror="alert('${"1".repeat(300)}')">`;
const echoed = encodeURIComponent(MARKUP);
const ECHOES: readonly (readonly [what: string, ask: (broker: Broker) => Promise<Response>, status: number])[] = [
  ["a path", (broker) => broker.fetch(new Request(`https://fanwire.test/${echoed}`)), 404],
  ["a channel", (broker) => broker.fetch(clientRequest({ channel: MARKUP })), 400],
  ["a reserved channel", (broker) => broker.fetch(clientRequest({ channel: `fanwire-${MARKUP.slice(0, 60)}` })), 400],
  ["a channel that is not granted", (broker) => broker.fetch(clientRequest({ channel: MARKUP.slice(0, 60) })), 403],
  ["an id", (broker) => broker.fetch(clientRequest({ id: MARKUP })), 400],
  ["an id that is not granted", (broker) => broker.fetch(clientRequest({ id: MARKUP.slice(0, 60) })), 403],
  ["a from", (broker) => broker.fetch(clientRequest({ query: { from: MARKUP } })), 400],
  ["a reserved type", (broker) => broker.fetch(eventRequest("x", `?type=fanwire-${echoed}`)), 400],
  ["a type with a newline", (broker) => broker.fetch(eventRequest("x", `?type=%0A${echoed}`)), 400],
  ["a recipient", (broker) => broker.eventHandler(eventRequest("x", `?id=${encodeURIComponent(MARKUP)}`)), 400],
  [
    "an unknown recipient",
    (broker) =>
      broker.eventHandler(eventRequest("x", `?id=${encodeURIComponent(MARKUP.slice(0, 60))}`), {
        authorize: () => true,
      }),
    404,
  ],
  ["a key", (broker) => broker.fetch(eventRequest("x", "", { headers: { "idempotency-key": MARKUP } })), 400],
];
for (const [what, ask, status] of ECHOES) {
  test(
    `error bodies: ${what} is quoted, shortened, and inside JSON`,
    withBroker(async (setup) => {
      const broker = setup.broker({ authorize: () => ({}) });
      const answer = await ask(broker);
      expect([answer.status, answer.headers.get("content-type")]).toEqual([status, "application/problem+json"]);
      const { detail } = (await answer.json()) as { detail: string };
      const quoted = /"(?:[^"\\]|\\.)*"/.exec(detail)?.[0];
      // Forty characters and the ellipsis.
      expect((JSON.parse(quoted ?? '""') as string).length).toBe(41);
      expect(detail.replace(quoted ?? "", "")).not.toMatch(/[<>]|img|11/);
      expect(detail).not.toContain("1".repeat(41));
    }),
  );
}

// Tokens, time and capacity.

test("bearer(): which characters are compared depends neither on where tokens differ nor on which token it is", async () => {
  const tokens = ["secret-one", "secret-two-which-is-longer"];
  const authorize = bearer(tokens);
  /** Returns the compared positions, of either token, in order. */
  const trace = async (presented: string): Promise<number[]> => {
    const { charCodeAt } = String.prototype;
    const request = new Request("https://fanwire.test/", { headers: { authorization: `Bearer ${presented}` } });
    const positions: number[] = [];
    String.prototype.charCodeAt = function (index: number): number {
      if (this.valueOf() === presented || tokens.includes(this.valueOf())) positions.push(index);
      return charCodeAt.call(this, index);
    };
    try {
      await Promise.resolve({ request } as AccessRequest)
        .then(authorize)
        .catch(() => undefined);
    } finally {
      String.prototype.charCodeAt = charCodeAt;
    }
    return positions;
  };
  const right = await trace("secret-one");
  expect(right.length).toBeGreaterThanOrEqual(2 * "secret-one".length);
  for (const wrong of ["Xecret-one", "secretXone", "secret-onX", "secret-two", "XXXXXXXXXX"])
    expect(await trace(wrong)).toEqual(right);
  const long = await trace("secret-two-which-is-longer");
  expect(await trace("secret-one-which-is-longer")).toEqual(long);
  expect(await trace("secret-two-which-is-longeX")).toEqual(long);
  expect(await trace("s")).toEqual(await trace("X"));
});

testPublishing("expiresAt: a slow body that ends after the grant is not published", async (setup, entryPoint) => {
  const broker = setup.broker({ authorize: () => ({ channels: ["a"], expiresAt: Date.now() + HOUR_MS }) });
  let finish = (): void => undefined;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(new TextEncoder().encode("half of it, "));
      finish = () => {
        controller.enqueue(new TextEncoder().encode("and the rest"));
        controller.close();
      };
    },
  });
  const request = eventRequest(null, "?channel=a", { body, duplex: "half" } as RequestInit);
  const answering = entryPoint(broker, request);
  await turn();
  const answer = await withClockAhead(2 * HOUR_MS, async () => {
    finish();
    return await answering;
  });
  expect([answer.status, answer.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
  expect(await problemOf(answer)).toBe("unauthorized");
  expect(broker.stats().published).toBe(0);
});

test(
  "expiresAt: a live client receives nothing more after the clock has jumped past it",
  withBroker(async (setup) => {
    const disconnects = new Recorder<{ reason: string }>();
    const broker = setup.broker({
      authorize: () => ({ expiresAt: Date.now() + 3_600_000 }),
      onDisconnect: disconnects.record,
    });
    const client = await setup.join(broker);
    const next = client.untilControl("end");
    await turn();
    const { now } = Date;
    const afterExpiry = now() + 4_000_000;
    try {
      Date.now = () => afterExpiry;
      await broker.broadcast("too late");
      await next;
    } finally {
      Date.now = now;
    }
    expect((await disconnects.next()).reason).toBe("expired");
    expect([client.data, broker.stats().sent, broker.stats().bytes]).toEqual([[], 0, 0]);
  }),
);

testReading(
  "maxPending: when strangers fill it, open streams and publishers with publishToken still work",
  async ({ setup, entryPoint, connect }) => {
    const broker = setup.broker({
      maxPending: 2,
      publishToken: "secret",
      authorize: (access) => (access.request.headers.has("x-stranger") ? neverAnswers(access) : true),
    });
    const client = await connect(broker);
    const strangers = [new AbortController(), new AbortController()];
    const waiting = strangers.map(({ signal }) =>
      entryPoint(broker, clientRequest({ headers: { "x-stranger": "yes", ...ACCEPT_ANY } }, signal)),
    );
    await turn();
    expect(await statusAndCode(await entryPoint(broker, clientRequest({ headers: ACCEPT_ANY })))).toEqual([
      503,
      "at-capacity",
    ]);
    const token = { headers: { authorization: "Bearer secret" } };
    expect((await broker.fetch(eventRequest("still here", "", token))).status).toBe(200);
    expect((await client.nextData()).data).toBe("still here");
    for (const stranger of strangers) stranger.abort();
    for (const answer of await Promise.all(waiting)) expect(await statusAndCode(answer)).toEqual([499, "client-left"]);
    await connect(broker);
  },
);
