// Typed events, against the published types. It is compiled, and not run: what does not hold is an error of the compiler.
import { type } from "arktype";
import {
  type Broker,
  createBroker,
  type EventInput,
  type EventInputsOf,
  type EventsOf,
  type History,
  type Listened,
  type ListenedEvent,
  type ListenedEventOf,
  type ListenedGap,
  type StandardSchema,
} from "fanwire";
import { connect, publisher } from "fanwire/client";
import { sse } from "fanwire/hono";
import { nodeHandler } from "fanwire/node";
import { instrument } from "fanwire/otel";
import { BrokerObject, brokerObject, hub, type ObjectNamespace } from "fanwire/workers";
import * as v from "valibot";
import { expectTypeOf } from "vitest";
import { z } from "zod";

interface Price {
  readonly ada: number;
}
interface Events {
  price: Price;
  state: "up" | "down";
  message: string;
}

/** Types alone: `createBroker<Events>()`. */
export async function byTypes(): Promise<void> {
  const broker = createBroker<Events>({ heartbeat: 1_000 });
  expectTypeOf(broker).toEqualTypeOf<Broker<Events>>();
  expectTypeOf<EventsOf<typeof broker>>().toEqualTypeOf<Events>();
  expectTypeOf<EventInputsOf<typeof broker>>().toEqualTypeOf<Events>();

  const { id, clients } = await broker.broadcast({ event: "price", data: { ada: 1 }, retry: 1 }, { channels: "a" });
  expectTypeOf([id, clients]).toEqualTypeOf<(string | number)[]>();
  await broker.broadcast({ event: "state", data: "up" });
  // An event without a type is a message, and a message that is a text needs no envelope.
  await broker.broadcast("text");
  await broker.broadcast({ data: "text" });
  await broker.broadcast({ event: "message", data: "text" });
  const { report } = await broker.broadcastTo("ann", { event: "price", data: { ada: 1 } }, { report: true });
  expectTypeOf((await report).sent).toEqualTypeOf<number>();
  expectTypeOf(await broker.broadcast("text", { ephemeral: true })).toEqualTypeOf<{ readonly clients: number }>();
  await broker.broadcastTo("ann", { event: "state", data: "down" }, { connectionId: "c" });

  // @ts-expect-error: there is no such event
  await broker.broadcast({ event: "prices", data: { ada: 1 } });
  // @ts-expect-error: the data is another one's
  await broker.broadcast({ event: "price", data: "up" });
  // @ts-expect-error: a value is missing
  await broker.broadcast({ event: "price", data: {} });
  // @ts-expect-error: there is no such value
  await broker.broadcast({ event: "state", data: "sideways" });
  // @ts-expect-error: the data is missing
  await broker.broadcast({ event: "price" });
  // @ts-expect-error: a message is a text
  await broker.broadcast({ data: { ada: 1 } });
  // @ts-expect-error: a message is not bytes
  await broker.broadcast(new Uint8Array());
  // @ts-expect-error: there is no such event, for one client
  await broker.broadcastTo("ann", { event: "prices", data: 1 });
  // @ts-expect-error: the data is another one's, with a report
  await broker.broadcastTo("ann", { event: "state", data: 1 }, { report: true });
  // @ts-expect-error: the data is another one's, and ephemeral
  await broker.broadcast({ event: "state", data: 1 }, { ephemeral: true });

  for await (const item of broker.listen()) {
    if (item.type === "gap") {
      expectTypeOf(item).toEqualTypeOf<ListenedGap>();
      continue;
    }
    expectTypeOf(item.data).toEqualTypeOf<string>();
    expectTypeOf(item.event).toEqualTypeOf<"price" | "state" | "message" | undefined>();
    switch (item.event) {
      case "price":
        expectTypeOf(item.value).toEqualTypeOf<Price>();
        break;
      case "state":
        expectTypeOf(item.value).toEqualTypeOf<"up" | "down">();
        break;
      default:
        expectTypeOf(item.event).toEqualTypeOf<"message" | undefined>();
        expectTypeOf(item.value).toEqualTypeOf<string>();
    }
    // @ts-expect-error: no event has this type
    if (item.event === "prices") continue;
  }
  const history = await broker.history();
  expectTypeOf(history).toEqualTypeOf<History<ListenedEventOf<Events>>>();
  for (const item of history.events) if (item.event === "price") expectTypeOf(item.value).toEqualTypeOf<Price>();

  // Without a message, every event needs its type.
  const named = createBroker<{ price: Price }>();
  // @ts-expect-error: a text would be a message
  await named.broadcast("text");
  // @ts-expect-error: this would be a message
  await named.broadcast({ data: { ada: 1 } });
  for (const item of (await named.history()).events) expectTypeOf(item.event).toEqualTypeOf<"price">();

  // Schemas of a map: each type has one, that returns it.
  createBroker<{ price: number }>({ events: { price: z.number() } });
  // What is sent to one connection, and the events of a snapshot, are events of the map.
  createBroker<{ price: number }>({
    onConnect: ({ send }) => {
      send({ event: "price", data: 1 });
      // @ts-expect-error: other data
      send({ event: "price", data: "1" });
      // @ts-expect-error: a message
      send("text");
    },
    snapshot: async function* () {
      yield { event: "price", data: 1 };
    },
  });
  createBroker<{ price: number }>({
    // @ts-expect-error: an unknown type
    snapshot: () => [{ event: "prices", data: 1 }],
  });
  createBroker({ onConnect: ({ send }) => send("any"), snapshot: () => ["any", { event: "x", data: {} }] });
  // @ts-expect-error: the schema of another type
  createBroker<{ price: number }>({ events: { price: z.string() } });
  // @ts-expect-error: a type without a schema
  createBroker<{ price: number; state: string }>({ events: { price: z.number() } });
}

