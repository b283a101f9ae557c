// `Idempotency-Key` and `{ idempotencyKey }`: an event that is sent again under its key is published once.
import { expect, test, vi } from "vitest";
import { type Broker, type Engine, memoryEngine, type Published } from "../../../src/index.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { codeOf, eventRequest, problemOf, type TestSetup, turn, withBroker } from "../../support/test-broker.ts";

const withKey = (key: string, more: Record<string, string> = {}): RequestInit => ({
  headers: { "idempotency-key": key, ...more },
});

/** Publishes over HTTP. Returns the id, or the status and code of the refusal. */
async function post(broker: Broker, body: string, key: string, query = "", more = {}): Promise<string> {
  const answer = await broker.eventHandler(eventRequest(body, query, withKey(key, more)));
  if (!answer.ok) return `${answer.status} ${await problemOf(answer)}`;
  return ((await answer.json()) as Published).id;
}

/** The two ways to publish an event for every client. */
const ways: readonly (readonly [
  name: string,
  publish: (broker: Broker, data: string, key: string) => Promise<string>,
])[] = [
  ["Idempotency-Key", (broker, data, key) => post(broker, data, key)],
  ["{ idempotencyKey }", async (broker, data, key) => (await broker.broadcast(data, { idempotencyKey: key })).id],
];

const engineWithWindow = (setup: TestSetup, idempotencyWindow: number | undefined): Engine =>
  memoryEngine({
    durableObject: setup.durableObject ?? {},
    ...(idempotencyWindow === undefined ? {} : { idempotencyWindow }),
  });

/** Returns the data that a client received before an event that is published now. */
async function received(broker: Broker, client: Awaited<ReturnType<TestSetup["join"]>>): Promise<string[]> {
  const { id } = await broker.broadcast("end");
  await client.until((event) => event.id === id);
  return client.data.slice(0, -1);
}

for (const [name, publish] of ways) {
  test(
    `${name}: a repeated event has the first position, is delivered once and counted once`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      const client = await setup.join(broker);
      const first = await publish(broker, "x", "k");
      await publish(broker, "between", "other");
      for (let time = 0; time < 3; time++) expect(await publish(broker, "x", "k")).toBe(first);
      expect(broker.stats()).toMatchObject({ published: 2, log: { events: 2 }, failures: {} });
      expect(await received(broker, client)).toEqual(["x", "between"]);
    }),
  );

  test(
    `${name}: many publishes at once with the same key are one event, however late the engine answers`,
    withBroker(async (setup) => {
      const late = async (): Promise<void> => {
        await turn();
        await turn();
      };
      const engines = [setup.engine(), slowEngine(setup.engine(), late), slowEngine(setup.engine(), late, "after")];
      for (const engine of engines) {
        const broker = setup.broker({ engine });
        const client = await setup.join(broker);
        const ids = await Promise.all(Array.from({ length: 8 }, () => publish(broker, "x", "k")));
        expect(new Set(ids).size).toBe(1);
        expect(ids[0]).toMatch(/-1$/);
        expect(broker.stats().published).toBe(1);
        expect(await received(broker, client)).toEqual(["x"]);
      }
    }),
  );

  test(
    `${name}: of many publishes at once with one key and different data, one is published and the others are refused`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      const client = await setup.join(broker);
      const codes = await Promise.all(
        Array.from({ length: 5 }, async (_, index) => {
          try {
            return await publish(broker, `${index}`, "k");
          } catch (error) {
            return (error as { code: string }).code;
          }
        }),
      );
      expect(codes.filter((code) => code.endsWith("key-reused"))).toHaveLength(4);
      expect(broker.stats().published).toBe(1);
      expect(await received(broker, client)).toHaveLength(1);
    }),
  );

  test(
    `${name}: a key is remembered for idempotencyWindow after its first use, and no longer`,
    withBroker(async (setup) => {
      // A whole number, so that sums are exact.
      const start = Math.ceil(performance.now());
      const clock = vi.spyOn(performance, "now");
      try {
        for (const [idempotencyWindow, window] of [
          [undefined, 300_000],
          [1_000, 1_000],
        ] as const) {
          const broker = setup.broker({ engine: engineWithWindow(setup, idempotencyWindow) });
          clock.mockReturnValue(start);
          const first = await publish(broker, "x", "k");
          clock.mockReturnValue(start + window - 1);
          expect(await publish(broker, "x", "k")).toBe(first);
          clock.mockReturnValue(start + window);
          const second = await publish(broker, "x", "k");
          expect(second).not.toBe(first);
          // The second use is remembered for as long again. Another event is accepted only afterwards.
          clock.mockReturnValue(start + 2 * window - 1);
          expect(await publish(broker, "x", "k")).toBe(second);
          clock.mockReturnValue(start + 2 * window);
          expect(await publish(broker, "another", "k")).toMatch(/-3$/);
          expect(broker.stats().published).toBe(3);
        }
      } finally {
        clock.mockRestore();
      }
    }),
  );

  test(
    `${name}: with idempotencyWindow 0 no key is remembered`,
    withBroker(async (setup) => {
      const broker = setup.broker({ engine: engineWithWindow(setup, 0) });
      const client = await setup.join(broker);
      for (const data of ["x", "x", "y"]) await publish(broker, data, "k");
      expect(broker.stats().published).toBe(3);
      expect(await received(broker, client)).toEqual(["x", "x", "y"]);
    }),
  );

  test(
    `${name}: brokers that share an engine share its keys`,
    withBroker(async (setup) => {
      const engine = setup.engine();
      const [one, two] = [setup.broker({ engine }), setup.broker({ engine })];
      const client = await setup.join(two);
      const id = await publish(one, "x", "k");
      expect(await publish(two, "x", "k")).toBe(id);
      expect([one.stats().published, two.stats().published]).toEqual([1, 0]);
      expect(await received(one, client)).toEqual(["x"]);
    }),
  );
}

