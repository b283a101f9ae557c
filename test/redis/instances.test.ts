import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { needsRedis, type RedisServer, startRedis } from "../support/servers/redis.ts";
import { Instance, type Runtime } from "./chaos/instance.ts";

// Bun with its own client of Redis, Deno with node-redis and Node with ioredis are one broker.

const RUNTIMES = ["bun", "deno", "node"] as const;
type Published = { readonly id: string; readonly clients: number };

describe("instances on one Redis", needsRedis, () => {
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

  async function join(at: Runtime, query: string, lastEventId?: string): Promise<SocketClient> {
    const headers: Record<string, string> = lastEventId === undefined ? {} : { "last-event-id": lastEventId };
    const client = new SocketClient(`${instances[at].url}/connect?${query}`, headers);
    opened.push(client);
    return await client.ready();
  }

  const post = (at: Runtime, query: string, data: string, key?: string): Promise<Response> =>
    fetch(`${instances[at].url}/broadcast?${query}`, {
      method: "POST",
      body: data,
      headers: { authorization: "Bearer chaos", ...(key === undefined ? {} : { "idempotency-key": key }) },
    });

  async function publish(at: Runtime, query: string, data: string, key?: string): Promise<Published> {
    const response = await post(at, query, data, key);
    expect(response.status).toBe(200);
    return (await response.json()) as Published;
  }

  test("what is published at any of them reaches the clients of all, in one order, with one id", async () => {
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

  test("a client that goes from one to the next with its last id misses nothing and gets nothing twice", async () => {
    const got: string[] = [];
    let lastEventId: string | undefined;
    for (let turn = 0; turn < 6; turn++) {
      const client = await join(RUNTIMES[turn % 3] as Runtime, "channel=journey", lastEventId);
      // One while it is there, and one while it is not.
      await publish(RUNTIMES[(turn + 1) % 3] as Runtime, "channel=journey", `${turn} here`);
      await client.until(({ data }) => data.at(-1) === `${turn} here`);
      got.push(...client.data);
      expect(client.control("gap")).toEqual([]);
      lastEventId = client.lastEventId;
      client.leave();
      await publish(RUNTIMES[(turn + 2) % 3] as Runtime, "channel=journey", `${turn} away`);
    }
    const told = Array.from({ length: 6 }, (_, turn) => [`${turn} here`, `${turn} away`]).flat();
    expect(got).toEqual(told.slice(0, -1));
  });

  test("an instance that has just been started has the history of the others", async () => {
    await publish("bun", "channel=history", "before");
    await instances.node.kill();
    await publish("deno", "channel=history", "meanwhile");
    await instances.node.start();
    const client = await join("node", "channel=history&from=earliest");
    await client.until(({ data }) => data.includes("meanwhile"));
    expect(client.data).toEqual(["before", "meanwhile"]);
  });

  test.for(RUNTIMES)(
    "a recipient on %s is reached from the others, and one that is nowhere is unknown",
    async (home) => {
      const client = await join(home, `id=ann-${home}`);
      const others = RUNTIMES.filter((runtime) => runtime !== home);
      for (const from of others) await publish(from, `id=ann-${home}`, `from ${from}`);
      await client.until(({ data }) => data.length === 2);
      expect(client.data).toEqual(others.map((from) => `from ${from}`));
      const answer = await post(home, "id=nobody", "lost");
      expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([404, "unknown-client"]);
    },
  );

  test("a key that was used at one is known at the others", async () => {
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

  test.for(RUNTIMES)("a client on %s is disconnected from another one, and turned away everywhere", async (home) => {
    const id = `leaving-${home}`;
    const client = await join(home, `id=${id}`);
    const from = RUNTIMES.find((runtime) => runtime !== home) as Runtime;
    await fetch(`${instances[from].url}/disconnect?id=${id}&for=60000`);
    await client.end();
    expect(client.control("end")).toHaveLength(1);
    for (const { url } of Object.values(instances)) {
      const back = await new SocketClient(`${url}/connect?id=${id}`).end();
      expect(back.status).toBe(204);
    }
  });
});
