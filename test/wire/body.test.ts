// The body of a published event over sockets: limits, lengths that do not match, bodies that break off, and encodings.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { exchange, RawHttpClient } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem } from "../support/http/problem.ts";
import {
  type BrokerState,
  isHub,
  platformsWithWrangler,
  type Server,
  startServer,
  type TestBroker,
  usesWorkerd,
  usesWrangler,
} from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";

const LIMIT = 65_536;
const PUBLISHER = { authorization: "Bearer secret" };
const CHUNKED = { ...PUBLISHER, "transfer-encoding": "chunked" };

/** A body of 64 KiB pieces, without a length. */
function streamed(text: string): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= text.length) controller.close();
      else controller.enqueue(new TextEncoder().encode(text.slice(at, (at += LIMIT))));
    },
  });
}

describe.each(platformsWithWrangler)("the body of an event on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  /** Sends the head of an event. The test sends the body. */
  const begin = (broker: TestBroker, headers: Record<string, string>): RawHttpClient =>
    new RawHttpClient(server.url).send(broker.path("broadcast"), { method: "POST", headers });

  /** Checks that the connection answers the next request. */
  async function expectUsable(broker: TestBroker, client: RawHttpClient): Promise<void> {
    const asked = { method: "POST", body: "next", headers: PUBLISHER };
    expect((await client.send(broker.path("broadcast"), asked).response()).status).toBe(200);
    await client.close();
  }

  test("maxBodyBytes: accepts exactly that many bytes, with and without a length; one more is 413 and the connection stays usable", async () => {
    const broker = await server.createBroker();
    const reader = await new SocketClient(server.url + broker.path("connect")).untilReady();
    for (const [size, status] of [
      [LIMIT, 200],
      [LIMIT + 1, 413],
    ] as const) {
      const text = "x".repeat(size);
      const sized = begin(broker, { ...PUBLISHER, "content-length": String(size) }).write(text);
      const whole = begin(broker, CHUNKED).chunk(text).chunk();
      const pieces = begin(broker, CHUNKED);
      for (let at = 0; at < size; at += 1_000) pieces.chunk(text.slice(at, at + 1_000));
      pieces.chunk();
      for (const client of [sized, whole, pieces]) {
        const answer = await client.response();
        if (status === 200) expect(answer.status).toBe(200);
        else expectProblem(answer, 413, "body-too-large");
        await expectUsable(broker, client);
      }
    }
    await broker.publish("last");
    await reader.until(({ data }) => data.includes("last"));
    const large = reader.data.filter((data) => data !== "next" && data !== "last");
    expect(large.map(({ length }) => length)).toEqual([LIMIT, LIMIT, LIMIT]);
    reader.leave();
  });

  test("maxBodyBytes: counts bytes, not characters", async () => {
    const broker = await server.createBroker({ maxBodyBytes: 100 });
    const post = (body: string) =>
      exchange(server.url, broker.path("broadcast"), { method: "POST", body, headers: PUBLISHER });
    expect((await post("€".repeat(33))).status).toBe(200);
    expectProblem(await post("€".repeat(34)), 413, "body-too-large");
  });

  test("maxBodyBytes: ends a body that never ends, whether its sender waits or goes on sending", async () => {
    const broker = await server.createBroker();
    const waits = begin(broker, CHUNKED).chunk("x".repeat(LIMIT)).chunk("x");
    expectProblem(await waits.response(), 413, "body-too-large");
    await waits.close("RST");

    const goesOn = begin(broker, CHUNKED);
    let sent = 0;
    const send = (): void => {
      if (goesOn.closed || goesOn.socket.destroyed) return;
      goesOn.chunk("x".repeat(8_192));
      sent += 8_192;
      goesOn.socket.write("", () => setImmediate(send));
    };
    send();
    // workerd closes at once, so a sender that still writes may not be able to read the response.
    if (usesWorkerd(platform)) await goesOn.untilClosed();
    else expectProblem(await goesOn.response(), 413, "body-too-large");
    expect(sent).toBeGreaterThan(LIMIT);
    await goesOn.close("RST");
    const { stats } = await broker.untilState(({ stats: now }) => now.failures["body-too-large"] === 2);
    expect(stats.published).toBe(0);
    expect((await broker.publish("x")).status).toBe(200);
  });

  test("bodyTimeout: a body that never ends is 408, with and without a length, and the connection is closed, but on Deno", async () => {
    const broker = await server.createBroker({ bodyTimeout: 300 });
    const waiting = [
      begin(broker, CHUNKED),
      begin(broker, CHUNKED).chunk("x"),
      begin(broker, { ...PUBLISHER, "content-length": "100" }),
      begin(broker, { ...PUBLISHER, "content-length": "100" }).write("x"),
    ];
    for (const client of waiting) expectProblem(await client.response(), 408, "body-timeout");
    for (const client of waiting) {
      // Deno drops what comes, but keeps the connection until the body has ended (Deno 2.9).
      if (!platform.startsWith("deno")) await client.untilClosed();
      else expect(client.closed).toBe(false);
      await client.close("RST");
    }
    expect((await broker.publish("x")).status).toBe(200);
    expect((await broker.state()).stats).toMatchObject({ published: 1, failures: { "body-timeout": 4 } });
  });

  const noHead = skipIf(usesWorkerd(platform), "workerd resets the connection of a request whose body was not read");
  test("maxBodyBytes: a content-length over the limit is refused before any of the body has come", noHead, async () => {
    const broker = await server.createBroker();
    const client = begin(broker, { ...PUBLISHER, "content-length": String(20 * LIMIT) });
    expectProblem(await client.response(), 413, "body-too-large");
    await client.close("RST");
    expect((await broker.publish("x")).status).toBe(200);
    expect((await broker.state()).stats.published).toBe(1);
  });

  const noRest = skipIf(usesWorkerd(platform), "workerd closes the connection of a publisher that is still sending");
  test("maxBodyBytes: a publisher that sends all of a far too large body first reads its 413", noRest, async () => {
    const broker = await server.createBroker();
    const body = "x".repeat(64 * LIMIT);
    const sized = { method: "POST", headers: { ...PUBLISHER, "content-length": String(body.length) }, body };
    for (const init of [sized, { method: "POST", headers: PUBLISHER, body: streamed(body), duplex: "half" }]) {
      const answer = await fetch(server.url + broker.path("broadcast"), init as RequestInit);
      expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([413, "body-too-large"]);
    }
    expect((await broker.publish("x")).status).toBe(200);
  });

  test("content-length: with a length that is too small, only that many bytes are the event", async () => {
    const broker = await server.createBroker();
    const reader = await new SocketClient(server.url + broker.path("connect")).untilReady();
    const client = begin(broker, { ...PUBLISHER, "content-length": "5" });
    client.write(`hello${"x".repeat(2 * LIMIT)}\r\n\r\n`);
    await reader.until(({ data }) => data.length === 1);
    // The rest is not HTTP, so the server closes the connection.
    await client.untilClosed();
    await broker.publish("next");
    await reader.until(({ data }) => data.includes("next"));
    expect(reader.data).toEqual(["hello", "next"]);
    await client.close();
    reader.leave();
  });

  test("broadcast: a body that breaks off publishes nothing, and is not reported as an internal error", async () => {
    const broker = await server.createBroker();
    const broken = ["FIN", "RST", "FIN", "RST"] as const;
    for (const [index, how] of broken.entries()) {
      const sized = { ...PUBLISHER, "content-length": "20" };
      const client = index < 2 ? begin(broker, CHUNKED).chunk("half an ev") : begin(broker, sized).write("half an ev");
      // Waits until the server has the request, because otherwise the application may never see it.
      await broker.untilState(({ requests }) => requests === index + 1);
      await client.close(how);
    }
    // A Worker may be ended together with its request, and then cannot count it.
    const counted = ({ stats }: BrokerState): boolean => isHub(platform) || stats.failures["client-left"] === 4;
    const { stats, errors } = await broker.untilState(counted);
    expect([stats.published, errors]).toEqual([0, []]);
    expect(Object.keys(stats.failures).filter((code) => code !== "client-left")).toEqual([]);
    expect((await broker.publish("x")).status).toBe(200);
    expect((await broker.state()).stats.published).toBe(1);
  });

  test("broadcast: text arrives unchanged, with split characters and line ends, and nothing that is not UTF-8 is published", async () => {
    const broker = await server.createBroker();
    const reader = await new SocketClient(server.url + broker.path("connect")).untilReady();
    const client = begin(broker, CHUNKED);
    client.socket.write(Buffer.from("3\r\na\xe2\x82\r\n", "latin1"));
    await broker.publish("in between");
    client.socket.write(Buffer.from("2\r\n\xacb\r\n0\r\n\r\n", "latin1"));
    expect((await client.response()).status).toBe(200);
    await client.close();
    for (const bytes of ["a\xff", "\x1f\x8b\b\0", "a\xe2\x82"]) {
      const sized = begin(broker, { ...PUBLISHER, "content-length": String(bytes.length) });
      sized.socket.write(Buffer.from(bytes, "latin1"));
      const chunked = begin(broker, CHUNKED);
      chunked.socket.write(Buffer.from(`${bytes.length}\r\n${bytes}\r\n0\r\n\r\n`, "latin1"));
      for (const invalid of [sized, chunked]) {
        expectProblem(await invalid.response(), 400, "bad-request");
        await expectUsable(broker, invalid);
      }
    }
    await broker.publish("a\r\nb\rc\nd\n");
    await reader.until(({ data }) => data.length === 9);
    expect(reader.data.filter((data) => data !== "next")).toEqual(["in between", "a€b", "a\nb\nc\nd\n"]);
    reader.leave();
  });

  test("broadcast: byte order marks at the start are removed however the body is sent; later ones are kept", async () => {
    const broker = await server.createBroker();
    const reader = await new SocketClient(server.url + broker.path("connect")).untilReady();
    for (const text of ["\u{feff}one", "\u{feff}\u{feff}two\u{feff}"]) {
      await broker.publish(text);
      const client = begin(broker, CHUNKED).chunk(text).chunk();
      expect((await client.response()).status).toBe(200);
      await client.close();
    }
    await reader.until(({ data }) => data.length === 4);
    expect(reader.data).toEqual(["one", "one", "two\u{feff}", "two\u{feff}"]);
    expect((await broker.publish("\u{feff}")).status).toBe(400);
    reader.leave();
  });

  test("broadcast: a small content-length does not get a larger chunked body past maxBodyBytes", async () => {
    const broker = await server.createBroker({ maxBodyBytes: 100 });
    const reader = await new SocketClient(server.url + broker.path("connect")).untilReady();
    const client = begin(broker, { ...CHUNKED, "content-length": "5" });
    for (let sent = 0; sent < 50; sent++) client.chunk("x".repeat(100));
    // Some servers refuse a request that has both, as RFC 9112, section 6.1 allows.
    expect([400, 413]).toContain((await client.response()).status);
    await client.close();
    await broker.publish("next");
    await reader.until(({ data }) => data.length === 1);
    expect(reader.data).toEqual(["next"]);
    reader.leave();
  });

  const noExpect = skipIf(usesWrangler(platform), "wrangler's proxy waits for the body that the client holds back");
  test("Expect: 100-continue is answered with the final status", noExpect, async () => {
    const broker = await server.createBroker();
    const client = begin(broker, { ...PUBLISHER, "content-length": "5", expect: "100-continue" });
    client.write("hello");
    expect((await client.response()).status).toBe(200);
    await expectUsable(broker, client);
    const refused = begin(broker, { "content-length": "5", expect: "100-continue" });
    expectProblem(await refused.response(), 401, "unauthorized");
    await refused.close();
  });
});