test(
  "Idempotency-Key: with other data, another type, channel or client the answer is 422 key-reused, and nothing is published",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "one", channel: ["a", "b"] });
    const first = await post(broker, "x", "k", "?channel=a&type=t");
    const others: readonly (readonly [body: string, query: string])[] = [
      ["y", "?channel=a&type=t"],
      ["x ", "?channel=a&type=t"],
      ["x", "?channel=a"],
      ["x", "?channel=a&type=T"],
      ["x", "?channel=b&type=t"],
      ["x", "?channel=a&channel=b&type=t"],
      ["x", "?type=t"],
      ["x", "?id=one&type=t"],
    ];
    for (const [body, query] of others) expect(await post(broker, body, "k", query)).toBe("422 key-reused");
    // The key still stands for the first event.
    expect(await post(broker, "x", "k", "?channel=a&type=t")).toBe(first);
    expect(await received(broker, client)).toEqual(["x"]);
    expect(broker.stats()).toMatchObject({ published: 2, failures: { "key-reused": others.length } });
  }),
);

test(
  "{ idempotencyKey }: with other data, another type, retry, channel or client the error is key-reused, and nothing is published",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "one", channel: ["a", "b"] });
    const key = "k";
    const event = { data: "x", event: "t" };
    const { id } = await broker.broadcast(event, { idempotencyKey: key, channels: "a" });
    for (const publishing of [
      broker.broadcast({ data: "y", event: "t" }, { idempotencyKey: key, channels: "a" }),
      broker.broadcast({ data: "x" }, { idempotencyKey: key, channels: "a" }),
      broker.broadcast({ ...event, retry: 5 }, { idempotencyKey: key, channels: "a" }),
      broker.broadcast(event, { idempotencyKey: key, channels: "b" }),
      broker.broadcast(event, { idempotencyKey: key, channels: ["a", "b"] }),
      broker.broadcast(event, { idempotencyKey: key }),
      broker.broadcastTo("one", event, { idempotencyKey: key }),
      // Names that look like internal keys are names like any other.
      broker.broadcast(event, { idempotencyKey: key, channels: "@one" }),
      broker.broadcast(event, { idempotencyKey: key, channels: "#a" }),
    ])
      expect(await codeOf(publishing)).toBe("key-reused");
    // The same event in another form.
    const bytes = { data: new TextEncoder().encode("x"), event: "t" };
    expect((await broker.broadcast(bytes, { idempotencyKey: key, channels: ["a", "a"] })).id).toBe(id);
    expect(await received(broker, client)).toEqual(["x"]);
    expect(broker.stats().published).toBe(2);
  }),
);

