// The broker and its engine: when the engine is opened, engines that answer late or refuse, and the options of createBroker().
import { expect, test, vi } from "vitest";
import { createBroker, memoryEngine } from "../../../src/index.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { runtime } from "../../support/runtime.ts";
import { clientRequest, codeOf, turn, withBroker } from "../../support/test-broker.ts";

const later = async (): Promise<void> => {
  for (let turns = 0; turns < 3; turns++) await turn();
};

test(
  "createBroker(): uses no timer, random number, clock or Response, because Workers forbid them at module scope",
  withBroker(async (setup) => {
    const used: string[] = [];
    const forbid = (name: string) =>
      function forbidden(): never {
        used.push(name);
        throw new Error(`${name} at module scope`);
      };
    vi.stubGlobal("setTimeout", forbid("setTimeout"));
    vi.stubGlobal("setInterval", forbid("setInterval"));
    vi.stubGlobal("setImmediate", forbid("setImmediate"));
    vi.stubGlobal("fetch", forbid("fetch"));
    vi.stubGlobal("Response", forbid("Response"));
    vi.stubGlobal("Request", forbid("Request"));
    vi.stubGlobal("ReadableStream", forbid("ReadableStream"));
    const spies = [
      vi.spyOn(Date, "now").mockImplementation(forbid("Date.now")),
      vi.spyOn(performance, "now").mockImplementation(forbid("performance.now")),
      vi.spyOn(Math, "random").mockImplementation(forbid("Math.random")),
      vi.spyOn(crypto, "getRandomValues").mockImplementation(forbid("crypto.getRandomValues")),
      vi.spyOn(crypto, "randomUUID").mockImplementation(forbid("crypto.randomUUID")),
    ];
    let thrown: unknown;
    try {
      const engine = memoryEngine({ durableObject: setup.durableObject ?? {}, retention: { events: 5 } });
      createBroker({ engine, publishToken: "x", timeout: 5, onError: () => undefined });
    } catch (error) {
      thrown = error;
    } finally {
      for (const spy of spies) spy.mockRestore();
      vi.unstubAllGlobals();
    }
    expect(thrown).toBeUndefined();
    expect(used).toEqual([]);
  }),
);

test(
  "memoryEngine(): refuses on Workers without durableObject, and works elsewhere",
  withBroker(async (setup) => {
    const make = async (): Promise<string> => {
      const broker = createBroker();
      const { id } = await broker.broadcast("x");
      await broker.close();
      return id;
    };
    if (runtime === "workerd") {
      expect(await codeOf(make())).toBe("engine-refused");
      expect(() => memoryEngine({})).toThrow();
    } else {
      expect(await make()).toMatch(/-1$/);
    }
    const inside = setup.broker();
    expect((await inside.broadcast("x")).id).toMatch(/-1$/);
  }),
);

test(
  "memoryEngine(): brokers that share one engine act as one",
  withBroker(async (setup) => {
    const engine = setup.engine();
    const [one, two] = [setup.broker({ engine }), setup.broker({ engine })];
    const [a, b] = [await setup.join(one, { channel: "x" }), await setup.join(two, { channel: "x" })];
    const ids = [];
    for (const broker of [one, two, one, two]) ids.push((await broker.broadcast("x", { channels: "x" })).id);
    for (const id of ids) {
      expect((await a.nextData()).id).toBe(id);
      expect((await b.nextData()).id).toBe(id);
    }
    await a.leave();
    await two.broadcast("missed");
    const moved = await setup.join(two, { channel: "x", lastEventId: a.lastEventId ?? "" });
    expect((await moved.nextData()).data).toBe("missed");
    await one.close();
    await two.broadcast("after the other closed");
    expect((await moved.nextData()).data).toBe("after the other closed");
  }),
);

test(
  "memoryEngine(): each engine has its own epoch",
  withBroker(async (setup) => {
    const [one, two] = [setup.broker(), setup.broker()];
    const epochs = [(await one.broadcast("x")).id, (await two.broadcast("x")).id].map((id) => id.replace(/-\d+$/, ""));
    expect(epochs[0]).not.toBe(epochs[1]);
    for (const epoch of epochs) expect(epoch).toMatch(/^[A-Za-z0-9-]{8,}$/);
  }),
);

