// The option `events`: schemas check each event, on every way in, and what they return is sent.
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { type BrokerError, type ConnectEvent, createBroker, type EventInput } from "../../../src/index.ts";
import { isData } from "../../support/clients/connection.ts";
import { hostile, libraries, schemaOf } from "../../support/event-schemas.ts";
import { codeOf, Recorder, withBroker } from "../../support/test-broker.ts";

const price = (data: unknown): EventInput => ({ event: "price", data });
const ADA = { name: " ada ", amount: 1, other: true };
const SENT = '{"name":"ada","amount":1,"unit":"EUR"}';
const typedValue = (item: unknown): unknown => (item as { value: unknown }).value;

describe.each(Object.entries(libraries))("%s", (_library, events) => {
  test(
    "the output of the schema is sent, listened to and kept",
    withBroker(async (setup) => {
      const broker = setup.broker({ events });
      const client = await setup.join(broker);
      const listened = broker.listen();
      await broker.broadcast(price(ADA));
      await broker.broadcast({ event: "length", data: "four" });
      await broker.broadcast({ event: "count", data: 42 });
      expect(await client.readThrough("42")).toEqual([SENT, "4", "42"]);
      const { value } = await listened.next();
      expect(value).toMatchObject({ event: "price", data: SENT });
      expect(typedValue(value)).toEqual(JSON.parse(SENT));
      const history = await broker.history();
      expect(history.events.map(typedValue)).toEqual([JSON.parse(SENT), 4, 42]);
      await listened.return?.();
    }),
  );

  test(
    "data that does not fit is bad-event-data with the issues, and nothing is published",
    withBroker(async (setup) => {
      const broker = setup.broker({ events });
      for (const data of [{ name: "ada" }, { name: "ada", amount: "1" }, "ada", 1, null, []]) {
        const error = (await broker.broadcast(price(data)).catch((thrown) => thrown)) as BrokerError;
        expect(error).toMatchObject({ code: "bad-event-data", status: 422 });
        expect(error.issues?.length).toBeGreaterThan(0);
      }
      const error = (await broker.broadcast(price({ name: "ada" })).catch((thrown) => thrown)) as BrokerError;
      expect(error.issues?.map(({ path }) => path)).toEqual([["amount"]]);
      expect(broker.stats()).toMatchObject({ published: 0, log: { events: 0 } });
    }),
  );

  test(
    "an event without a type is a message; a text is sent as JSON, so that it stays a text",
    withBroker(async (setup) => {
      const broker = setup.broker({ events });
      const client = await setup.join(broker);
      await broker.broadcast("42");
      await broker.broadcast({ data: "a\nb" });
      await broker.broadcast({ event: "message", data: "end" });
      expect(await client.readThrough('"end"')).toEqual(['"42"', '"a\\nb"', '"end"']);
      expect((await broker.history()).events.map(typedValue)).toEqual(["42", "a\nb", "end"]);
      expect(await codeOf(broker.broadcast({ data: 42 }))).toBe("bad-event-data");
      expect(await codeOf(broker.broadcast(new Uint8Array([52])))).toBe("bad-event-data");
    }),
  );
});

test(
  "a type without a schema is refused, also one that every object has, and one of fanwire",
  withBroker(async (setup) => {
    const broker = setup.broker({ events: { price: z.number() } });
    for (const event of ["prices", "Price", "message", "", "constructor", "toString", "__proto__", "fanwire-gap"])
      expect(await codeOf(broker.broadcast({ event, data: 1 }))).toBe("bad-event-type");
    expect(await codeOf(broker.broadcast("text"))).toBe("bad-event-type");
    expect(broker.stats().published).toBe(0);
    expect(await codeOf(setup.broker({ events: {} }).broadcast("text"))).toBe("bad-event-type");
  }),
);

