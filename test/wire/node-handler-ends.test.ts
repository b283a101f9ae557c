// How streams of `nodeHandler` end, and what differs between HTTP/1.0, HTTP/1.1 and HTTP/2.
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server, createSecureServer } from "node:http2";
import { request } from "node:https";
import { type AddressInfo, connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { describe, expect, test, vi } from "vitest";
import { nodeHandler } from "../../src/node/index.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { certificate, key } from "../support/servers/certificate.ts";
import { listen, newBroker, until } from "../support/servers/node-server.ts";

describe("ends", () => {
  test("server.close() ends every stream with fanwire-end, and does not hang", async () => {
    const broker = newBroker();
    const { server, url } = await listen(nodeHandler(broker));
    const clients = [1, 2, 3].map((id) => new SocketClient(`${url}/connect?id=${id}`));
    await Promise.all(clients.map((client) => client.until(({ events }) => events.length > 0)));
    const closed = once(server, "close");
    server.close();
    await closed;
    for (const client of clients) {
      await client.untilEnded();
      expect(client.ended).toBe("complete");
      expect(JSON.parse(client.control("end")[0]?.data ?? "")).toMatchObject({ reason: "closing", reconnect: true });
    }
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 0, disconnects: { closing: 3 } });
    // The broker itself goes on: it may be mounted on another server.
    expect((await broker.broadcast("on")).clients).toBe(0);
  });

  test("a server whose streams have ended is no longer looked at", async () => {
    const timers = new Set<unknown>();
    const { setInterval, clearInterval } = globalThis;
    vi.stubGlobal("setInterval", (...all: Parameters<typeof setInterval>) => {
      const timer = setInterval(...all);
      timers.add(timer);
      return timer;
    });
    vi.stubGlobal("clearInterval", (timer: NodeJS.Timeout) => {
      timers.delete(timer);
      clearInterval(timer);
    });
    const broker = newBroker();
    try {
      const { url } = await listen(nodeHandler(broker));
      const before = timers.size;
      const clients = [1, 2].map((id) => new SocketClient(`${url}/connect?id=${id}`));
      await Promise.all(clients.map((client) => client.untilReady()));
      expect(timers.size).toBeGreaterThan(before);
      for (const client of clients) client.leave();
      await until(() => timers.size === before);
    } finally {
      vi.unstubAllGlobals();
      await broker.close();
    }
  });

  test("broker.close() ends every stream, and server.close() has nothing to wait for", async () => {
    const broker = newBroker();
    const { server, url } = await listen(nodeHandler(broker));
    const client = await new SocketClient(`${url}/connect`).until(({ events }) => events.length > 0);
    await broker.close();
    await client.untilEnded();
    expect([client.ended, client.control("end").length]).toEqual(["complete", 1]);
    const closed = once(server, "close");
    server.close();
    await closed;
    expect(await fetch(url).catch(() => "refused")).toBe("refused");
  });

  test("an end event that fills the response's buffer arrives, and the response ends behind it", async () => {
    const broker = newBroker();
    const handle = nodeHandler(broker);
    const { url } = await listen((request, response) => {
      const { write } = response;
      // A middleware that takes each chunk, and asks for a pause after it.
      const pausing = (chunk: Uint8Array): boolean => {
        write.call(response, chunk, "utf8");
        setTimeout(() => response.emit("drain"), 5);
        return false;
      };
      handle(request, Object.assign(response, { write: pausing }));
    });
    const client = await new SocketClient(`${url}/connect?id=one`).until(({ events }) => events.length > 0);
    await broker.broadcast("hello");
    await client.until(({ data }) => data.includes("hello"));
    await broker.disconnect("one");
    await client.untilEnded();
    expect([client.ended, client.control("end").length]).toEqual(["complete", 1]);
  });

  test("a client that does not read is evicted, and its socket is closed", async () => {
    const broker = newBroker({ timeout: 200, tolerance: 1 });
    const { server, url } = await listen(nodeHandler(broker));
    const client = await new SocketClient(`${url}/connect?id=slow`).until(({ events }) => events.length > 0);
    client.pause();
    for (let n = 0; n < 600; n++) await broker.broadcast(`${n} ${"x".repeat(20_000)}`);
    await until(() => broker.stats().clients === 0);
    expect(broker.stats().disconnects).toEqual({ timeout: 1 });
    const open = (): Promise<number> => new Promise((resolve) => server.getConnections((_, count) => resolve(count)));
    await until(async () => (await open()) === 0);
    client.resume();
    await client.untilEnded();
    // The client sees a cut, and not an end that it could take for a complete response.
    expect(client.ended).not.toBe("complete");
    expect(client.data.map((data) => Number.parseInt(data, 10))).toEqual(client.data.map((_, n) => n));
    const back = new SocketClient(`${url}/connect?id=slow`, { "last-event-id": client.lastEventId ?? "" });
    const missing = 600 - client.data.length;
    await back.until(({ data }) => data.length === missing);
    expect(Number.parseInt(back.data[0] ?? "", 10)).toBe(client.data.length);
    back.leave();
  });

  test.each(["leave", "reset"] as const)(
    "a client that goes while `authorize` still decides (%s) takes no place",
    async (how) => {
      let decide = (): void => undefined;
      const broker = newBroker({ authorize: () => new Promise<boolean>((resolve) => (decide = () => resolve(true))) });
      const { url } = await listen(nodeHandler(broker));
      const client = new SocketClient(`${url}/connect`);
      await until(() => broker.stats().pending === 1);
      client[how]();
      await until(() => broker.stats().pending === 0);
      decide();
      expect(broker.stats()).toMatchObject({ clients: 0, failures: { "client-left": 1 } });
    },
  );
});

