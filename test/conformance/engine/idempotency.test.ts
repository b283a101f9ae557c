import { expect, test, vi } from "vitest";
import { type Broker, type Engine, memoryEngine, type Published } from "../../../src/index.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { codeOf, eventRequest, problemOf, type Scene, scene, turn } from "../../support/test-broker.ts";

// `Idempotency-Key` and `{ key }`: an event that is sent again is published once.

const withKey = (key: string, more: Record<string, string> = {}): RequestInit => ({
  headers: { "idempotency-key": key, ...more },
});

/** Publishes by HTTP: the position, or the code of the refusal. */
async function post(broker: Broker, body: string, key: string, query = "", more = {}): Promise<string> {
  const answer = await broker.eventHandler(eventRequest(body, query, withKey(key, more)));
  if (!answer.ok) return `${answer.status} ${await problemOf(answer)}`;
  return ((await answer.json()) as Published).id;
}

/** The ways to publish an event for everybody. */
const ways: readonly (readonly [
  name: string,
  publish: (broker: Broker, data: string, key: string) => Promise<string>,
])[] = [
  ["Idempotency-Key", (broker, data, key) => post(broker, data, key)],
  ["{ key }", async (broker, data, key) => (await broker.broadcast(data, { idempotencyKey: key })).id],
];

const remembering = (stage: Scene, idempotencyWindow: number | undefined): Engine =>
  memoryEngine({
    durableObject: stage.durableObject ?? {},
    ...(idempotencyWindow === undefined ? {} : { idempotencyWindow }),
  });

/** What a client is given, up to an event that is published now. */
async function received(broker: Broker, client: Awaited<ReturnType<Scene["join"]>>): Promise<string[]> {
  const { id } = await broker.broadcast("end");
  await client.until((event) => event.id === id);
  return client.data.slice(0, -1);
}

