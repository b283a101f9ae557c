import { expect, test } from "vitest";
import type { Authorize, Broker, BrokerOptions, ClientInfo, DisconnectReason, Grant } from "../../../src/index.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import {
  clientRequest,
  eventRequest,
  problemOf,
  type Scene,
  scene,
  turn,
  type Wish,
  Witness,
} from "../../support/test-broker.ts";

// How many there may be: what those are told who are too many, and that every place is given back.

interface Left {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

/** As the client says itself; `x-subject` is who it is. */
const bySubject: Authorize = ({ request, clientId, channels }) => ({
  subject: request.headers.get("x-subject") ?? undefined,
  clientId,
  channels,
});
const as = (subject: string): Wish => ({ headers: { "x-subject": subject } });

/** A stream that only says when to come back. It has nothing that could be taken for a position. */
const TURNED_AWAY = /^retry: (\d+)\nevent: fanwire-end\ndata: {"reason":"at-capacity","reconnect":true}\n\n$/;

/** Checks that a client is turned away in both ways, and registered in neither. */
async function expectFull(broker: Broker, wish: Wish = {}): Promise<void> {
  const before = broker.clients();
  const stream = await broker.clientHandler(clientRequest(wish), wish.overrides);
  expect([stream.status, stream.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
  expect(await stream.text()).toMatch(TURNED_AWAY);
  const plain = clientRequest({ ...wish, headers: { ...wish.headers, accept: "*/*" } });
  const answer = await broker.clientHandler(plain, wish.overrides);
  expect([answer.status, await problemOf(answer)]).toEqual([503, "at-capacity"]);
  expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
  expect(broker.clients()).toEqual(before);
}

test(
  "at capacity: an EventSource gets 200, a jittered retry and fanwire-end without any id; others 503 with retry-after",
  scene(async (stage) => {
    const connected: unknown[] = [];
    const options: BrokerOptions = { maxClients: 0, retry: 10_000, onConnect: (event) => connected.push(event) };
    const broker = stage.broker(options);
    // There is a position that could be told by mistake.
    const { id } = await broker.broadcast("x");
    await expectFull(broker, { id: "one", channel: "a", lastEventId: id });
    await expectFull(broker, { lastEventId: "garbage" });
    const times: number[] = [];
    for (let client = 0; client < 100; client++) {
      const answer = await broker.fetch(clientRequest());
      times.push(Number(TURNED_AWAY.exec(await answer.text())?.[1]));
    }
    expect(Math.min(...times)).toBeGreaterThanOrEqual(5_000);
    expect(Math.max(...times)).toBeLessThanOrEqual(15_000);
    expect(new Set(times).size).toBeGreaterThan(50);
    for (const accept of ["*/*", "application/json", "text/html"]) {
      const answer = await broker.fetch(clientRequest({ headers: { accept } }));
      expect([answer.status, answer.headers.get("retry-after"), await problemOf(answer)]).toEqual([
        503,
        "10",
        "at-capacity",
      ]);
    }
    expect(connected).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0, failures: { "at-capacity": 107 } });
  }),
);

test(
  "at capacity: errorHandler is not asked where an EventSource would die of its answer, else it is",
  scene(async (stage) => {
    const broker = stage.broker({ maxClients: 0, errorHandler: ({ status }) => new Response("mine", { status }) });
    expect(await (await broker.fetch(clientRequest())).text()).toMatch(TURNED_AWAY);
    const answer = await broker.fetch(clientRequest({ headers: { accept: "*/*" } }));
    expect([answer.status, await answer.text()]).toEqual([503, "mine"]);
  }),
);

test(
  "maxClients: so many connections, and one more is turned away",
  scene(async (stage) => {
    const broker = stage.broker({ maxClients: 3 });
    for (let client = 0; client < 3; client++) await stage.join(broker, { id: "shared" });
    await expectFull(broker);
    await expectFull(broker, { id: "shared" });
    expect(broker.stats().clients).toBe(3);
  }),
);

test(
  "maxClients: HEAD, OPTIONS and publishing need no place",
  scene(async (stage) => {
    const broker = stage.broker({ maxClients: 1 });
    const client = await stage.join(broker);
    const at = (method: string): Request => new Request("https://fanwire.test/connect", { method });
    for (let time = 0; time < 3; time++) {
      expect((await broker.fetch(at("HEAD"))).status).toBe(200);
      expect((await broker.fetch(at("OPTIONS"))).status).toBe(204);
    }
    expect((await broker.eventHandler(eventRequest("still read"))).status).toBe(200);
    expect((await client.nextData()).data).toBe("still read");
    await client.leave();
    expect((await broker.fetch(at("HEAD"))).status).toBe(200);
    await stage.join(broker);
  }),
);

test(
  "maxClients: those whose subscription is pending are counted",
  scene(async (stage) => {
    let open: () => void = () => undefined;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const broker = stage.broker({ maxClients: 1, engine: slowEngine(stage.engine(), () => opened) });
    const connecting = stage.join(broker);
    await turn();
    await expectFull(broker);
    open();
    await connecting;
    await expectFull(broker);
  }),
);

/** Ann as "one", whose place is the only one. */
const ann = (grant: Grant = {}): Wish => ({
  id: "one",
  overrides: { authorize: () => ({ subject: "ann", clientId: "one", ...grant }) },
});
/** Waits until somebody ended for this reason. */
async function until(left: Witness<Left>, reason: DisconnectReason): Promise<void> {
  while ((await left.next()).reason !== reason);
}

interface Way {
  readonly how: string;
  readonly options?: BrokerOptions;
  readonly go: (stage: Scene, broker: Broker, left: Witness<Left>) => Promise<unknown>;
}
const ways: readonly Way[] = [
  { how: "the client leaves", go: async (stage, broker) => (await stage.join(broker, ann())).leave() },
  {
    how: "the client leaves and its request's signal fires",
    async go(stage, broker) {
      const client = await stage.join(broker, ann());
      client.abort();
      await client.leave();
    },
  },
  {
    how: "the client is blocked for timeout × tolerance",
    options: { timeout: 20, tolerance: 2 },
    async go(stage, broker, left) {
      await stage.join(broker, ann());
      await broker.broadcast("unread");
      await until(left, "timeout");
    },
  },
  {
    how: "the client is disconnected",
    async go(stage, broker) {
      const client = await stage.join(broker, ann());
      await broker.disconnect("one");
      expect(await client.ended()).toBe("closed");
    },
  },
  {
    how: "the client is disconnected and never reads that",
    options: { timeout: 20 },
    async go(stage, broker) {
      await stage.join(broker, ann());
      await broker.disconnect("one");
      while (broker.stats().closing > 0) await turn();
    },
  },
  {
    how: "what the client was granted expires",
    async go(stage, broker) {
      const client = await stage.connect(broker, ann({ expiresAt: Date.now() + 200 }));
      expect(await client.ended()).toBe("closed");
    },
  },
  {
    how: "what the client was granted expires while it is blocked",
    async go(stage, broker, left) {
      await stage.connect(broker, ann({ expiresAt: Date.now() + 200 }));
      await broker.broadcast("unread");
      await until(left, "expired");
    },
  },
  {
    how: "the client reaches maxAge",
    options: { maxConnectionAge: 30 },
    async go(stage, broker) {
      const client = await stage.connect(broker, ann());
      expect(await client.ended()).toBe("closed");
    },
  },
  {
    how: "onConnect ends the client",
    async go(stage, broker) {
      const client = await stage.connect(broker, { ...ann(), query: { unwanted: "yes" } });
      expect(await client.ended()).toBe("closed");
    },
  },
];
for (const { how, options, go } of ways) {
  for (const bound of ["maxClients", "maxClientsPerSubject", "maxClientsPerId"]) {
    test(
      `${bound}: the place is given back when ${how}, once`,
      scene(async (stage) => {
        const left = new Witness<Left>();
        let broker: Broker | undefined;
        broker = stage.broker({
          [bound]: 1,
          onConnect({ client, request }) {
            if (request.url.includes("unwanted")) void broker?.disconnect(client.clientId);
          },
          onDisconnect: left.see,
          ...options,
        });
        // Again, because a place that is given back twice is one too many.
        for (let time = 0; time < 3; time++) {
          await go(stage, broker, left);
          const next = await stage.join(broker, ann());
          await expectFull(broker, ann());
          await next.leave();
        }
        expect(broker.stats()).toMatchObject({ clients: 0, closing: 0, pending: 0 });
      }),
    );
  }
}

test(
  "maxClients: a stream that was told to end takes its place until it has ended",
  scene(async (stage) => {
    const broker = stage.broker({ maxClients: 1, maxClientsPerId: 1 });
    const client = await stage.join(broker, { id: "one" });
    await broker.disconnect("one");
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 1 });
    await expectFull(broker, { id: "two" });
    expect(await client.ended()).toBe("closed");
    await stage.join(broker, { id: "two" });
  }),
);

