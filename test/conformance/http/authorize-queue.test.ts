import { expect, test } from "vitest";
import { type Authorize, type AuthorizeResult, BrokerError, type ClientInfo } from "../../../src/index.ts";
import { Connection } from "../../support/clients/connection.ts";
import {
  ANY,
  deferred,
  expectUntouched,
  HOUR,
  never,
  problem,
  publishing,
  reading,
  witnessedBody,
} from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, problemOf, scene, turn, Witness } from "../../support/test-broker.ts";

// How long `authorize` may take, and how many may wait for it.

reading("authorizeTimeout: is 503 authorize-timeout, and the late answer registers nobody", async ({ stage, door }) => {
  const verdict = deferred<AuthorizeResult>();
  const signals: AbortSignal[] = [];
  const connected: unknown[] = [];
  const broker = stage.broker({
    authorizeTimeout: 5,
    maxPending: 1,
    maxClients: 1,
    authorize: ({ signal }) => {
      signals.push(signal);
      return verdict.promise;
    },
    onConnect: (event) => connected.push(event),
  });
  const answering = door(broker, clientRequest({ headers: ANY }));
  expect(broker.stats().pending).toBe(1);
  expect(signals.map(({ aborted }) => aborted)).toEqual([false]);
  const answer = await answering;
  expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(await problem(answer)).toEqual([503, "authorize-timeout"]);
  expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
  expectUntouched(broker);
  verdict.resolve(true);
  await turn();
  expectUntouched(broker);
  expect(connected).toEqual([]);
});

reading("authorizeTimeout: an EventSource is told when to come back, without an id", async ({ stage, door }) => {
  const broker = stage.broker({ authorizeTimeout: 5, retry: 4_000, authorize: never });
  const answer = await door(broker, clientRequest({ id: "one" }));
  expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
  expect(answer.headers.get("fanwire-client-id")).toBeNull();
  const client = new Connection(answer, new AbortController());
  expect(await client.ended()).toBe("closed");
  expect(client.retries).toHaveLength(1);
  expect(client.retries[0]).toBeGreaterThanOrEqual(2_000);
  expect(client.events).toHaveLength(1);
  expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "authorize-timeout", reconnect: true });
  expect(client.events.map(({ id }) => id)).toEqual([undefined]);
  expectUntouched(broker);
});

publishing(
  "authorizeTimeout: is 503 authorize-timeout, and nothing is read or published, not even late",
  async (stage, door) => {
    const verdict = deferred<AuthorizeResult>();
    const signals: AbortSignal[] = [];
    const broker = stage.broker({
      authorizeTimeout: 5,
      authorize: ({ signal }) => {
        signals.push(signal);
        return verdict.promise;
      },
    });
    const body = witnessedBody();
    // An EventSource sends no POST, so this is no reason for another answer.
    const answer = await door(
      broker,
      eventRequest(null, "", { ...body.init, headers: { accept: "text/event-stream" } }),
    );
    expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await problem(answer)).toEqual([503, "authorize-timeout"]);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
    verdict.resolve(true);
    await turn();
    expect(body.pulls()).toBe(0);
    expectUntouched(broker);
  },
);

reading("authorizeTimeout: what rejects after it is no unhandled rejection", async ({ stage, door }) => {
  const verdict = deferred<AuthorizeResult>();
  const broker = stage.broker({ authorizeTimeout: 5, authorize: () => verdict.promise });
  expect((await door(broker, clientRequest({ headers: ANY }))).status).toBe(503);
  // A rejection that nobody handles fails the run.
  verdict.reject(new Error("too late"));
  await turn();
  expectUntouched(broker);
});

reading("authorizeTimeout: is over with the answer", async ({ stage, enter }) => {
  const signals: AbortSignal[] = [];
  const broker = stage.broker({
    authorizeTimeout: 5,
    authorize: (attempt) => {
      signals.push(attempt.signal);
      return attempt.clientId === "one" ? true : never(attempt);
    },
  });
  const client = await enter(broker, { id: "one" });
  // Its time began later, so when it is over the other's would be as well.
  await (await broker.clientHandler(clientRequest())).text();
  expect(signals.map(({ aborted }) => aborted)).toEqual([false, true]);
  await broker.broadcast("still here");
  expect((await client.nextData()).data).toBe("still here");
});

