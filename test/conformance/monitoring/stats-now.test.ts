import { expect, test } from "vitest";
import { type Broker, BrokerError, type BrokerStats, type Engine, type ErrorCode } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { clientRequest, eventRequest, scene, turn } from "../../support/test-broker.ts";

// `stats()`: failures by code, what is now, and that counters never go down.

const COUNTERS = ["published", "sent", "bytes", "replayed", "gaps", "overruns"] as const;

const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0);

test(
  "stats().failures: requests that were refused or failed, by code, each once, and no others",
  scene(async (stage) => {
    const inner = stage.engine();
    let fault: BrokerError | Error | undefined;
    const engine: Engine = {
      open(follower) {
        const session = inner.open(follower);
        return {
          ...session,
          append(...event) {
            if (fault) throw fault;
            return session.append(...event);
          },
        };
      },
    };
    const broker = stage.broker({
      engine,
      publishToken: "secret",
      duplicateIds: "reject",
      maxBodyBytes: 200,
      maxEventBytes: 100,
      maxClients: 2,
      errorHandler: ({ status }) => new Response("my own", { status }),
    });
    await stage.join(broker, { id: "one" });
    const guarded = { requireToken: true };
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
    await fail("unauthorized", () => broker.eventHandler(eventRequest("x"), guarded));
    await fail("forbidden", () => broker.clientHandler(clientRequest(), { authorize: () => false }));
    await fail("cross-origin", () => publish("x", "", { headers: { cookie: "a=b" } }));
    await fail("unknown-client", () => publish("x", "?id=nobody"));
    await fail("duplicate-id", () => broker.clientHandler(clientRequest({ id: "one" })));
    await fail("body-too-large", () => publish("x".repeat(201)));
    await fail("event-too-large", () => publish("x".repeat(150)));
    await publish("first", "", key);
    await fail("key-reused", () => publish("second", "", key));
    await fail("client-left", () => broker.clientHandler(clientRequest({}, AbortSignal.abort())));
    fault = new Error("broke");
    await fail("internal", () => publish("x"));
    for (const code of ["engine-down", "publish-outcome-unknown"] as const) {
      fault = new BrokerError(code, "away");
      await fail(code, () => publish("x"));
    }
    fault = undefined;
    await stage.join(broker);
    await fail("at-capacity", () => broker.clientHandler(clientRequest()));
    // These are answers, and what the program does itself has its own error.
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
  "stats().failures: publishing-closed and authorize-timeout are counted too",
  scene(async (stage) => {
    const broker = stage.broker({ authorizeTimeout: 5 });
    await broker.fetch(eventRequest("x"));
    await broker.clientHandler(clientRequest(), { authorize: () => new Promise(() => undefined) });
    expect(broker.stats().failures).toEqual({ "publishing-closed": 1, "authorize-timeout": 1 });
  }),
);

test(
  "stats().engine: idle before the first use, then what the engine says, up where it says nothing",
  scene(async (stage) => {
    const silent = stage.broker();
    expect(silent.stats().engine).toBe("idle");
    await silent.broadcast("x");
    expect(silent.stats().engine).toBe("up");

    const inner = stage.engine();
    let state: "up" | "down" = "down";
    const engine: Engine = {
      open(follower) {
        const session = inner.open(follower);
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
    const broker = stage.broker({ engine, timeout: 50 });
    expect(broker.stats().engine).toBe("idle");
    await stage.join(broker);
    expect(broker.stats().engine).toBe("down");
    state = "up";
    expect(broker.stats().engine).toBe("up");
    state = "down";
    expect(broker.stats().engine).toBe("down");
    // Nothing is wrong with what is not needed any more.
    const closed = broker.close();
    expect(broker.stats().engine).toBe("idle");
    await closed;
    expect(broker.stats().engine).toBe("idle");
  }),
);

test(
  "stats().log: what the engine's log holds, each event once, whoever published it",
  scene(async (stage) => {
    const engine = stage.engine({ retention: { events: 2 } });
    const [one, two] = [stage.broker({ engine }), stage.broker({ engine })];
    await one.broadcast("x", { channels: ["a", "b", "c"] });
    await two.broadcast("x", { channels: "a" });
    expect(one.stats()).toMatchObject({ published: 1, log: { events: 2, channels: 3 } });
    expect(two.stats()).toMatchObject({ published: 1, log: one.stats().log });
    expect(one.stats().log.bytes).toBeGreaterThan(0);
    for (let event = 0; event < 10; event++) await two.broadcast("x", { channels: "a" });
    // Two of a, and one that b and c still keep.
    expect(one.stats().log).toMatchObject({ events: 3, channels: 3 });
  }),
);

/** Remembers the counters, and checks that none goes down. */
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
  "stats: counters never go down, whoever leaves and whatever the log drops, close() included",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 30, tolerance: 1, log: { retention: { events: 2 }, maxChannels: 3 } });
    const check = watch(broker);
    const clients: Connection[] = [];
    for (let round = 0; round < 10; round++) {
      const lastEventId = clients.at(-1)?.lastEventId ?? "elsewhere-1";
      const client = await stage.join(broker, { id: `${round % 3}`, channel: `c${round % 4}`, lastEventId });
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
