// Limits of connections and of waiting requests: how further clients are answered, and that every slot is released.
import { expect, test } from "vitest";
import type { Authorize, Broker, BrokerOptions, ClientInfo, DisconnectReason, Grant } from "../../../src/index.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import {
  type ConnectOptions,
  clientRequest,
  eventRequest,
  problemOf,
  Recorder,
  type TestSetup,
  turn,
  withBroker,
} from "../../support/test-broker.ts";

interface Disconnect {
  readonly client: ClientInfo;
  readonly reason: DisconnectReason;
}

/** Grants the requested access, with the subject of the header `x-subject`. */
const bySubject: Authorize = ({ request, clientId, channels }) => ({
  subject: request.headers.get("x-subject") ?? undefined,
  clientId,
  channels,
});
const as = (subject: string): ConnectOptions => ({ headers: { "x-subject": subject } });

/** A stream that only says when to come back. It has no id that could be taken for a position. */
const COME_BACK_LATER = /^retry: (\d+)\nevent: fanwire-end\ndata: {"reason":"at-capacity","reconnect":true}\n\n$/;

/** Checks that there is no room for a client: it is answered as an EventSource and as a program, and not registered. */
async function expectFull(broker: Broker, requested: ConnectOptions = {}): Promise<void> {
  const before = broker.clients();
  const stream = await broker.clientHandler(clientRequest(requested), requested.overrides);
  expect([stream.status, stream.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
  expect(await stream.text()).toMatch(COME_BACK_LATER);
  const program = clientRequest({ ...requested, headers: { ...requested.headers, accept: "*/*" } });
  const answer = await broker.clientHandler(program, requested.overrides);
  expect([answer.status, await problemOf(answer)]).toEqual([503, "at-capacity"]);
  expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
  expect(broker.clients()).toEqual(before);
}

test(
  "at-capacity: an EventSource receives 200, a jittered retry and fanwire-end without an id; others receive 503 with retry-after",
  withBroker(async (setup) => {
    const connected: unknown[] = [];
    const options: BrokerOptions = { maxClients: 0, retry: 10_000, onConnect: (event) => connected.push(event) };
    const broker = setup.broker(options);
    // The log has a position that could be sent by mistake.
    const { id } = await broker.broadcast("x");
    await expectFull(broker, { id: "one", channel: "a", lastEventId: id });
    await expectFull(broker, { lastEventId: "garbage" });
    const times: number[] = [];
    for (let client = 0; client < 100; client++) {
      const answer = await broker.fetch(clientRequest());
      times.push(Number(COME_BACK_LATER.exec(await answer.text())?.[1]));
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
  "at-capacity: errorHandler is called, but not for an EventSource, which would stop after its answer",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxClients: 0, errorHandler: ({ status }) => new Response("mine", { status }) });
    expect(await (await broker.fetch(clientRequest())).text()).toMatch(COME_BACK_LATER);
    const answer = await broker.fetch(clientRequest({ headers: { accept: "*/*" } }));
    expect([answer.status, await answer.text()]).toEqual([503, "mine"]);
  }),
);

test(
  "maxClients: this many connections are accepted, and one more has to come back later",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxClients: 3 });
    for (let client = 0; client < 3; client++) await setup.join(broker, { id: "shared" });
    await expectFull(broker);
    await expectFull(broker, { id: "shared" });
    expect(broker.stats().clients).toBe(3);
  }),
);

test(
  "maxClients: HEAD, OPTIONS and publishing need no slot",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxClients: 1 });
    const client = await setup.join(broker);
    const at = (method: string): Request => new Request("https://fanwire.test/connect", { method });
    for (let time = 0; time < 3; time++) {
      expect((await broker.fetch(at("HEAD"))).status).toBe(200);
      expect((await broker.fetch(at("OPTIONS"))).status).toBe(204);
    }
    expect((await broker.eventHandler(eventRequest("still read"))).status).toBe(200);
    expect((await client.nextData()).data).toBe("still read");
    await client.leave();
    expect((await broker.fetch(at("HEAD"))).status).toBe(200);
    await setup.join(broker);
  }),
);

test(
  "maxClients: counts connections whose subscription is pending",
  withBroker(async (setup) => {
    let open: () => void = () => undefined;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const broker = setup.broker({ maxClients: 1, engine: slowEngine(setup.engine(), () => opened) });
    const connecting = setup.join(broker);
    await turn();
    await expectFull(broker);
    open();
    await connecting;
    await expectFull(broker);
  }),
);

/** Ann, with the client id "one". Each limit has one slot. */
const ann = (grant: Grant = {}): ConnectOptions => ({
  id: "one",
  overrides: { authorize: () => ({ subject: "ann", clientId: "one", ...grant }) },
});
/** Waits until a connection has ended for this reason. */
async function until(disconnects: Recorder<Disconnect>, reason: DisconnectReason): Promise<void> {
  while ((await disconnects.next()).reason !== reason);
}

