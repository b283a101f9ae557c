import { afterEach, expect, test, vi } from "vitest";
import { type RateOptions, rateLimits } from "../../../src/http/rate-limits.ts";
import { type Authorize, type BrokerOptions, createBroker } from "../../../src/index.ts";
import { hub } from "../../../src/workers/hub.ts";
import { createCountedBody, statusAndCode, testPublishing, testReading } from "../../support/http/entry-points.ts";
import { as, byAddress, bySubject, from, stopClock } from "../../support/http/rates.ts";
import { clientRequest, codeOf, eventRequest, withBroker } from "../../support/test-broker.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

const ACCEPTED = [200, "no problem"];
const LIMITED = [429, "rate-limited"];
const program = (headers: Record<string, string> = {}): Request =>
  clientRequest({ headers: { accept: "*/*", ...headers } });
const post1 = (headers: Record<string, string> = {}, body: BodyInit = "x"): Request =>
  eventRequest(body, "", { headers });

testReading("rate.connects: n per second of one subject, and the next is 429", async ({ setup, entryPoint }) => {
  for (const connects of [1, 2, 5]) {
    const pass = stopClock();
    const broker = setup.broker({ authorize: bySubject, rate: rateLimits({ connects }) });
    const connect = async (headers = as("ann")) => statusAndCode(await entryPoint(broker, program(headers)));
    for (let n = 0; n < connects; n++) expect(await connect()).toEqual(ACCEPTED);
    expect(await connect()).toEqual(LIMITED);
    // One second is enough for all of them, and for no more.
    pass(1_000);
    for (let n = 0; n < connects; n++) expect(await connect()).toEqual(ACCEPTED);
    const answer = await entryPoint(broker, program(as("ann")));
    expect(answer.headers.get("retry-after")).toBe("1");
    expect(await statusAndCode(answer)).toEqual(LIMITED);
    // The next one comes in a part of it.
    pass(1_000 / connects - 1);
    expect(await connect()).toEqual(LIMITED);
    pass(1);
    expect(await connect()).toEqual(ACCEPTED);
    expect(await connect()).toEqual(LIMITED);
    // Nothing is saved up beyond the burst.
    pass(3_600_000);
    for (let n = 0; n < connects; n++) expect(await connect()).toEqual(ACCEPTED);
    expect(await connect()).toEqual(LIMITED);
    // HEAD asks `authorize` too.
    const head = new Request("https://fanwire.test/connect", { method: "HEAD", headers: as("ann") });
    expect((await entryPoint(broker, head)).status).toBe(429);
    expect(broker.stats().failures).toEqual({ "rate-limited": 6 });
    vi.restoreAllMocks();
  }
});

testPublishing("rate.publishes: n per second of one subject, and the next is not published", async (setup, publish) => {
  const pass = stopClock();
  const broker = setup.broker({ authorize: bySubject, rate: rateLimits({ publishes: 2 }) });
  const send = async () => statusAndCode(await publish(broker, post1(as("ann"))));
  expect([await send(), await send(), await send()]).toEqual([ACCEPTED, ACCEPTED, LIMITED]);
  pass(499);
  expect(await send()).toEqual(LIMITED);
  pass(1);
  expect([await send(), await send()]).toEqual([ACCEPTED, LIMITED]);
  expect(broker.stats()).toMatchObject({ published: 3, failures: { "rate-limited": 3 } });
});

test(
  "rate: a burst can be more or less than what comes in a second; Retry-After is the time until there is enough",
  withBroker(async (setup) => {
    const pass = stopClock();
    const send = async (broker: ReturnType<typeof setup.broker>): Promise<string | null> => {
      const answer = await broker.eventHandler(post1(as("ann")));
      return answer.status === 200 ? "published" : answer.headers.get("retry-after");
    };
    const slow = setup.broker({ authorize: bySubject, rate: rateLimits({ publishes: { perSecond: 0.5, burst: 3 } }) });
    for (let n = 0; n < 3; n++) expect(await send(slow)).toBe("published");
    expect(await send(slow)).toBe("2");
    pass(999);
    expect(await send(slow)).toBe("2");
    pass(1);
    expect(await send(slow)).toBe("1");
    pass(1_000);
    expect([await send(slow), await send(slow)]).toEqual(["published", "2"]);

    // The default is what comes in a second, and one at least.
    const slower = setup.broker({ authorize: bySubject, rate: rateLimits({ publishes: { perSecond: 0.2 } }) });
    expect([await send(slower), await send(slower)]).toEqual(["published", "5"]);

    const even = setup.broker({ authorize: bySubject, rate: rateLimits({ publishes: { perSecond: 10, burst: 1 } }) });
    for (let n = 0; n < 50; n++) {
      expect([await send(even), await send(even)]).toEqual(["published", "1"]);
      pass(100);
    }

    const slowest = setup.broker({ authorize: bySubject, rate: rateLimits({ publishes: 1e-6 }) });
    expect([await send(slowest), await send(slowest)]).toEqual(["published", "1000000"]);
    const always = setup.broker({ authorize: bySubject, rate: rateLimits({ publishes: Infinity }) });
    for (let n = 0; n < 50; n++) expect(await send(always)).toBe("published");
  }),
);

