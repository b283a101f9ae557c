// `broker.health()`: the answer for load balancers.
import { expect, test } from "vitest";
import type { Broker, Engine } from "../../../src/index.ts";
import { sharedLogTest } from "../../support/engines/shared-log-processes.ts";
import { expectProblem } from "../../support/http/problem.ts";
import { type TestSetup, withBroker } from "../../support/test-broker.ts";

const ask = (broker: Broker, method = "GET"): Promise<Response> =>
  broker.health(new Request("https://fanwire.test/health", { method }));

const statusOf = async (broker: Broker): Promise<number> => (await ask(broker)).status;

async function expectUnhealthy(answer: Response, code: string): Promise<void> {
  const { status, headers } = answer;
  expectProblem({ status, headers: Object.fromEntries(headers), body: await answer.text() }, 503, code);
}

/** An engine that a test can break. */
interface Breakable {
  readonly engine: Engine;
  state: "up" | "down";
  /** The error that opening it throws. */
  fault?: Error | undefined;
}

function breakable(setup: TestSetup): Breakable {
  const inner = setup.engine();
  const breakableEngine: Breakable = {
    state: "up",
    engine: {
      open(listener) {
        if (breakableEngine.fault) throw breakableEngine.fault;
        const session = inner.open(listener);
        return {
          ...session,
          get state() {
            return breakableEngine.state;
          },
          close: () => session.close(),
        };
      },
    },
  };
  return breakableEngine;
}

test(
  "health(): is 200 for a broker that takes work, used or not, and is not cached",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (let time = 0; time < 2; time++) {
      const answer = await ask(broker);
      expect([answer.status, answer.headers.get("cache-control"), await answer.json()]).toEqual([
        200,
        "no-store",
        { status: "up" },
      ]);
      await broker.broadcast("x");
    }
  }),
);

test(
  "health(): answers HEAD without a body, OPTIONS with Allow, and other methods 405; may be called detached",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const head = await ask(broker, "HEAD");
    expect([head.status, await head.text()]).toEqual([200, ""]);
    const options = await ask(broker, "OPTIONS");
    expect([options.status, options.headers.get("allow")]).toEqual([204, "GET, HEAD, OPTIONS"]);
    for (const method of ["POST", "DELETE"]) {
      const answer = await ask(broker, method);
      expect([answer.status, answer.headers.get("allow")]).toEqual([405, "GET, HEAD, OPTIONS"]);
    }
    const { health } = broker;
    expect((await health(new Request("https://fanwire.test/"))).status).toBe(200);
    void broker.close();
    expect((await ask(broker, "HEAD")).status).toBe(503);
  }),
);

test(
  "health(): is 503 from the call of close() on, also for a request that accepts an event stream",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 100 });
    await setup.join(broker);
    const closed = broker.close({ spreadOver: 20 });
    await expectUnhealthy(await ask(broker), "closed");
    const headers = { accept: "text/event-stream" };
    await expectUnhealthy(await broker.health(new Request("https://fanwire.test/", { headers })), "closed");
    await closed;
    await expectUnhealthy(await ask(broker), "closed");
  }),
);

test(
  "health(): does not open the engine of a broker that was closed before its first use",
  withBroker(async (setup) => {
    const { engine } = breakable(setup);
    const broker = setup.broker({ engine });
    await broker.close();
    await expectUnhealthy(await ask(broker), "closed");
    expect(broker.stats().engine).toBe("idle");
  }),
);

test(
  "health(): is 503 while the engine is down or cannot be opened, and does not say why",
  withBroker(async (setup) => {
    const breakableEngine = breakable(setup);
    const errors: unknown[] = [];
    const broker = setup.broker({ engine: breakableEngine.engine, onError: (event) => errors.push(event) });
    breakableEngine.fault = new Error("inner text of the engine");
    await expectUnhealthy(await ask(broker), "engine-down");
    // onError receives the reason.
    expect(errors).toEqual([{ stage: "engine", error: breakableEngine.fault }]);
    breakableEngine.fault = undefined;
    breakableEngine.state = "down";
    await expectUnhealthy(await ask(broker), "engine-down");
    expect(broker.stats().engine).toBe("down");
    breakableEngine.state = "up";
    expect(await statusOf(broker)).toBe(200);
  }),
);

test(
  "health(): is not counted, calls no hook, and is 200 for a broker at maxClients",
  withBroker(async (setup) => {
    const calls: string[] = [];
    const broker = setup.broker({
      maxClients: 0,
      authorize: () => calls.push("authorize") > 0,
      errorHandler: () => {
        calls.push("errorHandler");
        return new Response("mine");
      },
      onError: (event) => calls.push(event.stage),
    });
    expect(await statusOf(broker)).toBe(200);
    await ask(broker, "POST");
    void broker.close();
    await expectUnhealthy(await ask(broker), "closed");
    expect([calls, broker.stats().failures]).toEqual([[], {}]);
  }),
);

test(
  "health(): with a shared log, is 503 until the log is joined, while it is away, and while the broker catches up",
  sharedLogTest(async (world) => {
    const broker = world.broker();
    // The first check starts to join the log.
    expect(await statusOf(broker)).toBe(503);
    await world.clock.turns(9);
    expect([await statusOf(broker), broker.stats().engine]).toEqual([200, "up"]);
    await world.join(broker);
    for (const setAvailable of ["setCommands", "setFeed"] as const) {
      world.session()[setAvailable](false);
      await expectUnhealthy(await ask(broker), "engine-down");
      world.session()[setAvailable](true);
      await world.clock.advance(6_000);
      expect([setAvailable, await statusOf(broker)]).toEqual([setAvailable, 200]);
    }
  }),
);