/** One way in which a connection ends. */
interface Ending {
  readonly how: string;
  readonly options?: BrokerOptions;
  readonly end: (setup: TestSetup, broker: Broker, disconnects: Recorder<Disconnect>) => Promise<unknown>;
}
const endings: readonly Ending[] = [
  { how: "the client leaves", end: async (setup, broker) => (await setup.join(broker, ann())).leave() },
  {
    how: "the client leaves and its request's signal fires",
    async end(setup, broker) {
      const client = await setup.join(broker, ann());
      client.abort();
      await client.leave();
    },
  },
  {
    how: "the client is blocked for timeout × tolerance",
    options: { timeout: 20, tolerance: 2 },
    async end(setup, broker, disconnects) {
      await setup.join(broker, ann());
      await broker.broadcast("unread");
      await until(disconnects, "timeout");
    },
  },
  {
    how: "the client is disconnected",
    async end(setup, broker) {
      const client = await setup.join(broker, ann());
      await broker.disconnect("one");
      expect(await client.ended()).toBe("closed");
    },
  },
  {
    how: "the client is disconnected and never reads its end event",
    options: { timeout: 20 },
    async end(setup, broker) {
      await setup.join(broker, ann());
      await broker.disconnect("one");
      while (broker.stats().closing > 0) await turn();
    },
  },
  {
    how: "the client's grant expires",
    async end(setup, broker) {
      const client = await setup.connect(broker, ann({ expiresAt: Date.now() + 200 }));
      expect(await client.ended()).toBe("closed");
    },
  },
  {
    how: "the client's grant expires while it is blocked",
    async end(setup, broker, disconnects) {
      await setup.connect(broker, ann({ expiresAt: Date.now() + 200 }));
      await broker.broadcast("unread");
      await until(disconnects, "expired");
    },
  },
  {
    how: "the client reaches maxConnectionAge",
    options: { maxConnectionAge: 30 },
    async end(setup, broker) {
      const client = await setup.connect(broker, ann());
      expect(await client.ended()).toBe("closed");
    },
  },
  {
    how: "onConnect disconnects the client",
    async end(setup, broker) {
      const client = await setup.connect(broker, { ...ann(), query: { unwanted: "yes" } });
      expect(await client.ended()).toBe("closed");
    },
  },
];
for (const { how, options, end } of endings) {
  for (const bound of ["maxClients", "maxClientsPerSubject", "maxClientsPerId"]) {
    test(
      `${bound}: the slot is released once when ${how}`,
      withBroker(async (setup) => {
        const disconnects = new Recorder<Disconnect>();
        let broker: Broker | undefined;
        broker = setup.broker({
          [bound]: 1,
          onConnect({ client, request }) {
            if (request.url.includes("unwanted")) void broker?.disconnect(client.clientId);
          },
          onDisconnect: disconnects.record,
          ...options,
        });
        // Repeated, because a slot that is released twice makes room for one connection too many.
        for (let time = 0; time < 3; time++) {
          await end(setup, broker, disconnects);
          const next = await setup.join(broker, ann());
          await expectFull(broker, ann());
          await next.leave();
        }
        expect(broker.stats()).toMatchObject({ clients: 0, closing: 0, pending: 0 });
      }),
    );
  }
}

test(
  "maxClients: a closing stream keeps its slot until it is closed",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxClients: 1, maxClientsPerId: 1 });
    const client = await setup.join(broker, { id: "one" });
    await broker.disconnect("one");
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 1 });
    await expectFull(broker, { id: "two" });
    expect(await client.ended()).toBe("closed");
    await setup.join(broker, { id: "two" });
  }),
);

test(
  "maxClients: the slot is released if the engine cannot subscribe",
  withBroker(async (setup) => {
    const inner = setup.engine();
    let fails = true;
    const engine: typeof inner = {
      open: (listener) => ({
        ...inner.open(listener),
        subscribe: () => (fails ? Promise.reject(new Error("away")) : undefined),
      }),
    };
    const broker = setup.broker({ maxClients: 1, engine });
    for (let time = 0; time < 3; time++) expect((await broker.clientHandler(clientRequest())).status).toBe(500);
    fails = false;
    await setup.join(broker);
    await expectFull(broker);
    expect(broker.stats().clients).toBe(1);
  }),
);

