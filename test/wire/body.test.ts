import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { exchange, PlainClient } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem } from "../support/http/problem.ts";
import {
  isHub,
  onWorkerd,
  onWrangler,
  type Server,
  type Stage,
  type State,
  startServer,
  withWrangler,
} from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";

const LIMIT = 65_536;
const PUBLISHER = { authorization: "Bearer secret" };
const CHUNKED = { ...PUBLISHER, "transfer-encoding": "chunked" };

describe.each(withWrangler)("the body of an event on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  /** Begins an event whose body is up to the test. */
  const begin = (stage: Stage, headers: Record<string, string>): PlainClient =>
    new PlainClient(server.url).ask(stage.path("broadcast"), { method: "POST", headers });

  /** The connection answers the next request as if nothing had been. */
  async function expectUsable(stage: Stage, client: PlainClient): Promise<void> {
    const asked = { method: "POST", body: "next", headers: PUBLISHER };
    expect((await client.ask(stage.path("broadcast"), asked).answer()).status).toBe(200);
    await client.leave();
  }

  test("maxBodyBytes: that many are taken, one more is 413, with a length and without; the connection goes on", async () => {
    const stage = await server.stage();
    const reader = await new SocketClient(server.url + stage.path("connect")).ready();
    for (const [size, status] of [
      [LIMIT, 200],
      [LIMIT + 1, 413],
    ] as const) {
      const text = "x".repeat(size);
      const sized = begin(stage, { ...PUBLISHER, "content-length": String(size) }).write(text);
      const whole = begin(stage, CHUNKED).chunk(text).chunk();
      const pieces = begin(stage, CHUNKED);
      for (let at = 0; at < size; at += 1_000) pieces.chunk(text.slice(at, at + 1_000));
      pieces.chunk();
      for (const client of [sized, whole, pieces]) {
        const answer = await client.answer();
        if (status === 200) expect(answer.status).toBe(200);
        else expectProblem(answer, 413, "body-too-large");
        await expectUsable(stage, client);
      }
    }
    await reader.until(({ data }) => data.length === 9);
    expect(reader.data.filter((data) => data !== "next").map(({ length }) => length)).toEqual([LIMIT, LIMIT, LIMIT]);
    reader.leave();
  });

  test("maxBodyBytes: bytes are counted, not characters", async () => {
    const stage = await server.stage({ maxBodyBytes: 100 });
    const post = (body: string) =>
      exchange(server.url, stage.path("broadcast"), { method: "POST", body, headers: PUBLISHER });
    expect((await post("€".repeat(33))).status).toBe(200);
    expectProblem(await post("€".repeat(34)), 413, "body-too-large");
  });

  test("maxBodyBytes: a body that never ends is cut off there, whether its sender waits or goes on", async () => {
    const stage = await server.stage();
    const waits = begin(stage, CHUNKED).chunk("x".repeat(LIMIT)).chunk("x");
    expectProblem(await waits.answer(), 413, "body-too-large");
    await waits.leave("RST");

    const goesOn = begin(stage, CHUNKED);
    let sent = 0;
    const send = (): void => {
      if (goesOn.closed || goesOn.socket.destroyed) return;
      goesOn.chunk("x".repeat(8_192));
      sent += 8_192;
      goesOn.socket.write("", () => setImmediate(send));
    };
    send();
    // workerd closes at once, and who writes then may not get to read the answer.
    if (onWorkerd(platform)) await goesOn.end();
    else expectProblem(await goesOn.answer(), 413, "body-too-large");
    expect(sent).toBeGreaterThan(LIMIT);
    await goesOn.leave("RST");
    const { stats } = await stage.until(({ stats: now }) => now.failures["body-too-large"] === 2);
    expect(stats.published).toBe(0);
    expect((await stage.publish("x")).status).toBe(200);
  });

  test("maxBodyBytes: a content-length over it is no reason, the byte that is over it is", async () => {
    const stage = await server.stage();
    const client = begin(stage, { ...PUBLISHER, "content-length": String(2 * LIMIT) });
    client.write("x".repeat(LIMIT));
    await stage.until(({ requests }) => requests === 1);
    // A round trip on which an answer to the head alone would have come as well.
    expect((await stage.publish("meanwhile")).status).toBe(200);
    expect([client.unread, client.closed]).toEqual([0, false]);
    client.write("x");
    expectProblem(await client.answer(), 413, "body-too-large");
    await client.leave("RST");
    expect((await stage.state()).stats.published).toBe(1);
  });

  test("a content-length that is too low: so many bytes are the event, and what follows is no part of it", async () => {
    const stage = await server.stage();
    const reader = await new SocketClient(server.url + stage.path("connect")).ready();
    const client = begin(stage, { ...PUBLISHER, "content-length": "5" });
    client.write(`hello${"x".repeat(2 * LIMIT)}\r\n\r\n`);
    await reader.until(({ data }) => data.length === 1);
    // What follows is not HTTP.
    await client.end();
    await stage.publish("next");
    await reader.until(({ data }) => data.includes("next"));
    expect(reader.data).toEqual(["hello", "next"]);
    await client.leave();
    reader.leave();
  });

  test("a body that breaks off publishes nothing, and is no error of the inside", async () => {
    const stage = await server.stage();
    const broken = ["FIN", "RST", "FIN", "RST"] as const;
    for (const [index, how] of broken.entries()) {
      const sized = { ...PUBLISHER, "content-length": "20" };
      const client = index < 2 ? begin(stage, CHUNKED).chunk("half an ev") : begin(stage, sized).write("half an ev");
      // Not before the server has it, or the application may never be told of the request.
      await stage.until(({ requests }) => requests === index + 1);
      await client.leave(how);
    }
    // A Worker may be ended with its request, and cannot count that.
    const counted = ({ stats }: State): boolean => isHub(platform) || stats.failures["client-left"] === 4;
    const { stats, errors } = await stage.until(counted);
    expect([stats.published, errors]).toEqual([0, []]);
    expect(Object.keys(stats.failures).filter((code) => code !== "client-left")).toEqual([]);
    expect((await stage.publish("x")).status).toBe(200);
    expect((await stage.state()).stats.published).toBe(1);
  });

  test("text arrives as it was sent: a character in two pieces, line ends, what is no UTF-8", async () => {
    const stage = await server.stage();
    const reader = await new SocketClient(server.url + stage.path("connect")).ready();
    const client = begin(stage, CHUNKED);
    client.socket.write(Buffer.from("3\r\na\xe2\x82\r\n", "latin1"));
    await stage.publish("meanwhile");
    client.socket.write(Buffer.from("3\r\n\xacb\xff\r\n0\r\n\r\n", "latin1"));
    expect((await client.answer()).status).toBe(200);
    await stage.publish("a\r\nb\rc\nd\n");
    await reader.until(({ data }) => data.length === 3);
    expect(reader.data).toEqual(["meanwhile", "a€b\ufffd", "a\nb\nc\nd\n"]);
    await client.leave();
    reader.leave();
  });

  test("byte order marks at the beginning are no part of the text, however it is sent; later ones are", async () => {
    const stage = await server.stage();
    const reader = await new SocketClient(server.url + stage.path("connect")).ready();
    for (const text of ["\u{feff}one", "\u{feff}\u{feff}two\u{feff}"]) {
      await stage.publish(text);
      const client = begin(stage, CHUNKED).chunk(text).chunk();
      expect((await client.answer()).status).toBe(200);
      await client.leave();
    }
    await reader.until(({ data }) => data.length === 4);
    expect(reader.data).toEqual(["one", "one", "two\u{feff}", "two\u{feff}"]);
    expect((await stage.publish("\u{feff}")).status).toBe(400);
    reader.leave();
  });

  test("a length beside a body in chunks: what is over maxBodyBytes is not taken for as short as it says", async () => {
    const stage = await server.stage({ maxBodyBytes: 100 });
    const reader = await new SocketClient(server.url + stage.path("connect")).ready();
    const client = begin(stage, { ...CHUNKED, "content-length": "5" });
    for (let sent = 0; sent < 50; sent++) client.chunk("x".repeat(100));
    // Some servers refuse both together, as RFC 9112, section 6.1 allows.
    expect([400, 413]).toContain((await client.answer()).status);
    await client.leave();
    await stage.publish("next");
    await reader.until(({ data }) => data.length === 1);
    expect(reader.data).toEqual(["next"]);
    reader.leave();
  });

  const noExpect = skipIf(onWrangler(platform), "wrangler's proxy waits for the body that the client holds back");
  test("Expect: 100-continue is answered with the outcome", noExpect, async () => {
    const stage = await server.stage();
    const client = begin(stage, { ...PUBLISHER, "content-length": "5", expect: "100-continue" });
    client.write("hello");
    expect((await client.answer()).status).toBe(200);
    await expectUsable(stage, client);
    const refused = begin(stage, { "content-length": "5", expect: "100-continue" });
    expectProblem(await refused.answer(), 401, "unauthorized");
    await refused.leave();
  });
});
