// Publishing over HTTP with the option `events`: a body means what it says as JSON, and what does not fit is 422 with the issues.
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { connect, publisher } from "../../../src/client/index.ts";
import { broadcast } from "../../../src/hono.ts";
import type { Broker, EventOverrides } from "../../../src/index.ts";
import { hostile, libraries, schemaOf } from "../../support/event-schemas.ts";
import { createRecordingApp, post, statusesAndCodes } from "../../support/hono-test-broker.ts";
import { eventRequest, problemOf, Recorder, withBroker } from "../../support/test-broker.ts";

const send = (broker: Broker, body: BodyInit | null, type?: string, overrides?: EventOverrides): Promise<Response> =>
  broker.eventHandler(eventRequest(body, type === undefined ? "" : `?type=${type}`), overrides);
const statusAndCode = async (response: Response): Promise<unknown> => [response.status, await problemOf(response)];

describe.each(Object.entries(libraries))("%s", (_library, events) => {
  test(
    "a body is parsed as JSON, and the output of the schema is sent",
    withBroker(async (setup) => {
      const broker = setup.broker({ events });
      const client = await setup.join(broker);
      const bodies: [body: string, type?: string][] = [
        [' {"name":" ada ","amount":1,"other":true} ', "price"],
        ["42", "count"],
        // A text may be plain, and as JSON. What is no number of JSON is a text.
        ...(["plain", '"quoted"', "42", '"42"', "{", "null"] as const).map((body): [string] => [body]),
        ["four", "length"],
      ];
      for (const [body, type] of bodies) expect((await send(broker, body, type)).status).toBe(200);
      expect(await client.readThrough("4")).toEqual([
        ...['{"name":"ada","amount":1,"unit":"EUR"}', "42"],
        ...['"plain"', '"quoted"', '"42"', '"42"', '"{"', '"null"', "4"],
      ]);
    }),
  );

  test(
    "data that does not fit is 422 bad-event-data with the issues; an unknown type is 400; nothing is published",
    withBroker(async (setup) => {
      const broker = setup.broker({ events });
      const answer = await send(broker, '{"name":"ada","amount":"1"}', "price");
      expect([answer.status, answer.headers.get("content-type")]).toEqual([422, "application/problem+json"]);
      const problem = (await answer.json()) as { issues: { message: string; path: unknown }[] };
      expect(problem).toMatchObject({ code: "bad-event-data", status: 422, issues: [{ path: ["amount"] }] });
      expect(problem.issues).toHaveLength(1);
      expect(problem.issues[0]?.message).toMatch(/number/);
      for (const [body, type] of [
        ["not JSON", "price"],
        ["{", "count"],
        ['"42"', "count"],
        ["[]", "price"],
      ])
        expect(await statusAndCode(await send(broker, body as string, type))).toEqual([422, "bad-event-data"]);
      for (const type of ["prices", "constructor", "fanwire-gap"])
        expect(await statusAndCode(await send(broker, "1", type))).toEqual([400, "bad-event-type"]);
      expect(broker.stats()).toMatchObject({ published: 0, failures: { "bad-event-data": 5, "bad-event-type": 3 } });
    }),
  );
});

test(
  "data of the overrides: text is read as a body, a parsed value as it is",
  withBroker(async (setup) => {
    const broker = setup.broker({ events: { price: z.object({ amount: z.number() }), message: z.string() } });
    const client = await setup.join(broker);
    const type = "price";
    await send(broker, null, undefined, { type, data: { amount: 1 } });
    await send(broker, null, undefined, { type, data: '{"amount":2}' });
    await send(broker, null, undefined, { type, data: new TextEncoder().encode('{"amount":3}') });
    await send(broker, null, undefined, { data: "text" });
    expect((await send(broker, null, undefined, { type, data: { amount: "1" } })).status).toBe(422);
    expect((await send(broker, null, undefined, { type, data: ["42"] })).status).toBe(422);
    expect(await client.readThrough('"text"')).toEqual(['{"amount":1}', '{"amount":2}', '{"amount":3}', '"text"']);
  }),
);

