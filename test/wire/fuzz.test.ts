// Hostile requests over sockets. Each one is answered or its connection is closed, nothing breaks, and a client that is connected all the time
// misses nothing.
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Bystander } from "../support/clients/bystander.ts";
import { type HttpRequestOptions, RawHttpClient } from "../support/clients/http-client.ts";
import {
  expectClearOutcome,
  expectRefused,
  randomRequest,
  rawRequest,
  sendRaw,
  within,
} from "../support/http/hostile-requests.ts";
import {
  FIELDS,
  MEGABYTE,
  METHODS,
  MISFRAMED_BODIES,
  NEVER_PUBLISHED,
  NOT_HTTP,
  QUERIES,
  TARGETS,
} from "../support/http/malformed-requests.ts";
import { expectProblem } from "../support/http/problem.ts";
import {
  type Accepted,
  connectReaders,
  createRandomEvents,
  type RandomEvent,
} from "../support/oracle/random-events.ts";
import { platforms, type Server, startServer, type TestBroker } from "../support/servers/server.ts";

/** Seed of everything random here. FANWIRE_SEED=… sets another one. */
const SEED = Number(process.env.FANWIRE_SEED ?? 20261126);
const TOKEN = "authorization: Bearer secret";
const HOST = "host: 127.0.0.1";
const EVENT_SOURCE = "accept: text/event-stream";
/** Requests that have exactly one answer each. */
const KNOWN: readonly (readonly [path: string, asked: HttpRequestOptions, status: number])[] = [
  ["nowhere", {}, 404],
  ["connect?channel=", {}, 400],
  ["connect", { method: "OPTIONS" }, 204],
  ["connect", { method: "PUT", body: "x" }, 405],
  ["broadcast", { method: "POST", body: "x" }, 401],
  ["broadcast", { method: "POST", body: "", headers: { authorization: "Bearer secret" } }, 400],
  ["broadcast?channel=pipe", { method: "POST", body: "x", headers: { authorization: "Bearer secret" } }, 200],
  ["broadcast?id=nobody", { method: "POST", body: "x", headers: { authorization: "Bearer secret" } }, 404],
];

let events: readonly RandomEvent[] | undefined;

