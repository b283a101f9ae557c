// Rare orders of events that a broker can produce, played from a script: gaps that repeat, logs that lost their end, changes that arrive late.
import { afterEach, describe, expect, test, vi } from "vitest";
import { connect, type EventClient, type EventMap } from "../../../src/client/index.ts";
import { withBroker } from "../../support/test-broker.ts";

/** A server that sends what a test tells it to. */
class Script {
  readonly requests: string[] = [];
  /** Answers of requests that are no streams. */
  post: () => Promise<Response> = () => Promise.resolve(Response.json({}));
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  readonly fetch = (url: string, { method }: RequestInit): Promise<Response> => {
    const { pathname, search } = new URL(url);
    this.requests.push(`${method} ${pathname}${search}`);
    if (method === "POST") return this.post();
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (this.#controller = controller) });
    return Promise.resolve(
      new Response(body, { headers: { "content-type": "text/event-stream", "fanwire-client-id": "ann" } }),
    );
  };

  send(type: string, data: unknown, id?: string): void {
    const text = `retry: 5\nevent: ${type}\ndata: ${JSON.stringify(data)}\n${id === undefined ? "" : `id: ${id}\n`}\n`;
    this.#controller?.enqueue(new TextEncoder().encode(text));
  }

  ready(channels: readonly string[], id: string, secret: string): void {
    this.send("fanwire-ready", { clientId: "ann", resumed: true, channels, secret }, id);
  }

  cut(): void {
    this.#controller?.error(new TypeError("cut"));
  }

  /** Waits until there were that many requests. */
  until(requests: number): Promise<unknown> {
    return vi.waitUntil(() => this.requests.length >= requests, { timeout: 5_000, interval: 1 });
  }
}

function open(script: Script, channels: string[]): { client: EventClient<EventMap>; log: unknown[] } {
  const log: unknown[] = [];
  const client = connect<EventMap>("http://server/connect", { fetch: script.fetch, channels });
  client.on("message", ({ data }) => log.push(data));
  client.on("gap", ({ after, through }) => log.push([after, through]));
  return { client, log };
}

const until = (holds: () => boolean): Promise<unknown> => vi.waitUntil(holds, { timeout: 5_000, interval: 1 });

describe("a page", () => {
  afterEach(() => void vi.unstubAllGlobals());

  test("with a service worker sends its id in the URL, too, because the worker may drop the header", async () => {
    vi.stubGlobal("navigator", { serviceWorker: { controller: {} } });
    const script = new Script();
    const { client } = open(script, ["a"]);
    await script.until(1);
    script.ready(["a"], "e-1", "s1");
    await until(() => client.lastEventId !== "");
    script.cut();
    await script.until(2);
    expect(script.requests).toEqual(["GET /connect?channel=a", "GET /connect?lastEventId=e-1&channel=a"]);
    client.close();
  });

  test("whose storage throws starts without an id, and goes on", async () => {
    const script = new Script();
    const refuse = (): never => {
      throw new DOMException("The operation is insecure.", "SecurityError");
    };
    const storage = { getItem: refuse, setItem: refuse };
    const client = connect<EventMap>("http://server/connect", { fetch: script.fetch, storage });
    client.on("message", () => undefined);
    expect(client.lastEventId).toBe("");
    await script.until(1);
    script.ready([], "e-1", "s1");
    await until(() => client.lastEventId === "e-1");
    client.close();
  });
});

describe("gaps", () => {
  test(
    "that are announced and then repeated at their end are reported once, and events inside them come",
    withBroker(async (setup) => {
      const broker = setup.broker({ retry: 5, log: { retention: { events: 1 } } });
      const abort: AbortController[] = [];
      let isDown = false;
      const client = connect<EventMap>("http://server/connect", {
        channels: ["a", "b"],
        fetch: (url, init) => {
          if (isDown) return Promise.reject(new TypeError("down"));
          const own = new AbortController();
          abort.push(own);
          return broker.fetch(new Request(url, { ...init, signal: own.signal }));
        },
      });
      const log: unknown[] = [];
      client.on("message", ({ data }) => log.push(data));
      client.on("gap", ({ channels }) => log.push(channels));
      await until(() => client.lastEventId !== "");
      isDown = true;
      abort[0]?.abort();
      await until(() => client.state === "waiting");
      // As in the guide to the protocol: of "a" only the last one is retained, and "b" lies between those that are gone.
      const published = ["a", "a", "b", "a", "a", "a"].map((channels, n) => broker.broadcast(`${n + 1}`, { channels }));
      await Promise.all(published);
      await new Promise((resolve) => setTimeout(resolve, 20));
      isDown = false;
      await until(() => log.at(-1) === "6");
      expect(log).toEqual([["a"], "3", "6"]);
      client.close();
    }),
  );

  test("of a log that has lost its end: later events have smaller numbers, and come", async () => {
    const script = new Script();
    const { client, log } = open(script, ["a"]);
    await script.until(1);
    script.ready(["a"], "e-10", "s1");
    script.send("message", "11", "e-11");
    script.send("message", "11", "e-11");
    script.send("fanwire-gap", { channels: ["a"], after: null, through: "e-3" }, "e-3");
    script.send("message", "4", "e-4");
    await until(() => log.length === 3);
    expect([log, client.lastEventId]).toEqual([
      [11, [null, "e-3"], 4].map((each) => (typeof each === "number" ? `"${each}"` : each)),
      "e-4",
    ]);
    client.close();
  });
});

describe("changes of channels", () => {
  test("whose answer comes when the next stream has asked for the channels before are asked for again", async () => {
    const script = new Script();
    const { client } = open(script, ["a"]);
    await script.until(1);
    script.ready(["a"], "e-1", "s1");
    let answer: (response: Response) => void = () => undefined;
    script.post = () => new Promise((resolve) => void (answer = resolve));
    const subscribed = client.subscribe("b");
    await script.until(2);
    script.cut();
    await script.until(3);
    script.ready(["a"], "e-1", "s2");
    await until(() => client.state === "open");
    answer(Response.json({ position: "e-1" }));
    await script.until(4);
    script.ready(["a", "b"], "e-1", "s3");
    await subscribed;
    expect(script.requests.slice(2)).toEqual(["GET /connect?channel=a", "GET /connect?channel=a&channel=b"]);
    expect(client.channels).toEqual(["a", "b"]);
    client.close();
  });

  test("that the stream reports late do not undo what the page has decided since", async () => {
    const script = new Script();
    const { client } = open(script, ["a", "b"]);
    await script.until(1);
    script.ready(["a", "b"], "e-1", "s1");
    await client.unsubscribe("b");
    await client.subscribe("b");
    // Something else, from before both; then the first change. The second one is lost.
    script.send("fanwire-channels", { channels: ["a", "b", "c"], added: ["c"], removed: [] });
    script.send("fanwire-channels", { channels: ["a", "c"], added: [], removed: ["b"] });
    await until(() => client.channels.includes("c"));
    await new Promise((resolve) => setTimeout(resolve, 10));
    script.cut();
    await script.until(4);
    expect(script.requests.at(-1)).toBe("GET /connect?channel=a&channel=c&channel=b");
    // The application removes it, and says why.
    script.ready(["a", "c", "b"], "e-1", "s2");
    script.send("fanwire-channels", { channels: ["a", "c"], added: [], removed: ["b"], reason: "banned" });
    await until(() => !client.channels.includes("b"));
    script.cut();
    await script.until(5);
    expect(script.requests.at(-1)).toBe("GET /connect?channel=a&channel=c");
    client.close();
  });
});