test(
  "every way in is checked: one client, one connection, ephemeral events, reports, keys",
  withBroker(async (setup) => {
    const broker = setup.broker({ events: { price: z.number(), end: z.null() } });
    const client = await setup.join(broker, { id: "ann" });
    const { connectionId } = broker.clients()[0] as { connectionId: string };
    const publish = (data: unknown): Promise<unknown>[] => [
      broker.broadcast(price(data)),
      broker.broadcast(price(data), { ephemeral: true }),
      broker.broadcast(price(data), { report: true }),
      broker.broadcast(price(data), { idempotencyKey: "k" }),
      broker.broadcastTo("ann", price(data)),
      broker.broadcastTo("ann", price(data), { connectionId }),
      broker.broadcastTo("ann", price(data), { ephemeral: true }),
    ];
    expect(await Promise.all(publish("1").map(codeOf))).toEqual(Array(7).fill("bad-event-data"));
    expect(broker.stats().published).toBe(0);
    expect(await Promise.all(publish(1).map(codeOf))).toEqual(Array(7).fill("none"));
    await broker.broadcast({ event: "end", data: null });
    expect(await client.readThrough("null")).toEqual([...Array(7).fill("1"), "null"]);
  }),
);

test(
  "onConnect: send() takes an event that fits, and throws for another",
  withBroker(async (setup) => {
    const connects = new Recorder<ConnectEvent>();
    const broker = setup.broker({ events: { price: z.number() }, onConnect: connects.record });
    const client = await setup.join(broker);
    const { send } = await connects.next();
    expect(() => send(price("1"))).toThrow(expect.objectContaining({ code: "bad-event-data" }));
    expect(() => send("1")).toThrow(expect.objectContaining({ code: "bad-event-type" }));
    send(price(1));
    expect(await client.readThrough("1")).toEqual(["1"]);
  }),
);

test(
  "snapshot: its events are checked; one that does not fit ends the stream, and is reported",
  withBroker(async (setup) => {
    const errors = new Recorder<{ error: unknown; stage: string }>();
    let data: unknown = 1;
    const broker = setup.broker({
      events: { price: z.number().transform((amount) => amount * 2) },
      snapshot: () => [price(data)],
      onError: errors.record,
    });
    const good = await setup.connect(broker);
    expect(await good.readThrough("2")).toEqual(["2"]);
    data = "1";
    const bad = await setup.connect(broker);
    expect((await bad.untilControl("end")).data).toContain("snapshot-failed");
    const { stage, error } = await errors.next();
    expect([stage, (error as BrokerError).code]).toEqual(["snapshot", "bad-event-data"]);
    expect(bad.events.filter(isData)).toEqual([]);
  }),
);

test(
  "the order of the calls is kept, awaited or not",
  withBroker(async (setup) => {
    const broker = setup.broker({ events: { count: z.number() } });
    const client = await setup.join(broker);
    const numbers = Array.from({ length: 20 }, (_, index) => index);
    await Promise.all(numbers.map((data) => broker.broadcast({ event: "count", data })));
    expect(await client.readThrough("19")).toEqual(numbers.map(String));
  }),
);

test.each(Object.entries(hostile))("a schema: %s: is refused, and nothing is published", (name, [schema, code]) =>
  withBroker(async (setup) => {
    const broker = setup.broker({ events: { price: schema, count: z.number() } });
    const client = await setup.join(broker);
    const error = (await broker.broadcast(price(1)).catch((thrown) => thrown)) as Error & { code?: string };
    expect(error.code ?? error.name).toBe(code);
    expect(error.message).toMatch(/price|serialize/);
    expect(error.message).not.toContain("internal text");
    if (/promise|thenable/.test(name)) expect(error.message).toContain("returned a promise");
    await broker.broadcast({ event: "count", data: 1 });
    expect(await client.readThrough("1")).toEqual(["1"]);
    expect(broker.stats().published).toBe(1);
  })(),
);