describe("other versions of HTTP", () => {
  /** Sends a request, and returns the socket and everything that it reads. */
  function send(url: string, head: string): { socket: Socket; read: () => string } {
    let all = "";
    const socket = connect(Number(new URL(url).port), "127.0.0.1").on("data", (data) => (all += data));
    socket.on("error", () => undefined).write(head);
    return { socket, read: () => all };
  }

  test("HTTP/1.0: no chunks, and the end of the socket is the end of the stream", async () => {
    const broker = newBroker();
    const { url } = await listen(nodeHandler(broker));
    const { socket, read } = send(url, "GET /connect HTTP/1.0\r\n\r\n");
    await until(() => read().includes("fanwire-ready"));
    await broker.broadcast("hello");
    await until(() => read().includes("hello"));
    expect(read()).not.toMatch(/transfer-encoding/i);
    expect(read().split("\r\n\r\n")[1]).toMatch(
      /^retry: [^\r]*\nevent: fanwire-ready\n[^\r]*\ndata: hello\nid: [^\r]*\n\n$/,
    );
    const ended = once(socket, "end");
    await broker.close();
    await ended;
    expect(read()).toContain("event: fanwire-end");
  });

  test("TLS: streams and publishes, on HTTP/1.1 and HTTP/2 of one server; request.url begins with https", async () => {
    const urls: string[] = [];
    const broker = newBroker({
      authorize: ({ request, action }) => {
        urls.push(request.url);
        return action === "connect";
      },
    });
    const options = { cert: certificate, key, allowHTTP1: true };
    const server = createSecureServer(options, nodeHandler(broker)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const session = connectHttp2(`https://localhost:${port}`, { ca: certificate });
    try {
      let read = "";
      session
        .request({ ":path": "/connect?id=two" })
        .setEncoding("utf8")
        .on("data", (data) => (read += data));
      const get = request({ host: "127.0.0.1", port, path: "/connect?id=one", ca: certificate, agent: false }).end();
      const [response] = (await once(get, "response")) as [IncomingMessage];
      let readOne = "";
      response.setEncoding("utf8").on("data", (data) => (readOne += data));
      await until(() => read.includes("fanwire-ready") && readOne.includes("fanwire-ready"));
      await broker.broadcast("over TLS");
      await until(() => read.includes("data: over TLS") && readOne.includes("data: over TLS"));
      expect(urls.sort()).toEqual([
        `https://127.0.0.1:${port}/connect?id=one`,
        `https://localhost:${port}/connect?id=two`,
      ]);
      get.destroy();
      await until(() => broker.stats().clients === 1);
      await broker.close();
    } finally {
      session.destroy();
      server.close();
    }
  });

  test("a request without a Host, and one with a Host that makes no URL", async () => {
    const broker = newBroker();
    const { url } = await listen(nodeHandler(broker));
    const { read } = send(url, "GET /connect HTTP/1.0\r\nHost: a b\r\n\r\n");
    await until(() => /^HTTP\/1\.1 \d+/.test(read()));
    expect(read()).toMatch(/^HTTP\/1\.1 400 /);
    expect(broker.stats().clients).toBe(0);
  });

  test("HTTP/2: 40 streams on one connection receive every event, and one that is reset leaves", async () => {
    const broker = newBroker();
    const handle = nodeHandler(broker);
    const server = createHttp2Server((request, response) => handle(request, response)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    try {
      const streams = Array.from({ length: 40 }, (_, n) => {
        const request = session.request({ ":path": `/connect?id=${n}` }).setEncoding("utf8");
        const stream = { request, read: "" };
        request.on("data", (data) => (stream.read += data)).on("error", () => undefined);
        return stream;
      });
      await until(() => streams.every(({ read }) => read.includes("fanwire-ready")));
      const head = { ":method": "POST", ":path": "/broadcast", authorization: "Bearer secret" };
      // With a length the body is read at once, and not as a stream.
      for (const length of [undefined, "5"]) {
        const post = session.request(length === undefined ? head : { ...head, "content-length": length });
        post.setEncoding("utf8").end("hello");
        expect(JSON.parse(await text(post))).toMatchObject({ clients: 40 });
      }
      await until(() => streams.every(({ read }) => read.match(/^data: hello\n/gm)?.length === 2));
      streams[0]?.request.close(8);
      await until(() => broker.stats().clients === 39);
      await broker.close();
      await until(() => streams.slice(1).every(({ read }) => read.includes("fanwire-end")));
    } finally {
      session.destroy();
      server.close();
    }
  });

  test("HTTP/2: a body that breaks off is the end of its request, and publishes nothing", async () => {
    let isAsked = false;
    const broker = newBroker({ authorize: () => (isAsked = true) });
    const handle = nodeHandler(broker);
    const server = createHttp2Server((request, response) => handle(request, response)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    try {
      const post = session.request({ ":method": "POST", ":path": "/broadcast" });
      post.on("error", () => undefined).write("half an ev");
      await until(() => isAsked);
      // `post.close()` would end the body before it resets the stream.
      session.destroy();
      await until(() => broker.stats().failures["client-left"] === 1);
      expect(broker.stats().published).toBe(0);
    } finally {
      session.destroy();
      server.close();
    }
  });

  test("HTTP/2: fields of a connection are left out, and nothing warns of them", async () => {
    const warnings: string[] = [];
    const onWarning = ({ message }: Error): void => void warnings.push(message);
    process.on("warning", onWarning);
    const headers = { connection: "keep-alive", "keep-alive": "timeout=5", "x-own": "yes" };
    const handle = nodeHandler(() => new Response("x", { headers }));
    const server = createHttp2Server((request, response) => handle(request, response)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    try {
      const request = session.request({ ":path": "/" });
      const [fields] = (await once(request, "response")) as [Record<string, string>];
      expect([fields[":status"], fields["x-own"], fields.connection]).toEqual([200, "yes", undefined]);
      // A warning is emitted in a later turn.
      await new Promise((resolve) => setImmediate(resolve));
      expect(warnings).toEqual([]);
    } finally {
      process.off("warning", onWarning);
      session.destroy();
      server.close();
    }
  });

  test("HTTP/2: a stream that does not read is evicted, and the others on its connection go on", async () => {
    const broker = newBroker({ timeout: 200, tolerance: 1 });
    const handle = nodeHandler(broker);
    const server = createHttp2Server((request, response) => handle(request, response)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    try {
      const slow = session.request({ ":path": "/connect?id=slow" }).on("error", () => undefined);
      const fine = session.request({ ":path": "/connect?id=fine" }).setEncoding("utf8");
      let read = "";
      fine.on("data", (data) => (read += data));
      await until(() => broker.stats().clients === 2);
      for (let n = 0; n < 60; n++) await broker.broadcast(`${n} ${"x".repeat(5_000)}`);
      await until(() => broker.stats().clients === 1);
      expect(broker.stats().disconnects).toEqual({ timeout: 1 });
      await broker.broadcast("after");
      await until(() => read.includes("data: after"));
      slow.destroy();
    } finally {
      session.destroy();
      server.close();
    }
  });
});
