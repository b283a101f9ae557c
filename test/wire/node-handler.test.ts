// `nodeHandler` behind what frameworks do before it: mounts, body parsers, and middlewares that wrap the response.
import { once } from "node:events";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { createGzip } from "node:zlib";
import { describe, expect, test } from "vitest";
import { type NodeHandler, nodeHandler } from "../../src/node/index.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { listen, newBroker, publish, until } from "../support/servers/node-server.ts";

/** A framework that removes the path of a mount from `url`, as Express and Connect do. */
const mount =
  (prefix: string, handle: NodeHandler): RequestListener =>
  (request, response) => {
    const original = request.url as string;
    const parsed = Object.assign(request, { originalUrl: original });
    if (original.startsWith(`${prefix}/`)) parsed.url = original.slice(prefix.length);
    handle(parsed, response, (error) =>
      response.writeHead(error ? 500 : 404).end(error ? String(error) : "the app's own"),
    );
  };

describe("paths", () => {
  test.each([
    ["/events", {}],
    ["/events", { connect: "/events/connect", broadcast: "/events/broadcast" }],
  ])(
    "below the mount %s, with the broker's paths %o: serves both, and passes on everything else",
    async (prefix, paths) => {
      const urls: string[] = [];
      const broker = newBroker({
        paths,
        authorize: ({ request, action }) => {
          urls.push(new URL(request.url).pathname);
          return action === "connect";
        },
      });
      const { url } = await listen(mount(prefix, nodeHandler(broker)));
      const client = await new SocketClient(`${url}${prefix}/connect?channel=a`).until(
        ({ events }) => events.length > 0,
      );
      expect((await publish(`${url}${prefix}/broadcast?channel=a`, "hello")).status).toBe(200);
      await client.until(({ data }) => data.includes("hello"));
      expect(urls).toEqual([`${"connect" in paths ? prefix : ""}/connect`]);
      for (const path of ["/", "/other", `${prefix}/other`, `${prefix}/connect/more`])
        expect(await (await fetch(url + path)).text()).toBe("the app's own");
      expect(broker.stats().failures).toEqual({});
      client.leave();
    },
  );

  test("without `next`, what is not the broker's is 404", async () => {
    const { url } = await listen(nodeHandler(newBroker()));
    const response = await fetch(`${url}/other`);
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([404, "not-found"]);
    expect(response.headers.get("content-length")).not.toBeNull();
  });

  test("a function answers at any path, with overrides of its own", async () => {
    const broker = newBroker();
    const { url } = await listen(nodeHandler((request) => broker.clientHandler(request, { channels: ["room"] })));
    const client = await new SocketClient(`${url}/any/path`).until(({ events }) => events.length > 0);
    await broker.broadcast("to the room", { channels: "room" });
    await client.until(({ data }) => data.includes("to the room"));
    client.leave();
    await until(() => broker.stats().clients === 0);
  });

  test("a function that throws: `next` receives the error, and without it the client receives 500 and `onError` the error", async () => {
    const failure = new Error("the application failed");
    const fails = (): never => {
      throw failure;
    };
    const passed = await listen(mount("/x", nodeHandler(fails)));
    expect(await (await fetch(`${passed.url}/x/y`)).text()).toBe(String(failure));
    const errors: unknown[] = [];
    const { url } = await listen(nodeHandler(fails, { onError: ({ error }) => errors.push(error) }));
    const response = await fetch(url);
    expect([response.status, await response.text(), errors]).toEqual([500, "", [failure]]);
  });

  test.each([[undefined], [null], [{}], ["broker"], [{ fetch: () => new Response() }]])(
    "refuses %o as a broker",
    (value) => {
      expect(() => nodeHandler(value as never)).toThrow(/^nodeHandler\(\) refused: it needs a broker/);
    },
  );

  test("refuses an unknown option", () => {
    expect(() => nodeHandler(newBroker(), { path: "/x" } as never)).toThrow(/nodeHandler\(\).*path/);
  });
});

