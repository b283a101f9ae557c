import { expect, test, vi } from "vitest";
import { FanoutGroup } from "../../../src/delivery/fanout-group.ts";
import { StreamConnection } from "../../../src/delivery/stream-connection.ts";
import { Connection } from "../../support/clients/connection.ts";
import { connectMany, startReading, untilBlocked } from "../../support/clients/many-clients.ts";
import { countsOf, createPromiseCounter, measureCost } from "../../support/monitoring/cost-meter.ts";
import { runtime } from "../../support/runtime.ts";
import { turn, withBroker } from "../../support/test-broker.ts";

// The cost of the hot path: one encode per event; one chunk per flush, position and set of matched channels; one enqueue per client and flush.
// Nothing here measures time.

const KIB = 1024;

const numbers = (count: number): string[] => Array.from({ length: count }, (_, index) => String(index));
/** Returns data of a certain length, different for each number. */
const sized = (length: number, number: number): string => `${number} `.padEnd(length, "x");

test(
  "cost: one event to 100 clients is 1 encode, 1 chunk and 100 enqueues",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const { done } = await startReading(await connectMany(setup, broker, 100), "news");
    const cost = await measureCost(async () => {
      void broker.broadcast("news");
      await done;
    });
    expect(countsOf(cost)).toEqual({ encodes: 1, joins: 0, chunks: 1, enqueues: 100 });
    // All clients were live.
    expect(broker.stats()).toMatchObject({ sent: 100, replayed: 0 });
  }),
);

test(
  "cost: 20 events of one turn to 100 clients are 20 encodes, 1 chunk and 100 enqueues",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const { done } = await startReading(await connectMany(setup, broker, 100), "19");
    const cost = await measureCost(async () => {
      for (const data of numbers(20)) void broker.broadcast(data);
      await done;
    });
    expect(countsOf(cost)).toEqual({ encodes: 20, joins: 1, chunks: 1, enqueues: 100 });
    expect(broker.stats()).toMatchObject({ sent: 2_000, replayed: 0 });
  }),
);

test(
  "cost: a turn that is larger than a chunk takes as few chunks as possible, shared by all clients",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const { done } = await startReading(await connectMany(setup, broker, 100), sized(10 * KIB, 19));
    const cost = await measureCost(async () => {
      for (let event = 0; event < 20; event++) void broker.broadcast(sized(10 * KIB, event));
      await done;
    });
    // 64 KiB hold 6 events, so the chunks have 6, 6, 6 and 2.
    expect(countsOf(cost)).toEqual({ encodes: 20, joins: 4, chunks: 4, enqueues: 400 });
    // The first six come from the flush, and the rest from the log when a client asks for more.
    expect(broker.stats()).toMatchObject({ sent: 2_000, replayed: 1_400 });
  }),
);

test(
  "cost: different ids and channels do not prevent sharing, and a direct message prevents it for its recipient only",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const clients = await connectMany(setup, broker, 100, (index) => ({
      id: `client ${index}`,
      channel: ["a", "b", `own ${index}`],
    }));

    const first = await startReading(clients, "2");
    const shared = await measureCost(async () => {
      void broker.broadcast("1", { channels: "a" });
      void broker.broadcast("2", { channels: "b" });
      await first.done;
    });
    expect(countsOf(shared)).toEqual({ encodes: 2, joins: 1, chunks: 1, enqueues: 100 });

    const second = await startReading(clients, "4");
    const direct = await measureCost(async () => {
      void broker.broadcast("3", { channels: "a" });
      void broker.broadcastTo("client 7", "private");
      void broker.broadcast("4", { channels: "b" });
      await second.done;
    });
    // One chunk for the recipient, one for the 99 others.
    expect(countsOf(direct)).toEqual({ encodes: 3, joins: 2, chunks: 2, enqueues: 100 });
    expect(clients.filter(({ data }) => data.includes("private"))).toEqual([clients[7]]);
    expect(broker.stats().replayed).toBe(0);
  }),
);