test(
  "engine that appends late: events keep the order of the calls, across channels and inboxes",
  withBroker(async (setup) => {
    const broker = setup.broker({ engine: slowEngine(setup.engine(), later) });
    const client = await setup.join(broker, { id: "one", channel: "a" });
    const publishing = [];
    for (let event = 0; event < 10; event++) {
      publishing.push(
        broker.broadcast(`${event} all`),
        broker.broadcast(`${event} a`, { channels: "a" }),
        broker.broadcastTo("one", `${event} one`),
      );
    }
    const expected = Array.from({ length: 10 }, (_, event) => [`${event} all`, `${event} a`, `${event} one`]).flat();
    for (const data of expected) expect((await client.nextData()).data).toBe(data);
    const ids = (await Promise.all(publishing)).map(({ id }) => id);
    expect(ids).toEqual(client.events.filter(({ event }) => event === undefined).map(({ id }) => id));
  }),
);

test(
  "engine that subscribes late: a client misses no event that was published after its request was answered",
  withBroker(async (setup) => {
    const engine = slowEngine(setup.engine(), later);
    const broker = setup.broker({ engine });
    const first = await setup.join(broker, { id: "first" });
    const { id } = await broker.broadcast("seen");
    expect((await first.nextData()).id).toBe(id);
    const connecting = setup.join(broker, { id: "second", lastEventId: id });
    const published = broker.broadcast("while it connects");
    const second = await connecting;
    await published;
    await broker.broadcast("after");
    expect([(await second.nextData()).data, (await second.nextData()).data]).toEqual(["while it connects", "after"]);
  }),
);

test(
  "engine that subscribes late: a client that leaves in the meantime is not registered, and its subscription is undone",
  withBroker(async (setup) => {
    const engine = slowEngine(setup.engine(), later);
    const registered: unknown[] = [];
    const broker = setup.broker({ engine, onConnect: (event) => registered.push(event) });
    const abort = new AbortController();
    const connecting = broker.clientHandler(clientRequest({ id: "one" }, abort.signal));
    abort.abort();
    const answer = await connecting;
    expect(answer.status).not.toBe(200);
    expect(registered).toEqual([]);
    expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, channels: 0 });
    expect(engine.calls).toEqual(["open", "subscribe", "unsubscribe"]);
  }),
);

test(
  "engine: each connection undoes its subscription, and close() closes the session",
  withBroker(async (setup) => {
    const engine = slowEngine(setup.engine(), later);
    const broker = setup.broker({ engine });
    const clients = [await setup.join(broker), await setup.join(broker, { channel: "a" })];
    for (const client of clients) await client.leave();
    const last = await setup.join(broker);
    void last.ended();
    await broker.close();
    const count = (name: string): number => engine.calls.filter((call) => call === name).length;
    expect([count("open"), count("subscribe"), count("unsubscribe"), count("close")]).toEqual([1, 3, 3, 1]);
    expect(engine.calls.at(-1)).toBe("close");
  }),
);

test(
  "engine that refuses an append: the publisher receives the error, and the next event is published",
  withBroker(async (setup) => {
    const inner = setup.engine();
    let fails = true;
    const engine: typeof inner = {
      open(listener) {
        const session = inner.open(listener);
        return {
          ...session,
          append(keys, text) {
            if (fails) return Promise.reject(new Error("away"));
            return session.append(keys, text);
          },
        };
      },
    };
    const broker = setup.broker({ engine });
    const client = await setup.join(broker);
    await expect(broker.broadcast("refused")).rejects.toThrow("away");
    fails = false;
    await broker.broadcast("accepted");
    expect((await client.nextData()).data).toBe("accepted");
    expect(broker.stats().published).toBe(1);
  }),
);

test(
  "createBroker(): refuses an unknown option, and a number out of its range",
  withBroker(async (setup) => {
    const wrong: readonly Record<string, unknown>[] = [
      { timeuot: 5 },
      { timeout: -1 },
      { timeout: Number.NaN },
      { timeout: "5" },
      { tolerance: -1 },
      { retry: -5 },
      { heartbeat: 0 },
      { maxBodyBytes: -1 },
      { maxEventBytes: Number.NaN },
      { inboxLinger: -1 },
    ];
    for (const options of wrong) expect(() => setup.broker(options)).toThrow(/createBroker/);
    expect(() => setup.broker({ tolerance: 0, inboxLinger: 0 })).not.toThrow();
  }),
);

test(
  "createBroker(): does not change the caller's options, which may be frozen",
  withBroker(async (setup) => {
    const paths = Object.freeze({ connect: "/x" });
    const options = Object.freeze({ engine: setup.engine(), timeout: 5, paths });
    const broker = createBroker(options);
    await broker.close();
    expect(Object.keys(options)).toEqual(["engine", "timeout", "paths"]);
    expect(paths).toEqual({ connect: "/x" });
  }),
);
