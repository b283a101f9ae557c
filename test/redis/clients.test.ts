// The client libraries ioredis, node-redis and Bun's own, on the runtimes that they run on.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { redisLog } from "../../src/redis/redis-log.ts";
import { anyRedis, needsRedis } from "../support/servers/redis.ts";

const bin = (name: string): string => new URL(`../../node_modules/.bin/${name}`, import.meta.url).pathname;
const file = (name: string): string => new URL(`servers/${name}.ts`, import.meta.url).pathname;
const commands = { node: [bin("node")], bun: [bin("bun")], deno: [bin("deno"), "run", "-A"] } as const;

const pairs = [
  ["ioredis", "node"],
  ["ioredis", "bun"],
  ["ioredis", "deno"],
  ["node-redis", "node"],
  ["node-redis", "bun"],
  ["node-redis", "deno"],
  ["bun", "bun"],
] as const;

describe("redisLog through each client library", process.env.REDIS_URL ? {} : needsRedis, () => {
  let server: Awaited<ReturnType<typeof anyRedis>>;
  const children: ChildProcess[] = [];

  beforeAll(async () => {
    server = await anyRedis();
  });
  afterAll(async () => {
    for (const child of children) child.kill("SIGKILL");
    await server.stop();
  });

  /** Runs a script of `servers/`, which ends by itself: nothing may keep its process alive. Returns what it printed. */
  async function run([program, ...args]: readonly string[], env: Record<string, string>): Promise<unknown> {
    const child = spawn(program as string, args, {
      env: { ...process.env, REDIS_URL: server.url, NO_COLOR: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.push(child);
    let [output, errors] = ["", ""];
    child.stdout.on("data", (data) => (output += data));
    child.stderr.on("data", (data) => (errors += data));
    const [code] = await once(child, "close");
    if (code !== 0 || output === "") throw new Error(`script ended with ${code}: ${errors}`);
    return JSON.parse(output);
  }

  test.each(pairs)(
    "%s on %s: subscribe() resolves when the server has confirmed, and not before",
    async (library, runtime) => {
      const PREFIX = `confirmed-${library}-${runtime}-${process.pid}`;
      const result = await run([...commands[runtime], file("confirmation")], { LIBRARY: library, PREFIX });
      expect(result).toEqual({ tooEarly: false, isConfirmed: true });
    },
  );

  for (const [library, runtime] of pairs) {
    for (const isLazy of [false, true]) {
      const state = isLazy ? "not connected before" : "connected before";
      test(`${library} on ${runtime}, ${state}: appends, reads, receives, recovers, and lets the process end`, async () => {
        const PREFIX = `${library}-${runtime}-${isLazy}-${process.pid}`;
        const result = await run([...commands[runtime], file("roundtrip")], {
          LIBRARY: library,
          PREFIX,
          IS_LAZY: String(isLazy),
        });
        expect(result).toEqual({
          early: "engine-down",
          // Once each: commands that were available and are given up again would reject the first events.
          start: ["commands true", "feed true"],
          seqs: true,
          live: true,
          page: Array(10).fill(true),
          resubscribed: ["subscribed again"],
          presences: ["entered", "taken"],
          atKill: true,
          sameEpoch: true,
          afterKill: expect.arrayContaining(["after the kill"]),
          calls: ["commands false", "commands true", "feed false", "feed true"],
        });
      });
    }
  }

  test.each(pairs)("%s on %s: two processes share a run, also over lost connections", async (library, runtime) => {
    const PREFIX = `runs-${library}-${runtime}-${process.pid}`;
    expect(await run([...commands[runtime], file("runs")], { LIBRARY: library, PREFIX })).toEqual({
      started: [true, false],
      appended: true,
      stopped: true,
      status: ["stopping"],
      ended: true,
      end: "stopped",
      lease: "Infinity",
      readers: "ädä",
      isStopping: true,
      events: 300,
      isWhole: true,
    });
  });

  test("client: a value that is not a client of one server is refused", () => {
    const duplicate = (): undefined => undefined;
    const call = duplicate;
    for (const client of [undefined, {}, { duplicate, call, isCluster: true, status: "ready" }]) {
      expect(() => redisLog({ client: client as never, prefix: "p" })).toThrow(TypeError);
    }
  });

  test("options: a prefix without braces is required, numbers have a range, and an unknown option is refused", () => {
    const unused = (): never => expect.unreachable();
    const client = { send: unused, close: unused, duplicate: unused, connected: false } as never;
    for (const prefix of [undefined, "", "a{b", "a}b", "a\nb", "x".repeat(101)])
      expect(() => redisLog({ client, prefix: prefix as never })).toThrow(TypeError);
    expect(() => redisLog({ client, prefix: "p", lease: 1 })).toThrow(RangeError);
    expect(() => redisLog({ client, prefix: "p", retention: { events: 0 } })).toThrow(RangeError);
    expect(() => redisLog({ client, prefix: "p", surplus: 1 } as never)).toThrow(TypeError);
    expect(() => redisLog({ client, prefix: "p" })).not.toThrow();
  });
});
