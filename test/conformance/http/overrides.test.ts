import { expect, test } from "vitest";
import { BrokerError, type BrokerOptions, type ErrorStage } from "../../../src/index.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { clientRequest, codeOf, eventRequest, problemOf, scene, turn, Witness } from "../../support/test-broker.ts";

// Ways in which somebody could get, or lose by a slip of the pen, what is not theirs to get or lose.

const COOKIE = { cookie: "session=x" };
const sender = (headers: Record<string, string>): ReturnType<typeof clientRequest> =>
  clientRequest({ id: "me", headers });

test(
  "authorize: a page of another origin cannot take its visitor's place with the visitor's cookie",
  scene(async (stage) => {
    const options: BrokerOptions = { authorize: () => true, duplicateIds: "replace" };
    const broker = stage.broker(options);
    const client = await stage.join(broker, { id: "me", headers: COOKIE });
    for (const headers of [
      { ...COOKIE, "sec-fetch-site": "cross-site" },
      { ...COOKIE, "sec-fetch-site": "same-site" },
      { ...COOKIE, origin: "https://evil.test" },
      { ...COOKIE, origin: "null" },
      { authorization: "Basic eA==", "sec-fetch-site": "cross-site" },
    ] as Record<string, string>[]) {
      const answer = await broker.fetch(sender(headers));
      expect([answer.status, await problemOf(answer)]).toEqual([403, "cross-origin"]);
    }
    await broker.broadcastTo("me", "still here");
    expect((await client.nextData()).data).toBe("still here");
  }),
);

test(
  "authorize: the own pages, a typed address, programs, and origins that are trusted with cookies connect",
  scene(async (stage) => {
    const cors = { origins: ["https://friend.test"], credentials: true };
    for (const headers of [
      { ...COOKIE },
      { ...COOKIE, "sec-fetch-site": "same-origin" },
      { ...COOKIE, "sec-fetch-site": "none" },
      { ...COOKIE, origin: "https://fanwire.test" },
      { ...COOKIE, origin: "https://friend.test", "sec-fetch-site": "cross-site" },
      { authorization: "Bearer x", ...COOKIE, "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "cross-site" },
    ] as Record<string, string>[]) {
      const answer = await stage.broker({ authorize: () => true, cors }).fetch(sender(headers));
      expect([headers, answer.status]).toEqual([headers, 200]);
      await answer.body?.cancel();
    }
  }),
);

test(
  "isForged: the port that a proxy names is the one of the scheme it speaks",
  scene(async (stage) => {
    const broker = stage.broker({ authorize: () => true });
    const from = async (host: string, origin: string): Promise<number> =>
      (
        await broker.fetch(
          new Request(`http://${host}/broadcast`, { method: "POST", body: "x", headers: { ...COOKIE, origin } }),
        )
      ).status;
    expect(await from("h.test:443", "https://h.test")).toBe(200);
    expect(await from("h.test", "https://h.test")).toBe(200);
    expect(await from("h.test:8443", "https://h.test:8443")).toBe(200);
    expect(await from("h.test:444", "https://h.test")).toBe(403);
    expect(await from("h.test", "https://h.test:8443")).toBe(403);
  }),
);

test(
  "broadcast, broadcastTo, listen, handlers: an option that does not exist is refused, it could be the one that says for whom",
  scene(async (stage) => {
    const broker = stage.broker();
    const wrong = { channle: "admins" } as object;
    expect(await codeOf(broker.broadcast("secret", wrong))).toBe("TypeError");
    expect(await codeOf(broker.broadcast("secret", "admins" as unknown as object))).toBe("TypeError");
    expect(await codeOf(broker.broadcastTo("one", "x", wrong))).toBe("TypeError");
    expect(() => broker.listen(wrong)).toThrow(TypeError);
    expect(() => broker.listen({ from: "latest" as "earliest" })).toThrow(TypeError);
    expect(await codeOf(broker.clientHandler(clientRequest(), { channel: "public" } as object))).toBe("TypeError");
    expect(await codeOf(broker.clientHandler(clientRequest(), { authorise: () => false } as object))).toBe("TypeError");
    expect(await codeOf(broker.eventHandler(eventRequest("x"), { channel: "public" } as object))).toBe("TypeError");
    expect(broker.stats()).toMatchObject({ clients: 0, published: 0 });
  }),
);

test(
  "eventHandler, fetch: an id that is empty is refused, the event would be for everybody",
  scene(async (stage) => {
    const broker = stage.broker({ authorize: () => true });
    for (const answer of [
      await broker.eventHandler(eventRequest("for one", "?id=")),
      await broker.fetch(eventRequest("for one", "/broadcast?id=")),
    ]) {
      expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-id"]);
    }
    expect(broker.stats().published).toBe(0);
  }),
);

test(
  "everybody: a grant with it publishes to all, with its subject's own keys",
  scene(async (stage) => {
    const broker = stage.broker({
      publishToken: "secret",
      authorize: ({ request }) => ({ subject: request.headers.get("x-subject") ?? "", everybody: true }),
    });
    const publish = async (headers: Record<string, string>, body: string): Promise<number> =>
      (await broker.fetch(eventRequest(body, "", { headers: { "idempotency-key": "k", ...headers } }))).status;
    expect(await publish({ "x-subject": "a" }, "one")).toBe(200);
    expect(await publish({ "x-subject": "b" }, "two")).toBe(200);
    expect(await publish({ authorization: "Bearer secret" }, "three")).toBe(200);
    expect(await publish({ "x-subject": "a" }, "two")).toBe(422);
    expect(broker.stats().published).toBe(3);
    const closed = stage.broker({ authorize: () => ({ subject: "a" }) });
    expect((await closed.fetch(eventRequest("x"))).status).toBe(403);
  }),
);

test(
  "maxClientsPerSubject: streams that are ending and not read count, so that one subject cannot use up maxClients",
  scene(async (stage) => {
    const broker = stage.broker({
      // close() waits so long for who does not read.
      timeout: 500,
      maxClientsPerSubject: 3,
      duplicateIds: "replace",
      authorize: ({ clientId }) => ({ subject: "greedy", clientId }),
    });
    const statuses: number[] = [];
    for (let n = 0; n < 6; n++) {
      const answer = await broker.fetch(clientRequest({ id: "same", headers: { accept: "*/*" } }));
      statuses.push(answer.status);
    }
    // Three, and the one whose place the fourth took.
    expect(statuses).toEqual([200, 200, 200, 200, 503, 503]);
    expect(broker.stats().clients + broker.stats().closing).toBe(4);
  }),
);

test(
  "disconnect({ blockFor }): a shorter bar does not lift a longer one, nor do many that are over",
  scene(async (stage) => {
    const broker = stage.broker();
    await broker.disconnect("evil", { blockFor: 1_000_000 });
    await broker.disconnect("evil", { blockFor: 1 });
    await broker.disconnect("evil");
    for (let n = 0; n < 100_001; n++) await broker.disconnect(`other ${n}`, { blockFor: 0.000_1 });
    const answer = await broker.clientHandler(clientRequest({ id: "evil" }));
    expect([answer.status, answer.headers.get("cache-control")]).toEqual([204, "no-store"]);
  }),
);

test(
  "disconnect({ blockFor }): holds for a client that an engine is about to subscribe",
  scene(async (stage) => {
    let go = (): void => undefined;
    const engine = slowEngine(stage.engine(), () => new Promise<void>((resolve) => (go = resolve)));
    const broker = stage.broker({ engine });
    const answer = broker.clientHandler(clientRequest({ id: "evil" }));
    await turn();
    await broker.disconnect("evil", { blockFor: 60_000 });
    go();
    expect((await answer).status).toBe(204);
    expect(broker.stats()).toMatchObject({ clients: 0, channels: 0 });
    go();
  }),
);

test("BrokerError: a code or a field that cannot be answered is refused where it is made", () => {
  expect(() => new BrokerError("no-such-code" as "forbidden", "x")).toThrow(TypeError);
  expect(() => new BrokerError("forbidden", "x", { headers: { "x-why": "za\u017c\u00f3\u0142\u0107" } })).toThrow(
    TypeError,
  );
});

test(
  "timeout: Infinity disconnects nobody, whatever the tolerance",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: Infinity, tolerance: 0 });
    await stage.connect(broker, { id: "patient" });
    for (let n = 0; n < 5; n++) await turn();
    expect(broker.stats()).toMatchObject({ clients: 1, disconnects: {} });
  }),
);