reading(
  "a client that leaves while authorize is asked is never registered, and its place is free",
  async ({ stage, door, enter }) => {
    const asked = new Witness<AbortSignal>();
    const verdict = deferred<AuthorizeResult>();
    const connected: ClientInfo[] = [];
    const broker = stage.broker({
      maxClients: 1,
      maxPending: 1,
      authorize: ({ clientId, signal }) => {
        asked.see(signal);
        return clientId === "leaves" ? verdict.promise : true;
      },
      onConnect: ({ client }) => connected.push(client),
    });
    const abort = new AbortController();
    const answering = door(broker, clientRequest({ id: "leaves" }, abort.signal));
    const signal = await asked.next();
    expect([signal.aborted, broker.stats().pending]).toEqual([false, 1]);
    abort.abort();
    expect(signal.aborted).toBe(true);
    expect(await problem(await answering)).toEqual([499, "client-left"]);
    expectUntouched(broker);
    await enter(broker, { id: "stays" });
    verdict.resolve(true);
    await turn();
    expect(connected).toMatchObject([{ clientId: "stays" }]);
    expect(broker.stats()).toMatchObject({ clients: 1, ids: 1, pending: 0 });
  },
);

publishing("a publisher that leaves while authorize is asked publishes nothing", async (stage, door) => {
  const asked = new Witness<AbortSignal>();
  const verdict = deferred<AuthorizeResult>();
  const broker = stage.broker({
    authorize: ({ signal }) => {
      asked.see(signal);
      return verdict.promise;
    },
  });
  const abort = new AbortController();
  const answering = door(broker, eventRequest("x", "", { signal: abort.signal }));
  const signal = await asked.next();
  abort.abort();
  expect([(await answering).status, signal.aborted]).toEqual([499, true]);
  // A rejection that nobody handles fails the run.
  verdict.reject(new Error("too late"));
  await turn();
  expectUntouched(broker);
});

reading("a client that leaves at any moment of the answer is not kept", async ({ stage, door }) => {
  for (let steps = 0; steps < 12; steps++) {
    const abort = new AbortController();
    const broker = stage.broker({
      maxClientsPerSubject: 1,
      authorize: async () => {
        let step = Promise.resolve();
        for (let index = 0; index < steps; index++) step = step.then(() => undefined);
        void step.then(() => abort.abort());
        return { subject: "ada" };
      },
    });
    const answer = await door(broker, clientRequest({}, abort.signal));
    await turn();
    expect([steps, abort.signal.aborted]).toEqual([steps, true]);
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0, closing: 0, pending: 0 });
    await answer.body?.cancel().catch(() => undefined);
  }
});

for (const [when, abortsBefore] of [
  ["had left before", true],
  ["leaves meanwhile", false],
] as const) {
  reading(
    `authorize: that throws at once for a client that ${when} is no unhandled rejection`,
    async ({ stage, door }) => {
      const abort = new AbortController();
      if (abortsBefore) abort.abort();
      const broker = stage.broker({
        onError: () => undefined,
        authorize: () => {
          abort.abort();
          // As bearer() does.
          throw new BrokerError("unauthorized", "no token");
        },
      });
      const answer = await door(broker, clientRequest({}, abort.signal));
      expect(answer.status).toBeGreaterThanOrEqual(400);
      // A rejection that nobody handles fails the run.
      await turn();
      expectUntouched(broker);
    },
  );
}

reading(
  "close: who waits for authorize meanwhile is told to come back, and is not registered",
  async ({ stage, door }) => {
    const verdict = deferred<AuthorizeResult>();
    const broker = stage.broker({ authorize: () => verdict.promise });
    const answering = [door(broker, clientRequest()), door(broker, clientRequest({ headers: ANY }))];
    const closed = broker.close();
    verdict.resolve(true);
    await closed;
    const [stream, other] = (await Promise.all(answering)) as [Response, Response];
    const client = new Connection(stream, new AbortController());
    expect(await client.ended()).toBe("closed");
    expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "closing", reconnect: true });
    expect(await problem(other)).toEqual([503, "closed"]);
    expectUntouched(broker);
  },
);

// How many may wait.

