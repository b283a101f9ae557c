import { expect } from "vitest";
import type { DisconnectReason } from "../../../src/index.ts";
import type { Connection } from "../../support/clients/connection.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import {
  deferred,
  expectUntouched,
  HOUR,
  later,
  problem,
  publishing,
  reading,
  witnessedBody,
} from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, turn, Witness } from "../../support/test-broker.ts";

// When what was granted is over.

reading("expiresAt: what is over already is 401 and registers nobody", async ({ stage, door }) => {
  for (const expiresAt of [0, -1, Number.NEGATIVE_INFINITY, new Date(0), Date.now() - 1, Date.now()]) {
    const broker = stage.broker({ authorize: () => ({ channels: ["a"], expiresAt }) });
    expect(await problem(await door(broker, clientRequest({ channel: "a" })))).toEqual([401, "unauthorized"]);
    expectUntouched(broker);
  }
});

publishing("expiresAt: what is over already is 401 and publishes nothing", async (stage, door) => {
  for (const expiresAt of [0, new Date(0), Date.now()]) {
    const broker = stage.broker({ authorize: () => ({ channels: ["a"], expiresAt }) });
    const body = witnessedBody();
    const answer = await door(broker, eventRequest(null, "?channel=a", body.init));
    expect([...(await problem(answer)), body.pulls()]).toEqual([401, "unauthorized", 0]);
    expectUntouched(broker);
  }
});

for (const [form, soon] of [
  ["epoch milliseconds", () => Date.now() + 100],
  ["a Date", () => new Date(Date.now() + 100)],
] as const) {
  reading(`expiresAt: as ${form}, ends a stream that is read with fanwire-end`, async ({ stage, enter }) => {
    const left = new Witness<{ reason: DisconnectReason }>();
    const broker = stage.broker({ authorize: () => ({ expiresAt: soon() }), onDisconnect: left.see });
    const client = await enter(broker);
    const end = await client.untilControl("end");
    expect(JSON.parse(end.data)).toEqual({ reason: "expired", reconnect: true });
    expect(end.id).toBeUndefined();
    expect(await client.ended()).toBe("closed");
    expect((await left.next()).reason).toBe("expired");
    expect(broker.stats()).toMatchObject({ clients: 0, channels: 0, closing: 0, disconnects: { expired: 1 } });
  });
}

reading("expiresAt: errors a stream that is not read, and gives it nothing more", async ({ stage, enter }) => {
  const left = new Witness<{ reason: DisconnectReason }>();
  const broker = stage.broker({ authorize: () => ({ expiresAt: Date.now() + 100 }), onDisconnect: left.see });
  const client = await enter(broker);
  await broker.broadcast("waits in the log");
  expect((await left.next()).reason).toBe("expired");
  // It is not waited for until it reads.
  expect(broker.stats()).toMatchObject({ clients: 0, channels: 0, closing: 0, blocked: 0 });
  expect(await client.ended()).toBe("errored");
  expect(client.data).toEqual([]);
  expect(broker.stats().sent).toBe(0);
});

reading("expiresAt: is looked at whenever a client asks for more", async ({ stage, enter }) => {
  const left = new Witness<{ reason: DisconnectReason }>();
  const broker = stage.broker({ authorize: () => ({ expiresAt: Date.now() + HOUR }), onDisconnect: left.see });
  const client = await enter(broker);
  // Too much for one chunk, so that it has to ask again in the middle.
  for (const letter of ["a", "b", "c", "d"]) await broker.broadcast(letter.repeat(100_000));
  expect((await client.nextData()).data[0]).toBe("a");
  const before = client.data.length;
  const how = await later(2 * HOUR, () => client.ended());
  expect(how).toBe("closed");
  expect([client.data.length, client.control("end").length]).toEqual([before, 1]);
  expect(before).toBeLessThan(4);
  expect((await left.next()).reason).toBe("expired");
});

reading(
  "expiresAt: holds while the broker closes, for a client that has not read its backlog",
  async ({ stage, enter }) => {
    const broker = stage.broker({ authorize: () => ({ expiresAt: Date.now() + HOUR }) });
    const client = await enter(broker);
    await broker.broadcast("waits in the log");
    const closed = broker.close();
    await turn();
    await later(2 * HOUR, () => client.ended());
    await closed;
    expect(client.data).toEqual([]);
    // Nothing was sent to it, so nothing is counted.
    expect(broker.stats()).toMatchObject({ clients: 0, closing: 0, sent: 0 });
  },
);

reading("expiresAt: that passes while the engine subscribes lets nothing out", async ({ stage, enter }) => {
  const subscribed = deferred<void>();
  let wait: Promise<void> = Promise.resolve();
  const broker = stage.broker({
    engine: slowEngine(stage.engine(), () => wait),
    authorize: () => ({ expiresAt: Date.now() + HOUR }),
  });
  await broker.broadcast("in the log");
  wait = subscribed.promise;
  const entering = enter(broker, { query: { from: "earliest" } });
  await turn();
  expect(broker.stats()).toMatchObject({ clients: 0, pending: 0 });
  const client = await later(2 * HOUR, async () => {
    subscribed.resolve();
    const entered = await entering;
    await entered.ended();
    return entered;
  });
  expect(client.data).toEqual([]);
  expect(broker.stats()).toMatchObject({ clients: 0, sent: 0 });
});

reading("expiresAt: in years is no reason to end now", async ({ stage, enter }) => {
  const expiries: Record<string, () => number | Date> = {
    month: () => Date.now() + 30 * 24 * HOUR,
    decade: () => Date.now() + 10 * 365 * 24 * HOUR,
    last: () => new Date(8.64e15),
    ever: () => Number.POSITIVE_INFINITY,
    soon: () => Date.now() + 200,
  };
  const broker = stage.broker({ authorize: ({ clientId = "" }) => ({ clientId, expiresAt: expiries[clientId]?.() }) });
  const delays: number[] = [];
  const { setTimeout } = globalThis;
  globalThis.setTimeout = ((task: () => void, ms = 0) => {
    delays.push(ms);
    return setTimeout(task, ms);
  }) as typeof setTimeout;
  const lasting: Connection[] = [];
  try {
    for (const id of ["month", "decade", "last", "ever"]) lasting.push(await enter(broker, { id }));
  } finally {
    globalThis.setTimeout = setTimeout;
  }
  const soon = await enter(broker, { id: "soon" });
  // Whoever was to end at once has ended by then.
  await soon.untilControl("end");
  await broker.broadcast("still here");
  for (const client of lasting) expect((await client.nextData()).data).toBe("still here");
  // A timer takes no more than this: what is asked to wait longer fires at once, again and again.
  expect(Math.max(...delays)).toBe(2 ** 31 - 1);
});

reading("expiresAt: a timer that fires before its time, as the clock says, ends nobody", async ({ stage, enter }) => {
  const expiresAt = Date.now() + 150;
  const broker = stage.broker({ authorize: () => ({ expiresAt }) });
  const client = await enter(broker);
  const looks = new Witness<void>();
  const { now } = Date;
  try {
    Date.now = () => {
      looks.see();
      return now.call(Date) - HOUR;
    };
    await looks.next();
    await turn();
    await broker.broadcast("still here");
    expect((await client.nextData()).data).toBe("still here");
  } finally {
    Date.now = now;
  }
  while (Date.now() < expiresAt) await turn();
  // The next time that it asks for more, its time is over.
  expect(await client.ended()).toBe("closed");
  expect(client.control("end")).toHaveLength(1);
});