describe("bodies", () => {
  const parsers: Readonly<Record<string, (request: IncomingMessage) => Promise<unknown>>> = {
    JSON: async (request) => JSON.parse(await text(request)),
    text: (request) => text(request),
    bytes: async (request) => Buffer.from(await text(request)),
    "a form": async (request) => Object.fromEntries(new URLSearchParams(await text(request))),
  };
  /** Runs a parser first, as `app.use(express.json())` does. */
  const parsing =
    (parse: (request: IncomingMessage) => Promise<unknown>, handle: NodeHandler): RequestListener =>
    async (request, response) => {
      const body = request.method === "POST" ? await parse(request) : undefined;
      handle(Object.assign(request, body === undefined ? {} : { body }), response);
    };

  test.each([
    ["JSON", "application/json", '{"a":1}', '{"a":1}'],
    ["JSON", "application/json; charset=utf-8", '[1, "ü"]', '[1,"ü"]'],
    ["text", "text/plain", "häl\nlo", "häl\nlo"],
    ["bytes", "application/octet-stream", "häl", "häl"],
    ["a form", "application/x-www-form-urlencoded", "a=1&b=x+y", "a=1&b=x+y"],
  ])("a parser for %s has read the body before (%s %s)", async (name, type, body, data) => {
    const broker = newBroker();
    const { url } = await listen(parsing(parsers[name] as never, nodeHandler(broker)));
    const client = await new SocketClient(`${url}/connect`).until(({ events }) => events.length > 0);
    const response = await publish(`${url}/broadcast`, body, { "content-type": type });
    expect(await response.json()).toMatchObject({ clients: 1 });
    await client.until(({ data }) => data.length > 0);
    expect(client.data).toEqual([data]);
    client.leave();
  });

  test("a parser that decompressed the body leaves plain text", async () => {
    const broker = newBroker();
    const unzip = async (request: IncomingMessage): Promise<unknown> => {
      for await (const _ of request);
      return { unzipped: true };
    };
    const { url } = await listen(parsing(unzip, nodeHandler(broker)));
    const headers = { "content-type": "application/json", "content-encoding": "gzip" };
    expect((await publish(`${url}/broadcast`, "zipped", headers)).status).toBe(200);
  });

  test("somebody has read the body and left nothing: 500 body-already-read, which is reported", async () => {
    const errors: unknown[] = [];
    const broker = newBroker({ onError: ({ error }) => errors.push(error) });
    const drain = async (request: IncomingMessage): Promise<undefined> => {
      for await (const _ of request);
    };
    const { url } = await listen(parsing(drain, nodeHandler(broker)));
    for (const body of ["sized", new Blob(["chunked"]).stream()]) {
      const init = { method: "POST", body, duplex: "half", headers: { authorization: "Bearer secret" } };
      const response = await fetch(`${url}/broadcast`, init as RequestInit);
      expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([500, "body-already-read"]);
    }
    expect(errors).toHaveLength(2);
  });

  test("a body in chunks that is larger than `maxBodyBytes`: 413, and the process goes on", async () => {
    const broker = newBroker({ maxBodyBytes: 1_000 });
    const { url } = await listen(nodeHandler(broker));
    for (const size of [1_000, 1_001, 500_000]) {
      const init = { method: "POST", body: new Blob(["x".repeat(size)]).stream(), duplex: "half" };
      const response = await fetch(`${url}/broadcast`, {
        ...init,
        headers: { authorization: "Bearer secret" },
      } as RequestInit);
      expect(response.status).toBe(size > 1_000 ? 413 : 200);
    }
    expect((await publish(`${url}/broadcast`, "small")).status).toBe(200);
  });

  test("every member of a Request can be read in `authorize`", async () => {
    let seen: unknown;
    const broker = newBroker({
      authorize: async ({ request }) => {
        const copy = request.clone();
        const { method, mode, redirect, bodyUsed } = request;
        const header = request.headers.get("x-test");
        const isRequest = request instanceof Request && copy instanceof Request;
        seen = { method, mode, redirect, bodyUsed, header, isRequest, copied: copy.headers.get("x-test") };
        return true;
      },
    });
    const { url } = await listen(nodeHandler(broker));
    const response = await fetch(`${url}/broadcast`, {
      method: "POST",
      body: "data",
      headers: { "x-test": "1" },
    });
    expect(response.status).toBe(200);
    expect(seen).toEqual({
      ...{
        method: "POST",
        mode: "cors",
        redirect: "follow",
        bodyUsed: false,
        header: "1",
        isRequest: true,
        copied: "1",
      },
    });
  });
});

