// When commands can be given: at the start, and in a process that was busy.
import { Redis } from "ioredis";
import { describe, expect, test, vi } from "vitest";
import type { RedisOptions } from "../../src/redis/options.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { useRedis } from "./support/use-redis.ts";

type Client = RedisOptions["client"];

describe("Commands", needsRedis, () => {
  const redis = useRedis();

  /** Returns a client that looks like one of Bun, and is connected as soon as it is told to connect. */
  function bunClient(): Client {
    const connection = redis.connect();
    const unused = (): never => expect.unreachable();
    const client = {
      connected: false,
      onconnect: null,
      onclose: null,
      async connect() {
        client.connected = true;
      },
      send: (command: string, args: string[]) => connection.call(command, ...args),
      duplicate: unused,
      close: unused,
      subscribe: unused,
      unsubscribe: unused,
    };
    return client;
  }

  test("a client of Bun that connects between two looks at it: the second look does not give up the commands", async ({
    onTestFinished,
  }) => {
    // A client of Bun has room for one listener, which is the application's. So the adapter looks at it every 50 ms.
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    onTestFinished(() => void vi.useRealTimers());
    const peer = await redis.join({
      client: bunClient(),
      subscriber: () => new Redis(redis.server.url, { lazyConnect: true }),
    });
    const appended = peer.append([""], "the first");
    vi.advanceTimersByTime(1_000);
    expect(await appended).toMatchObject({ seq: 1 });
    expect(peer.calls.filter((call) => call.startsWith("commands"))).toEqual(["commands true"]);
  });
});
