import { expect, test } from "vitest";
import type { Connection } from "../../../src/delivery/connection.ts";
import { DeliveryReports, type ReportTracker } from "../../../src/delivery/delivery-report.ts";
import type { Entry } from "../../../src/log/channel-log.ts";
import type { Log } from "../../../src/log/log.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { Recorder, turn, withBroker } from "../../support/test-broker.ts";

// `broadcast(event, { report: true })`: which connections received an event, and why others did not.

test(
  "report: `sent` counts the connections that received the event, and the report settles with the last of them",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: Number.POSITIVE_INFINITY });
    const clients = [await setup.join(broker), await setup.join(broker, { channel: "a" })];
    const reads = clients.map((client) => client.nextData());
    const { report, clients: count, id } = await broker.broadcast("one", { report: true });
    expect(count).toBe(2);
    expect(id).toMatch(/-1$/);
    expect(await report).toEqual({ sent: 2, failed: [] });
    await Promise.all(reads);
  }),
);

test(
  "report: is empty at once for an event that is for no client",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: Number.POSITIVE_INFINITY });
    const { report } = await broker.broadcast("one", { channels: "none", report: true });
    expect(await report).toEqual({ sent: 0, failed: [] });
  }),
);

test(
  "report: a client that has not taken the event within timeout is late, and may still receive it",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 30, tolerance: 1_000 });
    const client = await setup.join(broker, { id: "one" });
    const [info] = broker.clients();
    const { report } = await broker.broadcast("one", { report: true });
    expect(await report).toEqual({
      sent: 0,
      failed: [{ clientId: "one", connectionId: info?.connectionId, reason: "late" }],
    });
    expect((await client.nextData()).data).toBe("one");
  }),
);

test(
  "report: an event that the log dropped before the client took it is lost",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { logBytes: 5_000 } });
    const client = await setup.join(broker, { id: "one" });
    const { report } = await broker.broadcast("one", { report: true });
    for (let event = 0; event < 20; event++) await broker.broadcast("x".repeat(500));
    // The client reads on, and first receives a gap.
    await client.untilControl("gap");
    expect(await report).toMatchObject({ sent: 0, failed: [{ clientId: "one", reason: "lost" }] });
  }),
);

test(
  "report: an event that was dropped before is lost for a client that starts at the earliest, and there is no gap",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { logBytes: 5_000 }, timeout: Number.POSITIVE_INFINITY });
    await broker.broadcast("first");
    await broker.broadcast("x".repeat(5_000), { channels: "a", idempotencyKey: "k" });
    const client = await setup.join(broker, { id: "one", channel: "a", query: { from: "earliest" } });
    const { clients, report } = await broker.broadcast("x".repeat(5_000), {
      channels: "a",
      idempotencyKey: "k",
      report: true,
    });
    await client.untilData("first");
    expect([clients, await report]).toMatchObject([1, { sent: 0, failed: [{ clientId: "one", reason: "lost" }] }]);
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "report: a client that left fails with client-left",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "one" });
    const { report } = await broker.broadcastTo("one", "x", { report: true });
    await client.leave();
    expect(await report).toMatchObject({ sent: 0, failed: [{ clientId: "one", reason: "client-left" }] });
  }),
);

test(
  "report: a client that was disconnected fails with disconnected",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await setup.join(broker, { id: "one" });
    const { report } = await broker.broadcast("x", { report: true });
    await broker.disconnect("one");
    expect(await report).toMatchObject({ sent: 0, failed: [{ clientId: "one", reason: "disconnected" }] });
  }),
);

test(
  "report: a client that timed out fails with timeout, or was late before",
  withBroker(async (setup) => {
    const gone = new Recorder<unknown>();
    const broker = setup.broker({ timeout: 40, tolerance: 1, onDisconnect: gone.record });
    await setup.join(broker, { id: "one" });
    await broker.broadcast("blocks");
    const marker = await setup.join(broker, { id: "marker" });
    const flushed = marker.nextData();
    await broker.broadcastTo("marker", "flushed");
    await flushed;
    const { report } = await broker.broadcastTo("one", "x", { report: true });
    const [failure] = (await report).failed;
    expect(["timeout", "late"]).toContain(failure?.reason);
    await gone.next();
  }),
);