for (const each of [1, 20]) {
  test(
    `cost: a flush makes one chunk per set of matched channels, with ${each} of each kind of client`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      const kinds = ["a", "b", "c", "d", "ab", "ac", "bc", "ad", "abc", "abcd", "z"];
      const clients: Connection[][] = [];
      for (const kind of kinds) {
        clients.push(
          await connectMany(setup, broker, each, (index) => ({ id: `${kind} ${index}`, channel: [...kind] })),
        );
      }
      const reading = (some: readonly Connection[], count: number): Promise<unknown> =>
        Promise.all(some.map((client) => client.until(() => client.data.length >= count)));

      // Two events in each channel, so that each chunk must be built. Clients of "z" receive nothing.
      const all = clients.slice(0, 10);
      const first = all.map((some, kind) => reading(some, 2 * (kinds[kind] as string).length));
      const everywhere = await measureCost(async () => {
        await turn();
        for (const channel of "abcdabcd") void broker.broadcast(channel, { channels: channel });
        await Promise.all(first);
      });
      expect(countsOf(everywhere)).toEqual({ encodes: 8, joins: 10, chunks: 10, enqueues: 10 * each });

      // Only "a" and "b" have events. The sets are a (a, ac, ad), b (b, bc), and both (ab, abc, abcd). Clients of c and d receive nothing.
      const concerned = all.filter((_, kind) => /[ab]/.test(kinds[kind] as string)).flat();
      const second = concerned.map((client) => client.until(() => client.data.at(-1) === "end"));
      const some = await measureCost(async () => {
        await turn();
        for (const channel of "abab") void broker.broadcast(channel, { channels: channel });
        void broker.broadcast("end", { channels: ["a", "b"] });
        await Promise.all(second);
      });
      expect(countsOf(some)).toEqual({ encodes: 5, joins: 3, chunks: 3, enqueues: 8 * each });
      expect(broker.stats().replayed).toBe(0);
    }),
  );
}

test(
  "cost: events for blocked clients are encoded, and nothing else",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const clients = await connectMany(setup, broker, 20);
    const cost = await measureCost(async () => {
      for (const data of numbers(200)) await broker.broadcast(data);
      await untilBlocked(broker, clients.length);
    });
    expect(countsOf(cost)).toEqual({ encodes: 200, joins: 0, chunks: 0, enqueues: 0 });
  }),
);

test(
  "cost: blocked clients that catch up together share the chunks of the same events, and nothing is encoded",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const plain = await connectMany(setup, broker, 12, (index) => ({ channel: `own ${index}` }));
    const more = await connectMany(setup, broker, 12, () => ({ channel: "more" }));
    for (let event = 0; event < 200; event++) {
      await broker.broadcast(sized(1_000, event), { channels: "more" });
      await broker.broadcast(sized(1_000, event));
    }
    await untilBlocked(broker, 24);
    const readAll = async (client: Connection): Promise<unknown> =>
      client.until(() => client.data.length === (plain.includes(client) ? 200 : 400));
    const cost = await measureCost(async () => {
      // Alternating, so that clients of one kind do not all come before those of the other.
      const together = plain.slice(0, 10).flatMap((client, index) => [client, more[index] as Connection]);
      await Promise.all(together.map(readAll));
    });
    // An event is 1,027 to 1,029 bytes, so 64 KiB hold 63: 200 events take 4 chunks, and 400 take 7.
    expect(countsOf(cost)).toEqual({ encodes: 0, joins: 4 + 7, chunks: 4 + 7, enqueues: 10 * 4 + 10 * 7 });

    // Clients that come a little later receive the same chunks.
    const later = await measureCost(async () => {
      for (const client of [...plain.slice(10), ...more.slice(10)]) await readAll(client);
    });
    expect(countsOf(later)).toEqual({ encodes: 0, joins: 0, chunks: 4 + 7, enqueues: 2 * 4 + 2 * 7 });
    expect(new Set(later.enqueued)).toEqual(new Set(cost.enqueued));
  }),
);