/** Schemas: what they take is published, and what they return is read. */
export async function bySchemas(): Promise<void> {
  const broker = createBroker({
    events: {
      zod: z.object({ name: z.string(), unit: z.string().default("EUR") }),
      valibot: v.pipe(
        v.string(),
        v.transform((text) => text.length),
      ),
      arktype: type({ amount: "number" }),
      message: z.union([z.string(), z.number()]),
    },
    onConnect: ({ client, send }) => send({ event: "zod", data: { name: client.clientId } }),
    snapshot: ({ channels }) => channels.map((name) => ({ event: "zod", data: { name } })),
  });
  interface Output {
    zod: { name: string; unit: string };
    valibot: number;
    arktype: { amount: number };
    message: string | number;
  }
  interface Input {
    zod: { name: string; unit?: string | undefined };
    valibot: string;
    arktype: { amount: number };
    message: string | number;
  }
  expectTypeOf<{ -readonly [Name in keyof EventsOf<typeof broker>]: EventsOf<typeof broker>[Name] }>().toEqualTypeOf<{
    [Name in keyof Output]: Output[Name];
  }>();
  expectTypeOf<EventInputsOf<typeof broker>>().toExtend<Input>();
  expectTypeOf<Input>().toExtend<EventInputsOf<typeof broker>>();

  await broker.broadcast({ event: "zod", data: { name: "ada" } });
  await broker.broadcast({ event: "valibot", data: "four" });
  await broker.broadcastTo("ann", { event: "arktype", data: { amount: 1 } });
  await broker.broadcast({ data: 42 });
  await broker.broadcast("text");
  // @ts-expect-error: what the schema returns is not what it takes
  await broker.broadcast({ event: "valibot", data: 4 });
  // @ts-expect-error: there is no such event
  await broker.broadcast({ event: "joi", data: 4 });
  // @ts-expect-error: the amount is missing
  await broker.broadcastTo("ann", { event: "arktype", data: {} });

  for await (const item of broker.listen()) {
    if (item.type !== "event") continue;
    if (item.event === "zod") expectTypeOf(item.value).toEqualTypeOf<{ name: string; unit: string }>();
    else if (item.event === "valibot") expectTypeOf(item.value).toEqualTypeOf<number>();
    else if (item.event === "arktype") expectTypeOf(item.value).toEqualTypeOf<{ amount: number }>();
    else expectTypeOf(item.value).toEqualTypeOf<string | number>();
  }

  // @ts-expect-error: not a schema
  createBroker({ events: { price: "number" } });

  // The page, and programs that publish.
  const client = connect<EventsOf<typeof broker>>("https://fanwire.test/connect");
  client.on("valibot", ({ value }) => expectTypeOf(value).toEqualTypeOf<number>());
  const programs = publisher<EventInputsOf<typeof broker>>("https://fanwire.test/broadcast");
  await programs.broadcast({ event: "valibot", data: "four" });
  // @ts-expect-error: what the schema returns is not what it takes
  await programs.broadcast({ event: "valibot", data: 4 });

  // Typed brokers go wherever brokers go.
  sse(broker);
  nodeHandler(broker);
  expectTypeOf(instrument(broker)).toEqualTypeOf<typeof broker>();
  const any: Broker = broker;
  await any.close();
}