test(
  "report: close() settles it, with closing for a client that did not take the event",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 30 });
    await setup.join(broker, { id: "blocked" });
    const reading = await setup.join(broker, { id: "reading" });
    const { report } = await broker.broadcast("x", { report: true });
    const read = reading.ended();
    await broker.close();
    const { sent, failed } = await report;
    expect(sent).toBe(1);
    expect(failed).toMatchObject([{ clientId: "blocked" }]);
    expect(["closing", "late"]).toContain(failed[0]?.reason);
    expect(await read).toBe("closed");
  }),
);

test(
  "report: covers the recipients at the append, not clients that come later",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: Number.POSITIVE_INFINITY });
    const first = await setup.join(broker, { id: "first" });
    const { report } = await broker.broadcast("x", { report: true });
    await setup.join(broker, { id: "second" });
    await first.nextData();
    expect(await report).toEqual({ sent: 1, failed: [] });
  }),
);

test(
  "report: an engine that answers after the event was sent does not make it late",
  withBroker(async (setup) => {
    const wait = async (): Promise<void> => {
      for (let turns = 0; turns < 5; turns++) await turn();
    };
    const broker = setup.broker({ engine: slowEngine(setup.engine(), wait, "after"), timeout: 500 });
    const client = await setup.join(broker, { id: "one" });
    const next = client.nextData();
    const { report } = await broker.broadcast("x", { report: true });
    await next;
    expect(await report).toEqual({ sent: 1, failed: [] });
  }),
);

/** Returns a wait for `slowEngine`, so that it appends at once and answers when `answer` is called. */
function heldAnswer(): { wait(): Promise<void>; answer(): void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { wait: () => promise, answer: resolve };
}

test(
  "report: if the engine answers late, clients that came after the append are not recipients, and clients that left after it are",
  withBroker(async (setup) => {
    const { wait, answer } = heldAnswer();
    const broker = setup.broker({ engine: slowEngine(setup.immediateEngine(), wait, "after") });
    const stays = await setup.join(broker, { id: "stays" });
    const leaves = await setup.join(broker, { id: "leaves" });
    const reported = broker.broadcast("x", { report: true });
    const comes = await setup.join(broker, { id: "comes" });
    await leaves.leave();
    expect((await stays.nextData()).data).toBe("x");
    answer();
    const { report, clients } = await reported;
    expect(clients).toBe(2);
    expect(await report).toMatchObject({ sent: 1, failed: [{ clientId: "leaves", reason: "client-left" }] });
    await comes.leave();
  }),
);

test(
  "report: an event that was reported by a gap before the engine answered is lost",
  withBroker(async (setup) => {
    const { wait, answer } = heldAnswer();
    const engine = slowEngine(setup.engine({ logBytes: 5_000 }), wait, "after");
    const broker = setup.broker({ engine });
    const client = await setup.join(broker, { id: "one" });
    const reported = broker.broadcast("x", { report: true });
    const others = Array.from({ length: 20 }, () => broker.broadcast("y".repeat(500)));
    await client.untilControl("gap");
    answer();
    expect(await (await reported).report).toMatchObject({ sent: 0, failed: [{ clientId: "one", reason: "lost" }] });
    await Promise.all(others);
  }),
);

test(
  "report: each publisher receives the report of its own event, in whatever order the engine answers",
  withBroker(async (setup) => {
    const answers: (() => void)[] = [];
    const wait = (): Promise<void> => new Promise((resolve) => answers.push(resolve));
    const broker = setup.broker({ engine: slowEngine(setup.engine(), wait, "after"), timeout: 40, tolerance: 1_000 });
    const first = await setup.join(broker, { id: "first" });
    const one = broker.broadcast("one", { report: true });
    expect((await first.nextData()).data).toBe("one");
    await setup.join(broker, { id: "second" });
    const two = broker.broadcast("two", { report: true });
    const three = broker.broadcastTo("first", "three", { report: true });
    for (const answer of answers.reverse()) answer();
    const reports = (await Promise.all([one, two, three])).map(({ clients, report }) => ({ clients, report }));
    expect(reports.map(({ clients }) => clients)).toEqual([1, 2, 1]);
    const [onlyFirst, both, last] = await Promise.all(reports.map(({ report }) => report));
    expect(onlyFirst).toEqual({ sent: 1, failed: [] });
    expect(both?.failed.map(({ clientId }) => clientId).sort()).toEqual(["first", "second"]);
    expect(last?.failed.map(({ clientId, reason }) => [clientId, reason])).toEqual([["first", "late"]]);
  }),
);

