// The client's channels, snapshots, values and types, against a broker in the same process.
import { describe, expect, expectTypeOf, test, vi } from "vitest";
import {
  type ClientItem,
  connect,
  type PublishedEvent,
  publisher,
  type StandardSchema,
} from "../../../src/client/index.ts";
import type { Broker, SnapshotRequest } from "../../../src/index.ts";
import { withBroker } from "../../support/test-broker.ts";

interface Events {
  price: { readonly ada: number };
  note: string;
  message: unknown;
}

/** A fetch that reaches a broker, and writes down what was asked. */
function fetchOf(broker: Broker, log: string[] = []): (url: string, init: RequestInit) => Promise<Response> {
  return (url, init) => {
    const request = new Request(url, init);
    log.push(`${request.method} ${new URL(url).pathname}`);
    return broker.fetch(request);
  };
}

const until = (holds: () => boolean): Promise<void> =>
  vi.waitFor(() => expect(holds()).toBe(true), { timeout: 10_000, interval: 2 });

/** A schema as a library would make it. */
const schemaOf = <T>(name: string, isValid: (value: unknown) => value is T): StandardSchema<T> => ({
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) => (isValid(value) ? { value } : { issues: [{ message: `is no ${name}` }] }),
  },
});

describe("subscribe()", () => {
  test(
    "changes the open stream, without another connection",
    withBroker(async (setup) => {
      const broker = setup.broker({});
      const log: string[] = [];
      const client = connect("http://server/connect", { channels: "a", fetch: fetchOf(broker, log) });
      const data: string[] = [];
      client.on("message", (event) => data.push(event.data));
      const { position } = await client.subscribe(["b", "c"]);
      expect(position).toMatch(/-0$/);
      await broker.broadcast("1", { channels: "b" });
      await client.unsubscribe("b");
      await broker.broadcast("2", { channels: "b" });
      await broker.broadcast("3", { channels: "c" });
      await until(() => data.length === 2);
      expect([data, client.channels]).toEqual([
        ["1", "3"],
        ["a", "c"],
      ]);
      expect(log).toEqual(["GET /connect", "POST /subscribe", "POST /unsubscribe"]);
      client.close();
      await expect(client.subscribe("d")).rejects.toMatchObject({ code: "closed" });
    }),
  );

  test(
    "without the endpoint the stream starts again, and loses nothing",
    withBroker(async (setup) => {
      const broker = setup.broker({ paths: { subscribe: false, unsubscribe: false } });
      const log: string[] = [];
      const client = connect("http://server/connect", { channels: "a", fetch: fetchOf(broker, log) });
      const data: string[] = [];
      client.on("message", (event) => data.push(event.data));
      const joined = client.subscribe("b");
      await joined;
      for (const [text, channels] of [
        ["1", "a"],
        ["2", "b"],
      ] as const)
        await broker.broadcast(text, { channels });
      await until(() => data.length === 2);
      expect(data).toEqual(["1", "2"]);
      expect(log.filter((each) => each === "GET /connect")).toHaveLength(2);
      client.close();
    }),
  );

  test(
    "refused: throws with the server's code, and the stream goes on as it was",
    withBroker(async (setup) => {
      const broker = setup.broker({ authorize: ({ channels }) => !channels.includes("secret") });
      const client = connect("http://server/connect", { channels: "a", fetch: fetchOf(broker) });
      client.on("message", () => undefined);
      await expect(client.subscribe("secret")).rejects.toMatchObject({ code: "forbidden", status: 403 });
      expect([client.state, client.channels]).toEqual(["open", ["a"]]);
      client.close();
    }),
  );
});

describe("snapshot", () => {
  test(
    "comes as events without an id, and then as an item; one of joined channels that breaks off begins anew",
    withBroker(async (setup) => {
      const abort: AbortController[] = [];
      const asked: string[] = [];
      let hangs = false;
      const broker = setup.broker({
        retry: 10,
        snapshot: async function* ({ reason, channels }: SnapshotRequest) {
          asked.push(`${reason} ${channels}`);
          yield { event: "note", data: "state" };
          if (hangs) await new Promise(() => undefined);
        },
      });
      const client = connect<Events>("http://server/connect", {
        channels: "a",
        fetch: (url, init) => {
          const own = new AbortController();
          abort.push(own);
          return broker.fetch(new Request(url, { ...init, signal: own.signal }));
        },
      });
      const items: ClientItem<Events>[] = [];
      client.on("note", (event) => items.push(event));
      client.on("snapshot", (event) => items.push(event));
      await until(() => items.length === 2);
      expect(items).toMatchObject([
        { id: undefined, value: "state" },
        { type: "snapshot", reason: "new", channels: ["a"] },
      ]);
      expect(client.lastEventId).toMatch(/-0$/);
      hangs = true;
      await client.subscribe("b");
      await until(() => items.length === 3);
      hangs = false;
      abort[0]?.abort();
      await until(() => items.length >= 5);
      expect(asked).toEqual(["new a", "joined b", "new a,b"]);
      client.close();
    }),
  );
});

