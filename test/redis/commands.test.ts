// When commands can be given, and when they are given up: with a client that reports late that it is connected, and in a process that stood still.
import { execFileSync } from "node:child_process";
import { Redis } from "ioredis";
import { beforeEach, describe, expect, test, vi } from "vitest";
import type { BunClient } from "../../src/redis/clients/bun.ts";
import { needsRedis } from "../support/servers/redis.ts";
import type { Peer } from "./support/peer.ts";
import { useRedis } from "./support/use-redis.ts";

/** How often the adapter looks at a client of Bun, which has room for one listener only: the application's. */
const POLL_MS = 50;
/** How long a server that is not ready is left alone. */
const PROBE_MS = 500;

describe("Commands with a client of Bun", needsRedis, () => {
  const redis = useRedis();
  beforeEach(({ onTestFinished }) => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
  });

  /** Creates a client that looks like one of Bun. It is connected as soon as it is told to connect, and when a test says so. */
  function createClient(): { client: BunClient & { connected: boolean }; connection: Redis } {
    const connection = redis.connect();
    const unused = (): never => expect.unreachable();
    const client = {
      connected: false,
      onconnect: null,
      onclose: null,
      connect: async () => void (client.connected = true),
      send: (command: string, args: string[]) => connection.call(command, ...args),
      duplicate: unused,
      close: unused,
      subscribe: unused,
      unsubscribe: unused,
    };
    return { client, connection };
  }

  /** Returns a peer whose commands are available after a millisecond, so that the adapter has not yet polled. */
  async function join(client: BunClient): Promise<Peer> {
    const subscriber = (): Redis => new Redis(redis.server.url, { lazyConnect: true });
    const peer = redis.peer({ client, subscriber });
    await vi.advanceTimersByTimeAsync(1);
    await peer.ready();
    return peer;
  }
  const changes = ({ calls }: Peer): string[] => calls.filter((call) => call.startsWith("commands"));

  test("a client that connects at once: the next look at it does not give up what is under way", async () => {
    const { client } = createClient();
    const peer = await join(client);
    const appended = peer.append([""], "the first");
    await vi.advanceTimersByTimeAsync(2 * POLL_MS);
    expect(await appended).toMatchObject({ seq: 1 });
    expect(changes(peer)).toEqual(["commands true"]);
  });

  test("a client that reconnects between two looks, just before the server is asked: it is prepared once", async () => {
    const { client, connection } = createClient();
    const peer = await join(client);
    client.connected = false;
    await vi.advanceTimersByTimeAsync(POLL_MS);
    expect(changes(peer)).toEqual(["commands true", "commands false"]);
    await vi.advanceTimersByTimeAsync(PROBE_MS - 1);
    client.connected = true;
    await vi.advanceTimersByTimeAsync(1);
    // If the server is asked now, it has answered all questions before these.
    for (let n = 0; n < 10; n++) await connection.ping();
    await vi.advanceTimersByTimeAsync(POLL_MS);
    await peer.until(() => peer.hasCommands);
    expect(changes(peer)).toEqual(["commands true", "commands false", "commands true"]);
  });
});

describe("Commands in a process that stood still", needsRedis, () => {
  const redis = useRedis();

  /** Blocks this process, timers and sockets included, until Redis has a log. */
  function blockUntilAppended(): void {
    const script = `
      import { Redis } from "ioredis";
      const redis = new Redis(${redis.server.port});
      while ((await redis.exists("{test}:log")) === 0);
      redis.disconnect();`;
    execFileSync(process.execPath, ["--input-type=module", "-e", script]);
  }

  test("commandTimeout: an answer that has arrived, and is not read yet, counts", async () => {
    const commandTimeout = 500;
    const peer = await redis.join({ commandTimeout });
    const end = performance.now() + 2 * commandTimeout;
    const appended = peer.append([""], "event");
    blockUntilAppended();
    while (performance.now() < end);
    expect(await appended).toMatchObject({ seq: 1 });
    expect(peer.hasCommands).toBe(true);
  });
});
