// publisher().batch(): one request for many events, which is sent again without doubling any.
import { expect, test } from "vitest";
import { BatchError, publisher } from "../../../src/client/index.ts";
import { BrokerError } from "../../../src/index.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { withBroker } from "../../support/test-broker.ts";

interface Events {
  price: { readonly ada: number };
  message: string;
}

test(
  "batch(): publishes events of all kinds in order, and returns their ids",
  withBroker(async (setup) => {
    const broker = setup.broker({ publishToken: "t" });
    const ann = await setup.join(broker, { id: "ann", channel: ["a", "b"] });
    const events = publisher<Events>("http://server/broadcast", {
      token: "t",
      fetch: (url, init) => broker.fetch(new Request(url, init)),
    });
    const { ids } = await events.batch([
      "to all",
      { data: "42", channels: "a" },
      { event: "price", data: { ada: 1 }, channels: ["a", "b"] },
      { event: "message", data: "to ann", clientId: "ann" },
    ]);
    const received = [];
    for (let n = 0; n < 4; n++) received.push(await ann.nextData());
    expect(received.map(({ id }) => id)).toEqual(ids);
    expect(received.map(({ event, data }) => [event ?? "message", data])).toEqual([
      ["message", "to all"],
      ["message", "42"],
      ["price", '{"ada":1}'],
      ["message", "to ann"],
    ]);
    expect(await events.batch([])).toEqual({ ids: [] });
    expect(broker.stats().published).toBe(4);
    // @ts-expect-error: the data is of another type, which only the compiler knows.
    const batch = () => events.batch([{ event: "price", data: "no" }]);
    expect(batch).toBeTypeOf("function");
  }),
);

test(
  "batch(): a store that fails in the middle and an answer that is lost double nothing",
  withBroker(async (setup) => {
    let appends = 0;
    const engine = slowEngine(setup.engine(), () =>
      [3, 5].includes(++appends) ? Promise.reject(new BrokerError("engine-down", "down")) : Promise.resolve(),
    );
    const broker = setup.broker({ publishToken: "t", engine });
    const keys = new Set<string | null>();
    const statuses: unknown[] = [];
    const events = publisher("http://server/broadcast", {
      token: "t",
      fetch: async (url, init) => {
        const request = new Request(url, init);
        keys.add(request.headers.get("idempotency-key"));
        const response = await broker.fetch(request);
        statuses.push(response.status);
        // Without the wait that the server asks for.
        if (response.status === 503) return new Response(response.body, { status: 503 });
        if (statuses.length === 3) throw new TypeError("lost");
        return response;
      },
    });
    const { ids } = await events.batch(["1", "2", "3", "4"].map((data) => ({ data, channels: "a" })));
    expect(statuses).toEqual([503, 503, 200, 200]);
    expect(keys.size).toBe(1);
    const history = await broker.history({ channels: "a" });
    expect(history.events.map(({ id, data }) => [id, data])).toEqual(ids.map((id, index) => [id, `${index + 1}`]));
  }),
);

test(
  "batch(): what the server refuses is a BatchError, with the ids of what was published",
  withBroker(async (setup) => {
    const broker = setup.broker({ publishToken: "t" });
    const options = { token: "t", fetch: (url: string, init: RequestInit) => broker.fetch(new Request(url, init)) };
    const events = publisher("http://server/broadcast", options);
    const failed = await events.batch(["1", { data: "2", clientId: "nobody" }, "3"]).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(BatchError);
    expect(failed).toMatchObject({ code: "unknown-client", status: 404, ids: [expect.stringMatching(/-1$/)] });
    // A field that is not known is sent, so that the server refuses it.
    const misspelled = { data: "1", channel: "a" };
    await expect(events.batch([misspelled])).rejects.toMatchObject({ code: "bad-request", ids: undefined });
    await expect(events.batch([{ data: undefined }])).rejects.toThrow(TypeError);
    await expect(publisher("http://server/broadcast", { ...options, token: "x" }).batch(["1"])).rejects.toMatchObject({
      code: "unauthorized",
    });
    const away = { retryFor: 0, fetch: () => Promise.reject(new TypeError("away")) };
    await expect(publisher("http://server/broadcast", away).batch(["1"])).rejects.toMatchObject({ code: "network" });
    expect(broker.stats().published).toBe(1);
  }),
);