describe("values", () => {
  test(
    "without a schema: what is JSON is parsed, and the rest is text",
    withBroker(async (setup) => {
      const broker = setup.broker({});
      const client = connect("http://server/connect", { fetch: fetchOf(broker) });
      const values: unknown[] = [];
      client.on("message", ({ value }) => values.push(value));
      await until(() => client.lastEventId !== "");
      for (const data of ["text", "42", '{"a":[1]}', '"quoted"', "{"]) await broker.broadcast(data);
      await until(() => values.length === 5);
      expect(values).toEqual(["text", 42, { a: [1] }, "quoted", "{"]);
      client.close();
    }),
  );

  test(
    "with a schema: a text that is JSON is a text if the schema says so; what does not fit is left out and reported",
    withBroker(async (setup) => {
      const broker = setup.broker({});
      const client = connect<Events>("http://server/connect", {
        fetch: fetchOf(broker),
        schemas: {
          note: schemaOf("text", (value): value is string => typeof value === "string"),
          price: schemaOf(
            "price",
            (value): value is Events["price"] => typeof (value as Events["price"])?.ada === "number",
          ),
        },
      });
      const seen: unknown[] = [];
      client.on("note", ({ value }) => seen.push(value));
      client.on("price", ({ value }) => seen.push(value.ada));
      client.on("error", ({ code, issues }) => seen.push([code, issues?.[0]?.message]));
      await until(() => client.lastEventId !== "");
      await broker.broadcast({ event: "note", data: "42" });
      await broker.broadcast({ event: "price", data: { ada: 1 } });
      await broker.broadcast({ event: "price", data: "no" });
      await broker.broadcast({ event: "price", data: { ada: 2 } });
      await until(() => seen.length === 4);
      expect(seen).toEqual(["42", 1, ["bad-event-data", "is no price"], 2]);
      expect(client.state).toBe("open");
      client.close();
    }),
  );

  test(
    "names of the stream's own events: a published event reaches iterators only",
    withBroker(async (setup) => {
      const broker = setup.broker({});
      const client = connect("http://server/connect", { fetch: fetchOf(broker) });
      const gaps: unknown[] = [];
      client.on("gap", (gap) => gaps.push(gap));
      const items = client[Symbol.asyncIterator]();
      const first = items.next();
      await until(() => client.lastEventId !== "");
      await broker.broadcast({ event: "gap", data: "mine" });
      expect((await first).value).toMatchObject({ type: "event", event: "gap", data: "mine" });
      expect(gaps).toEqual([]);
      client.close();
    }),
  );

  test("types: handlers, iterators and publishers know the map of events", () => {
    const client = connect<Events>("http://server/connect", { signal: AbortSignal.abort() });
    client.on("price", (event) =>
      expectTypeOf(event).toEqualTypeOf<PublishedEvent<"price", { readonly ada: number }>>(),
    );
    client.on("gap", (event) => expectTypeOf(event.after).toEqualTypeOf<string | null>());
    // @ts-expect-error: no event has this type
    client.on("prize", () => undefined);
    const narrow = (item: ClientItem<Events>): void => {
      if (item.type === "event" && item.event === "price") expectTypeOf(item.value.ada).toEqualTypeOf<number>();
    };
    expectTypeOf(narrow).toBeFunction();
    const events = publisher<Events>("http://server/broadcast", {
      fetch: () => Promise.resolve(Response.json({ clients: 0 })),
    });
    // @ts-expect-error: the data is of another type
    void events.broadcast({ event: "price", data: "no" });
    client.close();
  });
});

describe("publisher()", () => {
  test(
    "an answer that is lost, and a server that is away, publish each event once",
    withBroker(async (setup) => {
      const broker = setup.broker({ publishToken: "t" });
      const keys = new Set<string | null>();
      let sent = 0;
      const events = publisher<Events>("http://server/broadcast", {
        token: () => "t",
        fetch: async (url, init) => {
          const request = new Request(url, init);
          keys.add(request.headers.get("idempotency-key"));
          sent++;
          if (sent === 1) return new Response(null, { status: 503 });
          const response = await broker.fetch(request);
          if (sent === 2) throw new TypeError("lost");
          return response;
        },
      });
      const answer = await events.broadcast({ event: "price", data: { ada: 1 } }, { channels: ["a", "b"] });
      expect([answer.id, sent, keys.size, broker.stats().published]).toEqual([expect.stringMatching(/-1$/), 3, 1, 1]);
    }),
  );

  test(
    "an ephemeral event is sent once; what the server refuses is thrown with its code",
    withBroker(async (setup) => {
      const broker = setup.broker({ publishToken: "t" });
      let sent = 0;
      const away = publisher("http://server/broadcast", {
        fetch: () => {
          sent++;
          return Promise.reject(new TypeError("away"));
        },
      });
      await expect(away.broadcast("x", { ephemeral: true })).rejects.toMatchObject({ code: "network" });
      expect(sent).toBe(1);
      const events = publisher("http://server/broadcast", { token: "t", fetch: fetchOf(broker) });
      await expect(events.broadcastTo("nobody", "x")).rejects.toMatchObject({ code: "unknown-client", status: 404 });
      await expect(events.broadcast({ data: undefined })).rejects.toThrow(TypeError);
    }),
  );
});
