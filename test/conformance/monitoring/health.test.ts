import { expect, test } from "vitest";
import type { Broker, Engine } from "../../../src/index.ts";
import { replicas } from "../../support/engines/shared-log-processes.ts";
import { expectProblem } from "../../support/http/problem.ts";
import { type Scene, scene } from "../../support/test-broker.ts";

// `broker.health()`: what a load balancer is told.

const ask = (broker: Broker, method = "GET"): Promise<Response> =>
  broker.health(new Request("https://fanwire.test/health", { method }));

const statusOf = async (broker: Broker): Promise<number> => (await ask(broker)).status;

async function expectIll(answer: Response, code: string): Promise<void> {
  const { status, headers } = answer;
  expectProblem({ status, headers: Object.fromEntries(headers), body: await answer.text() }, 503, code);
}

/** An engine that a test can break. */
interface Breakable {
  readonly engine: Engine;
  state: "up" | "down";
  /** What opening it throws. */
  fault?: Error | undefined;
}

function breakable(stage: Scene): Breakable {
  const inner = stage.engine();
  const made: Breakable = {
    state: "up",
    engine: {
      open(follower) {
        if (made.fault) throw made.fault;
        const session = inner.open(follower);
        return {
          ...session,
          get state() {
            return made.state;
          },
          close: () => session.close(),
        };
      },
    },
  };
  return made;
}

test(
  "health: 200 for a broker that takes work, used or not, which nobody keeps",
  scene(async (stage) => {
    const broker = stage.broker();
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
  "health: HEAD has the head alone, OPTIONS says what there is, other methods are 405, and it may be called detached",
  scene(async (stage) => {
    const broker = stage.broker();
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
  "health: 503 from the call of close() on, also to who would take an event stream",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 100 });
    await stage.join(broker);
    const closed = broker.close({ spreadOver: 20 });
    await expectIll(await ask(broker), "closed");
    const headers = { accept: "text/event-stream" };
    await expectIll(await broker.health(new Request("https://fanwire.test/", { headers })), "closed");
    await closed;
    await expectIll(await ask(broker), "closed");
  }),
);

test(
  "health: a broker that was closed before its first use does not open its engine for that",
  scene(async (stage) => {
    const { engine } = breakable(stage);
    const broker = stage.broker({ engine });
    await broker.close();
    await expectIll(await ask(broker), "closed");
    expect(broker.stats().engine).toBe("idle");
  }),
);

test(
  "health: 503 while the engine is down or cannot be opened, and nothing is told of why",
  scene(async (stage) => {
    const made = breakable(stage);
    const heard: unknown[] = [];
    const broker = stage.broker({ engine: made.engine, onError: (event) => heard.push(event) });
    made.fault = new Error("inner text of the engine");
    await expectIll(await ask(broker), "engine-down");
    // But to who keeps the broker.
    expect(heard).toEqual([{ stage: "engine", error: made.fault }]);
    made.fault = undefined;
    made.state = "down";
    await expectIll(await ask(broker), "engine-down");
    expect(broker.stats().engine).toBe("down");
    made.state = "up";
    expect(await statusOf(broker)).toBe(200);
  }),
);

test(
  "health: is not counted, asks nobody, tells no hook, and a broker that is full is well",
  scene(async (stage) => {
    const seen: string[] = [];
    const broker = stage.broker({
      maxClients: 0,
      authorize: () => seen.push("authorize") > 0,
      errorHandler: () => {
        seen.push("errorHandler");
        return new Response("mine");
      },
      onError: ({ stage }) => seen.push(stage),
    });
    expect(await statusOf(broker)).toBe(200);
    await ask(broker, "POST");
    void broker.close();
    await expectIll(await ask(broker), "closed");
    expect([seen, broker.stats().failures]).toEqual([[], {}]);
  }),
);

test(
  "health: with a log that is elsewhere, 503 until it is joined, while it is away, and while it is healed",
  replicas(async (world) => {
    const broker = world.broker();
    // The first look begins to join it.
    expect(await statusOf(broker)).toBe(503);
    await world.clock.turns(9);
    expect([await statusOf(broker), broker.stats().engine]).toEqual([200, "up"]);
    await world.join(broker);
    for (const away of ["commands", "feed"] as const) {
      world.session()[away](false);
      await expectIll(await ask(broker), "engine-down");
      world.session()[away](true);
      await world.clock.pass(6_000);
      expect([away, await statusOf(broker)]).toEqual([away, 200]);
    }
  }),
);