test(
  "rate: each subject and each kind has its own bucket; without a subject, and in code, nothing is limited",
  withBroker(async (setup) => {
    stopClock();
    const broker = setup.broker({
      authorize: bySubject,
      publishToken: "secret",
      rate: rateLimits({ connects: 1, publishes: 1, bytes: 100 }),
    });
    const outcomes = async (headers: Record<string, string>) => [
      await statusAndCode(await broker.fetch(program(headers))),
      await statusAndCode(await broker.fetch(post1(headers))),
    ];
    expect(await outcomes(as("ann"))).toEqual([ACCEPTED, ACCEPTED]);
    expect(await outcomes(as("ann"))).toEqual([LIMITED, LIMITED]);
    expect(await outcomes(as("bob"))).toEqual([ACCEPTED, ACCEPTED]);
    expect(await outcomes(as("ann"))).toEqual([LIMITED, LIMITED]);
    for (let n = 0; n < 5; n++) {
      expect(await outcomes({})).toEqual([ACCEPTED, ACCEPTED]);
      const byToken = post1({ authorization: "Bearer secret", ...as("ann") }, "x".repeat(1_000));
      expect(await statusAndCode(await broker.fetch(byToken))).toEqual(ACCEPTED);
      expect(await codeOf(broker.broadcast("x".repeat(1_000)))).toBe("none");
    }
    const open = setup.broker({ rate: rateLimits({ connects: 1, publishes: 1 }) });
    for (let n = 0; n < 5; n++) expect(await statusAndCode(await open.clientHandler(program()))).toEqual(ACCEPTED);
  }),
);

test(
  "rate.by: is asked before authorize, which is not called over the limit, and nothing of the body is read",
  withBroker(async (setup) => {
    stopClock();
    const asked: string[] = [];
    const authorize: Authorize = (access) => {
      asked.push(access.action);
      return bySubject(access);
    };
    const broker = setup.broker({
      authorize,
      publishToken: "secret",
      rate: rateLimits({ connects: 1, publishes: 1, by: byAddress }),
    });
    const outcomes = async (headers: Record<string, string>) => [
      await statusAndCode(await broker.fetch(program(headers))),
      await statusAndCode(await broker.fetch(post1(headers))),
    ];
    expect(await outcomes({ ...from("::1"), ...as("ann") })).toEqual([ACCEPTED, ACCEPTED]);
    // The subject has no meaning any more.
    expect(await outcomes({ ...from("::1"), ...as("bob") })).toEqual([LIMITED, LIMITED]);
    expect(await outcomes({ ...from("::2"), ...as("ann") })).toEqual([ACCEPTED, ACCEPTED]);
    expect(asked).toEqual(["connect", "publish", "connect", "publish"]);
    // Without a key nothing is limited.
    for (let n = 0; n < 3; n++) expect(await outcomes(as("ann"))).toEqual([ACCEPTED, ACCEPTED]);
    // The token opens publishing, and not the rate.
    const byToken = (): Request => post1({ ...from("::3"), authorization: "Bearer secret" });
    expect(await statusAndCode(await broker.fetch(byToken()))).toEqual(ACCEPTED);
    expect(await statusAndCode(await broker.fetch(byToken()))).toEqual(LIMITED);

    const body = createCountedBody();
    const refused = await broker.fetch(eventRequest(null, "", { ...body.init, headers: from("::3") }));
    expect([await statusAndCode(refused), body.pulls()]).toEqual([LIMITED, 0]);
    // A broker without `authorize` is limited too.
    const open = setup.broker({ rate: rateLimits({ connects: 1, by: () => "all" }) });
    expect(await statusAndCode(await open.clientHandler(program()))).toEqual(ACCEPTED);
    expect(await statusAndCode(await open.clientHandler(program()))).toEqual(LIMITED);
  }),
);