test(
  "report: a report of an older event that is requested later does not disturb the report of a newer one",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: Number.POSITIVE_INFINITY });
    const client = await setup.join(broker);
    await broker.broadcast("first".padEnd(40_000));
    await broker.broadcast("second".padEnd(40_000), { idempotencyKey: "k" });
    const third = await broker.broadcast("third".padEnd(40_000), { report: true });
    const second = await broker.broadcast("second".padEnd(40_000), { idempotencyKey: "k", report: true });
    for (let event = 0; event < 3; event++) await client.nextData();
    expect(await Promise.all([second.report, third.report])).toEqual([
      { sent: 1, failed: [] },
      { sent: 1, failed: [] },
    ]);
  }),
);

test(
  "report: two publishers of one idempotency key receive the same report, whichever is answered first",
  withBroker(async (setup) => {
    const answers: (() => void)[] = [];
    const wait = (): Promise<void> => new Promise((resolve) => answers.push(resolve));
    const broker = setup.broker({ engine: slowEngine(setup.engine(), wait, "after") });
    const client = await setup.join(broker);
    const read = client.nextData();
    const both = [1, 2].map(() => broker.broadcast("x", { idempotencyKey: "k", report: true }));
    await read;
    answers[1]?.();
    await both[1];
    answers[0]?.();
    for (const { clients, report } of await Promise.all(both))
      expect([clients, await report]).toEqual([1, { sent: 1, failed: [] }]);
  }),
);

test("DeliveryReports: while an answer is pending, events of others are tracked within a bound, and released afterwards", async () => {
  const client = { id: "one", connectionId: "1", cursor: 0 } as Connection;
  const connectionsOf = (): Set<Connection> => new Set([client]);
  const log = { epoch: "e", id: (seq: number) => `e-${seq}` } as Log;
  const reports = new DeliveryReports({ log, channels: { connectionsOf, countConnections: () => 1 } }, 60_000);
  const answered = reports.expect(["c:a"]);
  for (let seq = 1; seq <= 1_000; seq++) {
    reports.onAppended({ keys: ["c:a"], seq } as unknown as Entry);
    reports.onAppended({ keys: ["c:b"], seq } as unknown as Entry);
  }
  expect(client.reports?.size).toBeLessThan(100);
  const own = answered({ epoch: "e", seq: 1_000, repeated: false });
  expect(client.reports?.size).toBe(1);
  for (const report of client.reports ?? []) (report as ReportTracker).settle("late");
  expect([own?.clients, (await own?.done)?.failed.length, client.reports?.size]).toEqual([1, 1, 0]);
});

test("DeliveryReports: nothing is tracked any more once every publish is answered, in whatever order, or has failed", () => {
  const tracked: string[] = [];
  const connectionsOf = ([key = ""]: readonly string[]): Set<Connection> => {
    tracked.push(key);
    return new Set();
  };
  const log = { epoch: "e", id: (seq: number) => `e-${seq}` } as Log;
  let seq = 0;
  for (const order of ["012", "021", "102", "120", "201", "210"]) {
    for (const failed of [-1, 0, 1, 2]) {
      const reports = new DeliveryReports({ log, channels: { connectionsOf, countConnections: () => 0 } }, 60_000);
      const append = (key: string): number => {
        reports.onAppended({ keys: [key], seq: ++seq } as unknown as Entry);
        return seq;
      };
      // Several sets of channels, because each has a queue of its own.
      for (const key of ["c:a", "c:b"]) {
        const answers = [0, 1, 2].map(() => reports.expect([key]));
        const positions = answers.map((_, index) =>
          index === failed ? undefined : { epoch: "e", seq: append(key), repeated: false },
        );
        expect(tracked.splice(0)).toEqual(Array(failed < 0 ? 3 : 2).fill(key));
        for (const index of order) answers[Number(index)]?.(positions[Number(index)]);
        tracked.length = 0;
        append(key);
        expect(tracked, `${order}, failed: ${failed}`).toEqual([]);
      }
    }
  }
});
