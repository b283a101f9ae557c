// What `connect()` and `publisher()` do with single answers: pauses, ids and texts of other servers, signals, and events that are sent once.
import { afterEach, describe, expect, test, vi } from "vitest";
import {
  type ConnectOptions,
  connect,
  type EventMap,
  publisher,
  type StandardSchema,
} from "../../../src/client/index.ts";

const URL = "http://server/connect";
const RETRY = 10;

/** Streams of a server that is not fanwire's. Each request waits for the test to answer it. */
class Plain {
  readonly requests: Request[] = [];
  readonly #answers: ((response: Response) => void)[] = [];
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  readonly fetch = (url: string, init: RequestInit): Promise<Response> => {
    this.requests.push(new Request(url, init));
    return new Promise((resolve, reject) => {
      this.#answers.push(resolve);
      init.signal?.addEventListener("abort", () => reject(init.signal?.reason));
    });
  };

  /** Answers the next request. */
  async answer(response: Response): Promise<void> {
    await until(() => this.#answers.length > 0);
    this.#answers.shift()?.(response);
  }

  /** Answers the next request with a stream. */
  stream(text: string): Promise<void> {
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (this.#controller = controller) });
    this.send(text);
    return this.answer(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  }

  send(text: string): void {
    this.#controller?.enqueue(new TextEncoder().encode(text));
  }

  cut(): void {
    this.#controller?.error(new TypeError("cut"));
  }
}

const until = (holds: () => boolean): Promise<unknown> => vi.waitUntil(holds, { timeout: 10_000, interval: 2 });

function open(options: ConnectOptions<EventMap> = {}) {
  const server = new Plain();
  const client = connect<EventMap>(URL, { ...options, fetch: server.fetch });
  const values: unknown[] = [];
  const errors: string[] = [];
  client.on("message", ({ value }) => values.push(value));
  client.on("error", ({ code }) => errors.push(code));
  return { server, client, values, errors };
}

afterEach(() => vi.restoreAllMocks());

describe("connect()", () => {
  test("an event ends a row of failures: the next pause is as short as the first one", async () => {
    const { server, client, values } = open();
    const pauses: number[] = [];
    client.on("state", ({ retryIn }) => retryIn !== undefined && pauses.push(retryIn));
    const random = vi.spyOn(Math, "random").mockReturnValue(0);
    await server.stream(`retry: ${RETRY}\n\n`);
    server.cut();
    for (let failure = 0; failure < 5; failure++) await server.answer(new Response(null, { status: 503 }));
    await server.stream("data: 1\n\n");
    await until(() => values.length === 1);
    random.mockReturnValue(0.99);
    const before = pauses.length;
    server.cut();
    await until(() => pauses.length > before);
    expect(pauses.at(-1)).toBeLessThan(1.25 * RETRY + 1);
    client.close();
  });

  test("signal: closes the client and lets go of its stream, also if it was aborted before", async () => {
    const abort = new AbortController();
    const { server, client, values } = open({ signal: abort.signal });
    await server.stream("data: 1\n\n");
    await until(() => values.length === 1);
    abort.abort();
    expect(client.state).toBe("closed");
    await until(() => server.requests[0]?.signal.aborted === true);
    const late = open({ signal: AbortSignal.abort() });
    await until(() => late.client.state === "closed");
    expect([server.requests.length, late.server.requests.length]).toEqual([1, 0]);
  });

  test("an id in any script goes back to the server as its bytes", async () => {
    const { server, client } = open();
    await server.stream(`retry: ${RETRY}\n\ndata: 1\nid: é 漢字 😀\n\n`);
    await until(() => client.lastEventId !== "");
    server.cut();
    await until(() => server.requests.length === 2);
    const sent = server.requests[1]?.headers.get("last-event-id") ?? "";
    const bytes = Uint8Array.from(sent, (character) => character.charCodeAt(0));
    expect(new TextDecoder().decode(bytes)).toBe("é 漢字 😀");
    client.close();
  });

  test("schemas: a text that is JSON fits a schema of texts; what fits in neither form is reported", async () => {
    const isText: StandardSchema<string> = {
      "~standard": {
        version: 1,
        vendor: "test",
        validate: (value) =>
          typeof value === "string" && value !== "wrong" ? { value } : { issues: [{ message: "it is no text" }] },
      },
    };
    const { server, client, values, errors } = open({ schemas: { message: isText } });
    await server.stream("data: 42\n\ndata: wrong\n\ndata: plain\n\n");
    await until(() => values.length === 2);
    expect([values, errors]).toEqual([["42", "plain"], ["bad-event-data"]]);
    client.close();
  });
});

describe("publisher()", () => {
  test("an ephemeral event has no key and is sent once; any other one is sent again with the same key", async () => {
    const requests: Request[] = [];
    let failures = 1;
    const events = publisher("http://server/broadcast", {
      fetch: async (url, init) => {
        requests.push(new Request(url, init));
        return failures-- > 0 ? new Response(null, { status: 503 }) : Response.json({ id: "e-1", clients: 0 });
      },
    });
    await expect(events.broadcast("1", { ephemeral: true })).rejects.toMatchObject({ status: 503 });
    expect(requests.map(({ headers }) => headers.get("idempotency-key"))).toEqual([null]);
    failures = 1;
    await events.broadcast("2");
    const [first, second] = requests.slice(1).map(({ headers }) => headers.get("idempotency-key"));
    expect([requests.length, first === second, first?.length]).toEqual([3, true, 32]);
  });
});