test(
  "a schema that fails is 500 without its text, goes to onError with its cause, and publishes nothing",
  withBroker(async (setup) => {
    for (const [schema, code] of Object.values(hostile)) {
      const errors = new Recorder<{ error: unknown; stage: string }>();
      const broker = setup.broker({ events: { price: schema }, onError: errors.record });
      const answer = await send(broker, "1", "price");
      const text = await answer.text();
      expect(text).not.toContain("internal text");
      expect(answer.status).toBe(code === "bad-event-data" ? 422 : 500);
      if (code !== "bad-event-data") {
        expect(JSON.parse(text)).toMatchObject({ code: "internal" });
        expect(await errors.next()).toMatchObject({ stage: "request" });
      }
      expect(broker.stats().published).toBe(0);
    }
  }),
);

test(
  "the answer is bounded, whatever a schema finds and a publisher sends",
  withBroker(async (setup) => {
    const echo = schemaOf((value) => ({
      issues: Array(1_000).fill({ message: String(value), path: [String(value)] }),
    }));
    const strict = z.strictObject({});
    const broker = setup.broker({ events: { echo, strict } });
    const body = JSON.stringify(Object.fromEntries(Array.from({ length: 5_000 }, (_, index) => [`name${index}`, 1])));
    for (const type of ["echo", "strict"]) {
      const answer = await send(broker, body, type);
      expect(answer.status).toBe(422);
      expect((await answer.text()).length).toBeLessThan(8_000);
    }
  }),
);

test(
  "a repeat with its key is compared by what is sent",
  withBroker(async (setup) => {
    const broker = setup.broker({ events: { message: z.string().trim() } });
    const repeat = (body: string): Promise<Response> =>
      broker.eventHandler(eventRequest(body), { idempotencyKey: "k" });
    const ids = [await repeat("a"), await repeat(" a ")].map(
      async (answer) => ((await answer.json()) as { id: string }).id,
    );
    expect(await ids[0]).toBe(await ids[1]);
    expect(await statusAndCode(await repeat("b"))).toEqual([422, "key-reused"]);
  }),
);

test(
  "publisher() and connect(): what a program publishes is what a page receives, also a text that is JSON",
  withBroker(async (setup) => {
    const broker = setup.broker({ events: libraries.zod, authorize: () => true });
    const options = { fetch: (url: string, init: RequestInit) => broker.fetch(new Request(url, init)) };
    const client = connect("https://fanwire.test/connect", options);
    const items = client[Symbol.asyncIterator]();
    await new Promise<void>((resolve) => client.on("state", ({ state }) => state === "open" && resolve()));
    const programs = publisher("https://fanwire.test/broadcast", options);
    await programs.broadcast("42");
    await programs.broadcast({ event: "price", data: { name: " ada ", amount: 1 } });
    const refused = await programs.broadcast({ event: "price", data: {} }).catch((thrown) => thrown);
    expect(refused).toMatchObject({ code: "bad-event-data", status: 422 });
    expect([await items.next(), await items.next()].map(({ value }) => value)).toMatchObject([
      { event: "message", data: '"42"', value: "42" },
      { event: "price", value: { name: "ada", amount: 1, unit: "EUR" } },
    ]);
    client.close();
  }),
);

test(
  "Hono: app.onError receives 422 with the issues in the answer and in the cause",
  withBroker(async (setup) => {
    const { app, errors } = createRecordingApp();
    const broker = setup.broker({ events: { price: z.object({ amount: z.number() }) } });
    app.post("/publish", broadcast(broker));
    expect((await app.request("/publish?type=price", post('{"amount":1}'))).status).toBe(200);
    const answer = await app.request("/publish?type=price", post('{"amount":"1"}'));
    expect(answer.status).toBe(422);
    expect(await answer.json()).toMatchObject({ code: "bad-event-data", issues: [{ path: ["amount"] }] });
    expect(statusesAndCodes(errors)).toEqual([[422, "bad-event-data"]]);
    expect(errors[0]?.cause).toMatchObject({ issues: [{ path: ["amount"] }] });
  }),
);

test(
  "GET /history: answers with the events as they were sent, without another field",
  withBroker(async (setup) => {
    const broker = setup.broker({ events: { price: z.number() }, paths: { history: "/history" } });
    await send(broker, "1", "price");
    const answer = await broker.fetch(new Request("https://fanwire.test/history"));
    const { events } = (await answer.json()) as { events: object[] };
    expect(events).toEqual([{ type: "event", id: expect.any(String), event: "price", data: "1", channels: [] }]);
  }),
);
