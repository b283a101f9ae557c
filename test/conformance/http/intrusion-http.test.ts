import fc from "fast-check";
import { expect, test } from "vitest";
import { type AccessRequest, type Broker, bearer } from "../../../src/index.ts";
import { ANY, HOUR, later, never, problem, publishing, reading } from "../../support/http/entry-points.ts";
import { kinds } from "../../support/http/responses.ts";
import { clientRequest, eventRequest, problemOf, scene, turn } from "../../support/test-broker.ts";

// What the HTTP face says of the inside or of somebody else, and what can be put into its answers and streams.

/** What would begin a header field or a field of a stream, if somebody took it for that. U+010D and U+010A end in the bytes of CR and LF. */
const BREAKS = ["\r\n", "\n", "\r", "\0", "\u010d\u010a", "\u2028", "\u0085", ": ", ":", "data: x", "x-injected: yes"];
const breaking = fc
  .array(fc.oneof(fc.constantFrom(...BREAKS), fc.string({ unit: "binary", maxLength: 3 })), { maxLength: 8 })
  .map((parts) => parts.join(""));

test(
  "fanwire-client-id: whatever the id, the field is plain ASCII that stands for just that id, or the answer is 400",
  scene(async (stage) => {
    const broker = stage.broker({ maxClientsPerId: Infinity });
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(breaking, async (id) => {
        const answer = await broker.clientHandler(clientRequest(), { clientId: id });
        const field = answer.headers.get("fanwire-client-id");
        expect([...answer.headers.keys()]).not.toContain("x-injected");
        if (answer.status === 200) {
          taken++;
          expect(field).toMatch(/^[\w\-.!~*'()%]+$/);
          expect(decodeURIComponent(field ?? "")).toBe(id);
          await answer.body?.cancel();
        } else {
          expect([field, ...(await problem(answer))]).toEqual([null, 400, "bad-id"]);
        }
      }),
      { seed: 20261125, numRuns: 300, examples: [["\u010d\u010ax-injected: yes"], ["a\r\nx-injected: yes"]] },
    );
    expect(taken).toBeGreaterThan(30);
  }),
);

/** Types that a careless reader could take for one of the broker's own, or for another field. */
const TYPES = [
  " fanwire-end",
  "\tfanwire-end",
  "\u00a0fanwire-end",
  "\u200bfanwire-end",
  "\ufefffanwire-end",
  "Fanwire-end",
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
publishing("type: one that looks like the broker's own arrives as what it is", async (stage, door) => {
  const broker = stage.broker({ authorize: () => true });
  const client = await stage.join(broker);
  const { length } = client.retries;
  for (const type of TYPES) {
    const answer = await door(broker, eventRequest("x", `?type=${encodeURIComponent(type)}`));
    const { id } = (await answer.json()) as { id: string };
    expect(await client.next()).toEqual({ id, event: type, data: "x" });
    expect(type.startsWith("fanwire-")).toBe(false);
  }
  for (const type of ["fanwire-end", "fanwire-", "a\r\nid: 7", "a\nevent: fanwire-end", "a\rdata: y", "a\0"])
    expect([type, await problem(await door(broker, eventRequest("x", `?type=${encodeURIComponent(type)}`)))]).toEqual([
      type,
      [400, "bad-event-type"],
    ]);
  await broker.broadcast("end");
  expect(await client.next()).toMatchObject({ event: undefined, data: "end" });
  expect(client.retries).toHaveLength(length);
});

// Error bodies.

const CANARY = "canary-7f3a";
for (const kind of kinds.filter(({ status }) => status >= 400)) {
  test(
    `error bodies: ${kind.what} tells nothing of the request's fields and body`,
    scene(async (stage) => {
      const headers = {
        accept: "*/*",
        authorization: `Bearer ${CANARY}`,
        referer: `https://${CANARY}.test/`,
        "user-agent": CANARY,
        "last-event-id": CANARY,
        "x-forwarded-for": CANARY,
        // Of a type that some would answer in kind.
        "content-type": `text/html;${CANARY}`,
      };
      const answer = await kind.ask(stage.broker(kind.options), headers);
      expect(answer.status).toBe(kind.status);
      const fields = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
      expect(`${fields}\n${await answer.text()}`).not.toMatch(/canary|\bat .*:\d+:\d+|\.[jt]s\b|node_modules|broken/);
    }),
  );
}

/** Beyond forty characters the rest is not said again. */
const MARKUP = `<img src=x onerror="alert('${"1".repeat(300)}')">`;
const echoed = encodeURIComponent(MARKUP);
const ECHOES: readonly (readonly [what: string, ask: (broker: Broker) => Promise<Response>, status: number])[] = [
  ["a path", (broker) => broker.fetch(new Request(`https://fanwire.test/${echoed}`)), 404],
  ["a channel", (broker) => broker.fetch(clientRequest({ channel: MARKUP })), 400],
  ["a reserved channel", (broker) => broker.fetch(clientRequest({ channel: `fanwire-${MARKUP.slice(0, 60)}` })), 400],
  ["a channel that is not granted", (broker) => broker.fetch(clientRequest({ channel: MARKUP.slice(0, 60) })), 403],
  ["an id", (broker) => broker.fetch(clientRequest({ id: MARKUP })), 400],
  ["an id that is not granted", (broker) => broker.fetch(clientRequest({ id: MARKUP.slice(0, 60) })), 403],
  ["a start", (broker) => broker.fetch(clientRequest({ query: { from: MARKUP } })), 400],
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
    `error bodies: ${what} is said again in quotes, cut short, and as JSON`,
    scene(async (stage) => {
      const broker = stage.broker({ authorize: () => ({}) });
      const answer = await ask(broker);
      expect([answer.status, answer.headers.get("content-type")]).toEqual([status, "application/problem+json"]);
      const { detail } = (await answer.json()) as { detail: string };
      const quoted = /"(?:[^"\\]|\\.)*"/.exec(detail)?.[0];
      // Forty, and the sign that there was more.
      expect((JSON.parse(quoted ?? '""') as string).length).toBe(41);
      expect(detail.replace(quoted ?? "", "")).not.toMatch(/[<>]|img|11/);
      expect(detail).not.toContain("1".repeat(41));
    }),
  );
}

