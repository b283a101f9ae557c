import { expect, test, vi } from "vitest";
import { StreamConnection } from "../../../src/delivery/stream-connection.ts";
import { Connection } from "../../support/clients/connection.ts";
import { crowd, untilBlocked, wanting } from "../../support/clients/many-clients.ts";
import { countsOf, meter, promiseCounter } from "../../support/monitoring/cost-meter.ts";
import { runtime } from "../../support/runtime.ts";
import { scene, turn } from "../../support/test-broker.ts";

// What the hot path costs: one encode for each event; one chunk for each flush, position and match; one enqueue for each client and
// flush. Nothing here is about time.

const KIB = 1024;

const numbers = (count: number): string[] => Array.from({ length: count }, (_, index) => String(index));
/** Data of a certain length, different for each number. */
const sized = (length: number, number: number): string => `${number} `.padEnd(length, "x");

test(
  "economy: one event to 100 clients is 1 encode and 1 chunk, and an enqueue for each",
  scene(async (stage) => {
    const broker = stage.broker();
    const { done } = await wanting(await crowd(stage, broker, 100), "news");
    const cost = await meter(async () => {
      void broker.broadcast("news");
      await done;
    });
    expect(countsOf(cost)).toEqual({ encodes: 1, joins: 0, chunks: 1, enqueues: 100 });
    // All of them were sent it as they waited.
    expect(broker.stats()).toMatchObject({ sent: 100, replayed: 0 });
  }),
);

test(
  "economy: 20 events of one turn to 100 clients are 20 encodes and 1 chunk, and an enqueue for each client",
  scene(async (stage) => {
    const broker = stage.broker();
    const { done } = await wanting(await crowd(stage, broker, 100), "19");
    const cost = await meter(async () => {
      for (const data of numbers(20)) void broker.broadcast(data);
      await done;
    });
    expect(countsOf(cost)).toEqual({ encodes: 20, joins: 1, chunks: 1, enqueues: 100 });
    expect(broker.stats()).toMatchObject({ sent: 2_000, replayed: 0 });
  }),
);

test(
  "economy: a turn that is larger than a chunk is as few chunks as hold it, the same for all",
  scene(async (stage) => {
    const broker = stage.broker();
    const { done } = await wanting(await crowd(stage, broker, 100), sized(10 * KIB, 19));
    const cost = await meter(async () => {
      for (let event = 0; event < 20; event++) void broker.broadcast(sized(10 * KIB, event));
      await done;
    });
    // 64 KiB hold 6 of them, so it is 6, 6, 6 and 2.
    expect(countsOf(cost)).toEqual({ encodes: 20, joins: 4, chunks: 4, enqueues: 400 });
    // The first six from the flush, and what was left when each came for more.
    expect(broker.stats()).toMatchObject({ sent: 2_000, replayed: 1_400 });
  }),
);

test(
  "economy: own ids and own channels do not spoil the sharing, and a direct message only that of its recipient",
  scene(async (stage) => {
    const broker = stage.broker();
    const clients = await crowd(stage, broker, 100, (index) => ({
      id: `client ${index}`,
      channel: ["a", "b", `own ${index}`],
    }));

    const first = await wanting(clients, "2");
    const shared = await meter(async () => {
      void broker.broadcast("1", { channels: "a" });
      void broker.broadcast("2", { channels: "b" });
      await first.done;
    });
    expect(countsOf(shared)).toEqual({ encodes: 2, joins: 1, chunks: 1, enqueues: 100 });

    const second = await wanting(clients, "4");
    const direct = await meter(async () => {
      void broker.broadcast("3", { channels: "a" });
      void broker.broadcastTo("client 7", "private");
      void broker.broadcast("4", { channels: "b" });
      await second.done;
    });
    // One for the recipient, one for the 99 others.
    expect(countsOf(direct)).toEqual({ encodes: 3, joins: 2, chunks: 2, enqueues: 100 });
    expect(clients.filter(({ data }) => data.includes("private"))).toEqual([clients[7]]);
    expect(broker.stats().replayed).toBe(0);
  }),
);