test(
  "maxClients: the place is given back when the engine cannot subscribe",
  scene(async (stage) => {
    const inner = stage.engine();
    let fails = true;
    const engine: typeof inner = {
      open: (follower) => ({
        ...inner.open(follower),
        subscribe: () => (fails ? Promise.reject(new Error("away")) : undefined),
      }),
    };
    const broker = stage.broker({ maxClients: 1, engine });
    for (let time = 0; time < 3; time++) expect((await broker.clientHandler(clientRequest())).status).toBe(500);
    fails = false;
    await stage.join(broker);
    await expectFull(broker);
    expect(broker.stats().clients).toBe(1);
  }),
);

test(
  "maxClientsPerSubject: so many of one subject, another one has its own, and those without are not counted",
  scene(async (stage) => {
    const left = new Witness<Left>();
    const broker = stage.broker({ maxClientsPerSubject: 2, authorize: bySubject, onDisconnect: left.see });
    const ann = [await stage.join(broker, as("ann")), await stage.join(broker, as("ann"))];
    await expectFull(broker, as("ann"));
    await stage.join(broker, as("ben"));
    for (let client = 0; client < 5; client++) await stage.join(broker);
    await ann[0]?.leave();
    await left.next();
    ann.push(await stage.join(broker, as("ann")));
    await expectFull(broker, as("ann"));
    for (const client of ann) await client.leave();
    for (let client = 0; client < 2; client++) await stage.join(broker, as("ann"));
    await expectFull(broker, as("ann"));
  }),
);

