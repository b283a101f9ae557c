// How long `authorize` may take, and how many requests may wait for it.
import { expect, test } from "vitest";
import { type Authorize, type AuthorizeResult, BrokerError, type ClientInfo } from "../../../src/index.ts";
import { Connection } from "../../support/clients/connection.ts";
import {
  ACCEPT_ANY,
  createCountedBody,
  deferred,
  expectUnused,
  HOUR_MS,
  neverAnswers,
  statusAndCode,
  testPublishing,
  testReading,
} from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, problemOf, Recorder, turn, withBroker } from "../../support/test-broker.ts";

testReading(
  "authorizeTimeout: the answer is 503 authorize-timeout, and a late result registers no client",
  async ({ setup, entryPoint }) => {
    const decision = deferred<AuthorizeResult>();
    const signals: AbortSignal[] = [];
    const connected: unknown[] = [];
    const broker = setup.broker({
      authorizeTimeout: 5,
      maxPending: 1,
      maxClients: 1,
      authorize: ({ signal }) => {
        signals.push(signal);
        return decision.promise;
      },
      onConnect: (event) => connected.push(event),
    });
    const answering = entryPoint(broker, clientRequest({ headers: ACCEPT_ANY }));
    expect(broker.stats().pending).toBe(1);
    expect(signals.map(({ aborted }) => aborted)).toEqual([false]);
    const answer = await answering;
    expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await statusAndCode(answer)).toEqual([503, "authorize-timeout"]);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
    expectUnused(broker);
    decision.resolve(true);
    await turn();
    expectUnused(broker);
    expect(connected).toEqual([]);
  },
);

testReading("authorizeTimeout: an EventSource receives when to come back, and no id", async ({ setup, entryPoint }) => {
  const broker = setup.broker({ authorizeTimeout: 5, retry: 4_000, authorize: neverAnswers });
  const answer = await entryPoint(broker, clientRequest({ id: "one" }));
  expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
  expect(answer.headers.get("fanwire-client-id")).toBeNull();
  const client = new Connection(answer, new AbortController());
  expect(await client.ended()).toBe("closed");
  expect(client.retries).toHaveLength(1);
  expect(client.retries[0]).toBeGreaterThanOrEqual(2_000);
  expect(client.events).toHaveLength(1);
  expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "authorize-timeout", reconnect: true });
  expect(client.events.map(({ id }) => id)).toEqual([undefined]);
  expectUnused(broker);
});

testPublishing(
  "authorizeTimeout: the answer is 503 authorize-timeout, and a late result neither reads the body nor publishes",
  async (setup, entryPoint) => {
    const decision = deferred<AuthorizeResult>();
    const signals: AbortSignal[] = [];
    const broker = setup.broker({
      authorizeTimeout: 5,
      authorize: ({ signal }) => {
        signals.push(signal);
        return decision.promise;
      },
    });
    const body = createCountedBody();
    // An EventSource sends no POST, so this header does not change the answer.
    const answer = await entryPoint(
      broker,
      eventRequest(null, "", { ...body.init, headers: { accept: "text/event-stream" } }),
    );
    expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await statusAndCode(answer)).toEqual([503, "authorize-timeout"]);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
    decision.resolve(true);
    await turn();
    expect(body.pulls()).toBe(0);
    expectUnused(broker);
  },
);

testReading("authorizeTimeout: a rejection after the deadline is handled", async ({ setup, entryPoint }) => {
  const decision = deferred<AuthorizeResult>();
  const broker = setup.broker({ authorizeTimeout: 5, authorize: () => decision.promise });
  expect((await entryPoint(broker, clientRequest({ headers: ACCEPT_ANY }))).status).toBe(503);
  // An unhandled rejection fails the test run.
  decision.reject(new Error("too late"));
  await turn();
  expectUnused(broker);
});

testReading("authorizeTimeout: the deadline ends with the result", async ({ setup, connect }) => {
  const signals: AbortSignal[] = [];
  const broker = setup.broker({
    authorizeTimeout: 5,
    authorize: (access) => {
      signals.push(access.signal);
      return access.clientId === "one" ? true : neverAnswers(access);
    },
  });
  const client = await connect(broker, { id: "one" });
  // The second deadline begins later, so when it has passed, the first one would have passed too.
  await (await broker.clientHandler(clientRequest())).text();
  expect(signals.map(({ aborted }) => aborted)).toEqual([false, true]);
  await broker.broadcast("still here");
  expect((await client.nextData()).data).toBe("still here");
});