for (const each of [1, 20]) {
  test(
    `economy: a flush makes one chunk for each match, with ${each} of each kind of client`,
    scene(async (stage) => {
      const broker = stage.broker();
      const kinds = ["a", "b", "c", "d", "ab", "ac", "bc", "ad", "abc", "abcd", "z"];
      const clients: Connection[][] = [];
      for (const kind of kinds) {
        clients.push(await crowd(stage, broker, each, (index) => ({ id: `${kind} ${index}`, channel: [...kind] })));
      }
      const reading = (some: readonly Connection[], count: number): Promise<unknown> =>
        Promise.all(some.map((client) => client.until(() => client.data.length >= count)));

      // Two events in each channel, so that each chunk has to be made. Who reads "z" is not concerned.
      const all = clients.slice(0, 10);
      const first = all.map((some, kind) => reading(some, 2 * (kinds[kind] as string).length));
      const everywhere = await meter(async () => {
        await turn();
        for (const channel of "abcdabcd") void broker.broadcast(channel, { channels: channel });
        await Promise.all(first);
      });
      expect(countsOf(everywhere)).toEqual({ encodes: 8, joins: 10, chunks: 10, enqueues: 10 * each });

      // Of "a" and "b" only: the matches are a (a, ac, ad), b (b, bc), and both (ab, abc, abcd); c and d are not concerned.
      const concerned = all.filter((_, kind) => /[ab]/.test(kinds[kind] as string)).flat();
      const second = concerned.map((client) => client.until(() => client.data.at(-1) === "end"));
      const some = await meter(async () => {
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
  "economy: events for clients that are blocked are encoded, and nothing else",
  scene(async (stage) => {
    const broker = stage.broker();
    const clients = await crowd(stage, broker, 20);
    const cost = await meter(async () => {
      for (const data of numbers(200)) await broker.broadcast(data);
      await untilBlocked(broker, clients.length);
    });
    expect(countsOf(cost)).toEqual({ encodes: 200, joins: 0, chunks: 0, enqueues: 0 });
  }),
);

test(
  "economy: blocked clients that catch up together share a chunk for each stretch and match, and nothing is encoded",
  scene(async (stage) => {
    const broker = stage.broker();
    const plain = await crowd(stage, broker, 12, (index) => ({ channel: `own ${index}` }));
    const more = await crowd(stage, broker, 12, () => ({ channel: "more" }));
    for (let event = 0; event < 200; event++) {
      await broker.broadcast(sized(1_000, event), { channels: "more" });
      await broker.broadcast(sized(1_000, event));
    }
    await untilBlocked(broker, 24);
    const readAll = async (client: Connection): Promise<unknown> =>
      client.until(() => client.data.length === (plain.includes(client) ? 200 : 400));
    const cost = await meter(async () => {
      // In turn, so that those of one match do not all come before those of the other.
      const together = plain.slice(0, 10).flatMap((client, index) => [client, more[index] as Connection]);
      await Promise.all(together.map(readAll));
    });
    // An event is 1,027 to 1,029 bytes, so 64 KiB hold 63: 200 events are 4 stretches, 400 are 7.
    expect(countsOf(cost)).toEqual({ encodes: 0, joins: 4 + 7, chunks: 4 + 7, enqueues: 10 * 4 + 10 * 7 });

    // Who comes a little later is given the same chunks.
    const later = await meter(async () => {
      for (const client of [...plain.slice(10), ...more.slice(10)]) await readAll(client);
    });
    expect(countsOf(later)).toEqual({ encodes: 0, joins: 0, chunks: 4 + 7, enqueues: 2 * 4 + 2 * 7 });
    expect(new Set(later.enqueued)).toEqual(new Set(cost.enqueued));
  }),
);

test(
  "economy: clients that come back are encoded what says that they are connected, and share what they missed",
  scene(async (stage) => {
    const broker = stage.broker();
    const { id } = await broker.broadcast("before");
    for (const data of numbers(200)) await broker.broadcast(data);
    const clients: Connection[] = [];
    const connecting = await meter(async () => {
      for (let index = 0; index < 50; index++) {
        clients.push(await stage.connect(broker, { id: `client ${index}`, lastEventId: id }));
      }
    });
    // `fanwire-ready` names the client. (`joins` is left out: of how that one chunk is put together nothing is said here.)
    expect(countsOf(connecting)).toMatchObject({ encodes: 50, chunks: 50, enqueues: 50 });
    expect(connecting.encoded.filter(({ text }) => text.includes("event: fanwire-ready\n"))).toHaveLength(50);

    const together = await meter(async () => {
      await Promise.all(clients.slice(0, 40).map((client) => client.untilData("199")));
    });
    expect(countsOf(together)).toEqual({ encodes: 0, joins: 1, chunks: 1, enqueues: 40 });
    // Who comes a little later is given that same chunk.
    const later = await meter(async () => {
      for (const client of clients.slice(40)) await client.untilData("199");
    });
    expect(countsOf(later)).toEqual({ encodes: 0, joins: 0, chunks: 1, enqueues: 10 });
    expect(later.enqueued[0]).toBe(together.enqueued[0]);
    for (const { data } of clients) expect(data).toEqual(numbers(200));
  }),
);

test(
  "economy: the chunk of a single event is the very bytes that the log holds",
  scene(async (stage) => {
    const broker = stage.broker();
    const before = await broker.broadcast("before");
    const live = await crowd(stage, broker, 10);
    const blocked = await crowd(stage, broker, 10);
    const { done } = await wanting(live, "alone");
    const cost = await meter(async () => {
      void broker.broadcast("alone");
      await done;
      await Promise.all(blocked.map((client) => client.untilData("alone")));
      for (let index = 0; index < 10; index++) {
        const client = await stage.connect(broker, { lastEventId: before.id });
        await client.untilData("alone");
      }
    });
    const [entry] = cost.encoded.filter(({ text }) => text.endsWith("\ndata: alone\n\n"));
    const given = cost.enqueued.filter((chunk) => chunk === entry?.bytes);
    expect(given).toHaveLength(30);
    // What each of the ten that came back was told first, and nothing else.
    expect(cost.enqueued).toHaveLength(30 + 10);
    expect(cost.encoded).toHaveLength(1 + 10);
  }),
);

test(
  "economy: a client takes its chunk at once, and its pull gives the stream nothing to wait for",
  scene(async (stage) => {
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
      const broker = stage.broker();
      const [live, blocked] = [await crowd(stage, broker, 100), await crowd(stage, broker, 10)];
      const { done } = await wanting(live, "2");
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

/** What a bare stream hands on. */
const CHUNK = new TextEncoder().encode("data: 1\n\n");
/** A client of a stream that hands on what it is told to, and does nothing else. */
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
  "economy: an event that is sent to a client makes no promise beyond the stream's own",
  scene(async (stage) => {
    const promisesOf = await promiseCounter();
    // Bun 1.4, Deno 2.9 and workerd have the hook, and never call it. There the test before this one has to do.
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
        const broker = stage.broker();
        const [live, blocked] = [await crowd(stage, broker, count), await crowd(stage, broker, count)];
        const [waiting, given] = [await bareClient(() => undefined), await bareClient((bare) => bare.enqueue(CHUNK))];
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
        expect(catchingUp).toBe(count * promisesOf(() => given.read()));
      }
      // To publish makes some, however many clients there are.
      expect(publishing[0]).toBeGreaterThan(0);
      expect(publishing[1]).toBe(publishing[0]);
    } finally {
      turns.mockRestore();
    }
  }),
);

test(
  "economy: clients that join between two flushes at the same position share a chunk",
  scene(async (stage) => {
    const broker = stage.broker();
    const old = await crowd(stage, broker, 10);
    const { done } = await wanting(old, "3");
    void broker.broadcast("1");
    // All in the turn of the flush that is to come.
    const fresh = await crowd(stage, broker, 50);
    const reads = fresh.map((client) => client.untilData("3"));
    const cost = await meter(async () => {
      void broker.broadcast("2");
      void broker.broadcast("3");
      await Promise.all([done, ...reads]);
    });
    // 1, 2 and 3 for those who were there, 2 and 3 for the others.
    expect(countsOf(cost)).toEqual({ encodes: 2, joins: 2, chunks: 2, enqueues: 60 });
    expect(broker.stats()).toMatchObject({ replayed: 0 });
    for (const { data } of fresh) expect(data).toEqual(["2", "3"]);
    await turn();
  }),
);
