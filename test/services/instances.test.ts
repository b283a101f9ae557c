import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { needsRedis, type RedisServer, startRedis } from "../support/servers/redis.ts";
import { freePort, listens } from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";

// Two instances of the example on one Redis, as the user that the README has for it, behind nginx with the example's own configuration.

const root = new URL("../../", import.meta.url).pathname;
const read = (path: string): string => readFileSync(join(root, path), "utf8");

/** The README's `ACL SETUSER`, as a shell would take it apart. */
const [, acl = ""] = /^redis-cli (ACL SETUSER [\s\S]*?)\n```/m.exec(read("README.md")) ?? [];
const [command = "", ...user] = acl.replaceAll("\\\n", " ").replaceAll("'", "").split(/\s+/);

const hasNginx = spawnSync("nginx", ["-v"]).error === undefined;

/** A copy of the example that runs on a port. */
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
    const gone = once(child, "exit").then(() => Promise.reject(new Error("examples/bun/redis.ts ended")));
    await Promise.race([once(child.stdout, "data"), gone]);
    gone.catch(() => undefined);
    return new Instance(port, child);
  }

  async stats(): Promise<{ readonly clients: number; readonly engine: string }> {
    return (await (await fetch(`${this.url}/stats`)).json()) as { clients: number; engine: string };
  }

  async end(signal: NodeJS.Signals): Promise<unknown> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return exitCode;
    const gone = once(this.#child, "exit");
    this.#child.kill(signal);
    return (await gone)[0];
  }
}

const post = (at: string, query: string, data: string): Promise<Response> =>
  fetch(`${at}/broadcast?${query}`, {
    method: "POST",
    body: data,
    headers: { authorization: "Bearer t", "idempotency-key": data.slice(0, 100) },
  });

/** Publishes as the README says: what is answered 502 or 503 is sent again, with the same key. */
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
    await redis.cli(command, ...user);
    ports = [await freePort(), await freePort()];
  });
  beforeEach(async () => {
    instances = await Promise.all([Instance.start(ports[0], redis), Instance.start(ports[1], redis)]);
  });
  afterEach(() => Promise.all(instances.map((instance) => instance.end("SIGKILL"))));
  afterAll(() => redis.stop());

  test("what is published at one reaches the clients of both, and each ends by itself on SIGTERM", async () => {
    const clients = await Promise.all(
      instances.map(({ url }, index) => new SocketClient(`${url}/connect?id=client-${index}`).ready()),
    );
    const [one, two] = instances;
    await publish(one.url, "", "to all, at one");
    await publish(two.url, "", "to all, at two");
    await publish(one.url, "id=client-1", "to one client, at the other");
    await Promise.all(
      clients.map((client, index) => client.until(({ data }) => data.length === (index === 1 ? 3 : 2))),
    );
    expect(clients.map(({ data }) => data)).toEqual([
      ["to all, at one", "to all, at two"],
      ["to all, at one", "to all, at two", "to one client, at the other"],
    ]);
    expect(await Promise.all(instances.map((instance) => instance.end("SIGTERM")))).toEqual([0, 0]);
    await Promise.all(clients.map((client) => client.end()));
    expect(clients.flatMap((client) => client.control("end").map(({ data }) => JSON.parse(data).reason))).toEqual([
      "closing",
      "closing",
    ]);
  });

  test("README: the user for Redis may call what scripts call, and nothing goes without one of it", async () => {
    const folder = join(root, "src/redis");
    const scripts = readdirSync(folder).map((name) => readFileSync(join(folder, name), "utf8"));
    const called = scripts
      .flatMap((text) => [...text.matchAll(/redis\.call\('([A-Z]+)'/g)])
      .map(([, name = ""]) => name);
    const ofClient = ["ping", "script|load", "evalsha", "wait", "subscribe", "unsubscribe"];
    const allowed = user.filter((rule) => rule.startsWith("+")).map((rule) => rule.slice(1));
    expect(allowed.sort()).toEqual([...new Set([...called.map((name) => name.toLowerCase()), ...ofClient])].sort());

    const [{ url }] = instances;
    expect((await post(url, "", "with all")).status).toBe(200);
    await redis.cli("ACL", "SETUSER", "fanwire", "-xadd");
    expect((await post(url, "", "without one")).status).toBe(503);
    await redis.cli(command, ...user);
    await publish(url, "", "with all again");
  });

  // In CI a missing nginx is a failure.
  const needsNginx = skipIf(!hasNginx && process.env.CI !== "true", "there is no nginx on the PATH");
  describe("behind nginx, with examples/bun/nginx.conf", needsNginx, () => {
    let nginx: ChildProcess;
    let folder: string;
    let base: string;

    beforeEach(async () => {
      folder = mkdtempSync(join(tmpdir(), "fanwire-nginx-"));
      const port = await freePort();
      let config = read("examples/bun/nginx.conf");
      for (const [was, is] of [
        ["127.0.0.1:3000", port],
        ["127.0.0.1:3001", ports[0]],
        ["127.0.0.1:3002", ports[1]],
      ] as const) {
        expect(config.split(was)).toHaveLength(2);
        config = config.replace(was, `127.0.0.1:${is}`);
      }
      writeFileSync(join(folder, "nginx.conf"), config);
      nginx = spawn("nginx", ["-p", folder, "-c", join(folder, "nginx.conf")], { stdio: "ignore" });
      base = `http://127.0.0.1:${port}`;
      await listens(port);
    });
    afterEach(async () => {
      const gone = once(nginx, "exit");
      // Its own way to end at once, workers included.
      nginx.kill("SIGTERM");
      await gone;
      rmSync(folder, { recursive: true });
    });

    test("a client whose instance is killed comes back to the other one, misses nothing and gets nothing twice", async () => {
      const events = Array.from({ length: 300 }, (_, index) => `event ${index}`);
      const queries = ["", "channel=news", "id=reader"];
      const path = `${base}/connect?id=reader&channel=news`;
      const first = await new SocketClient(path).ready();
      const clients = await Promise.all(instances.map(async (each) => (await each.stats()).clients));
      expect([...clients].sort()).toEqual([0, 1]);
      const [dies, lives] = clients[0] === 1 ? instances : [instances[1], instances[0]];

      const publishing = (async () => {
        for (const [index, data] of events.entries()) await publish(base, queries[index % 3] as string, data);
      })();
      await first.until(({ data }) => data.length > 100);
      await dies.end("SIGKILL");
      await first.end();
      const second = new SocketClient(path, { "last-event-id": first.lastEventId ?? "" });
      await publishing;
      await second.until(({ data }) => data.includes("event 299"));

      expect(first.data.length).toBeLessThan(events.length);
      expect([...first.data, ...second.data]).toEqual(events);
      expect([...first.control("gap"), ...second.control("gap")]).toEqual([]);
      expect(second.control("ready").map(({ data }) => JSON.parse(data))).toEqual([
        { clientId: "reader", resumed: true },
      ]);
      expect((await lives.stats()).clients).toBe(1);
      second.leave();
    });

    test("an event may be as large as the broker takes it, and one that is larger is refused by the broker", async () => {
      const answers = await Promise.all([64, 65].map((kib) => post(base, "", "x".repeat(kib * 1024))));
      const bodies = await Promise.all(answers.map((answer) => answer.json() as Promise<{ code?: string }>));
      expect(answers.map(({ status }, index) => [status, bodies[index]?.code])).toEqual([
        [200, undefined],
        [413, "body-too-large"],
      ]);
    });

    test("while there is no instance an EventSource is told to come back, and a publisher that nobody took its event", async () => {
      const first = await new SocketClient(`${base}/connect`).ready();
      await Promise.all(instances.map((instance) => instance.end("SIGKILL")));
      await first.end();
      const second = await new SocketClient(`${base}/connect`, { "last-event-id": first.lastEventId ?? "" }).end();
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
