import { expect } from "vitest";
import type { DisconnectReason } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import {
  createCountedBody,
  deferred,
  expectUnused,
  HOUR_MS,
  statusAndCode,
  testPublishing,
  testReading,
  withClockAhead,
} from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, Recorder, turn } from "../../support/test-broker.ts";

// Grants that expire (`expiresAt`).

testReading(
  "expiresAt: a grant that has already expired is answered with 401 and registers no connection",
  async ({ setup, entryPoint }) => {
    for (const expiresAt of [0, -1, Number.NEGATIVE_INFINITY, new Date(0), Date.now() - 1, Date.now()]) {
      const broker = setup.broker({ authorize: () => ({ channels: ["a"], expiresAt }) });
      expect(await statusAndCode(await entryPoint(broker, clientRequest({ channel: "a" })))).toEqual([
        401,
        "unauthorized",
      ]);
      expectUnused(broker);
    }
  },
);

testPublishing(
  "expiresAt: a grant that has already expired is answered with 401 and publishes nothing",
  async (stage, door) => {
    for (const expiresAt of [0, new Date(0), Date.now()]) {
      const broker = stage.broker({ authorize: () => ({ channels: ["a"], expiresAt }) });
      const body = createCountedBody();
      const answer = await door(broker, eventRequest(null, "?channel=a", body.init));
      expect([...(await statusAndCode(answer)), body.pulls()]).toEqual([401, "unauthorized", 0]);
      expectUnused(broker);
    }
  },
);

for (const [form, soon] of [
  ["epoch milliseconds", () => Date.now() + 100],
  ["a Date", () => new Date(Date.now() + 100)],
] as const) {
  testReading(
    `expiresAt: as ${form}, ends a stream with fanwire-end if the client reads`,
    async ({ setup, connect }) => {
      const left = new Recorder<{ reason: DisconnectReason }>();
      const broker = setup.broker({ authorize: () => ({ expiresAt: soon() }), onDisconnect: left.record });
      const client = await connect(broker);
      const end = await client.untilControl("end");
      expect(JSON.parse(end.data)).toEqual({ reason: "expired", reconnect: true });
      expect(end.id).toBeUndefined();
      expect(await client.ended()).toBe("closed");
      expect((await left.next()).reason).toBe("expired");
      expect(broker.stats()).toMatchObject({ clients: 0, channels: 0, closing: 0, disconnects: { expired: 1 } });
    },
  );
}

testReading(
  "expiresAt: ends a stream that the client does not read, and sends nothing more",
  async ({ setup, connect }) => {
    const left = new Recorder<{ reason: DisconnectReason }>();
    const broker = setup.broker({ authorize: () => ({ expiresAt: Date.now() + 100 }), onDisconnect: left.record });
    const client = await connect(broker);
    await broker.broadcast("waits in the log");
    expect((await left.next()).reason).toBe("expired");
    // The broker does not wait until the client reads.
    expect(broker.stats()).toMatchObject({ clients: 0, channels: 0, closing: 0, blocked: 0 });
    expect(await client.ended()).toBe("closed");
    expect([client.data, client.control("end")]).toEqual([[], []]);
    expect(broker.stats().sent).toBe(0);
  },
);

testReading("expiresAt: is checked whenever a client asks for more", async ({ setup, connect }) => {
  const left = new Recorder<{ reason: DisconnectReason }>();
  const broker = setup.broker({ authorize: () => ({ expiresAt: Date.now() + HOUR_MS }), onDisconnect: left.record });
  const client = await connect(broker);
  // Too much for one chunk, so that the client must ask again.
  for (const letter of ["a", "b", "c", "d"]) await broker.broadcast(letter.repeat(100_000));
  expect((await client.nextData()).data[0]).toBe("a");
  const before = client.data.length;
  const how = await withClockAhead(2 * HOUR_MS, () => client.ended());
  expect(how).toBe("closed");
  expect([client.data.length, client.control("end").length]).toEqual([before, 1]);
  expect(before).toBeLessThan(4);
  expect((await left.next()).reason).toBe("expired");
});