for (const [name, publish] of ways) {
  test(
    `${name}: an event that is sent again gets the first position, is delivered once and counted once`,
    scene(async (stage) => {
      const broker = stage.broker();
      const client = await stage.join(broker);
      const first = await publish(broker, "x", "k");
      await publish(broker, "between", "other");
      for (let time = 0; time < 3; time++) expect(await publish(broker, "x", "k")).toBe(first);
      expect(broker.stats()).toMatchObject({ published: 2, log: { events: 2 }, failures: {} });
      expect(await received(broker, client)).toEqual(["x", "between"]);
    }),
  );

  test(
    `${name}: many at once with the same key are one event, however late the engine answers`,
    scene(async (stage) => {
      const late = async (): Promise<void> => {
        await turn();
        await turn();
      };
      const engines = [stage.engine(), slowEngine(stage.engine(), late), slowEngine(stage.engine(), late, "after")];
      for (const engine of engines) {
        const broker = stage.broker({ engine });
        const client = await stage.join(broker);
        const ids = await Promise.all(Array.from({ length: 8 }, () => publish(broker, "x", "k")));
        expect(new Set(ids).size).toBe(1);
        expect(ids[0]).toMatch(/-1$/);
        expect(broker.stats().published).toBe(1);
        expect(await received(broker, client)).toEqual(["x"]);
      }
    }),
  );

  test(
    `${name}: of many at once with one key and other data, one is published and the others are refused`,
    scene(async (stage) => {
      const broker = stage.broker();
      const client = await stage.join(broker);
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
    `${name}: is remembered for idempotencyWindow from the first time on, and no longer`,
    scene(async (stage) => {
      // Whole, so that sums are exact.
      const start = Math.ceil(performance.now());
      const clock = vi.spyOn(performance, "now");
      try {
        for (const [idempotencyWindow, window] of [
          [undefined, 300_000],
          [1_000, 1_000],
        ] as const) {
          const broker = stage.broker({ engine: remembering(stage, idempotencyWindow) });
          clock.mockReturnValue(start);
          const first = await publish(broker, "x", "k");
          clock.mockReturnValue(start + window - 1);
          expect(await publish(broker, "x", "k")).toBe(first);
          clock.mockReturnValue(start + window);
          const second = await publish(broker, "x", "k");
          expect(second).not.toBe(first);
          // And that one for as long again, another event no more than the first.
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
    `${name}: with idempotencyWindow 0 none is remembered`,
    scene(async (stage) => {
      const broker = stage.broker({ engine: remembering(stage, 0) });
      const client = await stage.join(broker);
      for (const data of ["x", "x", "y"]) await publish(broker, data, "k");
      expect(broker.stats().published).toBe(3);
      expect(await received(broker, client)).toEqual(["x", "x", "y"]);
    }),
  );

  test(
    `${name}: brokers that share an engine share what is remembered`,
    scene(async (stage) => {
      const engine = stage.engine();
      const [one, two] = [stage.broker({ engine }), stage.broker({ engine })];
      const client = await stage.join(two);
      const id = await publish(one, "x", "k");
      expect(await publish(two, "x", "k")).toBe(id);
      expect([one.stats().published, two.stats().published]).toEqual([1, 0]);
      expect(await received(one, client)).toEqual(["x"]);
    }),
  );
}

test(
  "Idempotency-Key: with other data, another type, channel or client it is 422 key-reused, and nothing is published",
  scene(async (stage) => {
    const broker = stage.broker();
    const client = await stage.join(broker, { id: "one", channel: ["a", "b"] });
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
    // It still names the first.
    expect(await post(broker, "x", "k", "?channel=a&type=t")).toBe(first);
    expect(await received(broker, client)).toEqual(["x"]);
    expect(broker.stats()).toMatchObject({ published: 2, failures: { "key-reused": others.length } });
  }),
);

test(
  "{ key }: with other data, another type, retry, channel or client it is key-reused, and nothing is published",
  scene(async (stage) => {
    const broker = stage.broker();
    const client = await stage.join(broker, { id: "one", channel: ["a", "b"] });
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
      // What looks like a key of the inside is a name like any other.
      broker.broadcast(event, { idempotencyKey: key, channels: "@one" }),
      broker.broadcast(event, { idempotencyKey: key, channels: "#a" }),
    ])
      expect(await codeOf(publishing)).toBe("key-reused");
    // The same event, said in another way.
    const bytes = { data: new TextEncoder().encode("x"), event: "t" };
    expect((await broker.broadcast(bytes, { idempotencyKey: key, channels: ["a", "a"] })).id).toBe(id);
    expect(await received(broker, client)).toEqual(["x"]);
    expect(broker.stats().published).toBe(2);
  }),
);

test(
  "{ key } of broadcastTo: is delivered once, and is not for another client",
  scene(async (stage) => {
    const broker = stage.broker();
    const [one, two] = [await stage.join(broker, { id: "one" }), await stage.join(broker, { id: "two" })];
    const first = await broker.broadcastTo("one", "x", { idempotencyKey: "k" });
    expect(await broker.broadcastTo("one", "x", { idempotencyKey: "k" })).toEqual(first);
    expect(await codeOf(broker.broadcastTo("two", "x", { idempotencyKey: "k" }))).toBe("key-reused");
    expect(await received(broker, one)).toEqual(["x"]);
    expect(await received(broker, two)).toEqual(["end"]);
  }),
);

test(
  "keys of different subjects, of none, and of the program never stand for each other",
  scene(async (stage) => {
    const broker = stage.broker({
      authorize: ({ request, channels }) => {
        const subject = request.headers.get("x-subject");
        return { subject: subject === null ? undefined : subject, channels };
      },
    });
    // Made to look like one another once they are put together.
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
  "overrides: a key of trusted code wins over Idempotency-Key",
  scene(async (stage) => {
    const broker = stage.broker();
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
  "Idempotency-Key: that of a refused event is not remembered",
  scene(async (stage) => {
    const broker = stage.broker({ maxBodyBytes: 200, maxEventBytes: 100 });
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
  "{ key }: that of a refused event is not remembered, nor that of one that the engine could not append",
  scene(async (stage) => {
    const inner = stage.engine();
    let fails = false;
    const engine: typeof inner = {
      open(follower) {
        const session = inner.open(follower);
        return {
          ...session,
          append: (...event) => (fails ? Promise.reject(new Error("away")) : session.append(...event)),
        };
      },
    };
    const broker = stage.broker({ engine, maxEventBytes: 100 });
    expect(await codeOf(broker.broadcast("x".repeat(150), { idempotencyKey: "large" }))).toBe("event-too-large");
    expect(await codeOf(broker.broadcast("fits", { idempotencyKey: "large" }))).toBe("none");
    expect(await codeOf(broker.broadcastTo("later", "x", { idempotencyKey: "unknown" }))).toBe("unknown-client");
    const client = await stage.join(broker, { id: "later" });
    expect(await codeOf(broker.broadcastTo("later", "for later", { idempotencyKey: "unknown" }))).toBe("none");
    fails = true;
    expect(await codeOf(broker.broadcast("retried", { idempotencyKey: "away" }))).toBe("Error");
    fails = false;
    for (let time = 0; time < 2; time++) await broker.broadcast("retried", { idempotencyKey: "away" });
    expect(await received(broker, client)).toEqual(["for later", "retried"]);
  }),
);

test(
  "{ idempotencyKey, report }: of a repeated event the report settles, also if the event was not read yet or is gone",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 60_000, log: { retention: { events: 1 } } });
    const options = { idempotencyKey: "k", report: true } as const;
    const client = await stage.join(broker, { id: "one" });
    const first = await broker.broadcast("x", options);
    const pending = await broker.broadcast("x", options);
    expect((await client.nextData()).data).toBe("x");
    expect(await first.report).toEqual({ sent: 1, failed: [] });
    expect(await pending.report).toEqual({ sent: 1, failed: [] });
    const again = await broker.broadcast("x", options);
    expect(again).toMatchObject({ id: first.id, clients: 1 });
    // Whoever has it had it before, or came too late for it: that cannot be told any more.
    expect(await again.report).toEqual({ sent: 0, failed: [] });
    await client.leave();
    const nobody = await broker.broadcast("x", options);
    expect([nobody.clients, await nobody.report]).toEqual([0, { sent: 0, failed: [] }]);
    for (const data of ["later", "and later"]) await broker.broadcast(data);
    const late = await stage.join(broker, { id: "two" });
    const gone = await broker.broadcast("x", options);
    expect((await gone.report).failed).toEqual([]);
    expect(await received(broker, late)).toEqual([]);
    expect(broker.stats().published).toBe(4);
  }),
);

test(
  "bad-key: a key that is empty, too long or has a control character is refused, and nothing is published",
  scene(async (stage) => {
    const broker = stage.broker();
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
  "idempotencyWindow: the last 100,000 keys are remembered, and one more forgets the first",
  { timeout: 60_000 },
  scene(async (stage) => {
    const broker = stage.broker({ log: { retention: { events: 1 } } });
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
