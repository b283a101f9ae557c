// Two instances of the Redis example on one Redis, with the Redis user of the documentation, behind nginx with the example's configuration.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { needsRedis, type RedisServer, startRedis } from "../support/servers/redis.ts";
import { freePort, untilListening } from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";
import { findInGuides } from "./guides.ts";

const root = new URL("../../", import.meta.url).pathname;
const read = (path: string): string => readFileSync(join(root, path), "utf8");

/** The `ACL SETUSER` command of the documentation, split as a shell would split it. */
const acl = findInGuides(/^redis-cli (ACL SETUSER [\s\S]*?)\n```/m);
const [command = "", ...user] = acl.replaceAll("\\\n", " ").replaceAll("'", "").split(/\s+/);

const hasNginx = spawnSync("nginx", ["-v"]).error === undefined;

/** One instance of the example. */
class Instance {
  readonly url: string;
  readonly #child: ChildProcess;

  private constructor(port: number, child: ChildProcess) {
    this.url = `http://127.0.0.1:${port}`;
    this.#child = child;
  }

  static async start(port: number, redis: RedisServer): Promise<Instance> {
    const url = new URL(redis.url);
    [url.username, url.password] = ["fanwire", "secret"];
    const env = { ...process.env, PORT: String(port), PUBLISH_TOKEN: "t", PREFIX: "shop", REDIS_URL: url.href };
    const child = spawn(join(root, "node_modules/.bin/bun"), [join(root, "examples/bun/redis.ts")], {
      env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(child, "exit").then(() => Promise.reject(new Error("examples/bun/redis.ts ended")));
    await Promise.race([once(child.stdout, "data"), exited]);
    exited.catch(() => undefined);
    return new Instance(port, child);
  }

  async stats(): Promise<{ readonly clients: number; readonly engine: string }> {
    return (await (await fetch(`${this.url}/stats`)).json()) as { clients: number; engine: string };
  }

  async end(signal: NodeJS.Signals): Promise<unknown> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return exitCode;
    const exited = once(this.#child, "exit");
    this.#child.kill(signal);
    return (await exited)[0];
  }
}

const post = (at: string, query: string, data: string): Promise<Response> =>
  fetch(`${at}/broadcast?${query}`, {
    method: "POST",
    body: data,
    headers: { authorization: "Bearer t", "idempotency-key": data.slice(0, 100) },
  });

/** Publishes as the documentation says: a 502 or 503 is repeated with the same idempotency key. */
async function publish(at: string, query: string, data: string): Promise<void> {
  for (;;) {
    const answer = await post(at, query, data).catch(() => undefined);
    if (answer?.status === 200) return;
    if (answer && answer.status !== 502 && answer.status !== 503) throw new Error(`publishing: ${answer.status}`);
  }
}

describe("two instances of examples/bun/redis.ts", needsRedis, () => {
  let redis: RedisServer;
  let ports: readonly [number, number];
  let instances: readonly [Instance, Instance];

  beforeAll(async () => {
    redis = await startRedis();
    await redis.command(command, ...user);
    ports = [await freePort(), await freePort()];
  });
  beforeEach(async () => {
    instances = await Promise.all([Instance.start(ports[0], redis), Instance.start(ports[1], redis)]);
  });
  afterEach(() => Promise.all(instances.map((instance) => instance.end("SIGKILL"))));
  afterAll(() => redis.stop());

  test("broadcast: an event published at one instance reaches the clients of both, and SIGTERM ends each instance", async () => {
    const clients = await Promise.all(
      instances.map(({ url }, index) => new SocketClient(`${url}/connect?id=client-${index}`).untilReady()),
    );
    const [one, two] = instances;
    await publish(one.url, "", "to all, at one");
    await publish(two.url, "", "to all, at two");
    await publish(one.url, "id=client-1", "to one client of the other");
    await Promise.all(
      clients.map((client, index) => client.until(({ data }) => data.length === (index === 1 ? 3 : 2))),
    );
    expect(clients.map(({ data }) => data)).toEqual([
      ["to all, at one", "to all, at two"],
      ["to all, at one", "to all, at two", "to one client of the other"],
    ]);
    expect(await Promise.all(instances.map((instance) => instance.end("SIGTERM")))).toEqual([0, 0]);
    await Promise.all(clients.map((client) => client.untilEnded()));
    expect(clients.flatMap((client) => client.control("end").map(({ data }) => JSON.parse(data).reason))).toEqual([
      "closing",
      "closing",
    ]);
  });

  test("documentation: the Redis user may call exactly the commands of the scripts, and publishing fails without one of them", async () => {
    const sources = globSync("src/redis/**/*.ts", { cwd: root }).map(read);
    const called = sources
      .flatMap((text) => [...text.matchAll(/(?:redis\.call|callAll)\('([A-Z]+)'/g)])
      .map(([, name = ""]) => name);
    const calledByClient = ["ping", "script|load", "evalsha", "wait", "subscribe", "unsubscribe"];
    const allowed = user.filter((rule) => rule.startsWith("+")).map((rule) => rule.slice(1));
    expect(allowed.sort()).toEqual(
      [...new Set([...called.map((name) => name.toLowerCase()), ...calledByClient])].sort(),
    );

    const [{ url }] = instances;
    expect((await post(url, "", "with all")).status).toBe(200);
    await redis.command("ACL", "SETUSER", "fanwire", "-zincrby");
    expect((await post(url, "", "without one")).status).toBe(503);
    await redis.command(command, ...user);
    await publish(url, "", "with all again");
  });

  // In CI a missing nginx fails the test.
  const needsNginx = skipIf(!hasNginx && process.env.CI !== "true", "there is no nginx on the PATH");
  describe("behind nginx, with examples/bun/nginx.conf", needsNginx, () => {
    let nginx: ChildProcess;
    let folder: string;
    let base: string;

    beforeEach(async () => {
      folder = mkdtempSync(join(tmpdir(), "fanwire-nginx-"));
      const port = await freePort();
      let config = read("examples/bun/nginx.conf");
      for (const [from, to] of [
        ["127.0.0.1:3000", port],
        ["127.0.0.1:3001", ports[0]],
        ["127.0.0.1:3002", ports[1]],
      ] as const) {
        expect(config.split(from)).toHaveLength(2);
        config = config.replace(from, `127.0.0.1:${to}`);
      }
      writeFileSync(join(folder, "nginx.conf"), config);
      nginx = spawn("nginx", ["-p", folder, "-c", join(folder, "nginx.conf")], { stdio: "ignore" });
      base = `http://127.0.0.1:${port}`;
      await untilListening(port);
    });
    afterEach(async () => {
      const exited = once(nginx, "exit");
      // SIGTERM ends nginx at once, together with its workers.
      nginx.kill("SIGTERM");
      await exited;
      rmSync(folder, { recursive: true });
    });

    test("failover: a client whose instance is killed reconnects to the other one, and receives every event once", async () => {
      const events = Array.from({ length: 300 }, (_, index) => `event ${index}`);
      const queries = ["", "channel=news", "id=reader"];
      const path = `${base}/connect?id=reader&channel=news`;
      const first = await new SocketClient(path).untilReady();
      const clients = await Promise.all(instances.map(async (each) => (await each.stats()).clients));
      expect([...clients].sort()).toEqual([0, 1]);
      const [dies, lives] = clients[0] === 1 ? instances : [instances[1], instances[0]];

      const publishing = (async () => {
        for (const [index, data] of events.entries()) await publish(base, queries[index % 3] as string, data);
      })();
      await first.until(({ data }) => data.length > 100);
      await dies.end("SIGKILL");
      await first.untilEnded();
      const second = new SocketClient(path, { "last-event-id": first.lastEventId ?? "" });
      await publishing;
      await second.until(({ data }) => data.includes("event 299"));

      expect(first.data.length).toBeLessThan(events.length);
      expect([...first.data, ...second.data]).toEqual(events);
      expect([...first.control("gap"), ...second.control("gap")]).toEqual([]);
      expect(second.control("ready").map(({ data }) => JSON.parse(data))).toEqual([
        expect.objectContaining({ clientId: "reader", resumed: true }),
      ]);
      expect((await lives.stats()).clients).toBe(1);
      second.leave();
    });

    test("maxBodyBytes: nginx passes on the largest event, and the broker refuses a larger one", async () => {
      const answers = await Promise.all([64, 65].map((kib) => post(base, "", "x".repeat(kib * 1024))));
      const bodies = await Promise.all(answers.map((answer) => answer.json() as Promise<{ code?: string }>));
      expect(answers.map(({ status }, index) => [status, bodies[index]?.code])).toEqual([
        [200, undefined],
        [413, "body-too-large"],
      ]);
    });

    test("without an instance: an EventSource is asked to come back, and a publisher receives 502", async () => {
      const first = await new SocketClient(`${base}/connect`).untilReady();
      await Promise.all(instances.map((instance) => instance.end("SIGKILL")));
      await first.untilEnded();
      const second = await new SocketClient(`${base}/connect`, {
        "last-event-id": first.lastEventId ?? "",
      }).untilEnded();
      expect([second.status, second.headers["content-type"], second.retry, second.events]).toEqual([
        200,
        "text/event-stream",
        2000,
        [],
      ]);
      expect((await post(base, "", "for nobody")).status).toBe(502);
    });
  });
});