testReading(
  "expiresAt: applies while the broker closes, to a client that has not read its backlog",
  async ({ setup, connect }) => {
    const broker = setup.broker({ authorize: () => ({ expiresAt: Date.now() + HOUR_MS }) });
    const client = await connect(broker);
    await broker.broadcast("waits in the log");
    const closed = broker.close();
    await turn();
    await withClockAhead(2 * HOUR_MS, () => client.ended());
    await closed;
    expect(client.data).toEqual([]);
    // Nothing was sent to the client, so nothing is counted.
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 0, sent: 0 });
  },
);

testReading("expiresAt: if it passes while the engine subscribes, nothing is sent", async ({ setup, connect }) => {
  const subscribed = deferred<void>();
  let wait: Promise<void> = Promise.resolve();
  const broker = setup.broker({
    engine: slowEngine(setup.engine(), () => wait),
    authorize: () => ({ expiresAt: Date.now() + HOUR_MS }),
  });
  await broker.broadcast("in the log");
  wait = subscribed.promise;
  const entering = connect(broker, { query: { from: "earliest" } });
  await turn();
  expect(broker.stats()).toMatchObject({ clients: 0, pending: 0 });
  const client = await withClockAhead(2 * HOUR_MS, async () => {
    subscribed.resolve();
    const entered = await entering;
    await entered.ended();
    return entered;
  });
  expect(client.data).toEqual([]);
  expect(broker.stats()).toMatchObject({ clients: 0, sent: 0 });
});

testReading("expiresAt: years ahead does not end the stream now", async ({ setup, connect }) => {
  const expiries: Record<string, () => number | Date> = {
    month: () => Date.now() + 30 * 24 * HOUR_MS,
    decade: () => Date.now() + 10 * 365 * 24 * HOUR_MS,
    last: () => new Date(8.64e15),
    ever: () => Number.POSITIVE_INFINITY,
    soon: () => Date.now() + 200,
  };
  const broker = setup.broker({ authorize: ({ clientId = "" }) => ({ clientId, expiresAt: expiries[clientId]?.() }) });
  const delays: number[] = [];
  const { setTimeout } = globalThis;
  globalThis.setTimeout = ((task: () => void, ms = 0) => {
    delays.push(ms);
    return setTimeout(task, ms);
  }) as typeof setTimeout;
  const lasting: Connection[] = [];
  try {
    for (const id of ["month", "decade", "last", "ever"]) lasting.push(await connect(broker, { id }));
  } finally {
    globalThis.setTimeout = setTimeout;
  }
  const soon = await connect(broker, { id: "soon" });
  // A stream that ends at once by mistake has ended by then.
  await soon.untilControl("end");
  await broker.broadcast("still here");
  for (const client of lasting) expect((await client.nextData()).data).toBe("still here");
  // The longest delay of a timer. A longer one would fire at once, again and again.
  expect(Math.max(...delays)).toBe(2 ** 31 - 1);
});

testReading("expiresAt: a timer that fires early by the clock ends no stream", async ({ setup, connect }) => {
  const expiresAt = Date.now() + 150;
  const broker = setup.broker({ authorize: () => ({ expiresAt }) });
  const client = await connect(broker);
  const looks = new Recorder<void>();
  const { now } = Date;
  try {
    Date.now = () => {
      looks.record();
      return now.call(Date) - HOUR_MS;
    };
    await looks.next();
    await turn();
    await broker.broadcast("still here");
    expect((await client.nextData()).data).toBe("still here");
  } finally {
    Date.now = now;
  }
  while (Date.now() < expiresAt) await turn();
  // When the client asks for more, the grant has expired.
  expect(await client.ended()).toBe("closed");
  expect(client.control("end")).toHaveLength(1);
});