test(
  "maxClientsPerSubject: many that connect at once are no more than so many",
  scene(async (stage) => {
    for (const engine of [stage.engine(), slowEngine(stage.engine(), turn)]) {
      const broker = stage.broker({ maxClientsPerSubject: 3, maxClientsPerId: 2, authorize: bySubject, engine });
      const wish = as("ann");
      const answers = await Promise.all(Array.from({ length: 10 }, () => broker.clientHandler(clientRequest(wish))));
      expect(broker.stats().clients).toBe(3);
      const ids = Array.from({ length: 10 }, () => broker.clientHandler(clientRequest({ id: "one" })));
      answers.push(...(await Promise.all(ids)));
      expect(broker.stats()).toMatchObject({ clients: 5, failures: { "at-capacity": 15 } });
      for (const { body } of answers) await body?.cancel();
    }
  }),
);

test(
  "maxClientsPerSubject, maxClientsPerId: 100 by default",
  scene(async (stage) => {
    const broker = stage.broker({ authorize: bySubject });
    for (let client = 0; client < 100; client++) await stage.join(broker, as("ann"));
    await expectFull(broker, as("ann"));
    for (let client = 0; client < 100; client++) await stage.join(broker, { id: "one" });
    await expectFull(broker, { id: "one" });
    expect(broker.stats()).toMatchObject({ clients: 200, ids: 101 });
  }),
);

test(
  "maxClientsPerId: so many of one id, whoever they are, and another one has its own",
  scene(async (stage) => {
    const broker = stage.broker({ maxClientsPerId: 2, authorize: bySubject });
    const first = await stage.join(broker, { id: "one", ...as("ann") });
    await stage.join(broker, { id: "one", ...as("ben") });
    await expectFull(broker, { id: "one", ...as("ann") });
    await expectFull(broker, { id: "one" });
    await stage.join(broker, { id: "two", ...as("ann") });
    await first.leave();
    await stage.join(broker, { id: "one" });
    await expectFull(broker, { id: "one", ...as("ann") });
  }),
);

test(
  "maxPending: 1,000 by default, connections and events together, and one more is told to come back",
  scene(async (stage) => {
    const verdicts: ((verdict: boolean) => void)[] = [];
    const broker = stage.broker({ authorize: () => new Promise((answer) => verdicts.push(answer)) });
    const waiting: Promise<Response>[] = [];
    for (let request = 0; request < 500; request++) {
      waiting.push(broker.clientHandler(clientRequest()), broker.eventHandler(eventRequest("x")));
    }
    expect([verdicts.length, broker.stats().pending]).toEqual([1_000, 1_000]);
    await expectFull(broker);
    const event = await broker.eventHandler(eventRequest("x"));
    expect([event.status, event.headers.get("retry-after"), await problemOf(event)]).toEqual([503, "2", "at-capacity"]);
    expect(verdicts).toHaveLength(1_000);
    for (const answer of verdicts) answer(true);
    const answers = await Promise.all(waiting);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    for (const { body } of answers) await body?.cancel();
    expect(broker.stats()).toMatchObject({ pending: 0, published: 500 });
  }),
);