testReading(
  "authorize: a client that leaves while it waits is never registered, and its slot is free again",
  async ({ setup, entryPoint, connect }) => {
    const signals = new Recorder<AbortSignal>();
    const decision = deferred<AuthorizeResult>();
    const connected: ClientInfo[] = [];
    const broker = setup.broker({
      maxClients: 1,
      maxPending: 1,
      authorize: ({ clientId, signal }) => {
        signals.record(signal);
        return clientId === "leaves" ? decision.promise : true;
      },
      onConnect: ({ client }) => connected.push(client),
    });
    const abort = new AbortController();
    const answering = entryPoint(broker, clientRequest({ id: "leaves" }, abort.signal));
    const signal = await signals.next();
    expect([signal.aborted, broker.stats().pending]).toEqual([false, 1]);
    abort.abort();
    expect(signal.aborted).toBe(true);
    expect(await statusAndCode(await answering)).toEqual([499, "client-left"]);
    expectUnused(broker);
    await connect(broker, { id: "stays" });
    decision.resolve(true);
    await turn();
    expect(connected).toMatchObject([{ clientId: "stays" }]);
    expect(broker.stats()).toMatchObject({ clients: 1, ids: 1, pending: 0 });
  },
);

testPublishing("authorize: a publisher that leaves while it waits publishes nothing", async (setup, entryPoint) => {
  const signals = new Recorder<AbortSignal>();
  const decision = deferred<AuthorizeResult>();
  const broker = setup.broker({
    authorize: ({ signal }) => {
      signals.record(signal);
      return decision.promise;
    },
  });
  const abort = new AbortController();
  const answering = entryPoint(broker, eventRequest("x", "", { signal: abort.signal }));
  const signal = await signals.next();
  abort.abort();
  expect([(await answering).status, signal.aborted]).toEqual([499, true]);
  // An unhandled rejection fails the test run.
  decision.reject(new Error("too late"));
  await turn();
  expectUnused(broker);
});

testReading(
  "authorize: a client that leaves at any moment around its result is not kept",
  async ({ setup, entryPoint }) => {
    for (let steps = 0; steps < 12; steps++) {
      const abort = new AbortController();
      const broker = setup.broker({
        maxClientsPerSubject: 1,
        authorize: async () => {
          let step = Promise.resolve();
          for (let index = 0; index < steps; index++) step = step.then(() => undefined);
          void step.then(() => abort.abort());
          return { subject: "ada" };
        },
      });
      const answer = await entryPoint(broker, clientRequest({}, abort.signal));
      await turn();
      expect([steps, abort.signal.aborted]).toEqual([steps, true]);
      expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0, closing: 0, pending: 0 });
      await answer.body?.cancel().catch(() => undefined);
    }
  },
);

for (const [when, abortsBefore] of [
  ["had left before", true],
  ["leaves during the call", false],
] as const) {
  testReading(
    `authorize: an error that it throws for a client that ${when} is handled`,
    async ({ setup, entryPoint }) => {
      const abort = new AbortController();
      if (abortsBefore) abort.abort();
      const broker = setup.broker({
        onError: () => undefined,
        authorize: () => {
          abort.abort();
          // bearer() throws synchronously too.
          throw new BrokerError("unauthorized", "no token");
        },
      });
      const answer = await entryPoint(broker, clientRequest({}, abort.signal));
      expect(answer.status).toBeGreaterThanOrEqual(400);
      // An unhandled rejection fails the test run.
      await turn();
      expectUnused(broker);
    },
  );
}

testReading(
  "close(): a client that waits for authorize has to come back later, and is not registered",
  async ({ setup, entryPoint }) => {
    const decision = deferred<AuthorizeResult>();
    const broker = setup.broker({ authorize: () => decision.promise });
    const answering = [entryPoint(broker, clientRequest()), entryPoint(broker, clientRequest({ headers: ACCEPT_ANY }))];
    const closed = broker.close();
    decision.resolve(true);
    await closed;
    const [stream, other] = (await Promise.all(answering)) as [Response, Response];
    const client = new Connection(stream, new AbortController());
    expect(await client.ended()).toBe("closed");
    expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "closing", reconnect: true });
    expect(await statusAndCode(other)).toEqual([503, "closed"]);
    expectUnused(broker);
  },
);

// How many requests may wait.