/** Without types and schemas all is as before. */
export async function untyped(): Promise<void> {
  const broker = createBroker();
  expectTypeOf(broker).toEqualTypeOf<Broker>();
  expectTypeOf(createBroker({ heartbeat: 1 })).toEqualTypeOf<Broker>();
  expectTypeOf(broker.broadcast).parameter(0).toEqualTypeOf<EventInput>();
  expectTypeOf(broker.broadcastTo).parameter(1).toEqualTypeOf<EventInput>();
  expectTypeOf(broker.listen()).toEqualTypeOf<AsyncIterableIterator<Listened, undefined>>();
  const { events } = await broker.history();
  expectTypeOf(events).toEqualTypeOf<readonly ListenedEvent[]>();
  // @ts-expect-error: only typed brokers have it
  void events[0]?.value;
  await broker.broadcast(new Uint8Array());
  await broker.broadcast({ event: "any", data: { a: 1 } });
  const schemas: Readonly<Record<string, StandardSchema>> = { price: z.number() };
  await createBroker({ events: schemas }).broadcast({ event: "any", data: 1 });
  connect<EventsOf<typeof broker>>("https://fanwire.test/connect").on("any", ({ value }) => value.anything);
}

export class Hub extends BrokerObject<unknown, Events> {
  async announce(ada: number): Promise<void> {
    await this.broadcast({ event: "price", data: { ada } });
    // @ts-expect-error: there is no such event
    await this.broadcast({ event: "prices", data: { ada } });
    for (const item of (await this.history()).events)
      if (item.event === "price") expectTypeOf(item.value).toEqualTypeOf<Price>();
    for await (const item of this.listen())
      if (item.type === "event" && item.event === "state") expectTypeOf(item.value).toEqualTypeOf<"up" | "down">();
  }
}
export class Rooms extends brokerObject({ events: { length: z.string().transform((text) => text.length) } }) {}
export class Plain extends brokerObject({ heartbeat: 1 }) {}

/** Objects, and the hub of a Worker. */
export async function workers(namespace: ObjectNamespace, rooms: Rooms, plain: Plain): Promise<void> {
  const broker = hub<EventsOf<Hub>>(namespace);
  await broker.broadcast({ event: "price", data: { ada: 1 } });
  // @ts-expect-error: there is no such event
  await broker.broadcastTo("ann", { event: "prices", data: 1 });
  for (const item of (await broker.history()).events)
    if (item.event === "price") expectTypeOf(item.value).toEqualTypeOf<Price>();
  expectTypeOf<EventsOf<typeof broker>>().toEqualTypeOf<Events>();
  sse(broker);

  await rooms.broadcast({ event: "length", data: "four" });
  // @ts-expect-error: what the schema returns is not what it takes
  await rooms.broadcast({ event: "length", data: 4 });
  const typed = hub<EventsOf<Rooms>, EventInputsOf<Rooms>>(namespace);
  await typed.broadcast({ event: "length", data: "four" });
  for (const item of (await typed.history()).events) expectTypeOf(item.value).toEqualTypeOf<number>();

  await plain.broadcast({ event: "any", data: 1 });
  await hub(namespace).broadcast({ event: "any", data: 1 });
}
