// Ephemeral events between processes: in order with stored ones, once, and never stored.
import { describe, expect, test } from "vitest";
import type { Broker } from "../../src/index.ts";
import { Connection, isData } from "../support/clients/connection.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { clientRequest, turn } from "../support/test-broker.ts";
import { useRedis } from "./support/use-redis.ts";

describe("redisEngine: ephemeral events", needsRedis, () => {
  const redis = useRedis();

  async function join(broker: Broker, channel: string | string[], id?: string): Promise<Connection> {
    const abort = new AbortController();
    const request = clientRequest({ channel, ...(id ? { id } : {}) }, abort.signal);
    const connection = new Connection(await broker.clientHandler(request), abort);
    await connection.untilControl("ready");
    return connection;
  }

  test("reach the clients of all processes, in order with stored events, each once", async () => {
    const [one, two] = [redis.open(), redis.open()];
    const clients = [await join(one, ["a", "b"]), await join(two, ["a", "b"]), await join(two, "a")];
    const sent: string[] = [];
    for (let n = 0; n < 200; n++) {
      const options = { channels: n % 4 ? "a" : ["a", "b"] };
      sent.push(`${n}`);
      void one.broadcast(`${n}`, n % 3 ? { ...options, ephemeral: true } : options);
    }
    for (const client of clients) {
      await client.untilData("198");
      await one.broadcast("end", { channels: "a" });
      await client.untilData("end");
      const numbers = client.data.filter((text) => text !== "end");
      expect(numbers.filter((text) => Number(text) % 3 === 0)).toEqual(sent.filter((text) => Number(text) % 3 === 0));
      expect(numbers).toEqual([...new Set(numbers)].sort((x, y) => Number(x) - Number(y)));
      // A client misses those that come while it takes something else.
      expect(client.events.filter(isData).filter(({ id }) => id === undefined).length).toBe(numbers.length - 67);
    }
    // It misses none while it waits for the next event.
    for (const client of clients)
      while (client.data.filter((text) => text === "end").length < clients.length) await client.read();
    const waiting = clients.map((client) => client.untilData("alone"));
    for (let turns = 0; turns < 3; turns++) await turn();
    await one.broadcast("alone", { channels: "a", ephemeral: true });
    await Promise.all(waiting);
    expect(
      (await one.history({ channels: "a" })).events.every(({ data }) => data === "end" || Number(data) % 3 === 0),
    ).toBe(true);
    expect((await one.history({ channels: ["a", "b"], limit: 500 })).events).toHaveLength(67 + clients.length);
  });

  test("broadcastTo reaches a client that another process holds", async () => {
    const [one, two] = [redis.open(), redis.open()];
    const ann = await join(two, "a", "ann");
    const bob = await join(two, "a", "bob");
    await one.broadcastTo("ann", "only ann", { ephemeral: true });
    await one.broadcast("end");
    for (const [client, expected] of [
      [ann, ["only ann", "end"]],
      [bob, ["end"]],
    ] as const) {
      await client.untilData("end");
      expect(client.data).toEqual(expected);
    }
  });

  test("a message that no process of the log sent is refused and reported", async () => {
    const errors: string[] = [];
    const broker = redis.open({}, { onError: ({ error }) => void errors.push(String(error)) });
    const client = await join(broker, "a");
    const [epoch] = (client.lastEventId as string).split("-");
    const forger = redis.connect();
    for (const message of [
      `~${epoch} ${"0".repeat(24)}\nforger 1\n1\n#a\ndata: forged\n\n`,
      `~${epoch}\nforger 2\n1\n#a\ndata: forged\n\n`,
      `~${epoch} ${"0".repeat(24)}`,
      "~",
      `~another ${"0".repeat(24)}\nforger 3\n1\n#a\ndata: forged\n\n`,
    ])
      await forger.publish("{test}:feed:#a", message);
    await broker.broadcast("end", { channels: "a" });
    await client.untilData("end");
    expect(client.data).toEqual(["end"]);
    expect(errors).toHaveLength(4);
    for (const error of errors) expect(error).toMatch(/Redis message refused/);
  });
});