test(
  "issues: at most 10, with short texts and short paths",
  withBroker(async (setup) => {
    const issue = { message: "m".repeat(1_000), path: Array(100).fill({ key: "k".repeat(1_000) }) };
    const odd = { message: undefined, path: [0, "a", Symbol("s"), { key: 1 }, null] };
    const issues = [odd, { message: "whole" }, ...Array(100_000).fill(issue)];
    const broker = setup.broker({ events: { price: schemaOf(() => ({ issues })) } });
    const error = (await broker.broadcast(price(1)).catch((thrown) => thrown)) as BrokerError;
    expect(error.issues).toHaveLength(10);
    expect(error.issues?.slice(0, 2)).toEqual([
      { message: "undefined", path: [0, "a", "Symbol(s)", 1, "null"] },
      { message: "whole", path: [] },
    ]);
    expect(error.issues?.[2]).toEqual({ message: "m".repeat(200), path: Array(10).fill("k".repeat(40)) });
    expect(JSON.stringify(error.issues).length).toBeLessThan(7_000);
    expect(error.message.length).toBeLessThan(400);
  }),
);

test(
  "createBroker(): what is not a schema is refused at once",
  withBroker(async (setup) => {
    const engine = setup.engine();
    const fits = z.number();
    const throwing = Object.defineProperty({}, "~standard", {
      get() {
        throw new Error("internal text");
      },
    });
    const wrong: unknown[] = [
      ...[1, "price", [], new Map([["price", fits]]), () => fits],
      ...[{ price: undefined }, { price: null }, { price: {} }, { price: "string" }, { price: z }],
      ...[{ price: { "~standard": {} } }, { price: { "~standard": { version: 1, vendor: "x" } } }, { price: throwing }],
      { price: { "~standard": { version: 2, vendor: "x", validate: () => ({ value: 1 }) } } },
      ...[{ "": fits }, { "fanwire-gap": fits }, { error: fits }, { open: fits }, { "a\nb": fits }],
      {
        get price() {
          throw new Error("internal text");
        },
      },
    ];
    for (const events of wrong)
      expect(() => createBroker({ engine, events } as object), String(events)).toThrow(TypeError);
    for (const events of [undefined, {}, { price: fits }, Object.assign(Object.create(null), { price: fits })])
      expect(() => createBroker({ engine, events })).not.toThrow();
  }),
);

test(
  "a schema is read once, and asked with its own `this`",
  withBroker(async (setup) => {
    let reads = 0;
    const standard = {
      version: 1,
      vendor: "test",
      factor: 2,
      validate(this: { factor: number }, value: unknown) {
        return { value: (value as number) * this.factor };
      },
    };
    const schema = {
      get "~standard"() {
        reads++;
        return standard;
      },
    };
    const broker = setup.broker({ events: { price: schema as never } });
    standard.validate = () => ({ value: "another" }) as never;
    const client = await setup.join(broker);
    await broker.broadcast(price(21));
    expect(await client.readThrough("42")).toEqual(["42"]);
    expect(reads).toBe(1);
  }),
);

test(
  "serialize: writes what the schema returns, a text too; a result that is no text is a TypeError",
  withBroker(async (setup) => {
    const broker = setup.broker({
      events: { price: z.number(), message: z.string(), none: z.undefined().or(z.number()) },
      serialize: (data) => (data === undefined ? (undefined as never) : `<${data}>`),
    });
    const client = await setup.join(broker);
    await broker.broadcast(price(1));
    await broker.broadcast("text");
    expect(await client.readThrough("<text>")).toEqual(["<1>", "<text>"]);
    const toNothing = setup.broker({ events: { price: schemaOf(() => ({ value: undefined })) } });
    expect(await codeOf(toNothing.broadcast(price(1)))).toBe("TypeError");
  }),
);

test(
  "without the option all is as before: any type, any data, and a value that does not show",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const listened = broker.listen();
    await broker.broadcast("42");
    await broker.broadcast({ event: "any", data: { a: 1 } });
    await broker.broadcast({ data: "text" });
    const items = [await listened.next(), await listened.next(), await listened.next()].map(({ value }) => value);
    expect(items.map((item) => Object.keys(item ?? {}))).toEqual([
      ["type", "id", "data", "channels"],
      ["type", "id", "event", "data", "channels"],
      ["type", "id", "data", "channels"],
    ]);
    expect(JSON.stringify(items)).not.toContain("value");
    expect(items.map(typedValue)).toEqual([42, { a: 1 }, "text"]);
    expect(typedValue(items[1])).toBe(typedValue(items[1]));
    await listened.return?.();
  }),
);