test(
  "expiresAt: a live client whose clock jumped is given nothing any more",
  scene(async (stage) => {
    const left = new Witness<{ reason: string }>();
    const broker = stage.broker({ authorize: () => ({ expiresAt: Date.now() + 3_600_000 }), onDisconnect: left.see });
    const client = await stage.join(broker);
    const next = client.untilControl("end");
    await turn();
    const { now } = Date;
    const ahead = now() + 4_000_000;
    try {
      Date.now = () => ahead;
      await broker.broadcast("too late");
      await next;
    } finally {
      Date.now = now;
    }
    expect((await left.next()).reason).toBe("expired");
    expect([client.data, broker.stats().sent, broker.stats().bytes]).toEqual([[], 0, 0]);
  }),
);

test(
  "close: once it is over, authorize is not asked any more",
  scene(async (stage) => {
    let asked = 0;
    const broker = stage.broker({
      authorize: () => {
        asked++;
        return true;
      },
    });
    await broker.close();
    const answer = await broker.fetch(eventRequest("x"));
    expect([answer.status, await problemOf(answer), asked]).toEqual([503, "closed", 0]);
    expect(await codeOf(broker.close({ spreadOver: -1 }))).toBe("RangeError");
  }),
);

test(
  "cors.origins: the origins of app views are origins",
  scene(async (stage) => {
    const origins = ["capacitor://localhost", "chrome-extension://abcdefgh", "https://app.example"];
    const broker = stage.broker({ cors: { origins } });
    for (const origin of origins) {
      const answer = await broker.fetch(clientRequest({ headers: { origin } }));
      expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
      await answer.body?.cancel();
    }
    for (const origin of ["capacitor://localhost/", "capacitor://", "capacitor://a b", "javascript:alert(1)"])
      expect(() => stage.broker({ cors: { origins: [origin] } })).toThrow(TypeError);
  }),
);

test(
  "subject: has the bound of all names",
  scene(async (stage) => {
    const stages: ErrorStage[] = [];
    const broker = stage.broker({
      authorize: () => ({ subject: "x".repeat(257) }),
      onError: (event) => stages.push(event.stage),
    });
    const answer = await broker.fetch(clientRequest());
    expect([answer.status, await problemOf(answer), stages]).toEqual([500, "internal", ["authorize"]]);
  }),
);
