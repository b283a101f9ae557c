// Runs over sockets: what a client receives, and how it sees whether its run has ended or its stream was cut.
import { EventSource } from "eventsource";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { expectProblem } from "../support/http/problem.ts";
import {
  isHub,
  platformsWithWrangler,
  type Server,
  startServer,
  type TestBroker,
  usesWrangler,
} from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";
import type { RunArgs } from "./servers/runs.ts";

const MIB = 1024 * 1024;
const APP = "https://app.example";

/** A run of a broker under test. */
class TestRun {
  readonly broker: TestBroker;
  readonly id: string;

  constructor(broker: TestBroker, id: string) {
    this.broker = broker;
    this.id = id;
  }

  url(query = ""): string {
    return this.broker.server.url + this.broker.path(`runs/${this.id}${query}`);
  }

  act<T = unknown>(action: RunArgs["do"], args: Omit<RunArgs, "do" | "id"> = {}): Promise<T> {
    return this.broker.control<T>("run", { do: action, id: this.id, ...args });
  }

  /** Writes numbered events. Returns their ids. */
  async write(count = 1, bytes = 0): Promise<string[]> {
    return (await this.act<{ ids: string[] }>("write", { count, bytes })).ids;
  }

  /** Opens a stream, and waits for its first byte. */
  read(query = "", headers: Record<string, string> = {}): Promise<SocketClient> {
    return new SocketClient(this.url(query), headers).until(({ comments }) => comments > 0);
  }

  /** Requests the run on a new connection. The body of a stream is not read. */
  request(query = "", headers: Record<string, string> = {}, method = "GET"): ReturnType<TestBroker["request"]> {
    return this.broker.request(`runs/${this.id}${query}`, { method, headers });
  }
}

/** Reads the body of a response. Returns the data of its events, and how it ended. */
async function readAll(response: Response): Promise<{ data: string[]; end: "ended" | "error" }> {
  const decoder = new TextDecoder();
  let text = "";
  const dataOf = (): string[] => Array.from(text.matchAll(/^data: (\S+) ?$/gm), ([, data]) => data as string);
  try {
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>)
      text += decoder.decode(chunk, { stream: true });
    return { data: dataOf(), end: "ended" };
  } catch {
    return { data: dataOf(), end: "error" };
  }
}

const numbers = (client: SocketClient): number[] => client.data.map((data) => Number.parseInt(data, 10));
const range = (count: number): number[] => Array.from({ length: count }, (_, number) => number);