test(
  "cost: clients that come back have an opening of their own, and share the chunk of what they missed",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const { id } = await broker.broadcast("before");
    for (const data of numbers(200)) await broker.broadcast(data);
    const clients: Connection[] = [];
    const connecting = await measureCost(async () => {
      for (let index = 0; index < 50; index++) {
        clients.push(await setup.connect(broker, { id: `client ${index}`, lastEventId: id }));
      }
    });
    // `fanwire-ready` names the client. `joins` is left out, because this test does not define how that one chunk is built.
    expect(countsOf(connecting)).toMatchObject({ encodes: 50, chunks: 50, enqueues: 50 });
    expect(connecting.encoded.filter(({ text }) => text.includes("event: fanwire-ready\n"))).toHaveLength(50);

    const together = await measureCost(async () => {
      await Promise.all(clients.slice(0, 40).map((client) => client.untilData("199")));
    });
    expect(countsOf(together)).toEqual({ encodes: 0, joins: 1, chunks: 1, enqueues: 40 });
    // Clients that come a little later receive the same chunk.
    const later = await measureCost(async () => {
      for (const client of clients.slice(40)) await client.untilData("199");
    });
    expect(countsOf(later)).toEqual({ encodes: 0, joins: 0, chunks: 1, enqueues: 10 });
    expect(later.enqueued[0]).toBe(together.enqueued[0]);
    for (const { data } of clients) expect(data).toEqual(numbers(200));
  }),
);

test(
  "cost: the chunk of a single event is the byte array that the log holds",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const before = await broker.broadcast("before");
    const live = await connectMany(setup, broker, 10);
    const blocked = await connectMany(setup, broker, 10);
    const { done } = await startReading(live, "alone");
    const cost = await measureCost(async () => {
      void broker.broadcast("alone");
      await done;
      await Promise.all(blocked.map((client) => client.untilData("alone")));
      for (let index = 0; index < 10; index++) {
        const client = await setup.connect(broker, { lastEventId: before.id });
        await client.untilData("alone");
      }
    });
    const [entry] = cost.encoded.filter(({ text }) => text.startsWith("data: alone\nid: "));
    const sent = cost.enqueued.filter((chunk) => chunk === entry?.bytes);
    expect(sent).toHaveLength(30);
    // In addition only the openings of the ten that came back.
    expect(cost.enqueued).toHaveLength(30 + 10);
    expect(cost.encoded).toHaveLength(1 + 10);
  }),
);

test(
  "cost: a client takes its chunk at once, and pull() returns nothing that the stream would wait for",
  withBroker(async (setup) => {
    const { receive } = StreamConnection.prototype;
    const enqueue = vi.spyOn(ReadableStreamDefaultController.prototype, "enqueue");
    const taken: (readonly [result: boolean, enqueues: number])[] = [];
    const taking = vi.spyOn(StreamConnection.prototype, "receive").mockImplementation(function (
      this: StreamConnection,
      batch,
    ) {
      const before = enqueue.mock.calls.length;
      const result = receive.call(this, batch);
      taken.push([result, enqueue.mock.calls.length - before]);
      return result;
    });
    const pull = vi.spyOn(StreamConnection.prototype, "pull");
    try {
      const broker = setup.broker();
      const [live, blocked] = [await connectMany(setup, broker, 100), await connectMany(setup, broker, 10)];
      const { done } = await startReading(live, "2");
      void broker.broadcast("1");
      void broker.broadcast("2");
      await done;
      await Promise.all(blocked.map((client) => client.untilData("2")));
      expect(taken).toEqual(Array(110).fill([true, 1]));
      expect(pull.mock.results).toEqual(Array(110).fill({ type: "return", value: undefined }));
    } finally {
      for (const spy of [enqueue, taking, pull]) spy.mockRestore();
    }
  }),
);

const CHUNK = new TextEncoder().encode("data: 1\n\n");
/** Creates a client of a plain stream with this `pull`, to compare its cost with that of a broker's stream. */
async function bareClient(pull: (controller: ReadableStreamDefaultController<Uint8Array>) => void) {
  const encoder = new TextEncoder();
  const start = (controller: ReadableStreamDefaultController<Uint8Array>): void =>
    controller.enqueue(encoder.encode("event: fanwire-ready\ndata: {}\n\n"));
  const body = new ReadableStream<Uint8Array>({ start, pull }, { highWaterMark: 0 });
  const client = new Connection(new Response(body), new AbortController());
  await client.untilControl("ready");
  return client;
}