test(
  "rate by subject: is checked after authorize, and before the body is read; what authorize refuses costs nothing",
  withBroker(async (setup) => {
    stopClock();
    let asked = 0;
    let isAllowed = false;
    const authorize: Authorize = (access) => {
      asked++;
      return isAllowed && bySubject(access);
    };
    const broker = setup.broker({ authorize, rate: rateLimits({ publishes: 1 }) });
    const publish = async () => {
      const body = createCountedBody();
      const answer = await broker.fetch(eventRequest(null, "", { ...body.init, headers: as("ann") }));
      return [...(await statusAndCode(answer)), body.pulls() > 0];
    };
    expect(await publish()).toEqual([403, "forbidden", false]);
    isAllowed = true;
    expect(await publish()).toEqual([...ACCEPTED, true]);
    expect(await publish()).toEqual([...LIMITED, false]);
    expect(asked).toBe(3);
  }),
);

test(
  "rate: a request that is refused for its rate costs nothing, so a client that tries too often gets its turn",
  withBroker(async (setup) => {
    const pass = stopClock();
    const broker = setup.broker({
      authorize: bySubject,
      rate: rateLimits({ publishes: 1, bytes: { perSecond: 10, burst: 10 } }),
    });
    const send = async (body: string) => (await broker.eventHandler(post1(as("ann"), body))).status;
    expect(await send("0123456789")).toBe(200);
    for (let n = 0; n < 99; n++) {
      pass(10);
      expect(await send("0123456789")).toBe(429);
    }
    pass(10);
    expect(await send("0123456789")).toBe(200);
  }),
);

testPublishing("rate.bytes: bodies over the limit are not published", async (setup, publish) => {
  const pass = stopClock();
  const broker = setup.broker({ authorize: bySubject, rate: rateLimits({ bytes: 100 }) });
  const send = async (body: BodyInit, headers = as("ann")) => {
    const answer = await publish(broker, post1(headers, body));
    return answer.status === 200 ? "published" : answer.headers.get("retry-after");
  };
  expect([await send("x".repeat(99)), await send("xx"), await send("x"), await send("x")]).toEqual([
    "published",
    "1",
    "published",
    "1",
  ]);
  expect(await send("x", as("bob"))).toBe("published");
  pass(999);
  expect(await send("x".repeat(100))).toBe("1");
  pass(1);
  // Bytes, not characters: 102 of them. A body that is larger than the bucket needs a full one, and is paid for in full.
  expect(await send("€".repeat(34))).toBe("published");
  pass(20);
  expect(await send("x")).toBe("1");
  pass(10);
  expect([await send("x"), await send("x")]).toEqual(["published", "1"]);
  pass(1_000);
  expect(await send("x".repeat(1_000))).toBe("published");
  expect([await send("x".repeat(1_000)), await send("x")]).toEqual(["10", "10"]);
  pass(9_000);
  expect([await send("x".repeat(1_000)), await send("x")]).toEqual(["1", "1"]);
  pass(1_000);
  expect(await send("x".repeat(1_000))).toBe("published");
  expect(broker.stats()).toMatchObject({ published: 7, failures: { "rate-limited": 9 } });
});

test(
  "rate.bytes: counts the override `data`, whatever it is, also by a key",
  withBroker(async (setup) => {
    const pass = stopClock();
    const broker = setup.broker({
      rate: rateLimits({ bytes: 100, by: byAddress }),
      serialize: (data) => (data as { text: string }).text,
    });
    const send = async (data: unknown, address = "::1") => {
      const request = post1(from(address), "");
      return (await broker.eventHandler(request, { data: data as string })).status;
    };
    // The last one claims a length, as a body that a middleware has parsed could.
    const large = { text: "x".repeat(101), byteLength: -1_000 };
    for (const data of ["x".repeat(101), new Uint8Array(101).fill(48), new Uint8Array(101).fill(48).buffer, large]) {
      pass(2_000);
      expect([await send(data), await send("x"), await send("x", "::2")]).toEqual([200, 429, 200]);
    }
    const plain = await broker.eventHandler(post1({}, "x".repeat(1_000)));
    expect(plain.status).toBe(200);
  }),
);

