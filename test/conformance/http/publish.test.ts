// Publishing over HTTP: `fetch` and `eventHandler`.
import { expect, test } from "vitest";
import { runtime } from "../../support/runtime.ts";
import { eventRequest, problemOf, withBroker } from "../../support/test-broker.ts";

/** A body in pieces, without a length. */
function streamed(pieces: readonly string[]): RequestInit {
  const rest = [...pieces];
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const piece = rest.shift();
      if (piece === undefined) controller.close();
      else controller.enqueue(encoder.encode(piece));
    },
  });
  return { body, duplex: "half" } as RequestInit;
}

const bearer = (token: string): RequestInit => ({ headers: { authorization: `Bearer ${token}` } });

test(
  "publishToken: without it fetch() answers every event 403 publishing-closed",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const answer = await broker.fetch(eventRequest("x", "/broadcast", bearer("guess")));
    expect([answer.status, await problemOf(answer)]).toEqual([403, "publishing-closed"]);
    expect(broker.stats().published).toBe(0);
  }),
);

test(
  "publishToken: the answer is 401 with www-authenticate without the token or with another one, and 200 with it",
  withBroker(async (setup) => {
    const broker = setup.broker({ publishToken: "sécret token" });
    const encoded = setup.broker({ publishToken: "secret" });
    const wrong = ["", "Secret", "secre", "secrets", "secret secret", "s", "x".repeat(10_000)];
    for (const token of wrong) {
      const answer = await encoded.fetch(eventRequest("x", "/broadcast", bearer(token)));
      expect([answer.status, await problemOf(answer)]).toEqual([401, "unauthorized"]);
      expect(answer.headers.get("www-authenticate")).toBe("Bearer");
    }
    for (const authorization of ["Basic secret", "secret", "Bearersecret", "Digest Bearer secret"]) {
      const answer = await encoded.fetch(eventRequest("x", "/broadcast", { headers: { authorization } }));
      expect(answer.status).toBe(401);
    }
    expect((await encoded.fetch(eventRequest("x", "/broadcast"))).status).toBe(401);
    expect((await broker.fetch(eventRequest("x", "/broadcast"))).status).toBe(401);
    expect(encoded.stats().published).toBe(0);
    for (const scheme of ["Bearer", "bearer", "BEARER"]) {
      const headers = { authorization: `${scheme} secret` };
      expect((await encoded.fetch(eventRequest("x", "/broadcast", { headers }))).status).toBe(200);
    }
    expect(encoded.stats().published).toBe(3);
  }),
);

test(
  "publishToken: an empty token is refused, because everybody could publish with it",
  withBroker(async (setup) => {
    expect(() => setup.broker({ publishToken: "" })).toThrow(TypeError);
  }),
);

test(
  "eventHandler(): needs no token, because the application decides who may call it",
  withBroker(async (setup) => {
    const answer = await setup.broker().eventHandler(eventRequest("x"));
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toContain("application/json");
    expect(Object.keys((await answer.json()) as object).sort()).toEqual(["clients", "id"]);
  }),
);

test(
  "no-event-data: an empty body, in every form, is 400 with the text of davidsbond/sse",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const requests = [
      eventRequest(""),
      eventRequest(null),
      eventRequest(new Uint8Array()),
      eventRequest(null, "", streamed([])),
      eventRequest(null, "", streamed(["", ""])),
    ];
    for (const request of requests) {
      const answer = await broker.eventHandler(request);
      expect(answer.status).toBe(400);
      expect(await answer.json()).toMatchObject({
        code: "no-event-data",
        status: 400,
        detail: "no event data provided",
      });
    }
  }),
);

test(
  "maxBodyBytes: a body of this many bytes is accepted, and one more byte is 413",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxBodyBytes: 100 });
    expect((await broker.eventHandler(eventRequest("x".repeat(100)))).status).toBe(200);
    expect((await broker.eventHandler(eventRequest("€".repeat(33)))).status).toBe(200);
    for (const body of ["x".repeat(101), "€".repeat(34)]) {
      const answer = await broker.eventHandler(eventRequest(body));
      expect([answer.status, await problemOf(answer)]).toEqual([413, "body-too-large"]);
    }
  }),
);

test(
  "maxBodyBytes: a streamed body is counted while it is read, and reading stops after the limit",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxBodyBytes: 100 });
    const endless = Array.from({ length: 10_000 }, () => "x".repeat(30));
    const answer = await broker.eventHandler(eventRequest(null, "", streamed(endless)));
    expect([answer.status, await problemOf(answer)]).toEqual([413, "body-too-large"]);
    expect(broker.stats().published).toBe(0);
  }),
);

test(
  "maxBodyBytes: a content-length that is too small has no effect, and one over the limit is refused unread",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxBodyBytes: 100 });
    const tooShort = { headers: { "content-length": "5" } };
    const endless = Array.from({ length: 10_000 }, () => "€".repeat(10));
    for (const body of [["x".repeat(101)], ["€".repeat(34)], endless]) {
      const large = await broker.eventHandler(eventRequest(null, "", { ...streamed(body), ...tooShort }));
      expect(large.status).toBe(413);
    }
    const tooLong = { headers: { "content-length": "99999999" } };
    const request = eventRequest(null, "", { ...streamed(["small"]), ...tooLong });
    const refused = await broker.eventHandler(request);
    // On Workers the body is read, and is small.
    const isUnread = runtime !== "workerd";
    expect([refused.status, request.bodyUsed]).toEqual(isUnread ? [413, expect.any(Boolean)] : [200, true]);
    expect(broker.stats().published).toBe(isUnread ? 0 : 1);
  }),
);

