// `POST /broadcast` with one event a line: what is published when something fails, or is sent again.
import { afterEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { type Broker, BrokerError } from "../../../src/index.ts";
import { slowEngine } from "../../support/engines/slow-engine.ts";
import { batch, history, idsOf, SECRET, TOKEN } from "../../support/http/batches.ts";
import { statusAndCode, testPublishing } from "../../support/http/entry-points.ts";
import { eventRequest, problemOf, withBroker } from "../../support/test-broker.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

describe("failures and repeats", () => {
  const LINES = [1, 2, 3, 4].map((data) => ({ data, channels: "a" }));

  test(
    "Idempotency-Key: a repeat publishes nothing and has the same ids; another batch with the key is refused; without a key it doubles",
    withBroker(async (setup) => {
      const broker = setup.broker(SECRET);
      const send = (lines: readonly unknown[], key?: string) =>
        broker.fetch(batch(lines, { ...TOKEN, ...(key === undefined ? {} : { "idempotency-key": key }) }));
      // Equal lines are events of their own.
      const lines = [
        { data: "x", channels: "a" },
        { data: "x", channels: "a" },
        { data: "y", channels: "a", idempotencyKey: "own" },
      ];
      const ids = await idsOf(await send(lines, "k"));
      expect(new Set(ids).size).toBe(3);
      expect(await idsOf(await send(lines, "k"))).toEqual(ids);
      expect(broker.stats().published).toBe(3);
      expect(await idsOf(await send([lines[2]]))).toEqual([ids[2]]);
      expect(await statusAndCode(await send([{ data: "z", channels: "a" }], "k"))).toEqual([422, "key-reused"]);
      expect(await statusAndCode(await send(lines, "\n"))).toEqual([400, "bad-key"]);
      // A single event with the same key is another one.
      const single = await broker.fetch(
        eventRequest("x", "?channel=a", { headers: { ...TOKEN, "idempotency-key": "k" } }),
      );
      expect(single.status).toBe(200);
      await idsOf(await send(lines.slice(0, 2)));
      expect(await history(broker, "a")).toEqual(["x", "x", "y", "x", "x", "x"]);
    }),
  );

  test(
    "an engine that fails in the middle: the answer has the ids of what is published, and a repeat publishes the rest",
    withBroker(async (setup) => {
      for (const error of [new BrokerError("engine-down", "down"), new Error("broken")]) {
        let appends = 0;
        const engine = slowEngine(setup.engine(), () => (++appends === 3 ? Promise.reject(error) : Promise.resolve()));
        const errors: unknown[] = [];
        const broker = setup.broker({
          ...SECRET,
          engine,
          onError: (reported) => errors.push(reported),
        });
        const send = () => broker.fetch(batch(LINES, { ...TOKEN, "idempotency-key": "k" }));
        const failed = await send();
        const isInternal = !(error instanceof BrokerError);
        expect([failed.status, failed.headers.has("retry-after")]).toEqual(isInternal ? [500, false] : [503, true]);
        const problem = (await failed.json()) as { code: string; detail: string; ids: string[] };
        expect(problem.code).toBe(isInternal ? "internal" : "engine-down");
        expect(problem.detail).toContain("line 3");
        expect(problem.detail).not.toContain("broken");
        expect(problem.ids).toHaveLength(2);
        expect(errors).toEqual(isInternal ? [{ stage: "request", error }] : []);
        expect(await history(broker, "a")).toEqual(["1", "2"]);
        const ids = await idsOf(await send());
        expect(ids.slice(0, 2)).toEqual(problem.ids);
        expect(await history(broker, "a")).toEqual(["1", "2", "3", "4"]);
      }
    }),
  );

  testPublishing("a client that is not there stops the batch at its line", async (setup, publish) => {
    const broker = setup.broker(SECRET);
    const answer = await publish(
      broker,
      batch(
        [
          { data: 1, channels: "a" },
          { data: 2, clientId: "nobody" },
          { data: 3, channels: "a" },
        ],
        TOKEN,
      ),
    );
    const { ids, code } = (await answer.json()) as { ids: string[]; code: string };
    expect([answer.status, code, ids.length]).toEqual([404, "unknown-client", 1]);
    expect(await history(broker, "a")).toEqual(["1"]);
  });

  testPublishing("a broker that is closed publishes nothing", async (setup, publish) => {
    const broker = setup.broker(SECRET);
    await broker.close();
    expect(await problemOf(await publish(broker, batch(LINES, TOKEN)))).toBe("closed");
  });
});

test(
  "events: one whose data does not fit its schema refuses the whole batch, and the others are sent as the schemas return them",
  withBroker(async (setup) => {
    const broker = setup.broker({ ...SECRET, events: { count: z.coerce.number() } });
    const line = (data: unknown): object => ({ event: "count", data, channels: "a" });
    const refused = await broker.fetch(batch([line(1), line("many")], TOKEN));
    expect(refused.status).toBe(422);
    expect(await problemOf(refused)).toBe("bad-event-data");
    expect(await history(broker as unknown as Broker, "a")).toEqual([]);
    await idsOf(await broker.fetch(batch([line(1), line("2")], TOKEN)));
    expect(await history(broker as unknown as Broker, "a")).toEqual(["1", "2"]);
  }),
);
