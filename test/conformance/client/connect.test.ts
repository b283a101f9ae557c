// connect() against a broker in the same process: what a page receives, and when the client comes back or ends.
import { describe, expect, test, vi } from "vitest";
import { connect, type EventClient, type EventMap } from "../../../src/client/index.ts";
import type { Broker } from "../../../src/index.ts";
import { type TestBrokerOptions, type TestSetup, withBroker } from "../../support/test-broker.ts";

const URL = "http://server/connect";

/** A fetch whose requests reach a broker, and whose connections a test can break. */
class Net {
  readonly requests: Request[] = [];
  /** Chunks that have passed. */
  chunks = 0;
  /** Answers in place of the broker's, one for each request. */
  readonly answers: (() => Response | Promise<Response>)[] = [];
  readonly #broker: Broker;
  #cuts: (() => void)[] = [];

  constructor(broker: Broker) {
    this.#broker = broker;
  }

  fetch = async (url: string, init: RequestInit): Promise<Response> => {
    const request = new Request(url, init);
    this.requests.push(request);
    const answer = this.answers.shift();
    const response = answer ? await answer() : await this.#broker.fetch(request);
    if (!response.body || request.method === "POST") return response;
    const reader = response.body.getReader();
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#cuts.push(() => {
          void reader.cancel().catch(() => undefined);
          controller.error(new TypeError("cut"));
        });
      },
      pull: async (controller) => {
        const { done, value } = await reader.read().catch(() => ({ done: true, value: undefined }));
        try {
          if (done) controller.close();
          else controller.enqueue(value as Uint8Array);
          this.chunks++;
        } catch {
          // It was cut.
        }
      },
      cancel: (reason) => reader.cancel(reason),
    });
    return new Response(body, response);
  };

  /** Breaks all connections. */
  cut(): void {
    for (const cut of this.#cuts.splice(0)) {
      try {
        cut();
      } catch {
        // It has ended.
      }
    }
  }

  lastEventIds(): (string | null)[] {
    return this.requests.map(({ headers }) => headers.get("last-event-id"));
  }
}

interface Page {
  readonly broker: Broker;
  readonly net: Net;
  readonly client: EventClient<EventMap>;
  /** What handlers of events received. */
  readonly data: string[];
  readonly log: unknown[];
}

/** Runs a test with a page that handles everything. */
function withPage(
  options: Omit<Parameters<typeof connect>[1] & object, "fetch">,
  brokerOptions: TestBrokerOptions,
  run: (page: Page, setup: TestSetup) => Promise<void>,
): () => Promise<void> {
  return withBroker(async (setup: TestSetup) => {
    const broker = setup.broker({ retry: 10, ...brokerOptions });
    const net = new Net(broker);
    const client = connect<EventMap>(URL, { ...options, fetch: net.fetch });
    const data: string[] = [];
    const log: unknown[] = [];
    client.on("message", (event) => data.push(event.data));
    for (const type of ["gap", "snapshot", "end"] as const) client.on(type, (event) => log.push(event));
    client.on("error", ({ code, status }) => log.push({ type: "error", code, status }));
    try {
      await run({ broker, net, client, data, log }, setup);
    } finally {
      client.close();
    }
  });
}

const state = (client: EventClient<EventMap>, wanted: string): Promise<void> =>
  new Promise((resolve) => {
    if (client.state === wanted) return resolve();
    const off = client.on("state", (event) => {
      if (event.state !== wanted) return;
      off();
      resolve();
    });
  });
const until = (holds: () => boolean): Promise<void> =>
  vi.waitFor(() => expect(holds()).toBe(true), { timeout: 10_000, interval: 2 });

/** Waits until the stream has begun, and the server has said its `retry`. */
const ready = (client: EventClient<EventMap>): Promise<void> => until(() => client.lastEventId !== "");

/** Publishes events to a channel. */
async function publish(broker: Broker, ...data: string[]): Promise<void> {
  for (const each of data) await broker.broadcast(each, { channels: "news" });
}