test(
  "maxPending: this many requests wait at a time; one more is at-capacity, and authorize is not called for it",
  withBroker(async (setup) => {
    const decision = deferred<AuthorizeResult>();
    let calls = 0;
    const broker = setup.broker({
      maxPending: 3,
      authorize: () => {
        calls++;
        return decision.promise;
      },
    });
    const waiting = [
      broker.fetch(clientRequest()),
      broker.clientHandler(new Request(clientRequest(), { method: "HEAD" })),
      broker.fetch(eventRequest("x")),
    ];
    expect([calls, broker.stats().pending]).toEqual([3, 3]);
    const refused = await broker.fetch(clientRequest({ headers: ACCEPT_ANY }));
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await statusAndCode(refused)).toEqual([503, "at-capacity"]);
    expect(await statusAndCode(await broker.eventHandler(eventRequest("x")))).toEqual([503, "at-capacity"]);
    const stream = new Connection(await broker.fetch(clientRequest()), new AbortController());
    expect(await stream.ended()).toBe("closed");
    expect(JSON.parse(stream.control("end")[0]?.data ?? "")).toEqual({ reason: "at-capacity", reconnect: true });
    expect([calls, broker.stats().pending]).toEqual([3, 3]);
    decision.resolve(false);
    expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([403, 403, 403]);
    expect(broker.stats().pending).toBe(0);
    expect((await broker.eventHandler(eventRequest("x"))).status).toBe(403);
    expect(calls).toBe(4);
  }),
);

testReading(
  "maxClients: of clients that connect at once, exactly this many are accepted",
  async ({ setup, entryPoint }) => {
    const decision = deferred<AuthorizeResult>();
    const broker = setup.broker({ maxClients: 3, authorize: () => decision.promise });
    const connecting = [1, 2, 3, 4].map(() => entryPoint(broker, clientRequest({ headers: ACCEPT_ANY })));
    // The fourth finds no slot, although no client is registered yet. It learns that only after authorize has allowed it.
    expect(broker.stats()).toMatchObject({ clients: 0, pending: 4 });
    decision.resolve(true);
    const answers = await Promise.all(connecting);
    try {
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 503]);
      expect(await problemOf(answers[3] as Response)).toBe("at-capacity");
      expect(broker.stats()).toMatchObject({ clients: 3, pending: 0 });
    } finally {
      for (const { body, bodyUsed } of answers) if (!bodyUsed) await body?.cancel();
    }
  },
);

testReading(
  "maxClients: exactly this many are accepted if authorize answers at once, too",
  async ({ setup, entryPoint }) => {
    const broker = setup.broker({ maxClients: 3, authorize: () => true });
    const answers = await Promise.all(
      [1, 2, 3, 4].map(() => entryPoint(broker, clientRequest({ headers: ACCEPT_ANY }))),
    );
    try {
      expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 200, 503]);
      expect(broker.stats().clients).toBe(3);
    } finally {
      for (const { body } of answers) await body?.cancel();
    }
  },
);

testReading("maxClients: only an allowed client learns that it is reached", async ({ setup, entryPoint, connect }) => {
  const broker = setup.broker({ maxClients: 1, authorize: ({ clientId }) => clientId !== "eve" });
  await connect(broker, { id: "one" });
  expect(await statusAndCode(await entryPoint(broker, clientRequest({ id: "eve", headers: ACCEPT_ANY })))).toEqual([
    403,
    "forbidden",
  ]);
  expect(await statusAndCode(await entryPoint(broker, clientRequest({ id: "ada", headers: ACCEPT_ANY })))).toEqual([
    503,
    "at-capacity",
  ]);
});

testReading("maxClients: a request releases its slot, however it ends", async ({ setup, entryPoint, connect }) => {
  const aborted = AbortSignal.abort();
  const endings: Record<string, readonly [number, Authorize]> = {
    false: [403, () => false],
    response: [200, () => new Response("no stream")],
    grant: [403, () => ({ clientId: "another" })],
    expired: [401, () => ({ clientId: "expired", expiresAt: 0 })],
    wrong: [500, () => null as unknown as AuthorizeResult],
    rejects: [500, () => Promise.reject(new Error("broken"))],
    refuses: [401, () => Promise.reject(new BrokerError("unauthorized", "no"))],
    timeout: [503, neverAnswers],
    left: [499, neverAnswers],
    barred: [204, () => true],
    taken: [409, () => true],
  };
  const broker = setup.broker({
    maxClients: 2,
    authorizeTimeout: 5,
    duplicateIds: "reject",
    authorize: (access) => {
      const [, decide] = endings[access.clientId ?? ""] ?? [200, () => true];
      return decide(access);
    },
  });
  await broker.disconnect("barred", { blockFor: HOUR_MS });
  await connect(broker, { id: "taken" });
  for (let round = 0; round < 3; round++) {
    for (const [id, [status]] of Object.entries(endings)) {
      const signal = id === "left" ? aborted : undefined;
      const answer = await entryPoint(broker, clientRequest({ id, headers: ACCEPT_ANY }, signal));
      expect([id, answer.status, answer.headers.get("fanwire-client-id")]).toEqual([id, status, null]);
    }
  }
  const client = await connect(broker, { id: "in" });
  expect(broker.stats()).toMatchObject({ clients: 2, pending: 0 });
  expect((await entryPoint(broker, clientRequest({ headers: ACCEPT_ANY }))).status).toBe(503);
  await client.leave();
  await connect(broker, { id: "in" });
});