describe("requests", () => {
  test("a client that goes aborts the signal of its request, also if that is asked for afterwards", async () => {
    const seen: string[] = [];
    const { url } = await listen(
      nodeHandler(async (request, { outgoing }) => {
        const isLate = request.url.endsWith("late");
        const signal = isLate ? undefined : request.signal;
        signal?.addEventListener("abort", () => seen.push("told"));
        seen.push("asked");
        await new Promise<void>((resolve) => outgoing.once("close", () => resolve()));
        if (isLate && request.signal.aborted) seen.push("late");
        return new Response(null, { status: 204 });
      }),
    );
    for (const [path, word] of [
      ["/early", "told"],
      ["/late", "late"],
    ] as const) {
      const before = seen.length;
      const client = new SocketClient(url + path);
      await until(() => seen.length > before);
      client.leave();
      await until(() => seen.includes(word));
    }
  });

  test("arrayBuffer() has the bytes of its body and no others, however the body came", async () => {
    const lengths = async (request: Request): Promise<Response> => {
      const body = await request.arrayBuffer();
      return Response.json([body.byteLength, new TextDecoder().decode(body)]);
    };
    const plain = await listen(nodeHandler(lengths));
    // Bytes of a parser, which lie in a buffer of others.
    const parse = async (request: IncomingMessage): Promise<Buffer> => Buffer.from(await text(request));
    const parsed = await listen(async (request, response) => {
      nodeHandler(lengths)(Object.assign(request, { body: await parse(request) }), response);
    });
    for (const { url } of [plain, parsed]) {
      const response = await fetch(url, { method: "POST", body: "five!" });
      expect(await response.json()).toEqual([5, "five!"]);
    }
    const handle = nodeHandler(lengths);
    const server = createHttp2Server((request, response) => handle(request, response)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    try {
      const post = session.request({ ":method": "POST", ":path": "/" });
      post.end("five!");
      expect(JSON.parse(await text(post))).toEqual([5, "five!"]);
    } finally {
      session.destroy();
      server.close();
    }
  });
});

describe("responses of a function", () => {
  test("its cookies are set beside those of a middleware", async () => {
    const { url } = await listen((request, response) => {
      response.setHeader("set-cookie", "session=1");
      const headers = [
        ["set-cookie", "a=1"],
        ["set-cookie", "b=2"],
      ] as [string, string][];
      nodeHandler(() => new Response("x", { headers }))(request, response);
    });
    expect((await fetch(url)).headers.getSetCookie()).toEqual(["session=1", "a=1", "b=2"]);
  });

  test("its body is read at the pace of the client", async () => {
    let isFull = false;
    const pulledWhile: boolean[] = [];
    const part = new Uint8Array(100_000);
    const body = (): ReadableStream<Uint8Array> =>
      new ReadableStream(
        {
          pull(controller) {
            pulledWhile.push(isFull);
            if (pulledWhile.length > 300) controller.close();
            else controller.enqueue(part);
          },
        },
        { highWaterMark: 0 },
      );
    const { url } = await listen((request, response) => {
      const { write } = response;
      const watched = (...all: unknown[]): boolean => {
        isFull = !Reflect.apply(write, response, all);
        return !isFull;
      };
      response.prependListener("drain", () => (isFull = false));
      nodeHandler(() => new Response(body()))(request, Object.assign(response, { write: watched }));
    });
    const client = new SocketClient(url);
    await client.untilEnded();
    expect([client.receivedBytes, pulledWhile.includes(true)]).toEqual([300 * part.length, false]);
  });

  test("one that fails when the head is sent: the client is cut, `onError` is told, and `next` is not called", async () => {
    const errors: unknown[] = [];
    let passedOn = 0;
    const failure = new Error("too late for another answer");
    const handle = nodeHandler(
      (_, { outgoing }) => {
        outgoing.flushHeaders?.();
        throw failure;
      },
      { onError: ({ error }) => errors.push(error) },
    );
    const { url } = await listen((request, response) => handle(request, response, () => passedOn++));
    const client = await new SocketClient(url).untilEnded();
    expect([client.ended, errors, passedOn]).toEqual(["closed", [failure], 0]);
  });
});

describe("middlewares before it", () => {
  test("fields that a middleware has set stay, and Vary is joined", async () => {
    const broker = newBroker({ cors: { origins: ["https://app.example"] } });
    const handle = nodeHandler(broker);
    const { url } = await listen((request, response) => {
      response.setHeader("X-Powered-By", "a framework");
      response.setHeader("Vary", "Accept-Encoding");
      handle(request, response);
    });
    const client = await new SocketClient(`${url}/connect`, { origin: "https://app.example" }).until(
      ({ events }) => events.length > 0,
    );
    expect(client.headers).toMatchObject({
      "x-powered-by": "a framework",
      vary: "Accept-Encoding, Origin",
      "access-control-allow-origin": "https://app.example",
      "content-type": "text/event-stream; charset=utf-8",
      connection: "close",
    });
    client.leave();
  });

  test("a middleware that compresses the response sends each event at once, if it offers `flush`", async () => {
    const broker = newBroker();
    const handle = nodeHandler(broker);
    const { url } = await listen((request, response) => {
      compress(response);
      handle(request, response);
    });
    const { body, headers } = await fetch(`${url}/connect`, { headers: { "accept-encoding": "gzip" } });
    expect(headers.get("content-encoding")).toBe("gzip");
    const reader = (body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream() as never).getReader();
    let read = "";
    const readUntil = async (part: string): Promise<void> => {
      while (!read.includes(part)) read += (await reader.read()).value;
    };
    await readUntil("fanwire-ready");
    for (const data of ["one", "two"]) {
      await broker.broadcast(data);
      await readUntil(data);
    }
    await reader.cancel();
    await until(() => broker.stats().clients === 0);
  });
});

/** What the package `compression` does to a response: it takes the place of `write`, `end` and `on`, and adds `flush`. */
function compress(response: ServerResponse): void {
  const gzip = createGzip();
  const { write, end } = response;
  response.setHeader("content-encoding", "gzip");
  gzip.on("data", (chunk) => write.call(response, chunk, "utf8"));
  gzip.on("end", () => Reflect.apply(end, response, []));
  Object.assign(response, {
    write: (chunk: Uint8Array) => gzip.write(chunk),
    end: (chunk?: Uint8Array) => gzip.end(chunk),
    flush: () => gzip.flush(2),
  });
}
