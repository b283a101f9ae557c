import { expect, test } from "vitest";
import { z } from "zod";
import type { BrokerError } from "../../src/index.ts";
import { hostile } from "../support/event-schemas.ts";
import { codeOf, eventRequest, Recorder } from "../support/test-broker.ts";
import { withObject } from "./support/test-object.ts";
import { transcriptUntil } from "./support/transcript.ts";

// The option `events` of an object: it checks what comes through hub(), on its stub and over HTTP.

const events = {
  price: z.object({ amount: z.number(), unit: z.string().default("EUR") }),
  count: z.number().transform((count) => count * 2),
  message: z.string(),
};
const typedValue = (item: unknown): unknown => (item as { value: unknown }).value;

test(
  "hub, stub and HTTP: the output of the schema is sent, once, and read again with its value",
  withObject({ events }, async (object) => {
    const client = await object.join({ id: "ann" });
    await object.hub.broadcast({ event: "price", data: { amount: 1 } });
    await object.stub.broadcast({ event: "count", data: 21 });
    await object.hub.broadcastTo("ann", "text");
    const answer = await object.hub.eventHandler(eventRequest('{"amount":2}', "?type=price"));
    expect(answer.status).toBe(200);
    const sent = ['{"amount":1,"unit":"EUR"}', "42", '"text"', '{"amount":2,"unit":"EUR"}'];
    expect(await transcriptUntil(client, sent[3] as string)).toEqual(sent);
    const values = [sent[0], sent[1], sent[3]].map((data) => JSON.parse(data as string));
    expect((await object.hub.history()).events.map(typedValue)).toEqual(values);
    expect((await object.stub.history()).events.map(typedValue)).toEqual(values);
  }),
);

test(
  "what does not fit is refused through hub(), inside and over HTTP, with the issues, and nothing is stored",
  withObject({ events }, async (object) => {
    const bad = { event: "price", data: { amount: "1" } };
    const error = (await object.hub.broadcast(bad).catch((thrown) => thrown)) as BrokerError;
    expect(error).toMatchObject({ code: "bad-event-data", status: 422, issues: [{ path: ["amount"] }] });
    expect(await codeOf(object.hub.broadcast({ event: "prices", data: 1 }))).toBe("bad-event-type");
    expect(await object.inside((instance) => codeOf(instance.broadcast(bad)))).toBe("bad-event-data");
    const answer = await object.hub.eventHandler(eventRequest('{"amount":"1"}', "?type=price"));
    expect(answer.status).toBe(422);
    expect(await answer.json()).toMatchObject({ code: "bad-event-data", issues: [{ path: ["amount"] }] });
    expect(await object.hub.stats()).toMatchObject({ published: 0, log: { events: 0 } });
  }),
);

test("a schema that fails is 500 without its text, and publishes nothing", async () => {
  for (const [schema, code] of Object.values(hostile)) {
    const errors = new Recorder<{ error: unknown; stage: string }>();
    const hub = { onError: () => undefined };
    await withObject({ events: { price: schema }, onError: errors.record, hub }, async (object) => {
      const answer = await object.hub.eventHandler(eventRequest("1", "?type=price"));
      expect(answer.status).toBe(code === "bad-event-data" ? 422 : 500);
      expect(await answer.text()).not.toContain("internal text");
      expect(await object.hub.stats()).toMatchObject({ published: 0 });
      // The object tells what the schema has thrown. What crosses to the Worker is hidden.
      if (code === "Error") expect((await errors.next()).error).toMatchObject({ cause: expect.anything() });
    })();
  }
});

test(
  "without the option the history on the stub is as before",
  withObject({}, async (object) => {
    await object.hub.broadcast("42");
    const [kept] = (await object.stub.history()).events;
    expect(Object.getOwnPropertyNames(kept)).not.toContain("value");
    expect(typedValue((await object.hub.history()).events[0])).toBe(42);
  }),
);