test(
  "broadcastTo(), { idempotencyKey }: an event is delivered once, and its key is refused for another client",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [one, two] = [await setup.join(broker, { id: "one" }), await setup.join(broker, { id: "two" })];
    const first = await broker.broadcastTo("one", "x", { idempotencyKey: "k" });
    expect(await broker.broadcastTo("one", "x", { idempotencyKey: "k" })).toEqual(first);
    expect(await codeOf(broker.broadcastTo("two", "x", { idempotencyKey: "k" }))).toBe("key-reused");
    expect(await received(broker, one)).toEqual(["x"]);
    expect(await received(broker, two)).toEqual(["end"]);
  }),
);

test(
  "Idempotency-Key: keys of different subjects, of no subject, and of the program are never confused",
  withBroker(async (setup) => {
    const broker = setup.broker({
      authorize: ({ request, channels }) => {
        const subject = request.headers.get("x-subject");
        return { subject: subject === null ? undefined : subject, channels };
      },
    });
    // Chosen so that combinations of subject and key look alike.
    const keys = ["k", "http null k", 'http "a" k', "own k", '"a" k', "null k", 'b" k', "a k", "k\u00a0"];
    const subjects = [undefined, "null", "a", "a b", 'a" b', '"a"', "own", "http", "undefined", 'a" k'];
    const ids = new Set<string>();
    for (const key of keys) {
      ids.add((await broker.broadcast("x", { idempotencyKey: key, channels: "c" })).id);
      for (const subject of subjects) {
        const headers = subject === undefined ? {} : { "x-subject": subject };
        ids.add(await post(broker, "x", key, "?channel=c", headers));
        expect(await post(broker, "x", key, "?channel=c", headers)).toBe([...ids].at(-1));
      }
    }
    expect(ids.size).toBe(keys.length * (subjects.length + 1));
    expect(broker.stats().published).toBe(ids.size);
  }),
);

test(
  "Idempotency-Key: publishers without a subject count as one, so another event with the key of another one is refused",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorize: () => true });
    const asPublisher = (name: string) => ({ authorization: `Bearer ${name}` });
    const first = await post(broker, "x", "k", "?channel=c", asPublisher("ann"));
    expect(await post(broker, "x", "k", "?channel=c", asPublisher("ben"))).toBe(first);
    const headers = { ...asPublisher("ben"), "idempotency-key": "k" };
    const other = await broker.fetch(eventRequest("y", "?channel=c", { headers }));
    expect([other.status, await problemOf(other)]).toEqual([422, "key-reused"]);
    expect(broker.stats().published).toBe(1);
  }),
);

test(
  "overrides: a key from trusted code takes precedence over Idempotency-Key",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const send = async (header: string, key?: string): Promise<string> => {
      const answer = await broker.eventHandler(
        eventRequest("x", "", withKey(header)),
        key === undefined ? {} : { idempotencyKey: key },
      );
      return ((await answer.json()) as Published).id;
    };
    const first = await send("a", "trusted");
    expect(await send("b", "trusted")).toBe(first);
    expect(await send("trusted")).toBe(first);
    expect(await send("a")).not.toBe(first);
    expect(broker.stats().published).toBe(2);
  }),
);

test(
  "Idempotency-Key: the key of a refused event is not remembered",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxBodyBytes: 200, maxEventBytes: 100 });
    const refusals: readonly (readonly [body: string, query: string, refusal: string])[] = [
      ["x".repeat(201), "", "413 body-too-large"],
      ["x".repeat(150), "", "413 event-too-large"],
      ["x", "?id=nobody", "404 unknown-client"],
      ["", "", "400 no-event-data"],
      ["x", "?type=fanwire-end", "400 bad-event-type"],
      ["x", "?channel=", "400 bad-channel"],
    ];
    for (const [index, [body, query, refusal]] of refusals.entries()) {
      const key = `key ${index}`;
      expect(await post(broker, body, key, query)).toBe(refusal);
      expect(await post(broker, "fits", key)).toMatch(new RegExp(`-${index + 1}$`));
    }
    const init = withKey("forbidden");
    const refused = await broker.eventHandler(eventRequest("x", "", init), { authorize: () => false });
    expect(refused.status).toBe(403);
    expect(await post(broker, "fits", "forbidden")).toMatch(/-7$/);
  }),
);

