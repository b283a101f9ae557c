// Streams that start with the newest events of each channel, where the log is in a store that several processes share.
import { expect, test } from "vitest";
import { numbers, sharedLogTest, TINY } from "../../support/engines/shared-log-processes.ts";
import { codeOf, problemOf } from "../../support/test-broker.ts";

const QUIET_AND_LOUD = { channel: ["quiet", "loud"], query: { last: "2" } };

test(
  "last: each channel starts at its newest events, although this process holds none of them",
  sharedLogTest(
    async (processes) => {
      const one = processes.broker();
      const other = processes.broker({ log: TINY });
      await processes.publish(one, ["q1", "q2", "q3"], "quiet");
      await processes.publish(one, numbers(1, 30), "loud");
      await processes.publish(one, ["q4"], "quiet");
      await processes.publish(one, ["31"], "loud");
      const client = await processes.connect(other, QUIET_AND_LOUD);
      const ready = await processes.clock.advanceUntil(client.untilControl("ready"));
      expect(JSON.parse(ready.data)).toMatchObject({ resumed: false, complete: false, incomplete: ["quiet", "loud"] });
      expect(ready.id).toBeUndefined();
      expect(await processes.readThrough(client, "31")).toEqual(["q3", "30", "q4", "31"]);
      await processes.publish(one, ["32"], "loud");
      expect(await processes.readThrough(client, "32")).toEqual(["q3", "30", "q4", "31", "32"]);
      expect(client.control("gap")).toEqual([]);
    },
    { pageSize: 3 },
  ),
);

test(
  "last: what a channel leaves out is not read from the store, however much it is",
  sharedLogTest(
    async (processes) => {
      const one = processes.broker();
      const other = processes.broker({ log: TINY });
      await processes.publish(one, ["q1", "q2"], "quiet");
      await processes.publish(one, numbers(1, 200), "loud");
      const before = processes.store.reads.length;
      const client = await processes.connect(other, QUIET_AND_LOUD);
      expect(await processes.readThrough(client, "200")).toEqual(["q1", "q2", "199", "200"]);
      // A page each for the common channel and the inbox with the quiet one, and for the end of the loud one.
      expect(processes.store.reads.slice(before).length).toBeLessThanOrEqual(4);
    },
    { pageSize: 2 },
  ),
);

test(
  "last: retention and an event of several channels count as in a log in memory",
  sharedLogTest(
    async (processes) => {
      const one = processes.broker();
      const other = processes.broker({ log: TINY });
      await processes.publish(one, numbers(1, 5), "loud");
      await processes.clock.advanceUntil(one.broadcast("both", { channels: ["quiet", "loud"] }));
      await processes.publish(one, numbers(6, 8), "loud");
      const client = await processes.connect(other, { ...QUIET_AND_LOUD, query: { last: "5" } });
      const ready = await processes.clock.advanceUntil(client.untilControl("ready"));
      expect(JSON.parse(ready.data)).toMatchObject({ incomplete: ["loud"] });
      expect(await processes.readThrough(client, "8")).toEqual(["both", "6", "7", "8"]);
      const newest = await processes.connect(other, { ...QUIET_AND_LOUD, query: { from: "latest" } });
      expect(await processes.readThrough(newest, "8")).toEqual(["both", "8"]);
      expect([...client.control("gap"), ...newest.control("gap")]).toEqual([]);
    },
    { pageSize: 2, retention: 4 },
  ),
);

test(
  "last: maxReplay bounds what is sent",
  sharedLogTest(async (processes) => {
    const one = processes.broker({ maxReplay: { events: 3 } });
    await processes.publish(one, ["q1", "q2"], "quiet");
    await processes.publish(one, numbers(1, 5), "loud");
    const client = await processes.connect(one, QUIET_AND_LOUD);
    expect(await processes.readThrough(client, "5")).toEqual(["q2", "4", "5"]);
  }),
);

test(
  "listen(): last and from: latest start where a client would start",
  sharedLogTest(async (processes) => {
    const one = processes.broker();
    const other = processes.broker({ log: TINY });
    await processes.publish(one, ["q1", "q2", "q3"], "quiet");
    await processes.publish(one, numbers(1, 5), "loud");
    for (const [start, expected] of [
      [{ last: 2 }, ["q2", "q3", "4", "5"]],
      [{ from: "latest" }, ["q3", "5"]],
    ] as const) {
      const listener = other.listen({ channels: ["quiet", "loud"], ...start });
      const received: unknown[] = [];
      for (let count = 0; count < expected.length; count++) {
        const { value } = await processes.clock.advanceUntil(listener.next());
        received.push(value?.type === "event" ? value.data : value);
      }
      expect(received).toEqual(expected);
      await listener.return?.();
    }
  }),
);

test(
  "last, from=latest: bad-request if the engine does not know them, and never a start elsewhere",
  sharedLogTest(
    async (processes) => {
      const errors: unknown[] = [];
      const broker = processes.broker({ onError: (error) => void errors.push(error) });
      await processes.publish(broker, numbers(1, 3), "a");
      for (const start of [{ last: 2 }, { from: "latest" }] as const) {
        const request = new Request("https://fanwire.test/connect?channel=a");
        const answer = await processes.clock.advanceUntil(broker.clientHandler(request, start));
        expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-request"]);
        const listener = broker.listen({ channels: "a", ...start });
        expect(await codeOf(processes.clock.advanceUntil(listener.next()))).toBe("bad-request");
        expect(await processes.clock.advanceUntil(listener.next())).toEqual({ done: true, value: undefined });
      }
      expect(errors).toEqual([]);
      expect(broker.stats()).toMatchObject({ clients: 0, channels: 0 });
      const earliest = await processes.connect(broker, { channel: "a", query: { from: "earliest" } });
      expect(await processes.readThrough(earliest, "3")).toEqual(["1", "2", "3"]);
    },
    { knowsLast: false },
  ),
);
