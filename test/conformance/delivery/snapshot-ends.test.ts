// The option `snapshot`: how one ends before it is complete, by its time, by a fault, and by `close()`.
import { expect, test } from "vitest";
import type { ClientInfo, DisconnectReason, ErrorStage, EventInput } from "../../../src/index.ts";
import { seen } from "../../support/clients/connection.ts";
import { Clock } from "../../support/clock.ts";
import { Recorder, turn, withBroker } from "../../support/test-broker.ts";

interface Failed {
  readonly error: unknown;
  readonly stage: ErrorStage;
}

test(
  "snapshotTimeout: a snapshot that takes longer ends the stream with snapshot-failed, and the client comes back",
  withBroker(async (setup) => {
    const clock = new Clock();
    const failed = new Recorder<Failed>();
    const left = new Recorder<{ readonly client: ClientInfo; readonly reason: DisconnectReason }>();
    const signals: AbortSignal[] = [];
    await clock.run(async () => {
      const broker = setup.broker({
        heartbeat: Infinity,
        snapshotTimeout: 1_000,
        onError: failed.record,
        onDisconnect: left.record,
        snapshot: async function* ({ signal }) {
          signals.push(signal);
          yield "one";
          await new Promise(() => undefined);
        },
      });
      const client = await setup.connect(broker);
      const ended = client.ended();
      await clock.advance(990);
      expect(broker.stats().clients).toBe(1);
      await clock.advance(20);
      expect(await ended).toBe("closed");
      expect(seen(client)).toEqual(["ready", "one", "end"]);
      expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "snapshot-failed", reconnect: true });
      expect(client.retries).toHaveLength(2);
      expect(failed.all).toMatchObject([{ stage: "snapshot" }]);
      expect(left.all).toMatchObject([{ reason: "snapshot-failed" }]);
      expect(signals[0]?.aborted).toBe(true);
      expect(broker.stats()).toMatchObject({ clients: 0, disconnects: { "snapshot-failed": 1 } });
      expect(clock.pending).toEqual([]);
    });
  }),
);

test(
  "snapshot: one that throws, rejects, or yields what is not an event ends the stream with snapshot-failed, and onError says why",
  withBroker(async (setup) => {
    const faults: (() => unknown)[] = [
      () => {
        throw new Error("down");
      },
      () => Promise.reject(new Error("down")),
      async function* () {
        yield "one";
        throw new Error("down");
      },
      () => "a text is not a list",
      () => new Uint8Array(2),
      () => 5,
      () => null,
      () => ({ data: "one event is not a list" }),
      () => [5],
      () => [undefined],
      () => [null],
      () => [{ event: "x" }],
      () => [{ data: "x", id: "5" }],
      () => [{ data: "x", event: "fanwire-ready" }],
      () => [{ data: "x", event: "open" }],
      () => [{ data: "x", event: "a\nb" }],
      () => [{ data: "x", retry: -1 }],
      () => ["x".repeat(2_000)],
      () => [{ data: 1n }],
      () => ({ [Symbol.asyncIterator]: () => ({ next: () => 5 }) }),
      () => ({ [Symbol.asyncIterator]: () => ({ next: () => null }) }),
      () => ({ [Symbol.iterator]: 5 }),
    ];
    for (const fault of faults) {
      const failed = new Recorder<Failed>();
      const broker = setup.broker({
        maxEventBytes: 1_000,
        onError: failed.record,
        snapshot: fault as () => EventInput[],
      });
      const client = await setup.connect(broker);
      expect([await client.ended(), `${fault}`]).toEqual(["closed", `${fault}`]);
      expect([client.control("snapshot"), client.control("end").length, `${fault}`]).toEqual([[], 1, `${fault}`]);
      expect(JSON.parse(client.control("end")[0]?.data ?? "")).toEqual({ reason: "snapshot-failed", reconnect: true });
      expect(client.events.every(({ id }) => id === undefined)).toBe(true);
      expect((await failed.next()).stage).toBe("snapshot");
      expect(broker.stats().clients).toBe(0);
    }
  }),
);

test(
  "snapshot: what it has in use is freed when an event of it is refused, and an error in that is reported",
  withBroker(async (setup) => {
    const failed = new Recorder<Failed>();
    let isFreed = false;
    const broker = setup.broker({
      onError: failed.record,
      snapshot: async function* () {
        try {
          yield "one";
          yield 5 as never;
        } finally {
          isFreed = true;
          await Promise.reject(new Error("while freeing"));
        }
      },
    });
    const client = await setup.connect(broker);
    await client.ended();
    await failed.next();
    expect(String((await failed.next()).error)).toContain("while freeing");
    expect(isFreed).toBe(true);
  }),
);

test(
  "close(): ends a snapshot with fanwire-end, without the id, and lets the application free what it has in use",
  withBroker(async (setup) => {
    let isFreed = false;
    const signals: AbortSignal[] = [];
    const broker = setup.broker({
      snapshot: async function* ({ signal }) {
        signals.push(signal);
        try {
          yield "one";
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          yield "two";
        } finally {
          isFreed = true;
        }
      },
    });
    const client = await setup.connect(broker);
    await client.untilData("one");
    const ended = client.ended();
    await turn();
    await broker.broadcast("live");
    await broker.close();
    expect(await ended).toBe("closed");
    expect(seen(client)).toEqual(["ready", "one", "end"]);
    while (!isFreed) await turn();
    expect(signals[0]?.aborted).toBe(true);
  }),
);
