// Open streams that another process holds: their channels change, and events are for one of them.
import { describe, expect, test } from "vitest";
import type { Broker } from "../../src/index.ts";
import { Connection, changesOf, secretOf } from "../support/clients/connection.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { type ConnectOptions, clientRequest, codeOf } from "../support/test-broker.ts";
import { useRedis } from "./support/use-redis.ts";

describe("redisEngine: streams of other processes", needsRedis, () => {
  const redis = useRedis();

  async function join(broker: Broker, options: ConnectOptions): Promise<Connection> {
    const abort = new AbortController();
    const connection = new Connection(await broker.clientHandler(clientRequest(options, abort.signal)), abort);
    await connection.untilControl("ready");
    return connection;
  }

  test("subscribe() and unsubscribe() reach them, and what is published anywhere after that arrives", async () => {
    const brokers = [redis.open(), redis.open(), redis.open()];
    const [one, two, three] = brokers as [Broker, Broker, Broker];
    const clients = await Promise.all([one, two, two].map((broker) => join(broker, { id: "ann", channel: "a" })));
    const bob = await join(two, { id: "bob" });
    for (let round = 0; round < 10; round++) {
      const room = `room ${round}`;
      expect(await three.subscribe("ann", room)).toMatchObject({ clients: 3 });
      for (const [index, broker] of brokers.entries()) await broker.broadcast(`${round} ${index}`, { channels: room });
      expect(await one.unsubscribe("ann", room, { reason: "over" })).toEqual({ clients: 3 });
      await two.broadcast("too late", { channels: room });
    }
    await one.broadcast("end");
    const expected = Array.from({ length: 10 }, (_, round) => [0, 1, 2].map((index) => `${round} ${index}`)).flat();
    for (const client of clients) {
      await client.untilData("end");
      expect(client.data).toEqual([...expected, "end"]);
      expect(client.control("gap")).toEqual([]);
      expect(changesOf(client)).toHaveLength(20);
      expect(changesOf(client).at(-1)).toEqual({ channels: ["a"], added: [], removed: ["room 9"], reason: "over" });
    }
    await bob.untilData("end");
    expect(bob.data).toEqual(["end"]);
    expect(await three.subscribe("nobody", "a")).toMatchObject({ clients: 0 });
  });

  test("POST /subscribe at any process changes the stream that another one holds; a foreign or unknown secret nobody's", async () => {
    const authorize = ({ request }: { request: Request }) => {
      const user = request.headers.get("x-user") ?? "";
      return { subject: user, clientId: user, channels: ["a", "b"] };
    };
    const [one, two] = [redis.open({}, { authorize }), redis.open({}, { authorize })];
    const ann = await join(two, { channel: "a", headers: { "x-user": "ann" } });
    const secret = secretOf(ann);
    const post = async (user: string, fields: Record<string, string>): Promise<unknown[]> => {
      const init = { method: "POST", body: new URLSearchParams(fields), headers: { "x-user": user } };
      const response = await one.fetch(new Request("https://fanwire.test/subscribe", init));
      return [response.status, ((await response.json()) as { code?: string }).code];
    };
    expect(await post("bob", { secret, channel: "b" })).toEqual([404, "unknown-stream"]);
    expect(await post("ann", { secret: "0".repeat(26), channel: "b" })).toEqual([404, "unknown-stream"]);
    expect(await post("ann", { secret, channel: "b" })).toEqual([200, undefined]);
    await one.broadcast("end", { channels: "b" });
    await ann.untilData("end");
    expect(changesOf(ann)).toEqual([{ channels: ["a", "b"], added: ["b"], removed: [] }]);
  });

  test("broadcastTo with a connectionId, the reason of disconnect(), and a refusal of the other process", async () => {
    const [one, two] = [redis.open(), redis.open({}, { maxChannelsPerClient: 2 })];
    const tabs = [await join(two, { id: "ann", channel: "a" }), await join(two, { id: "ann" })];
    const connectionId = two.clients()[1]?.connectionId as string;
    expect(await one.broadcastTo("ann", "only the second", { connectionId })).toEqual({ clients: 1 });
    expect(await codeOf(one.broadcastTo("ann", "x", { connectionId: "none" }))).toBe("unknown-client");
    expect(await codeOf(one.subscribe("ann", ["b", "c"]))).toBe("bad-channel");
    expect(two.clients().map(({ channels }) => channels)).toEqual([["a"], []]);
    await one.broadcast("end");
    for (const tab of tabs) await tab.untilData("end");
    expect(tabs.map(({ data }) => data)).toEqual([["end"], ["only the second", "end"]]);
    await one.disconnect("ann", { reason: "a line\nand more ”é" });
    for (const tab of tabs) {
      await tab.ended();
      expect(JSON.parse(tab.control("end")[0]?.data ?? "")).toMatchObject({ detail: "a line\nand more ”é" });
    }
  });

  test("a process that does not answer makes the call engine-down, and not a promise that nobody keeps", async () => {
    const [one, two] = [redis.open({ commandTimeout: 1_000 }), redis.open({ commandTimeout: 60_000, lease: 120_000 })];
    await join(one, { id: "bob" });
    await join(two, { id: "ann" });
    // Its feed is gone, and its presence remains.
    await redis.server.command("CLIENT", "KILL", "TYPE", "pubsub");
    await redis.server.command("CLIENT", "NO-EVICT", "OFF");
    const outcomes = new Set<string>();
    for (let n = 0; n < 20 && !outcomes.has("none"); n++) outcomes.add(await codeOf(one.subscribe("ann", "a")));
    expect([...outcomes].every((code) => code === "none" || code === "engine-down")).toBe(true);
    // It recovers by itself: the call is repeated until then.
    expect(outcomes.has("none")).toBe(true);
    expect(two.clients()[0]?.channels).toEqual(["a"]);
  });

  test("a forged request changes nothing, and is reported", async () => {
    const errors: string[] = [];
    const broker = redis.open({}, { onError: ({ error }) => void errors.push(String(error)) });
    const client = await join(broker, { id: "ann" });
    const [epoch] = (client.lastEventId as string).split("-");
    const process = (await redis.connect().zrange("{test}:processes", "0", "-1"))[0] as string;
    const request = { type: "subscribe", clientId: "ann", channels: ["forged"] };
    const forger = redis.connect();
    for (const message of [
      `?${JSON.stringify({ epoch, secret: "0".repeat(24), id: "x", from: "forger", request })}`,
      `?${JSON.stringify({ epoch: "other", secret: "0".repeat(24), id: "x", from: "forger", request })}`,
      "?{}",
      "?null",
      "?not json",
      `=${JSON.stringify({ id: "x", from: "forger", answer: { clients: 9 } })}`,
      "=[]",
    ])
      await forger.publish(`{test}:checkpoint:${process}`, message);
    await broker.broadcast("end");
    await client.untilData("end");
    expect(broker.clients()[0]?.channels).toEqual([]);
    expect(client.control("channels")).toEqual([]);
    expect(errors.length).toBeGreaterThanOrEqual(3);
  });
});
