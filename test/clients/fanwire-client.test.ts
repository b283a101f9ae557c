// The client of this package on the real server of each runtime, through a proxy that cuts, swallows and refuses.
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { connect, type EventClient, type EventMap, type GapEvent, publisher } from "../../src/client/index.ts";
import { platforms, type Server, startServer, TestBroker } from "../support/servers/server.ts";
import type { TestBrokerOptions } from "../wire/servers/app.ts";
import { Tap } from "./tap.ts";

const LARGE = "x".repeat(300_000);

/** A client, its broker, and the proxy between the two. */
class Session {
  readonly data: string[] = [];
  readonly gaps: GapEvent[] = [];
  readonly ends: string[] = [];
  readonly client: EventClient<EventMap>;
  readonly tap: Tap;
  broker: TestBroker;

  private constructor(broker: TestBroker, tap: Tap, silence: number) {
    this.broker = broker;
    this.tap = tap;
    this.client = connect(tap.url + broker.path("connect?id=me"), { silence });
    this.client.on("message", ({ data }) => this.data.push(data));
    this.client.on("gap", (gap) => this.gaps.push(gap));
    this.client.on("end", ({ reason }) => this.ends.push(reason));
  }

  static async open(server: Server, options: TestBrokerOptions = {}, silence = 30_000): Promise<Session> {
    const broker = await server.createBroker({ retry: 50, maxBodyBytes: 1024 * 1024, ...options });
    const session = new Session(broker, await Tap.start(server.port), silence);
    await session.until(() => session.client.lastEventId !== "");
    return session;
  }

  async publish(...texts: string[]): Promise<void> {
    for (const text of texts) {
      const response = await this.broker.publish(text);
      expect(response.status).toBe(200);
    }
  }

  until(holds: () => boolean): Promise<unknown> {
    return vi.waitUntil(holds, { timeout: 20_000, interval: 5 });
  }

  close(): void {
    this.client.close();
    this.tap.close();
  }
}

describe.each(platforms)("the client on %s", (platform) => {
  let server: Server;
  let session: Session | undefined;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => {
    session?.close();
    server?.stop();
  });

  test("cuts: at rest, inside a large event, and while the server cannot be reached", async () => {
    session = await Session.open(server);
    await session.publish("1");
    await session.until(() => session?.data.length === 1);
    session.tap.cut();
    await session.publish("2");
    await session.until(() => session?.data.length === 2);
    session.tap.cutAfter(100_000);
    await session.publish(LARGE);
    await session.until(() => session?.data.length === 3);
    session.tap.refuse();
    session.tap.cut();
    await session.publish("4", "5");
    await wait(300);
    session.tap.accept();
    await session.until(() => session?.data.length === 5);
    expect(session.data).toEqual(["1", "2", LARGE, "4", "5"]);
    expect(session.gaps).toEqual([]);
    session.close();
  });

  test("silence: a proxy that swallows everything is noticed, and nothing is lost", async () => {
    // Heartbeats of 100 ms; an answer may take longer on a machine that is busy.
    session = await Session.open(server, { heartbeat: 100 }, 1_000);
    await session.publish("1");
    await session.until(() => session?.data.length === 1);
    session.tap.swallow();
    await session.publish("2");
    await session.until(() => session?.data.length === 2);
    expect(session.data).toEqual(["1", "2"]);
    session.close();
  });

  test("gap: events that the log has dropped are reported, and the others come", async () => {
    session = await Session.open(server, { engine: { retention: { events: 2 } } });
    await session.publish("0");
    await session.until(() => session?.data.length === 1);
    session.tap.refuse();
    session.tap.cut();
    await session.publish("1", "2", "3", "4", "5");
    session.tap.accept();
    await session.until(() => session?.data.at(-1) === "5");
    expect([session.data, session.gaps]).toEqual([
      ["0", "4", "5"],
      [expect.objectContaining({ channels: ["fanwire-common"] })],
    ]);
    session.close();
  });

  test("ends: of each connection by its age, and a client that is barred", async () => {
    session = await Session.open(server, { maxConnectionAge: 300 });
    for (let round = 1; round <= 3; round++) {
      await session.publish(String(round));
      await session.until(() => (session?.ends.length ?? 0) >= round);
    }
    await session.until(() => session?.data.length === 3);
    expect(session.data).toEqual(["1", "2", "3"]);
    await session.broker.control("disconnect", { id: "me", blockFor: 60_000 });
    await session.until(() => session?.client.state === "closed");
    session.close();
  });

  test("deploy: a new process with a new log is a gap, and the client goes on", async () => {
    const first = await startServer(platform);
    session = await Session.open(first);
    await session.publish("before");
    await session.until(() => session?.data.length === 1);
    if (!platform.startsWith("hub-")) await session.broker.control("close");
    await first.kill();
    const second = await startServer(platform, { fixedPort: first.port });
    session.broker = new TestBroker(second, session.broker.name);
    await session.until(() => (session?.gaps.length ?? 0) > 0 && session?.client.state === "open");
    await session.publish("after");
    await session.until(() => session?.data.at(-1) === "after");
    expect([session.data, session.gaps]).toEqual([["before", "after"], [expect.objectContaining({ after: null })]]);
    session.close();
    second.stop();
  });

  test("backpressure: an iteration that stops makes the server wait, and receives everything later", async () => {
    const broker = await server.createBroker({ retry: 50, timeout: 60_000, maxBodyBytes: 1024 * 1024 });
    let read = 0;
    const client = connect(server.url + broker.path("connect?id=slow"), {
      fetch: async (url, init) => {
        const response = await fetch(url, init);
        const reader = response.body?.getReader();
        const body = new ReadableStream(
          {
            pull: async (controller) => {
              const { done, value } = (await reader?.read()) ?? { done: true };
              if (done) return controller.close();
              read += value.length;
              controller.enqueue(value);
            },
            cancel: () => reader?.cancel(),
          },
          { highWaterMark: 0 },
        );
        return new Response(body, response);
      },
    });
    const items = client[Symbol.asyncIterator]();
    const first = items.next();
    await vi.waitUntil(() => client.lastEventId !== "", { timeout: 10_000 });
    const body = LARGE.slice(0, 100_000);
    // More than sockets hold.
    for (let n = 0; n < 150; n++) expect((await broker.publish(`${n} ${body}`)).status).toBe(200);
    // The first event and the one that it holds, and what came with them.
    expect(read).toBeLessThan(1_000_000);
    const numbers: number[] = [];
    for (let next = await first; !next.done; next = await items.next()) {
      if (next.value.type === "event") numbers.push(Number.parseInt(next.value.data, 10));
      if (numbers.length === 150) break;
    }
    expect(numbers).toEqual(Array.from({ length: 150 }, (_, n) => n));
    client.close();
  });

  test("publisher: an answer that is lost publishes nothing twice", async () => {
    session = await Session.open(server);
    let sent = 0;
    const events = publisher(server.url + session.broker.path("broadcast"), {
      token: "secret",
      fetch: async (url, init) => {
        const response = await fetch(url, init);
        if (++sent % 2 === 1) throw new TypeError("lost");
        return response;
      },
    });
    const { id } = await events.broadcast({ event: "message", data: { n: 1 } });
    await events.broadcastTo("me", "2");
    await session.until(() => session?.data.length === 2);
    expect([session.data, sent]).toEqual([['{"n":1}', "2"], 4]);
    expect(id).toBeDefined();
    await expect(publisher(server.url + session.broker.path("broadcast")).broadcast("3")).rejects.toMatchObject({
      code: "unauthorized",
    });
    session.close();
  });
});