test(
  "maxClientsPerSubject: counts per subject, and does not count connections without one",
  withBroker(async (setup) => {
    const disconnects = new Recorder<Disconnect>();
    const broker = setup.broker({ maxClientsPerSubject: 2, authorize: bySubject, onDisconnect: disconnects.record });
    const ann = [await setup.join(broker, as("ann")), await setup.join(broker, as("ann"))];
    await expectFull(broker, as("ann"));
    await setup.join(broker, as("ben"));
    for (let client = 0; client < 5; client++) await setup.join(broker);
    await ann[0]?.leave();
    await disconnects.next();
    ann.push(await setup.join(broker, as("ann")));
    await expectFull(broker, as("ann"));
    for (const client of ann) await client.leave();
    for (let client = 0; client < 2; client++) await setup.join(broker, as("ann"));
    await expectFull(broker, as("ann"));
  }),
);

test(
  "maxClientsPerSubject: also limits clients that connect at the same time",
  withBroker(async (setup) => {
    for (const engine of [setup.engine(), slowEngine(setup.engine(), turn)]) {
      const broker = setup.broker({ maxClientsPerSubject: 3, maxClientsPerId: 2, authorize: bySubject, engine });
      const answers = await Promise.all(
        Array.from({ length: 10 }, () => broker.clientHandler(clientRequest(as("ann")))),
      );
      expect(broker.stats().clients).toBe(3);
      const ids = Array.from({ length: 10 }, () => broker.clientHandler(clientRequest({ id: "one" })));
      answers.push(...(await Promise.all(ids)));
      expect(broker.stats()).toMatchObject({ clients: 5, failures: { "at-capacity": 15 } });
      for (const { body } of answers) await body?.cancel();
    }
  }),
);

test(
  "maxClientsPerSubject, maxClientsPerId: are 100 by default",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorize: bySubject });
    for (let client = 0; client < 100; client++) await setup.join(broker, as("ann"));
    await expectFull(broker, as("ann"));
    for (let client = 0; client < 100; client++) await setup.join(broker, { id: "one" });
    await expectFull(broker, { id: "one" });
    expect(broker.stats()).toMatchObject({ clients: 200, ids: 101 });
  }),
);

test(
  "maxClientsPerSubject: closing streams count, so that one subject cannot use up maxClients",
  withBroker(async (setup) => {
    const broker = setup.broker({
      // close() waits this long for a client that does not read.
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
    // Three connections, and the closing one that the fourth replaced.
    expect(statuses).toEqual([200, 200, 200, 200, 503, 503]);
    expect(broker.stats().clients + broker.stats().closing).toBe(4);
  }),
);

test(
  "maxClientsPerId: counts per client id, over all subjects",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxClientsPerId: 2, authorize: bySubject });
    const first = await setup.join(broker, { id: "one", ...as("ann") });
    await setup.join(broker, { id: "one", ...as("ben") });
    await expectFull(broker, { id: "one", ...as("ann") });
    await expectFull(broker, { id: "one" });
    await setup.join(broker, { id: "two", ...as("ann") });
    await first.leave();
    await setup.join(broker, { id: "one" });
    await expectFull(broker, { id: "one", ...as("ann") });
  }),
);

test(
  "maxPending: is 1,000 by default, for connections and events together; one more has to come back later",
  withBroker(async (setup) => {
    const decide: ((result: boolean) => void)[] = [];
    const broker = setup.broker({ authorize: () => new Promise((resolve) => decide.push(resolve)) });
    const waiting: Promise<Response>[] = [];
    for (let request = 0; request < 500; request++) {
      waiting.push(broker.clientHandler(clientRequest()), broker.eventHandler(eventRequest("x")));
    }
    expect([decide.length, broker.stats().pending]).toEqual([1_000, 1_000]);
    await expectFull(broker);
    const event = await broker.eventHandler(eventRequest("x"));
    expect([event.status, event.headers.get("retry-after"), await problemOf(event)]).toEqual([503, "2", "at-capacity"]);
    expect(decide).toHaveLength(1_000);
    for (const resolve of decide) resolve(true);
    const answers = await Promise.all(waiting);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    for (const { body } of answers) await body?.cancel();
    expect(broker.stats()).toMatchObject({ pending: 0, published: 500 });
  }),
);

test(
  "maxSubscriptions: bounds the channels of all connections together, and a connection that closes gives its channels back",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxSubscriptions: 5 });
    const three = await setup.join(broker, { channel: ["a", "b", "c"] });
    const two = await setup.join(broker, { channel: ["a", "b"] });
    await expectFull(broker, { channel: "a" });
    await (await setup.join(broker)).leave();
    await two.leave();
    await expectFull(broker, { channel: ["x", "y", "z"] });
    const again = await setup.join(broker, { channel: ["x", "y"] });
    await expectFull(broker, { channel: "z" });
    for (const client of [three, again]) await client.leave();
    await setup.join(broker, { channel: ["1", "2", "3", "4", "5"] });
    await expectFull(broker, { channel: "6" });
    for (const maxSubscriptions of [-1, Number.NaN, "5"])
      expect(() => setup.broker({ maxSubscriptions: maxSubscriptions as number })).toThrow(RangeError);
  }),
);
