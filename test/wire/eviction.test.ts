// The end of a connection that the broker gives up: no runtime and no adapter takes it for an error, and its client can come back.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { SocketClient } from "../support/clients/socket-client.ts";
import { platformsWithPipe, type Server, startServer, type TestBroker } from "../support/servers/server.ts";
import type { TestBrokerOptions } from "./servers/app.ts";

/** Fills every buffer between the broker and a client that does not read, on every runtime. */
const FLOOD = { count: 1_200, bytes: 10_000 };
/** Deno 2.9 prints this once, at the end of the first response. */
const DENO_NOTICE = /^Deno\.serve: request\.signal aborts on successful responses .*\n/;
const ALL = Array.from({ length: FLOOD.count }, (_, n) => n);

const numbersOf = (client: SocketClient): number[] => client.data.map((data) => Number.parseInt(data, 10));

describe.each(platformsWithPipe)("connections that the broker gives up, on %s", (platform) => {
  /** fanwire's own handler closes the socket of a client that cannot read its end. No other server lets a broker do that without noise. */
  const closesSockets = platform === "node";
  const end = closesSockets ? "closed" : "complete";
  let server: Server;
  let started: number;
  beforeAll(async () => {
    server = await startServer(platform);
    started = server.output.length;
  });
  afterAll(() => server.stop());

  /** Checks that the process has printed nothing, and that it goes on serving. */
  async function expectUndisturbed(): Promise<void> {
    const broker = await server.createBroker();
    const client = await broker.join();
    expect((await broker.publish("still here")).status).toBe(200);
    await client.until(({ data }) => data.includes("still here"));
    client.leave();
    expect(server.output.slice(started).replace(DENO_NOTICE, "")).toBe("");
    expect(server.process.exitCode).toBeNull();
  }

  /** Connects clients that stop reading, and waits until the broker has given up all of them while they were blocked. */
  async function giveUp(reason: "timeout" | "expired", scale = 1): Promise<[TestBroker, SocketClient[]]> {
    const options: TestBrokerOptions =
      reason === "timeout" ? { timeout: 1_000 * scale, tolerance: 1 } : { timeout: 600_000, authorize: "briefly" };
    const broker = await server.createBroker({ ...options, engine: { logBytes: 64 * 1024 * 1024 } });
    const clients = await Promise.all(Array.from({ length: 4 }, () => broker.join(`?for=${1_500 * scale}`)));
    for (const client of clients) client.pause();
    await broker.control("flood", FLOOD);
    const { stats: first } = await broker.untilState(({ stats }) => stats.blocked === 4 || stats.clients < 4);
    if (first.blocked < 4) {
      // On a busy machine their time is over before they are blocked, and then they can still read the end event.
      for (const client of clients) client.reset();
      return giveUp(reason, 2 * scale);
    }
    const { stats } = await broker.untilState(({ stats }) => stats.clients === 0);
    expect(stats).toMatchObject({ ids: 0, blocked: 0, closing: 0, channels: 0 });
    return [broker, clients];
  }

  test.each(["timeout", "expired"] as const)(
    "%s: a client that is given up while it does not read ends cleanly, and resumes exactly where it was",
    async (reason) => {
      const [broker, [reads, stays, ...leave]] = await giveUp(reason);
      if (!reads || !stays) throw new Error("Connecting clients: two are needed.");
      const port = stays.socket.localPort;
      if (closesSockets) await broker.untilState(() => !server.isConnected(port));
      expect((await broker.state()).stats.disconnects).toEqual({ [reason]: 4 });
      leave[0]?.leave();
      leave[1]?.reset();
      reads.resume();
      await reads.untilEnded();
      expect([reads.ended, reads.control("end")]).toEqual([end, []]);

      const seen = numbersOf(reads);
      expect(seen).toEqual(ALL.slice(0, seen.length));
      const back = await broker.join(reason === "expired" ? "?for=60000" : "", {
        "last-event-id": reads.lastEventId ?? "",
      });
      await back.until(({ data }) => data.length === FLOOD.count - seen.length);
      expect(numbersOf(back)).toEqual(ALL.slice(seen.length));
      expect(back.control("gap")).toEqual([]);
      back.leave();
      await expectUndisturbed();
      stays.reset();
      await expectUndisturbed();
    },
  );

  test("close(): a client that does not read its end event in time ends cleanly", async () => {
    const broker = await server.createBroker({ timeout: 500, tolerance: 100 });
    const client = await broker.join();
    client.pause();
    await broker.control("flood", FLOOD);
    await broker.untilState(({ stats }) => stats.blocked === 1);
    await broker.control("disconnect", { id: client.headers["fanwire-client-id"] });
    await broker.untilState(({ stats }) => stats.closing === 0 && stats.clients === 0);
    client.resume();
    await client.untilEnded();
    expect(client.ended).toBe(end);
    await expectUndisturbed();
  });

  test("timeout: a client that left is given up in silence, also where nothing tells the broker that it left", async () => {
    const broker = await server.createBroker({ timeout: 300, tolerance: 1, heartbeat: 100 });
    const clients = await Promise.all(Array.from({ length: 4 }, () => broker.join()));
    for (const [index, client] of clients.entries()) index % 2 ? client.reset() : client.leave();
    // What is piped to a response that is gone stays in the pipe, which is full after 64 KiB.
    await broker.control("flood", { count: 100, bytes: 10_000 });
    await broker.untilState(({ stats }) => stats.clients === 0);
    await expectUndisturbed();
  });
});

test("server.setTimeout(): Node closes the socket of a client that was given up, and not one that receives heartbeats", async () => {
  const server = await startServer("node-pipe", { env: { SOCKET_TIMEOUT: "3000" } });
  try {
    const broker = await server.createBroker({ timeout: 1_000, tolerance: 1, heartbeat: 100 });
    const idle = await broker.join("?id=idle&channel=quiet");
    const blocked = await broker.join("?id=blocked");
    blocked.pause();
    await broker.control("flood", FLOOD);
    await broker.untilState(({ stats }) => stats.clients === 1);
    // The socket is open for now, as the tests above show.
    await broker.untilState(() => !server.isConnected(blocked.socket.localPort));
    blocked.resume();
    expect((await blocked.untilEnded()).ended).not.toBe("complete");
    const { comments } = idle;
    await idle.until((client) => client.comments > comments + 2);
    idle.leave();
  } finally {
    server.stop();
  }
});