describe("connect()", () => {
  test(
    "events: each once and in order, over a cut, after the last id",
    withPage({ clientId: "ann", channels: ["news", "market"] }, {}, async ({ broker, net, client, data }) => {
      await state(client, "open");
      await publish(broker, "1");
      await broker.broadcast("2", { channels: "market" });
      await until(() => data.length === 2);
      expect(client).toMatchObject({ clientId: "ann", channels: ["news", "market"], state: "open" });
      net.cut();
      const { id } = await broker.broadcast("3", { channels: ["news", "market"] });
      await until(() => data.length === 3);
      expect(data).toEqual(["1", "2", "3"]);
      expect(client.lastEventId).toBe(id);
      expect(net.lastEventIds()).toEqual([null, expect.stringMatching(/-2$/)]);
    }),
  );

  test(
    "events: those that arrive before anybody listens wait for the first handler",
    withBroker(async (setup) => {
      const broker = setup.broker({});
      const client = connect(URL, { fetch: new Net(broker).fetch });
      client.on("end", () => undefined);
      await state(client, "open");
      await broker.broadcast("early");
      await new Promise((resolve) => setTimeout(resolve, 20));
      const data: string[] = [];
      client.on("message", (event) => data.push(event.data));
      await until(() => data.length === 1);
      client.close();
    }),
  );

  test(
    "gap: is reported once, whatever the stream repeats, and events go on behind it",
    withPage(
      { channels: ["news"], lastEventId: "other-7" },
      { log: { retention: { events: 2 } } },
      async ({ broker, net, data, log }) => {
        await until(() => log.length === 1);
        expect(log[0]).toMatchObject({ type: "gap", after: null });
        await publish(broker, "1");
        await until(() => data.length === 1);
        net.answers.push(() => Promise.reject(new TypeError("refused")));
        net.cut();
        await publish(broker, "2", "3", "4", "5");
        await until(() => data.at(-1) === "5");
        expect(log).toHaveLength(2);
        expect(log[1]).toMatchObject({ type: "gap", channels: ["news"] });
        expect(data.length).toBeLessThan(5);
        expect(data).toEqual(["1", "2", "3", "4", "5"].filter((each) => data.includes(each)));
      },
    ),
  );

  test(
    "gap: without a handler the first one is logged, with a link",
    withBroker(async (setup) => {
      const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
      const client = connect(URL, { fetch: new Net(setup.broker({})).fetch, lastEventId: "other-7" });
      client.on("message", () => undefined);
      await until(() => warn.mock.calls.length > 0);
      client.close();
      expect(warn.mock.calls).toEqual([[expect.stringMatching(/"gap".* https:\/\//)]]);
      warn.mockRestore();
    }),
  );

  test(
    "end: with reconnect: false the client is closed, with the application's reason",
    withPage({ clientId: "ann" }, {}, async ({ broker, client, net, log }) => {
      await state(client, "open");
      await broker.disconnect("ann", { blockFor: 60_000, reason: "banned" });
      await state(client, "closed");
      expect(log).toEqual([{ type: "end", reason: "disconnected", reconnect: false, detail: "banned" }]);
      expect(net.requests).toHaveLength(1);
    }),
  );

  test(
    "end: with reconnect: true the client comes back",
    withPage({ clientId: "ann" }, {}, async ({ broker, client, net, log }) => {
      await state(client, "open");
      await broker.disconnect("ann");
      await until(() => net.requests.length === 2);
      expect(log).toEqual([{ type: "end", reason: "disconnected", reconnect: true, detail: undefined }]);
    }),
  );

  test(
    "204: closes the client",
    withPage({ clientId: "ann" }, {}, async ({ net, client, log }) => {
      net.answers.push(() => new Response(null, { status: 204 }));
      await state(client, "closed");
      expect(log).toEqual([{ type: "end", reason: "no-content", reconnect: false, detail: undefined }]);
    }),
  );

  test.each([400, 403, 404, 410, 302])("%d: ends it with an error", (status) =>
    withPage({}, {}, async ({ net, client, log }) => {
      await ready(client);
      net.answers.push(() => Response.json({ code: "of-the-server", detail: "no" }, { status }));
      net.cut();
      await state(client, "closed");
      expect(log).toEqual([{ type: "error", code: "of-the-server", status }]);
    })(),
  );

  test.each([500, 502, 503, 408, 429])("%d: does not end it", (status) =>
    withPage({}, {}, async ({ net, client, log }) => {
      await ready(client);
      net.answers.push(
        () => new Response("later", { status }),
        () => new Response("later", { status }),
      );
      net.cut();
      await until(() => net.requests.length === 4);
      await state(client, "open");
      expect(log).toEqual([]);
    })(),
  );

  test(
    "200 that is no event stream: ends it",
    withPage({}, {}, async ({ net, client, log }) => {
      net.answers.push(() => new Response("<html>", { headers: { "content-type": "text/html" } }));
      await state(client, "closed");
      expect(log).toEqual([{ type: "error", code: "not-a-stream", status: 200 }]);
    }),
  );

  test(
    "Retry-After: is waited for, also when the page is shown in the meantime",
    withPage({}, {}, async ({ net, client }) => {
      net.answers.push(() => new Response(null, { status: 503, headers: { "retry-after": "60" } }));
      const waits: unknown[] = [];
      client.on("state", ({ state: now, retryIn }) => now === "waiting" && waits.push(retryIn));
      await until(() => waits.length > 0);
      expect(waits[0]).toBeGreaterThan(59_000);
      expect(waits[0]).toBeLessThanOrEqual(60_000);
    }),
  );

  test("401: headers are asked once more, and a second one ends it", async () => {
    let asked = 0;
    const headers = (): Record<string, string> => ({ authorization: `Bearer ${asked++}` });
    await withPage(
      { headers },
      {
        authorize: ({ request }) =>
          request.headers.get("authorization") !== "Bearer 0" || new Response(null, { status: 401 }),
      },
      async ({ client, net }) => {
        await ready(client);
        expect([asked, net.requests.length]).toEqual([2, 2]);
        net.answers.push(
          () => new Response(null, { status: 401 }),
          () => new Response(null, { status: 401 }),
        );
        net.cut();
        await state(client, "closed");
        expect([asked, net.requests.length]).toEqual([4, 4]);
      },
    )();
  });

  test(
    "401 without a function: ends it with the code unauthorized",
    withPage({ headers: { authorization: "Bearer old" } }, {}, async ({ net, client, log }) => {
      net.answers.push(() => Response.json({ code: "x" }, { status: 401 }));
      await state(client, "closed");
      expect(log).toEqual([{ type: "error", code: "unauthorized", status: 401 }]);
      expect(net.requests).toHaveLength(1);
    }),
  );

  test(
    "silence: a connection without a byte is given up, and nothing is lost",
    withPage({ silence: 60, channels: "news" }, { heartbeat: 10_000 }, async ({ broker, net, client, data }) => {
      await state(client, "open");
      await publish(broker, "1");
      await until(() => net.requests.length >= 3);
      await publish(broker, "2");
      await until(() => data.length === 2);
    }),
  );

  test(
    "silence: heartbeats count, although they are comments",
    withPage({ silence: 500 }, { heartbeat: 100 }, async ({ net, client }) => {
      await state(client, "open");
      await until(() => net.chunks > 9);
      expect(net.requests).toHaveLength(1);
    }),
  );

  test(
    "storage: a page that is loaded again continues after the last id",
    withBroker(async (setup) => {
      const broker = setup.broker({});
      const { fetch } = new Net(broker);
      const stored = new Map<string, string>();
      const storage = {
        getItem: (key: string) => stored.get(key) ?? null,
        setItem: (key: string, id: string) => void stored.set(key, id),
      };
      const data: string[] = [];
      const load = (): EventClient<EventMap> => {
        const client = connect<EventMap>(URL, { fetch, storage, channels: "news" });
        client.on("message", (event) => data.push(event.data));
        return client;
      };
      const first = load();
      await state(first, "open");
      await publish(broker, "1");
      await until(() => data.length === 1);
      first.close();
      await publish(broker, "2");
      const second = load();
      await until(() => data.length === 2);
      expect(data).toEqual(["1", "2"]);
      second.close();
      // A page that says where to start, also at the beginning, does not continue at the stored id.
      for (const lastEventId of ["other-1", ""])
        expect(
          connect(URL, { fetch, storage, channels: "news", lastEventId, signal: AbortSignal.abort() }).lastEventId,
        ).toBe(lastEventId);
      // Another list of channels is another stream.
      expect(connect(URL, { fetch, storage, channels: "other", signal: AbortSignal.abort() }).lastEventId).toBe("");
    }),
  );

  test(
    "for await: yields events and gaps in order; break closes the client",
    withBroker(async (setup) => {
      const broker = setup.broker({ log: { retention: { events: 10 } } });
      await publish(broker, "1", "2");
      const net = new Net(broker);
      const client = connect(URL, { fetch: net.fetch, channels: "news", lastEventId: "other-1" });
      const items: unknown[] = [];
      for await (const item of client) {
        items.push(item.type === "event" ? item.data : item.type);
        if (items.length === 3) break;
      }
      expect(items).toEqual(["gap", "1", "2"]);
      expect(client.state).toBe("closed");
      await until(() => broker.stats().clients === 0);
    }),
  );

  test(
    "for await: an error that ends the client is thrown, after what was received",
    withBroker(async (setup) => {
      const net = new Net(setup.broker({}));
      net.answers.push(() => new Response(null, { status: 403 }));
      const client = connect(URL, { fetch: net.fetch });
      await expect(client[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: "refused", status: 403 });
    }),
  );

  test(
    "POST: sends the channels as a form",
    withPage({ method: "POST", channels: ["news"], clientId: "ann" }, {}, async ({ net, client }) => {
      await state(client, "open");
      await until(() => client.channels[0] === "news");
      expect(net.requests[0]?.url).toBe(URL);
    }),
  );
});
