// `stats()`: failures by code, gauges, and that counters never decrease.
import { expect, test } from "vitest";
import { type Broker, BrokerError, type BrokerStats, type Engine, type ErrorCode } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { clientRequest, eventRequest, turn, withBroker } from "../../support/test-broker.ts";

const COUNTERS = ["published", "sent", "bytes", "replayed", "gaps", "overruns"] as const;

const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0);

test(
  "stats().failures: counts requests that were refused or failed, by code, each once, and no others",
  withBroker(async (setup) => {
    const inner = setup.engine();
    let fault: BrokerError | Error | undefined;
    const engine: Engine = {
      open(listener) {
        const session = inner.open(listener);
        return {
          ...session,
          append(...event) {
            if (fault) throw fault;
            return session.append(...event);
          },
        };
      },
    };
    const broker = setup.broker({
      engine,
      publishToken: "secret",
      duplicateIds: "reject",
      maxBodyBytes: 200,
      maxEventBytes: 100,
      maxClients: 2,
      errorHandler: ({ status }) => new Response("my own", { status }),
    });
    await setup.join(broker, { id: "one" });
    const requireToken = { requireToken: true };
    const publish = (body: string, query = "", init: RequestInit = {}): Promise<Response> =>
      broker.eventHandler(eventRequest(body, query, init));
    const key = { headers: { "idempotency-key": "k" } };
    const expected: Partial<Record<ErrorCode, number>> = {};
    const fail = async (code: ErrorCode, request: () => Promise<Response>): Promise<void> => {
      for (let time = 0; time < 2; time++) {
        const answer = await request();
        await answer.body?.cancel();
        expected[code] = (expected[code] ?? 0) + 1;
        expect(broker.stats().failures).toEqual(expected);
      }
    };
    await fail("not-found", () => broker.fetch(new Request("https://fanwire.test/nothing")));
    await fail("method-not-allowed", () => broker.fetch(new Request("https://fanwire.test/broadcast")));
    await fail("no-event-data", () => publish(""));
    await fail("bad-event-type", () => publish("x", "?type=fanwire-x"));
    await fail("bad-channel", () => publish("x", "?channel="));
    await fail("bad-id", () => broker.clientHandler(clientRequest({ id: "a\n" })));
    await fail("bad-key", () => publish("x", "", { headers: { "idempotency-key": "" } }));
    await fail("bad-request", () => publish("x", "?id=one&channel=a"));
    await fail("unauthorized", () => broker.eventHandler(eventRequest("x"), requireToken));
    await fail("forbidden", () => broker.clientHandler(clientRequest(), { authorize: () => false }));
    await fail("cross-origin", () => publish("x", "", { headers: { cookie: "a=b" } }));
    await fail("unknown-client", () => publish("x", "?id=nobody"));
    await fail("duplicate-id", () => broker.clientHandler(clientRequest({ id: "one" })));
    await fail("body-too-large", () => publish("x".repeat(201)));
    await fail("event-too-large", () => publish("x".repeat(150)));
    await publish("first", "", key);
    await fail("key-reused", () => publish("second", "", key));
    await fail("client-left", () => broker.clientHandler(clientRequest({}, AbortSignal.abort())));
    fault = new Error("failed");
    await fail("internal", () => publish("x"));
    for (const code of ["engine-down", "publish-outcome-unknown"] as const) {
      fault = new BrokerError(code, "away");
      await fail(code, () => publish("x"));
    }
    fault = undefined;
    await setup.join(broker);
    await fail("at-capacity", () => broker.clientHandler(clientRequest()));
    // None of these is counted: they are answers, or errors that the calling program receives.
    await broker.disconnect("barred", { blockFor: 60_000 });
    await broker.clientHandler(clientRequest({ id: "barred" }));
    await broker.eventHandler(eventRequest("x"), { authorize: () => new Response("no", { status: 403 }) });
    await broker.fetch(new Request("https://fanwire.test/connect", { method: "OPTIONS" }));
    await broker.broadcast("x", { channels: "" }).catch(() => undefined);
    expect(broker.stats().failures).toEqual(expected);
    void broker.close();
    await fail("closed", () => publish("x"));
  }),
);

