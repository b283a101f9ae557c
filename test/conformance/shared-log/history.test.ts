// `history()` where the log is in a store that several processes share.
import { expect, test } from "vitest";
import { numbers, sharedLogTest, TINY } from "../../support/engines/shared-log-processes.ts";
import { codeOf } from "../../support/test-broker.ts";

test(
  "history(): reads what this process does not hold, page by page, for channels without a client, and a stream continues at its position",
  sharedLogTest(
    async (processes) => {
      const one = processes.broker();
      const other = processes.broker({ log: TINY });
      await processes.publish(one, numbers(1, 25), "a");
      await processes.publish(one, ["elsewhere"], "b");
      const all: string[] = [];
      for (let after: string | undefined; ; ) {
        const options = { channels: "a", limit: 10, ...(after ? { after } : {}) };
        const part = await processes.clock.advanceUntil(other.history(options));
        all.push(...part.events.map(({ data }) => data));
        expect(part.gaps).toEqual([]);
        after = part.position;
        if (part.more) continue;
        expect(part.position).toBe((await processes.clock.advanceUntil(one.history({ limit: 0 }))).position);
        break;
      }
      expect(all).toEqual(numbers(1, 25));
      const client = await processes.connect(other, {
        channel: "a",
        lastEventId: `${(await processes.clock.advanceUntil(other.history({ channels: "a", limit: 20 }))).position}`,
      });
      expect(await processes.readThrough(client, "25")).toEqual(numbers(21, 25));
    },
    { pageSize: 3 },
  ),
);

test(
  "history(): of many calls at a time, a few read the store, and all are answered",
  sharedLogTest(
    async (processes) => {
      const broker = processes.broker({ log: TINY });
      await processes.publish(broker, numbers(1, 6), "a");
      const session = processes.session();
      const read = session.read.bind(session);
      let [running, most] = [0, 0];
      session.read = async (...args) => {
        most = Math.max(most, ++running);
        try {
          return await read(...args);
        } finally {
          running--;
        }
      };
      session.delay({ replies: 10 });
      const parts = Promise.all(Array.from({ length: 30 }, () => broker.history({ channels: "a" })));
      for (const { events } of await processes.clock.advanceUntil(parts))
        expect(events.map(({ data }) => data)).toEqual(numbers(1, 6));
      expect(most).toBe(4);
    },
    { pageSize: 2 },
  ),
);

test(
  "history(): a gap for what the store dropped after a position, and engine-down while it is away",
  sharedLogTest(
    async (processes) => {
      const one = processes.broker();
      const first = await processes.publish(one, ["1"], "a");
      await processes.publish(one, ["2", "3", "4"], "a");
      const other = processes.broker();
      const part = await processes.clock.advanceUntil(other.history({ channels: "a", after: first }));
      expect([part.events.map(({ data }) => data), part.gaps]).toMatchObject([
        ["3", "4"],
        [{ channels: ["a"], after: first }],
      ]);
      processes.session(1).setCommands(false);
      expect(await processes.clock.advanceUntil(codeOf(other.history({ channels: "a" })))).toBe("engine-down");
      processes.session(1).setCommands(true);
    },
    { retention: 2 },
  ),
);