describe.each(platforms)(`seed ${SEED} on %s`, (platform) => {
  let server: Server;
  let broker: TestBroker;
  let bystander: Bystander;
  beforeAll(async () => {
    server = await startServer(platform);
    broker = await server.createBroker();
    bystander = await Bystander.join(broker);
  });
  afterEach(async () => {
    await bystander.expectHealthy();
    expect(bystander.unexpectedData).toEqual([]);
  });
  afterAll(() => {
    bystander?.leave();
    server.stop();
  });

  /** Sends each request over a connection of its own, all at once. */
  const provokeAll = async (
    requests: readonly (readonly [what: string, bytes: Buffer])[],
    isWhole: boolean,
    check: typeof expectClearOutcome,
  ): Promise<void> => {
    const answering = requests.map(async ([what, bytes]) => {
      const label = JSON.stringify(what.slice(0, 1_000));
      check(platform, label, await sendRaw(server, label, bytes, isWhole));
    });
    await bystander.during(Promise.all(answering));
  };

  test("methods: an unknown method is refused", async () => {
    const requests = METHODS.flatMap((method) =>
      ["connect", "broadcast"].map((path) => {
        const start = `${method} ${broker.path(path)} HTTP/1.1`;
        return [
          start,
          rawRequest([start, HOST, TOKEN, `content-length: ${NEVER_PUBLISHED.length}`], NEVER_PUBLISHED),
        ] as const;
      }),
    );
    await provokeAll(requests, false, expectRefused);
  });

  test("methods, targets, versions: an odd request line is answered, or its connection is closed", async () => {
    const lines = [
      ...["get", "Get", "post", "head", "options"].map((method) => `${method} ${broker.path("connect")} HTTP/1.1`),
      ...TARGETS.map((target) => `GET ${target.replace("~", broker.path(""))} HTTP/1.1`),
      ...["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/9.9", "HTTP/1.", "HTTP/11", "http/1.1", "", "x"].map(
        (version) => `GET ${broker.path("connect")} ${version}`,
      ),
    ];
    await provokeAll(
      lines.map((line) => [line, rawRequest([line, HOST, EVENT_SOURCE])]),
      false,
      expectClearOutcome,
    );
  });

  test("queries: duplicates, broken UTF-8, long values and many parameters", async () => {
    const asking = QUERIES.map(async ([query, status]) => {
      const bytes = rawRequest([`GET ${broker.path("connect")}?${query} HTTP/1.1`, HOST, EVENT_SOURCE]);
      const answer = await sendRaw(server, query.slice(0, 80), bytes, true);
      expectClearOutcome(platform, query, answer);
      expect([query.slice(0, 80), answer.status]).toEqual([query.slice(0, 80), status]);
    });
    await bystander.during(Promise.all(asking));
    // More than most servers accept.
    const large = [
      `id=${"x".repeat(MEGABYTE)}`,
      Array.from({ length: 10_000 }, (_, n) => `channel=${n}`).join("&"),
      `lastEventId=${"7".repeat(MEGABYTE)}&id=a&id=b`,
    ].map((query) => [query, rawRequest([`GET ${broker.path("connect")}?${query} HTTP/1.1`, HOST])] as const);
    await provokeAll(large, false, expectRefused);
  });

  test("header fields: very many, very long, duplicate and malformed fields, and invalid Hosts", async () => {
    const start = `GET ${broker.path("connect")} HTTP/1.1`;
    await provokeAll(
      FIELDS.map((fields) => [fields.slice(0, 3).join("\n"), rawRequest([start, ...fields, EVENT_SOURCE])]),
      false,
      expectClearOutcome,
    );
  });

  test("bytes that are not HTTP", async () => {
    const sent = NOT_HTTP.map((text) => [text, Buffer.from(text, "latin1")] as const);
    await provokeAll(sent, false, expectClearOutcome);
  });

  test("bodies whose length does not match are not published", async () => {
    const start = `POST ${broker.path("broadcast")} HTTP/1.1`;
    await provokeAll(
      MISFRAMED_BODIES.map(([fields, body]) => [
        [...fields, body].join("\n"),
        rawRequest([start, HOST, TOKEN, ...fields], body),
      ]),
      false,
      expectRefused,
    );
    // Unusually large, but valid.
    const large = start.replace(" HTTP", "?channel=large HTTP");
    const bodies = [
      `5;${"x".repeat(MEGABYTE)}\r\nEVENT\r\n0\r\n\r\n`,
      `5\r\nEVENT\r\n0\r\n${"a: b\r\n".repeat(10_000)}\r\n`,
    ].map((body) => [body, rawRequest([large, HOST, TOKEN, "transfer-encoding: chunked"], body)] as const);
    await provokeAll(bodies, false, expectClearOutcome);
  });

  test("bodies and heads that arrive slowly or never end delay no other client", async () => {
    const idle = Array.from({ length: 100 }, () => new RawHttpClient(server.url));
    const endless = new RawHttpClient(server.url).send(broker.path("broadcast"), {
      method: "POST",
      headers: { authorization: "Bearer secret", "transfer-encoding": "chunked" },
    });
    const head = new RawHttpClient(server.url).write(`GET ${broker.path("connect")} HTTP/1.1\r\n`);
    const slow = new RawHttpClient(server.url);
    const bytes = rawRequest(
      [`POST ${broker.path("broadcast")}?channel=slow HTTP/1.1`, HOST, TOKEN, "content-length: 9"],
      "trickling",
    );
    const reader = await broker.join("?channel=slow");
    for (const byte of bytes) {
      slow.socket.write(Buffer.of(byte));
      endless.chunk(NEVER_PUBLISHED);
      head.write("x: y\r\n");
      await bystander.tick();
    }
    expect((await within(slow.response(), "the event that trickled in")).status).toBe(200);
    await within(
      reader.until(({ data }) => data.includes("trickling")),
      "the event that trickled in, to its reader",
    );
    reader.leave();
    await Promise.all([...idle, endless, head, slow].map((client) => client.close("RST")));
  });

  test("a request that breaks off publishes nothing", async () => {
    const bytes = rawRequest(
      [`POST ${broker.path("broadcast")} HTTP/1.1`, HOST, TOKEN, "content-length: 5"],
      NEVER_PUBLISHED,
    );
    const leaving = Array.from({ length: bytes.length - 1 }, async (_, index) => {
      const client = new RawHttpClient(server.url);
      client.socket.write(bytes.subarray(0, index + 1));
      await new Promise<void>((resolve) => client.socket.write("", () => resolve()));
      await client.close(index % 2 === 0 ? "FIN" : "RST");
    });
    await bystander.during(Promise.all(leaving));
  });

  test("pipelined requests are answered in order, however they are split", async () => {
    const step = fc.constantFrom(...KNOWN);
    const plans = fc.sample(fc.array(step, { minLength: 20, maxLength: 40 }), { seed: SEED, numRuns: 6 });
    const answering = plans.map(async (plan, index) => {
      const client = new RawHttpClient(server.url);
      if (index > 0) client.socket.cork();
      for (const [path, asked] of plan) client.send(broker.path(path), asked);
      client.socket.uncork();
      for (const [position, [path, , status]] of plan.entries()) {
        const what = `seed ${SEED}, plan ${index}, request ${position}: ${path}`;
        const answer = await within(client.response(), what);
        expect([what, answer.status]).toEqual([what, status]);
      }
      await client.close();
    });
    await bystander.during(Promise.all(answering));
  });

  test("random requests", async () => {
    // Some of them are valid, and publish to every client.
    const ownBroker = await server.createBroker();
    const ownBystander = await Bystander.join(ownBroker);
    const requests = fc.sample(randomRequest(ownBroker.path("")), { seed: SEED, numRuns: 256 });
    for (let start = 0; start < requests.length; start += 64) {
      const batch = requests.slice(start, start + 64).map((bytes) => [bytes.toString("latin1"), bytes] as const);
      await ownBystander.during(provokeAll(batch, false, expectClearOutcome));
      await ownBystander.expectHealthy();
    }
    ownBystander.leave();
  });

  test("a million bytes of random events: each reader receives its own events, in order and unchanged", async () => {
    events ??= createRandomEvents(SEED, MEGABYTE);
    const ownBroker = await server.createBroker();
    const readers = await connectReaders(ownBroker);
    const accepted: Accepted[] = [];
    const rest = [...events.entries()];
    const publish = async (): Promise<void> => {
      let client = new RawHttpClient(server.url);
      for (let next = rest.shift(); next; next = rest.shift()) {
        const [index, event] = next;
        const headers = { authorization: "Bearer secret", "content-length": String(event.body.length) };
        client.send(ownBroker.path(`broadcast?${event.query}`), { method: "POST", headers });
        client.socket.write(event.body);
        const answer = await within(client.response(), `event ${index} of seed ${SEED}`);
        if (!event.refusal) {
          accepted.push({ index, event, ...JSON.parse(answer.body) });
          continue;
        }
        expectProblem(answer, 400, event.refusal);
        // The event is refused before its body is read. A server may close the connection then, and Deno does.
        await client.close();
        client = new RawHttpClient(server.url);
      }
      await client.close();
    };
    await bystander.during(Promise.all([publish(), publish(), publish()]));
    await ownBroker.publish("end");
    for (const reader of readers) await reader.expectAll(accepted, SEED);
    expect((await ownBroker.state()).errors).toEqual([]);
  });
});