test(
  "stats().failures: counts publishing-closed and authorize-timeout too",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorizeTimeout: 5 });
    await broker.fetch(eventRequest("x"));
    await broker.clientHandler(clientRequest(), { authorize: () => new Promise(() => undefined) });
    expect(broker.stats().failures).toEqual({ "publishing-closed": 1, "authorize-timeout": 1 });
  }),
);

test(
  "stats().engine: is idle before the first use, then the engine's state, and up if the engine has none",
  withBroker(async (setup) => {
    const stateless = setup.broker();
    expect(stateless.stats().engine).toBe("idle");
    await stateless.broadcast("x");
    expect(stateless.stats().engine).toBe("up");

    const inner = setup.engine();
    let state: "up" | "down" = "down";
    const engine: Engine = {
      open(listener) {
        const session = inner.open(listener);
        return {
          log: session.log,
          get state() {
            return state;
          },
          append: (...event) => session.append(...event),
          close: () => session.close(),
        };
      },
    };
    const broker = setup.broker({ engine, timeout: 50 });
    expect(broker.stats().engine).toBe("idle");
    await setup.join(broker);
    expect(broker.stats().engine).toBe("down");
    state = "up";
    expect(broker.stats().engine).toBe("up");
    state = "down";
    expect(broker.stats().engine).toBe("down");
    // A closed broker no longer needs its engine.
    const closed = broker.close();
    expect(broker.stats().engine).toBe("idle");
    await closed;
    expect(broker.stats().engine).toBe("idle");
  }),
);

test(
  "stats().log: counts the events of the engine's log, each once, for every publisher",
  withBroker(async (setup) => {
    const engine = setup.engine({ retention: { events: 2 } });
    const [one, two] = [setup.broker({ engine }), setup.broker({ engine })];
    await one.broadcast("x", { channels: ["a", "b", "c"] });
    await two.broadcast("x", { channels: "a" });
    expect(one.stats()).toMatchObject({ published: 1, log: { events: 2, channels: 3 } });
    expect(two.stats()).toMatchObject({ published: 1, log: one.stats().log });
    expect(one.stats().log.bytes).toBeGreaterThan(0);
    for (let event = 0; event < 10; event++) await two.broadcast("x", { channels: "a" });
    // Two events of a, and one that b and c still retain.
    expect(one.stats().log).toMatchObject({ events: 3, channels: 3 });
  }),
);

/** Returns a function that checks that no counter has decreased, and returns the statistics. */
function watch(broker: Broker): () => BrokerStats {
  let last = broker.stats();
  return () => {
    const stats = broker.stats();
    for (const name of COUNTERS) expect([name, stats[name]]).toSatisfy(() => stats[name] >= last[name]);
    for (const name of ["disconnects", "failures"] as const) {
      for (const [key, count] of Object.entries(last[name])) {
        expect((stats[name] as Record<string, number>)[key]).toBeGreaterThanOrEqual(count);
      }
    }
    last = stats;
    return stats;
  };
}

test(
  "stats(): counters never decrease, when clients leave, when the log drops events, and in close()",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 30, tolerance: 1, log: { retention: { events: 2 }, maxChannels: 3 } });
    const check = watch(broker);
    const clients: Connection[] = [];
    for (let round = 0; round < 10; round++) {
      const lastEventId = clients.at(-1)?.lastEventId ?? "elsewhere-1";
      const client = await setup.join(broker, { id: `${round % 3}`, channel: `c${round % 4}`, lastEventId });
      clients.push(client);
      check();
      for (let event = 0; event < 5; event++) {
        await broker.broadcast(`${event}`, { channels: `c${event}` });
        check();
      }
      await client.read();
      check();
      if (round % 2 === 0) await client.leave();
      else await broker.disconnect(`${round % 3}`);
      check();
      await broker.clientHandler(clientRequest({ id: "a\n" }));
      await turn();
      check();
    }
    await broker.close();
    const last = check();
    expect(sum(last.disconnects)).toBe(10);
    expect(last).toMatchObject({ clients: 0, closing: 0, published: 50, failures: { "bad-id": 10 } });
    expect(last.sent).toBeGreaterThan(0);
    expect(last.gaps).toBeGreaterThan(0);
  }),
);