test(
  "cost: sending an event to a client creates no promise beyond those of the stream",
  withBroker(async (setup) => {
    const promisesOf = await createPromiseCounter();
    // Bun 1.4, Deno 2.9 and workerd have the hook but never call it. There, the previous test must be enough.
    expect(promisesOf(() => (async () => undefined)())).toBe(runtime === "node" ? 1 : 0);
    if (runtime !== "node") return;

    const tasks: (() => void)[] = [];
    const turns = vi.spyOn(globalThis, "setImmediate").mockImplementation(((task: () => void) => {
      tasks.push(task);
    }) as unknown as typeof setImmediate);
    const runAll = (): void => {
      for (const task of tasks.splice(0)) task();
    };
    try {
      const publishing = [];
      for (const count of [1, 100]) {
        const broker = setup.broker();
        const [live, blocked] = [await connectMany(setup, broker, count), await connectMany(setup, broker, count)];
        const [waiting, fed] = [await bareClient(() => undefined), await bareClient((bare) => bare.enqueue(CHUNK))];
        await turn();
        const wanting = promisesOf(() => live.map((client) => client.read()));
        expect(wanting).toBe(count * promisesOf(() => waiting.read()));
        publishing.push(
          promisesOf(() => {
            void broker.broadcast("1");
            void broker.broadcast("2");
          }),
        );
        expect(promisesOf(runAll)).toBe(0);
        expect(broker.stats()).toMatchObject({ sent: 2 * count, blocked: count });
        const catchingUp = promisesOf(() => blocked.map((client) => client.read()));
        expect(broker.stats()).toMatchObject({ sent: 4 * count, blocked: 0 });
        expect(catchingUp).toBe(count * promisesOf(() => fed.read()));
      }
      // Publishing creates some promises, however many clients there are.
      expect(publishing[0]).toBeGreaterThan(0);
      expect(publishing[1]).toBe(publishing[0]);
    } finally {
      turns.mockRestore();
    }
  }),
);

test(
  "cost: clients that join between two flushes at the same position share a chunk",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const old = await connectMany(setup, broker, 10);
    const { done } = await startReading(old, "3");
    void broker.broadcast("1");
    // All of them join in the turn before the next flush.
    const fresh = await connectMany(setup, broker, 50);
    const reads = fresh.map((client) => client.untilData("3"));
    const cost = await measureCost(async () => {
      void broker.broadcast("2");
      void broker.broadcast("3");
      await Promise.all([done, ...reads]);
    });
    // 1, 2 and 3 for the old clients, 2 and 3 for the new ones.
    expect(countsOf(cost)).toEqual({ encodes: 2, joins: 2, chunks: 2, enqueues: 60 });
    expect(broker.stats()).toMatchObject({ replayed: 0 });
    for (const { data } of fresh) expect(data).toEqual(["2", "3"]);
    await turn();
  }),
);

test(
  "cost: one event to 50 channels beside 200 different subscriptions is 1 chunk and 200 enqueues, and no subscription is told from another",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const names = Array.from({ length: 50 }, (_, index) => `c${index}`);
    const channelsOf = (index: number): string[] =>
      names.filter((_, place) => (index + place) % (2 + (index % 9)) === 0);
    const { done } = await startReading(
      await connectMany(setup, broker, 200, (index) => ({ id: `client ${index}`, channel: channelsOf(index) })),
      "news",
    );
    const grouping = vi.spyOn(FanoutGroup.prototype, "with");
    const cost = await measureCost(async () => {
      void broker.broadcast("news", { channels: names });
      await done;
    });
    expect(countsOf(cost)).toEqual({ encodes: 1, joins: 0, chunks: 1, enqueues: 200 });
    expect(grouping).not.toHaveBeenCalled();
    grouping.mockRestore();
  }),
);