test(
  "eventHandler(): a character that is split over two pieces of the body arrives intact",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    const [first, ...rest] = new TextEncoder().encode("€uro");
    const pieces = [new Uint8Array([first ?? 0]), new Uint8Array(rest)];
    const body = new ReadableStream({
      pull(controller) {
        const piece = pieces.shift();
        if (piece) controller.enqueue(piece);
        else controller.close();
      },
    });
    await broker.eventHandler(eventRequest(null, "", { body, duplex: "half" } as RequestInit));
    expect((await client.nextData()).data).toBe("€uro");
  }),
);

test(
  "eventHandler(): a body that breaks off is not published",
  withBroker(async (setup) => {
    const broker = setup.broker();
    let pulls = 0;
    const body = new ReadableStream({
      pull(controller) {
        if (pulls++ === 0) controller.enqueue(new TextEncoder().encode("half an ev"));
        else controller.error(new Error("reset"));
      },
    });
    const answer = await broker.eventHandler(eventRequest(null, "", { body, duplex: "half" } as RequestInit));
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(broker.stats().published).toBe(0);
  }),
);

test(
  "maxEventBytes: an event larger than this is 413 event-too-large",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxEventBytes: 100 });
    const answer = await broker.eventHandler(eventRequest("x".repeat(200)));
    expect([answer.status, await problemOf(answer)]).toEqual([413, "event-too-large"]);
  }),
);

const bad: readonly (readonly [what: string, query: string, status: number, code: string])[] = [
  ["a newline in the type", "?type=a%0Ab", 400, "bad-event-type"],
  ["a carriage return in the type", "?type=a%0Db", 400, "bad-event-type"],
  ["NUL in the type", "?type=a%00b", 400, "bad-event-type"],
  ["a reserved type", "?type=fanwire-end", 400, "bad-event-type"],
  ["a type of EventSource's own", "?type=error", 400, "bad-event-type"],
  ["another type of EventSource's own", "?type=open", 400, "bad-event-type"],
  ["two types", "?type=a&type=b", 400, "bad-event-type"],
  ["a bad channel", "?channel=a%0Ab", 400, "bad-channel"],
  ["an empty channel", "?channel=", 400, "bad-channel"],
  ["a reserved channel", "?channel=fanwire-inbox", 400, "bad-channel"],
  ["a bad id", "?id=a%0Ab", 400, "bad-id"],
  ["two ids", "?id=a&id=b", 400, "bad-id"],
  ["an id and a channel", "?id=a&channel=b", 400, "bad-request"],
  ["an id that is not connected", "?id=nobody", 404, "unknown-client"],
];
for (const [what, query, status, code] of bad) {
  test(
    `eventHandler(): ${what} is ${status} ${code}, and no event is published`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      const answer = await broker.eventHandler(eventRequest("x", query));
      expect([answer.status, await problemOf(answer)]).toEqual([status, code]);
      expect(answer.headers.get("content-type")).toBe("application/problem+json");
      expect(broker.stats().published).toBe(0);
    }),
  );
}

test(
  "eventHandler(): ?channel= is repeatable",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [a, b] = [await setup.join(broker, { channel: "a" }), await setup.join(broker, { channel: "b" })];
    const answer = await broker.eventHandler(eventRequest("to both", "?channel=a&channel=b"));
    expect(await answer.json()).toMatchObject({ clients: 2 });
    expect((await a.nextData()).data).toBe("to both");
    expect((await b.nextData()).data).toBe("to both");
  }),
);

test(
  "EventOverrides: clientId, channels and type win over the query",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const one = await setup.join(broker, { id: "one", channel: "given" });
    const two = await setup.join(broker, { id: "two", channel: "asked" });
    await broker.eventHandler(eventRequest("1", "?id=two&type=asked"), { clientId: "one", type: "given" });
    await broker.eventHandler(eventRequest("2", "?channel=asked"), { channels: "given" });
    await broker.eventHandler(eventRequest("3", "?id=two"), { channels: ["given"] });
    await broker.eventHandler(eventRequest("4", "?channel=asked"), { clientId: "one" });
    await broker.broadcast("end");
    await one.untilData("end");
    await two.untilData("end");
    expect(one.data).toEqual(["1", "2", "3", "4", "end"]);
    expect(one.events.find(({ data }) => data === "1")?.event).toBe("given");
    expect(two.data).toEqual(["end"]);
  }),
);

test(
  "fetch(), eventHandler(): work detached and concurrently",
  withBroker(async (setup) => {
    const { fetch, eventHandler } = setup.broker({ publishToken: "secret" });
    const answers = await Promise.all([
      fetch(eventRequest("1", "/broadcast", bearer("secret"))),
      eventHandler(eventRequest("2")),
      fetch(eventRequest("3", "/broadcast?type=t", bearer("secret"))),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
  }),
);

test(
  "eventHandler(), fetch(): an empty id is refused, because the event would go to every client",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorize: () => true });
    for (const answer of [
      await broker.eventHandler(eventRequest("for one", "?id=")),
      await broker.fetch(eventRequest("for one", "/broadcast?id=")),
    ]) {
      expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-id"]);
    }
    expect(broker.stats().published).toBe(0);
  }),
);
