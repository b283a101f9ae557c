// A feed that loses a message, and a client that moves to another process before the loss is found.
import { Redis } from "ioredis";
import { afterEach, describe, expect, test } from "vitest";
import { type Broker, createBroker } from "../../src/index.ts";
import { redisEngine } from "../../src/redis/index.ts";
import { Connection, gapOf, isData } from "../support/clients/connection.ts";
import { needsRedis, startRedis } from "../support/servers/redis.ts";
import { Forwarder } from "./chaos/forwarder.ts";

describe("a feed that loses a message", needsRedis, () => {
  const undo: (() => unknown)[] = [];
  afterEach(async () => {
    for (const each of undo.splice(0).reverse()) await each();
  });

  /** Opens a broker whose feed comes from a port. */
  function open(port: number, feedPort: number): Broker {
    const [client, subscriber] = [new Redis(port, "127.0.0.1"), new Redis(feedPort, "127.0.0.1")];
    const broker = createBroker({ engine: redisEngine({ client, subscriber, prefix: "test" }) });
    undo.push(() => {
      client.disconnect();
      subscriber.disconnect();
    });
    undo.push(() => broker.close({ force: true }));
    return broker;
  }

  async function join(broker: Broker, lastEventId?: string): Promise<Connection> {
    const headers: Record<string, string> = lastEventId === undefined ? {} : { "last-event-id": lastEventId };
    const abort = new AbortController();
    const request = new Request("http://broker/connect?channel=a&channel=b", { headers, signal: abort.signal });
    const connection = new Connection(await broker.fetch(request), abort);
    await connection.untilControl("ready");
    return connection;
  }

  test("a client that has moved to another process receives a gap there", async () => {
    const server = await startRedis();
    undo.push(() => server.stop());
    const feed = await Forwarder.to(server.port);
    undo.push(() => feed.close());
    const [here, there] = [open(server.port, feed.port), open(server.port, server.port)];
    const [client, witness] = [await join(here), await join(there)];
    let lost = "";
    // A chunk that is lost may have been a checkpoint, or have both events.
    for (let round = 0; lost === ""; round++) {
      feed.loseMessages(1);
      const { id } = await there.broadcast(`a${round}`, { channels: "a" });
      await witness.untilData(`a${round}`);
      await there.broadcast(`b${round}`, { channels: "b" });
      await client.untilData(`b${round}`);
      if (!client.data.includes(`a${round}`)) lost = id;
    }
    feed.loseMessages(0);
    await client.leave();
    const moved = await join(there, client.lastEventId);
    // With the next event of the channel the first process finds the loss.
    await there.broadcast("next", { channels: "a" });
    const gap = gapOf(await moved.untilControl("gap"));
    expect(gap).toMatchObject({ channels: ["a"], through: lost });
    await there.broadcast("last", { channels: "b" });
    await moved.untilData("last");
    expect(moved.events.filter(isData).map(({ data }) => data)).toEqual(["next", "last"]);
  });
});