test(
  "{ idempotencyKey }: the key of an event that was refused, or that the engine could not append, is not remembered",
  withBroker(async (setup) => {
    const inner = setup.engine();
    let fails = false;
    const engine: typeof inner = {
      open(listener) {
        const session = inner.open(listener);
        return {
          ...session,
          append: (...event) => (fails ? Promise.reject(new Error("away")) : session.append(...event)),
        };
      },
    };
    const broker = setup.broker({ engine, maxEventBytes: 100 });
    expect(await codeOf(broker.broadcast("x".repeat(150), { idempotencyKey: "large" }))).toBe("event-too-large");
    expect(await codeOf(broker.broadcast("fits", { idempotencyKey: "large" }))).toBe("none");
    expect(await codeOf(broker.broadcastTo("later", "x", { idempotencyKey: "unknown" }))).toBe("unknown-client");
    const client = await setup.join(broker, { id: "later" });
    expect(await codeOf(broker.broadcastTo("later", "for later", { idempotencyKey: "unknown" }))).toBe("none");
    fails = true;
    expect(await codeOf(broker.broadcast("retried", { idempotencyKey: "away" }))).toBe("Error");
    fails = false;
    for (let time = 0; time < 2; time++) await broker.broadcast("retried", { idempotencyKey: "away" });
    expect(await received(broker, client)).toEqual(["for later", "retried"]);
  }),
);

test(
  "{ idempotencyKey, report }: the report of a repeated event settles, even if the event was not read yet or is gone",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 60_000, log: { retention: { events: 1 } } });
    const options = { idempotencyKey: "k", report: true } as const;
    const client = await setup.join(broker, { id: "one" });
    const first = await broker.broadcast("x", options);
    const pending = await broker.broadcast("x", options);
    expect((await client.nextData()).data).toBe("x");
    expect(await first.report).toEqual({ sent: 1, failed: [] });
    expect(await pending.report).toEqual({ sent: 1, failed: [] });
    const again = await broker.broadcast("x", options);
    expect(again).toMatchObject({ id: first.id, clients: 1 });
    // A client with the event received it before, or came too late for it: the report can no longer tell the two apart.
    expect(await again.report).toEqual({ sent: 0, failed: [] });
    await client.leave();
    const nobody = await broker.broadcast("x", options);
    expect([nobody.clients, await nobody.report]).toEqual([0, { sent: 0, failed: [] }]);
    for (const data of ["later", "and later"]) await broker.broadcast(data);
    const late = await setup.join(broker, { id: "two" });
    const gone = await broker.broadcast("x", options);
    expect((await gone.report).failed).toEqual([]);
    expect(await received(broker, late)).toEqual([]);
    expect(broker.stats().published).toBe(4);
  }),
);

test(
  "bad-key: a key that is empty, too long or contains a control character is refused, and nothing is published",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (const key of ["", " ", "a\tb", "x".repeat(257)]) expect(await post(broker, "x", key)).toBe("400 bad-key");
    const bad = ["", "a\tb", "a\nb", "a\0b", "\x7f", "\u0001", "\uD800", "a\uDC00b", "x".repeat(257)];
    for (const key of bad) {
      const answer = await broker.eventHandler(eventRequest("x"), { idempotencyKey: key });
      expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-key"]);
      expect(await codeOf(broker.broadcast("x", { idempotencyKey: key }))).toBe("bad-key");
      expect(await codeOf(broker.broadcastTo("one", "x", { idempotencyKey: key }))).toMatch(
        /^(bad-key|unknown-client)$/,
      );
    }
    for (const key of [7, null, {}, Symbol("k")])
      expect(await codeOf(broker.broadcast("x", { idempotencyKey: key as string }))).toBe("TypeError");
    expect(broker.stats().published).toBe(0);
  }),
);

test(
  "idempotencyWindow: 100,000 keys are remembered, and one more forgets the oldest",
  { timeout: 240_000 },
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 1 } } });
    const first = await broker.broadcast("x", { idempotencyKey: "0" });
    const second = await broker.broadcast("x", { idempotencyKey: "1" });
    for (let key = 2; key < 100_000; key++) await broker.broadcast("x", { idempotencyKey: `${key}` });
    expect((await broker.broadcast("x", { idempotencyKey: "0" })).id).toBe(first.id);
    await broker.broadcast("x", { idempotencyKey: "one more" });
    expect((await broker.broadcast("x", { idempotencyKey: "1" })).id).toBe(second.id);
    expect((await broker.broadcast("x", { idempotencyKey: "0" })).id).not.toBe(first.id);
    expect(broker.stats().published).toBe(100_002);
  }),
);