// Tokens, time and room.

test("bearer: what is read of two tokens does not depend on where they differ, nor on which one it is", async () => {
  const tokens = ["secret-one", "secret-two-which-is-longer"];
  const authorize = bearer(tokens);
  /** Places that were looked at, of either token, in order. */
  const trace = async (presented: string): Promise<number[]> => {
    const { charCodeAt } = String.prototype;
    const request = new Request("https://fanwire.test/", { headers: { authorization: `Bearer ${presented}` } });
    const places: number[] = [];
    String.prototype.charCodeAt = function (index: number): number {
      if (this.valueOf() === presented || tokens.includes(this.valueOf())) places.push(index);
      return charCodeAt.call(this, index);
    };
    try {
      await Promise.resolve({ request } as AccessRequest)
        .then(authorize)
        .catch(() => undefined);
    } finally {
      String.prototype.charCodeAt = charCodeAt;
    }
    return places;
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

publishing("expiresAt: a body that takes its time does not outlive the grant", async (stage, door) => {
  const broker = stage.broker({ authorize: () => ({ channels: ["a"], expiresAt: Date.now() + HOUR }) });
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
  const asked = eventRequest(null, "?channel=a", { body, duplex: "half" } as RequestInit);
  const answering = door(broker, asked);
  await turn();
  const answer = await later(2 * HOUR, async () => {
    finish();
    return await answering;
  });
  expect([answer.status, answer.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
  expect(await problemOf(answer)).toBe("unauthorized");
  expect(broker.stats().published).toBe(0);
});

reading(
  "maxPending: strangers who fill it stop neither streams nor who presents publishToken",
  async ({ stage, door, enter }) => {
    const broker = stage.broker({
      maxPending: 2,
      publishToken: "secret",
      authorize: (attempt) => (attempt.request.headers.has("x-stranger") ? never(attempt) : true),
    });
    const client = await enter(broker);
    const strangers = [new AbortController(), new AbortController()];
    const waiting = strangers.map(({ signal }) =>
      door(broker, clientRequest({ headers: { "x-stranger": "yes", ...ANY } }, signal)),
    );
    await turn();
    expect(await problem(await door(broker, clientRequest({ headers: ANY })))).toEqual([503, "at-capacity"]);
    const token = { headers: { authorization: "Bearer secret" } };
    expect((await broker.fetch(eventRequest("still here", "", token))).status).toBe(200);
    expect((await client.nextData()).data).toBe("still here");
    for (const stranger of strangers) stranger.abort();
    for (const answer of await Promise.all(waiting)) expect(await problem(answer)).toEqual([499, "client-left"]);
    await enter(broker);
  },
);