describe.each(platformsWithWrangler)("runs on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  async function start(options: Parameters<Server["createBroker"]>[0] = {}, args = {}): Promise<TestRun> {
    const run = new TestRun(await server.createBroker(options), "answer");
    await run.act("start", args);
    return run;
  }
  const inWorker = skipIf(isHub(platform), "an object has no options of requests, and closes for good");

  test("response: sends its head and a byte before any event, each event at once, and ends with the run", async () => {
    const run = await start();
    const client = await run.read();
    expect(client.headers).toMatchObject({
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
    });
    for (let count = 1; count <= 5; count++) {
      await run.write();
      await client.until(() => client.data.length === count);
    }
    const reading = readAll(await fetch(run.url()));
    expect((await run.act<{ state: string }>("state")).state).toBe("active");
    await run.act("close");
    await client.untilEnded();
    expect([client.ended, numbers(client)]).toEqual(["complete", range(5)]);
    expect(client.events.filter(({ event }) => event !== undefined)).toEqual([]);
    expect(await reading).toEqual({ data: range(5).map(String), end: "ended" });
    // A late visitor gets the same.
    expect(await readAll(await fetch(run.url()))).toEqual(await reading);
  });

  test("response: a stream that is cut ends with an error, and not as a run that has ended", async () => {
    const run = await start();
    await run.write(3);
    const client = await run.read();
    const reading = readAll(await fetch(run.url()));
    await client.until(() => client.data.length === 3);
    await run.broker.control("close");
    await client.untilEnded();
    expect(client.ended).not.toBe("complete");
    expect(await reading).toMatchObject({ end: "error" });
  });

  test(
    "response: after a stream that was cut a client has the rest from another broker, and 410 where nothing is left",
    inWorker,
    async () => {
      const run = await start({ engine: { sharedAs: `engine of ${platform}` } });
      await run.write(3);
      const client = await run.read();
      await client.until(() => client.data.length === 3);
      await run.broker.control("close");
      await client.untilEnded();
      const next = new TestRun(await server.createBroker({ engine: { sharedAs: `engine of ${platform}` } }), "answer");
      expect((await next.act<{ state: string }>("state")).state).toBe("lost");
      // It has no end, and does not look as if it had one.
      for (let round = 0; round < 20; round++) {
        const again = await new SocketClient(next.url("?offset=-1")).untilEnded();
        expect([again.ended === "complete", numbers(again)]).toEqual([false, range(3)]);
      }
      expect(await readAll(await fetch(next.url()))).toEqual({ data: ["0", "1", "2"], end: "error" });
      const rest = await next.request("", { "last-event-id": client.lastEventId ?? "" });
      expectProblem(rest, 410, "run-lost");
    },
  );

  test("response: starts after Last-Event-ID, ?lastEventId= or ?offset=, by default at the beginning", async () => {
    const run = await start();
    const ids = await run.write(10);
    const [middle = ""] = ids.slice(4);
    const streams = await Promise.all([
      run.read(),
      run.read("?offset=-1"),
      run.read("", { "last-event-id": middle }),
      run.read(`?lastEventId=${middle}`),
      run.read(`?offset=${middle}`),
      run.read("?offset=now"),
    ]);
    await run.write();
    await run.act("close");
    for (const stream of streams) await stream.untilEnded();
    const all = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    expect(streams.map(numbers)).toEqual([all, all, all.slice(5), all.slice(5), all.slice(5), [10]]);
    expect(streams.map(({ ended }) => ended)).toEqual(streams.map(() => "complete"));
    expect(streams[0]?.events.slice(0, 10).map(({ id }) => id)).toEqual(ids);
    expectProblem(await run.request("", { "last-event-id": "of another run" }), 400, "bad-request");
  });

  test("response: HEAD, OPTIONS, and answers without a stream", async () => {
    const run = await start({ retry: 10 });
    const [id = ""] = await run.write();
    const head = await run.request("", {}, "HEAD");
    expect([head.status, head.headers["content-type"], head.body]).toEqual([
      200,
      "text/event-stream; charset=utf-8",
      "",
    ]);
    const options = await run.request("", {}, "OPTIONS");
    expect([options.status, options.headers.allow]).toEqual([204, "GET, HEAD, POST, OPTIONS"]);
    expectProblem(await run.request("", {}, "DELETE"), 405, "method-not-allowed");

    const none = new TestRun(run.broker, "none");
    expectProblem(await none.request(), 404, "unknown-run");
    expect((await none.request(`?options=${encodeURIComponent('{"unknown":204}')}`)).status).toBe(204);
    const secret = new TestRun(run.broker, "secret");
    await secret.act("start", { isSecret: true });
    expectProblem(await secret.request(), 403, "forbidden");
    await run.act("close");
    expect((await run.request("", { "last-event-id": id })).status).toBe(204);
    expect((await run.request(`?options=${encodeURIComponent('{"ended":204}')}`)).status).toBe(204);
  });

  test("response: CORS, also where a run is not readable", inWorker, async () => {
    const run = await start({ cors: { origins: [APP] } });
    const preflight = {
      origin: APP,
      "access-control-request-method": "GET",
      "access-control-request-headers": "last-event-id",
    };
    const answers = [
      await run.request("", preflight, "OPTIONS"),
      await run.request("", { origin: APP }),
      await new TestRun(run.broker, "none").request("", { origin: APP }),
    ];
    expect(answers.map(({ status }) => status)).toEqual([204, 200, 404]);
    expect(answers.map(({ headers }) => headers["access-control-allow-origin"])).toEqual([APP, APP, APP]);
    const other = await run.request("", { origin: "https://evil.example" });
    expect(other.headers["access-control-allow-origin"]).toBeUndefined();
  });

  test("heartbeat: a quiet run sends comments, and nothing else", async () => {
    const run = await start({ heartbeat: 50 });
    const client = await run.read();
    await client.until(({ comments }) => comments > 4);
    await run.act("close");
    await client.untilEnded();
    expect([client.ended, client.events]).toEqual(["complete", []]);
  });

  test("a reader that leaves gives its place to another one", async () => {
    const run = await start({ heartbeat: 50, maxClients: 1 });
    const first = await run.read();
    expectProblem(await run.request(), 503, "at-capacity");
    first.leave();
    while ((await run.request()).status !== 200)
      expect((await run.act<{ stopped: boolean }>("state")).stopped).toBe(false);
  });

  const readsAsClient = skipIf(usesWrangler(platform), "wrangler's proxy reads ahead of a client that never reads");
  test(
    "timeout: a reader that reads nothing is cut off, holds a bounded part of the run, and does not hold up its producer",
    readsAsClient,
    async () => {
      const run = await start({ heartbeat: 50, maxClients: 1, timeout: 500, tolerance: 1 });
      const stuck = await run.read();
      stuck.pause();
      await run.write(3_200, 10_000);
      while ((await run.request()).status !== 200)
        expect((await run.act<{ state: string }>("state")).state).toBe("active");
      // The handler for Node also closes the socket.
      while (platform === "node" && server.isConnected(stuck.socket.localPort)) await run.act("state");
      stuck.resume();
      await stuck.untilEnded();
      expect(stuck.ended).not.toBe("complete");
      expect(stuck.receivedBytes).toBeLessThan(16 * MIB);
      // It comes back for the rest, as soon as there is a place.
      await run.act("close");
      let back: SocketClient;
      do {
        back = await new SocketClient(run.url(), { "last-event-id": stuck.lastEventId ?? "" }).untilEnded();
      } while (back.retry !== undefined);
      expect([...numbers(stuck), ...numbers(back)]).toEqual(range(3_200));
      expect(back.ended).toBe("complete");
    },
  );

  test("EventSource: receives a run once, comes back at its end, and stops", async () => {
    const run = await start();
    await run.write(3);
    const source = new EventSource(run.url());
    const data: string[] = [];
    source.onmessage = (event) => data.push(event.data.trim());
    const states: number[] = [];
    const stopped = new Promise<void>((resolve) => {
      source.onerror = () => {
        states.push(source.readyState);
        if (source.readyState === EventSource.CLOSED) resolve();
      };
    });
    await new Promise<void>((resolve) => {
      source.onopen = () => resolve();
    });
    await run.write(3);
    await run.act("close");
    await stopped;
    expect(data).toEqual(range(6).map(String));
    expect(states).toEqual([EventSource.CONNECTING, EventSource.CLOSED]);
  });

  test("EventSource: a full broker asks it to come back, and does not stop it", async () => {
    const run = await start({ heartbeat: 50, maxClients: 1, retry: 50 });
    await run.write();
    const first = await run.read();
    const refused = await new SocketClient(run.url()).untilEnded();
    expect([refused.status, refused.headers["content-type"], refused.events]).toEqual([
      200,
      "text/event-stream; charset=utf-8",
      [],
    ]);
    // A client that would take its end for the end of the run is not misled.
    expect(refused.ended).not.toBe("complete");
    expect(refused.retry).toBeGreaterThan(0);
    const { failures } = (await run.broker.state()).stats;
    // A hub counts the requests that its Worker answered.
    expect(failures).toEqual(isHub(platform) ? {} : { "at-capacity": 1 });

    const source = new EventSource(run.url());
    let refusals = 0;
    const isRefused = new Promise<void>((resolve) => {
      source.onerror = () => ++refusals === 3 && resolve();
    });
    const received = new Promise((resolve) => {
      source.onmessage = ({ data }) => resolve(data.trim());
    });
    await isRefused;
    expect(source.readyState).toBe(EventSource.CONNECTING);
    first.leave();
    expect(await received).toBe("0");
    source.close();
  });
});
