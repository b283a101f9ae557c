// Instances on Bun with its own Redis client, on Deno with node-redis and on Node with ioredis.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { History } from "../../src/index.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { needsRedis, type RedisServer, startRedis } from "../support/servers/redis.ts";
import { Instance, type Runtime } from "./chaos/instance.ts";

const RUNTIMES = ["bun", "deno", "node"] as const;
type Published = { readonly id: string; readonly clients: number };

describe("instances on one Redis behave as one broker", needsRedis, () => {
  let redis: RedisServer;
  let instances: Record<Runtime, Instance>;
  const opened: SocketClient[] = [];

  beforeAll(async () => {
    redis = await startRedis();
    const env = { REDIS_URL: redis.url, PREFIX: "instances" };
    const [bun, deno, node] = await Promise.all(RUNTIMES.map((runtime) => Instance.start(runtime, env)));
    instances = { bun, deno, node } as Record<Runtime, Instance>;
  });

  afterAll(async () => {
    for (const client of opened) client.leave();
    await Promise.all(Object.values(instances).map((instance) => instance.kill()));
    await redis.stop();
  });

  async function join(runtime: Runtime, query: string, lastEventId?: string): Promise<SocketClient> {
    const headers: Record<string, string> = lastEventId === undefined ? {} : { "last-event-id": lastEventId };
    const client = new SocketClient(`${instances[runtime].url}/connect?${query}`, headers);
    opened.push(client);
    return await client.untilReady();
  }

  const post = (runtime: Runtime, query: string, data: string, key?: string): Promise<Response> =>
    fetch(`${instances[runtime].url}/broadcast?${query}`, {
      method: "POST",
      body: data,
      headers: { authorization: "Bearer chaos", ...(key === undefined ? {} : { "idempotency-key": key }) },
    });

  async function publish(runtime: Runtime, query: string, data: string, key?: string): Promise<Published> {
    const response = await post(runtime, query, data, key);
    const body = await response.text();
    expect(response.status, `${runtime}: ${body}`).toBe(200);
    return JSON.parse(body) as Published;
  }

  test("events published at any instance reach the clients of all, in one order, each with one id", async () => {
    const clients = await Promise.all(RUNTIMES.map((runtime) => join(runtime, "channel=order&channel=other")));
    const events = Array.from({ length: 60 }, (_, index) => `event ${index}`);
    await Promise.all(
      events.map((data, index) =>
        publish(
          RUNTIMES[index % 3] as Runtime,
          index % 4 === 0 ? "channel=order&channel=other" : "channel=order",
          data,
        ),
      ),
    );
    await Promise.all(clients.map((client) => client.until(({ data }) => data.length >= events.length)));
    const [first = [], second, third] = clients.map(({ events: all }) =>
      all.filter(({ event }) => !event?.startsWith("fanwire-")).map(({ id, data }) => `${id} ${data}`),
    );
    expect(first.map((text) => text.replace(/^\S+ /, "")).sort()).toEqual([...events].sort());
    expect(second).toEqual(first);
    expect(third).toEqual(first);
  });

  test("resume: a client that moves between instances with its last id misses no event and receives none twice", async () => {
    const received: string[] = [];
    let lastEventId: string | undefined;
    for (let turn = 0; turn < 6; turn++) {
      const client = await join(RUNTIMES[turn % 3] as Runtime, "channel=journey", lastEventId);
      // One event while the client is connected, and one while it is not.
      await publish(RUNTIMES[(turn + 1) % 3] as Runtime, "channel=journey", `${turn} here`);
      await client.until(({ data }) => data.at(-1) === `${turn} here`);
      received.push(...client.data);
      expect(client.control("gap")).toEqual([]);
      lastEventId = client.lastEventId;
      client.leave();
      await publish(RUNTIMES[(turn + 2) % 3] as Runtime, "channel=journey", `${turn} away`);
    }
    const published = Array.from({ length: 6 }, (_, turn) => [`${turn} here`, `${turn} away`]).flat();
    expect(received).toEqual(published.slice(0, -1));
  });

  test("from=earliest: an instance that has just started has the history of the others", async () => {
    await publish("bun", "channel=history", "before");
    await instances.node.kill();
    await publish("deno", "channel=history", "while stopped");
    await instances.node.start();
    const client = await join("node", "channel=history&from=earliest");
    await client.until(({ data }) => data.includes("while stopped"));
    expect(client.data).toEqual(["before", "while stopped"]);
  });

  test("GET /history: every instance reads what was published at the others, and a stream continues at its position anywhere", async () => {
    const data = Array.from({ length: 30 }, (_, n) => `${n}`);
    for (const [n, each] of data.entries()) await publish(RUNTIMES[n % 3] as Runtime, "channel=parts", each);
    const all: string[] = [];
    let position = "";
    for (let turn = 0, more = true; more; turn++) {
      const query = new URLSearchParams({ channel: "parts", limit: "7", after: position });
      const response = await fetch(`${instances[RUNTIMES[turn % 3] as Runtime].url}/history?${query}`);
      expect(response.status).toBe(200);
      const part = (await response.json()) as History;
      expect(part.gaps).toEqual([]);
      all.push(...part.events.map((event) => event.data));
      ({ position, more } = part);
      if (all.length !== 14) continue;
      const client = await join("deno", "channel=parts", position);
      await client.until((client) => client.data.length === 16);
      expect(client.data).toEqual(data.slice(14));
    }
    expect(all).toEqual(data);
  });

  test.for(RUNTIMES)(
    "broadcastTo: a recipient on %s receives events from the other instances; an unknown one is refused",
    async (runtime) => {
      const client = await join(runtime, `id=ann-${runtime}`);
      const others = RUNTIMES.filter((other) => other !== runtime);
      for (const from of others) await publish(from, `id=ann-${runtime}`, `from ${from}`);
      await client.until(({ data }) => data.length === 2);
      expect(client.data).toEqual(others.map((from) => `from ${from}`));
      const answer = await post(runtime, "id=nobody", "lost");
      expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([404, "unknown-client"]);
    },
  );

  test("idempotency key: a key used at one instance is known at the others", async () => {
    const client = await join("deno", "channel=keys");
    const [first, ...again] = [
      await publish("bun", "channel=keys", "once", "key"),
      await publish("deno", "channel=keys", "once", "key"),
      await publish("node", "channel=keys", "once", "key"),
    ];
    expect(again.map(({ id }) => id)).toEqual([first?.id, first?.id]);
    expect((await post("node", "channel=keys", "other", "key")).status).toBe(422);
    await publish("node", "channel=keys", "last");
    await client.until(({ data }) => data.includes("last"));
    expect(client.data).toEqual(["once", "last"]);
  });

  test.for(RUNTIMES)(
    "disconnect: a client on %s is ended from another instance, and refused by all of them",
    async (runtime) => {
      const id = `leaving-${runtime}`;
      const client = await join(runtime, `id=${id}`);
      const from = RUNTIMES.find((other) => other !== runtime) as Runtime;
      await fetch(`${instances[from].url}/disconnect?id=${id}&for=60000`);
      await client.untilEnded();
      expect(client.control("end")).toHaveLength(1);
      for (const { url } of Object.values(instances)) {
        const back = await new SocketClient(`${url}/connect?id=${id}`).untilEnded();
        expect(back.status).toBe(204);
      }
    },
  );
});
