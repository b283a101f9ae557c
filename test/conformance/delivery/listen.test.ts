import { expect, test } from "vitest";
import type { Listened } from "../../../src/index.ts";
import { codeOf, withBroker } from "../../support/test-broker.ts";

const dataOf = (result: IteratorResult<Listened, undefined>): string =>
  result.done ? "done" : result.value.type === "event" ? result.value.data : "gap";

test(
  "listen(): a listener is not a client, and is not counted in `clients`",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await setup.join(broker, { channel: "a" });
    const listeners = [broker.listen(), broker.listen({ channels: ["a", "b"] })];
    const waiting = listeners.map((each) => each.next());
    expect(await broker.broadcast("1", { channels: "b" })).toMatchObject({ clients: 0 });
    expect(await broker.broadcast("2", { channels: "a" })).toMatchObject({ clients: 1 });
    expect(await broker.broadcast("3")).toMatchObject({ clients: 1 });
    expect((await Promise.all(waiting)).map(dataOf)).toEqual(["3", "1"]);
  }),
);

test(
  "listen(): the cursor is set at the call, not at the first next()",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await broker.broadcast("before");
    const listener = broker.listen();
    const { id } = await broker.broadcast({ event: "news", data: "a\r\nb" });
    expect(await listener.next()).toEqual({
      done: false,
      value: { type: "event", id, event: "news", data: "a\nb", channels: [] },
    });
  }),
);

test(
  "listen(): the items are the events as published, of its channels only",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const listener = broker.listen({ channels: ["a", "b"] });
    await broker.broadcast("common");
    await broker.broadcast("1", { channels: "a" });
    await broker.broadcast("2", { channels: ["b", "a", "c"] });
    await broker.broadcast("no", { channels: "c" });
    await broker.broadcast({ data: "data: x\n\nid: 1\n" }, { channels: "b" });
    const items = [await listener.next(), await listener.next(), await listener.next()].map(({ value }) => value);
    expect(items).toMatchObject([
      { type: "event", data: "1", channels: ["a"] },
      { type: "event", data: "2", channels: ["b", "a", "c"] },
      { type: "event", data: "data: x\n\nid: 1\n", channels: ["b"] },
    ]);
    expect(items[0]).not.toHaveProperty("event");
  }),
);

test(
  "listen(): lastEventId and from: earliest start where a client would start",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const { id } = await broker.broadcast("1");
    await broker.broadcast("2");
    expect(dataOf(await broker.listen({ lastEventId: id }).next())).toBe("2");
    expect(dataOf(await broker.listen({ from: "earliest" }).next())).toBe("1");
    const foreign = broker.listen({ lastEventId: "garbage" });
    expect((await foreign.next()).value).toMatchObject({ type: "gap", after: null, channels: ["fanwire-common"] });
    expect(dataOf(await foreign.next())).toBe("1");
  }),
);

test(
  "listen(): a break out of for await ends the listener, and return() is idempotent",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const listener = broker.listen();
    await broker.broadcast("1");
    await broker.broadcast("2");
    for await (const item of listener) {
      expect(item).toMatchObject({ data: "1" });
      break;
    }
    expect(dataOf(await listener.next())).toBe("done");
    expect(await listener.return?.()).toEqual({ done: true, value: undefined });
    expect(await listener.return?.()).toEqual({ done: true, value: undefined });
    expect(broker.stats().channels).toBe(0);
  }),
);

test(
  "listen(): return() ends all calls of next() that wait",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const listener = broker.listen();
    const waiting = [listener.next(), listener.next(), listener.next()];
    await listener.return?.();
    expect((await Promise.all(waiting)).map(dataOf)).toEqual(["done", "done", "done"]);
  }),
);

test(
  "listen(): its signal ends it, before the call or while it waits",
  withBroker(async (setup) => {
    const broker = setup.broker();
    expect(dataOf(await broker.listen({ signal: AbortSignal.abort() }).next())).toBe("done");
    const abort = new AbortController();
    const listener = broker.listen({ signal: abort.signal });
    const next = listener.next();
    abort.abort();
    expect(dataOf(await next)).toBe("done");
    await broker.broadcast("x");
    expect(dataOf(await listener.next())).toBe("done");
    expect(broker.stats().channels).toBe(0);
  }),
);

test(
  "listen(): a listener that ended by itself leaves nothing on its signal",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const { signal } = new AbortController();
    let listeners = 0;
    const counted: AbortSignal = new Proxy(signal, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        return (...args: unknown[]): unknown => {
          if (name === "addEventListener") {
            listeners++;
            const { signal: remover } = (args[2] ?? {}) as { signal?: AbortSignal };
            remover?.addEventListener("abort", () => listeners--);
          }
          if (name === "removeEventListener") listeners--;
          return Reflect.apply(value, target, args);
        };
      },
    });
    for (let time = 0; time < 10; time++) await broker.listen({ signal: counted }).return?.();
    expect(listeners).toBe(0);
  }),
);

test(
  "listen(): concurrent calls of next() are answered in order, each with another event",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const listener = broker.listen();
    const waiting = Array.from({ length: 5 }, () => listener.next());
    for (const data of ["1", "2", "3", "4", "5", "6"]) await broker.broadcast(data);
    expect((await Promise.all(waiting)).map(dataOf)).toEqual(["1", "2", "3", "4", "5"]);
    expect(dataOf(await listener.next())).toBe("6");
  }),
);

test(
  "listen(): unread events that the log dropped are an item of type gap, exactly",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 2 } } });
    const { id: start } = await broker.broadcast("read", { channels: "a" });
    const listener = broker.listen({ channels: "a" });
    const ids: string[] = [];
    for (let event = 0; event < 5; event++) ids.push((await broker.broadcast(String(event), { channels: "a" })).id);
    expect(await listener.next()).toEqual({
      done: false,
      value: { type: "gap", id: ids[2], channels: ["a"], after: start, through: ids[2] },
    });
    expect([dataOf(await listener.next()), dataOf(await listener.next())]).toEqual(["3", "4"]);
  }),
);

test(
  "listen(): a backlog of many chunks is read in order",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const listener = broker.listen();
    for (let event = 0; event < 300; event++) await broker.broadcast(`${event} ${"x".repeat(1_000)}`);
    for (let event = 0; event < 300; event++) {
      expect(Number.parseInt(dataOf(await listener.next()), 10)).toBe(event);
    }
  }),
);

test(
  "listen(): close() ends it after it has read the events that were published before",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [behind, waiting] = [broker.listen(), broker.listen()];
    await broker.broadcast("1");
    await broker.broadcast("2");
    expect(dataOf(await waiting.next())).toBe("1");
    expect(dataOf(await waiting.next())).toBe("2");
    const pending = waiting.next();
    await broker.close();
    expect(dataOf(await pending)).toBe("done");
    const drained: string[] = [];
    for await (const item of behind) drained.push(item.type === "event" ? item.data : "gap");
    expect(drained).toEqual(["1", "2"]);
    expect(await codeOf((async () => broker.listen())())).toBe("closed");
  }),
);

test(
  "listen(): a listener that is not read costs no subscription and delays no publisher",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { logBytes: 64 * 1024 } });
    const listener = broker.listen();
    expect(broker.stats()).toMatchObject({ clients: 0, channels: 0 });
    for (let event = 0; event < 1_000; event++) await broker.broadcast("x".repeat(100));
    expect(dataOf(await listener.next())).toBe("gap");
    expect(broker.stats().clients).toBe(0);
  }),
);