test(
  "rate-limited: an EventSource receives 200, a retry of the wait at least, and fanwire-end; errorHandler is not called",
  withBroker(async (setup) => {
    stopClock();
    const broker = setup.broker({
      authorize: bySubject,
      rate: rateLimits({ connects: { perSecond: 0.1 } }),
      retry: 2_000,
      errorHandler: ({ status }) => new Response("mine", { status }),
    });
    const first = await broker.fetch(clientRequest({ headers: as("ann") }));
    await first.body?.cancel();
    const form = { "content-type": "application/x-www-form-urlencoded", accept: "text/event-stream", ...as("ann") };
    const times: number[] = [];
    for (let n = 0; n < 100; n++) {
      const isForm = n % 2 === 1;
      const answer = await broker.fetch(
        isForm
          ? new Request("https://fanwire.test/connect", { method: "POST", headers: form, body: "channel=a" })
          : clientRequest({ headers: as("ann") }),
      );
      expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
      const text = await answer.text();
      const end = /^retry: (\d+)\nevent: fanwire-end\ndata: {"reason":"rate-limited","reconnect":true}\n\n$/.exec(text);
      times.push(Number(end?.[1]));
    }
    // Ten seconds, and a jittered `retry`.
    expect(Math.min(...times)).toBeGreaterThanOrEqual(11_000);
    expect(Math.max(...times)).toBeLessThanOrEqual(13_000);
    expect(new Set(times).size).toBeGreaterThan(30);
    const answer = await broker.fetch(program(as("ann")));
    expect([answer.status, await answer.text()]).toEqual([429, "mine"]);
    expect(broker.stats()).toMatchObject({ clients: 0, failures: { "rate-limited": 101 } });
  }),
);

test(
  "rate.by: a key that is not a string is 500, and a name that is too long is 400",
  withBroker(async (setup) => {
    const failed: string[] = [];
    const by = (request: Request): string => {
      const key = request.headers.get("x-key") ?? "";
      if (key === "throw") throw new Error("by failed");
      return (key === "number" ? 5 : key === "promise" ? Promise.resolve("x") : key) as string;
    };
    const broker = setup.broker({
      maxNameLength: 10,
      rate: rateLimits({ connects: 1, by }),
      onError: ({ stage }) => failed.push(stage),
    });
    const outcome = async (key: string) => statusAndCode(await broker.fetch(program({ "x-key": key })));
    for (const key of ["throw", "number", "promise"]) expect(await outcome(key)).toEqual([500, "internal"]);
    for (const key of ["", "12345678901"]) expect(await outcome(key)).toEqual([400, "bad-id"]);
    expect(await outcome("1234567890")).toEqual(ACCEPTED);
    expect(failed).toEqual(["request", "request", "request"]);
  }),
);

test(
  "rate: wrong options are refused by rateLimits(), and anything else than its result by createBroker() and hub()",
  withBroker(async (setup) => {
    const engine = setup.engine();
    const namespace = { getByName: () => undefined };
    const errorOf = (create: () => unknown): string => {
      try {
        create();
      } catch (error) {
        return (error as Error).name;
      }
      return "none";
    };
    const errorsOf = (rate: unknown): string => errorOf(() => rateLimits(rate as RateOptions));
    const brokerErrors = (rate: unknown): readonly string[] => [
      errorOf(() => createBroker({ engine, rate } as BrokerOptions)),
      errorOf(() => hub(namespace, { rate } as BrokerOptions)),
    ];
    for (const rate of [undefined, rateLimits({})]) expect(brokerErrors(rate)).toEqual(["none", "none"]);
    for (const rate of [null, 5, {}, { connects: 5 }, []])
      expect([rate, brokerErrors(rate)]).toEqual([rate, ["TypeError", "TypeError"]]);
    const fine = [{}, { connects: undefined }, { by: () => "x" }];
    for (const rate of fine) expect([rate, errorsOf(rate)]).toEqual([rate, "none"]);
    for (const rate of [null, 5, true, "5", [], { connect: 5 }, { by: "x" }, { by: null }, { perSecond: 5 }])
      expect([rate, errorsOf(rate)]).toEqual([rate, "TypeError"]);
    for (const name of ["connects", "publishes", "bytes"]) {
      const each = (value: unknown): string => errorsOf({ [name]: value });
      const fineRates = [1e-6, 1, Infinity, { perSecond: 1 }, { perSecond: 0.1, burst: 1 }];
      for (const value of fineRates) expect([value, each(value)]).toEqual([value, "none"]);
      const numbers = [0, 1e-7, -1, Number.NaN, -Infinity, "5", true, 5n];
      for (const value of [...numbers, ...numbers.map((perSecond) => ({ perSecond })), {}, { burst: 5 }])
        expect([value, each(value)]).toEqual([value, "RangeError"]);
      for (const burst of [0, 0.999, -1, Number.NaN, "5", null])
        expect([burst, each({ perSecond: 1, burst })]).toEqual([burst, "RangeError"]);
      for (const value of [null, [], { perSecond: 1, bursts: 5 }])
        expect([value, each(value)]).toEqual([value, "TypeError"]);
    }
  }),
);
