import { Hono } from "hono";
import { describe, expect, test } from "vitest";
import { sse } from "../../../src/hono.ts";
import type { Broker, DisconnectReason } from "../../../src/index.ts";
import { Connection } from "../../support/clients/connection.ts";
import { type ReadEntryPoint, readEntryPoints } from "../../support/http/entry-points.ts";
import { clientRequest, Recorder, turn, withBroker } from "../../support/test-broker.ts";

// Requests that are aborted in the process: their streams end, and nothing of the connection stays.

const entryPoints: readonly (readonly [string, ReadEntryPoint])[] = [
  ...readEntryPoints,
  [
    "a Hono app's request()",
    async (broker, { url, headers, signal }) => new Hono().route("/", sse(broker)).request(url, { headers, signal }),
  ],
];

const expectNothingLeft = (broker: Broker): void =>
  expect(broker.stats()).toMatchObject({ clients: 0, ids: 0, blocked: 0, closing: 0, channels: 0 });

describe.each(entryPoints)("%s", (_name, entryPoint) => {
  const connect = async (broker: Broker): Promise<Connection> => {
    const abort = new AbortController();
    return new Connection(await entryPoint(broker, clientRequest({}, abort.signal)), abort);
  };
  const connectAndRead = async (broker: Broker): Promise<Connection> => {
    const client = await connect(broker);
    await client.untilControl("ready");
    return client;
  };

  test(
    "signal: an abort ends a read that waits for an event",
    withBroker(async (setup) => {
      const left = new Recorder<{ reason: DisconnectReason }>();
      const broker = setup.broker({ onDisconnect: left.record });
      const client = await connectAndRead(broker);
      const reading = client.read();
      await turn();
      client.abort();
      expect(await reading).toBe(false);
      expect(await client.ended()).toBe("closed");
      expect((await left.next()).reason).toBe("client-left");
      expectNothingLeft(broker);
    }),
  );

  test(
    "signal: after an abort, a stream of which nothing was read has its first chunk, and ends",
    withBroker(async (setup) => {
      const broker = setup.broker();
      const client = await connect(broker);
      client.abort();
      expectNothingLeft(broker);
      await broker.broadcast("too late");
      expect(await client.ended()).toBe("closed");
      expect([client.chunks.length, client.data, client.control("end")]).toEqual([1, [], []]);
    }),
  );

  test(
    "signal: an abort ends the stream of a client that has events to read, without them",
    withBroker(async (setup) => {
      const broker = setup.broker();
      const client = await connectAndRead(broker);
      for (const data of ["1", "2"]) await broker.broadcast(data);
      await turn();
      client.abort();
      expect(await client.ended()).toBe("closed");
      expect(client.data).toEqual([]);
      expectNothingLeft(broker);
    }),
  );

  test(
    "signal: an abort ends a stream that waits for its end event to be read, and close() resolves",
    withBroker(async (setup) => {
      const broker = setup.broker({ timeout: 60_000 });
      const client = await connectAndRead(broker);
      await broker.broadcast("unread");
      const closed = broker.close();
      await turn();
      expect(broker.stats()).toMatchObject({ clients: 0, closing: 1 });
      client.abort();
      await closed;
      expect(await client.ended()).toBe("closed");
      expectNothingLeft(broker);
    }),
  );

  test(
    "signal, cancel(): both, in either order, end a stream once",
    withBroker(async (setup) => {
      const left = new Recorder<{ reason: DisconnectReason }>();
      const broker = setup.broker({ onDisconnect: left.record });
      const [first, second] = [await connectAndRead(broker), await connectAndRead(broker)];
      const reading = first.read();
      first.abort();
      await first.leave();
      expect(await reading).toBe(false);
      await second.leave();
      second.abort();
      for (const client of [first, second]) expect(await client.ended()).toBe("closed");
      await turn();
      expect(left.all.map(({ reason }) => reason)).toEqual(["client-left", "client-left"]);
      expectNothingLeft(broker);
    }),
  );
});