test(
  "maxPending: just so many are asked at a time, one more is at-capacity and authorize does not hear of it",
  scene(async (stage) => {
    const verdict = deferred<AuthorizeResult>();
    let asked = 0;
    const broker = stage.broker({
      maxPending: 3,
      authorize: () => {
        asked++;
        return verdict.promise;
      },
    });
    const waiting = [
      broker.fetch(clientRequest()),
      broker.clientHandler(new Request(clientRequest(), { method: "HEAD" })),
      broker.fetch(eventRequest("x")),
    ];
    expect([asked, broker.stats().pending]).toEqual([3, 3]);
    const refused = await broker.fetch(clientRequest({ headers: ANY }));
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await problem(refused)).toEqual([503, "at-capacity"]);
    expect(await problem(await broker.eventHandler(eventRequest("x")))).toEqual([503, "at-capacity"]);
    const stream = new Connection(await broker.fetch(clientRequest()), new AbortController());
    expect(await stream.ended()).toBe("closed");
    expect(JSON.parse(stream.control("end")[0]?.data ?? "")).toEqual({ reason: "at-capacity", reconnect: true });
    expect([asked, broker.stats().pending]).toEqual([3, 3]);
    verdict.resolve(false);
    expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([403, 403, 403]);
    expect(broker.stats().pending).toBe(0);
    expect((await broker.eventHandler(eventRequest("x"))).status).toBe(403);
    expect(asked).toBe(4);
  }),
);

reading("maxClients: exactly so many that come at once get in, one more does not", async ({ stage, door }) => {
  const verdict = deferred<AuthorizeResult>();
  const broker = stage.broker({ maxClients: 3, authorize: () => verdict.promise });
  const coming = [1, 2, 3, 4].map(() => door(broker, clientRequest({ headers: ANY })));
  // The fourth is one too many although nobody is registered yet; it is said only to who may come in.
  expect(broker.stats()).toMatchObject({ clients: 0, pending: 4 });
  verdict.resolve(true);
  const answers = await Promise.all(coming);
  try {
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 503]);
    expect(await problemOf(answers[3] as Response)).toBe("at-capacity");
    expect(broker.stats()).toMatchObject({ clients: 3, pending: 0 });
  } finally {
    for (const { body, bodyUsed } of answers) if (!bodyUsed) await body?.cancel();
  }
});

reading("maxClients: without a pause in authorize, exactly so many get in as well", async ({ stage, door }) => {
  const broker = stage.broker({ maxClients: 3, authorize: () => true });
  const answers = await Promise.all([1, 2, 3, 4].map(() => door(broker, clientRequest({ headers: ANY }))));
  try {
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 200, 503]);
    expect(broker.stats().clients).toBe(3);
  } finally {
    for (const { body } of answers) await body?.cancel();
  }
});

reading("maxClients: is told only to who is allowed", async ({ stage, door, enter }) => {
  const broker = stage.broker({ maxClients: 1, authorize: ({ clientId }) => clientId !== "eve" });
  await enter(broker, { id: "one" });
  expect(await problem(await door(broker, clientRequest({ id: "eve", headers: ANY })))).toEqual([403, "forbidden"]);
  expect(await problem(await door(broker, clientRequest({ id: "ada", headers: ANY })))).toEqual([503, "at-capacity"]);
});

reading("maxClients: however a request ends, it gives its place back", async ({ stage, door, enter }) => {
  const left = AbortSignal.abort();
  const endings: Record<string, readonly [number, Authorize]> = {
    false: [403, () => false],
    response: [200, () => new Response("no stream")],
    grant: [403, () => ({ clientId: "another" })],
    expired: [401, () => ({ clientId: "expired", expiresAt: 0 })],
    wrong: [500, () => null as unknown as AuthorizeResult],
    rejects: [500, () => Promise.reject(new Error("broken"))],
    refuses: [401, () => Promise.reject(new BrokerError("unauthorized", "no"))],
    timeout: [503, never],
    left: [499, never],
    barred: [204, () => true],
    taken: [409, () => true],
  };
  const broker = stage.broker({
    maxClients: 2,
    authorizeTimeout: 5,
    duplicateIds: "reject",
    authorize: (attempt) => {
      const [, decide] = endings[attempt.clientId ?? ""] ?? [200, () => true];
      return decide(attempt);
    },
  });
  await broker.disconnect("barred", { blockFor: HOUR });
  await enter(broker, { id: "taken" });
  for (let round = 0; round < 3; round++) {
    for (const [id, [status]] of Object.entries(endings)) {
      const signal = id === "left" ? left : undefined;
      const answer = await door(broker, clientRequest({ id, headers: ANY }, signal));
      expect([id, answer.status, answer.headers.get("fanwire-client-id")]).toEqual([id, status, null]);
    }
  }
  const client = await enter(broker, { id: "in" });
  expect(broker.stats()).toMatchObject({ clients: 2, pending: 0 });
  expect((await door(broker, clientRequest({ headers: ANY }))).status).toBe(503);
  await client.leave();
  await enter(broker, { id: "in" });
});
