import { expect, test, vi } from "vitest";
import type { ErrorStage } from "../../../src/index.ts";
import { seqOf } from "../../support/clients/connection.ts";
import { Recorder, turn, withBroker } from "../../support/test-broker.ts";

const KIB = 1024;

test(
  "fan-out: events of one turn are sent as one chunk, shared by all clients with the same matching channels",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const clients = [
      await setup.join(broker, { id: "plain" }),
      await setup.join(broker, { id: "own channel", channel: "mine" }),
      await setup.join(broker, { id: "two channels", channel: ["x", "y"] }),
      await setup.join(broker),
    ];
    const reads = clients.map((client) => client.read());
    for (const data of ["1", "2", "3"]) void broker.broadcast(data);
    await Promise.all(reads);
    const chunks = new Set(clients.map(({ chunks }) => chunks.at(-1)));
    expect(chunks.size).toBe(1);
    for (const client of clients) expect(client.data).toEqual(["1", "2", "3"]);
  }),
);

test(
  "fan-out: events for one client in the same turn do not prevent the other clients from sharing a chunk",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [a, b, own] = [
      await setup.join(broker, { id: "a" }),
      await setup.join(broker, { id: "b", channel: "quiet" }),
      await setup.join(broker, { id: "own", channel: "news" }),
    ];
    const reads = [a.read(), b.read(), own.read()];
    void broker.broadcast("1");
    void broker.broadcastTo("own", "private");
    void broker.broadcast("news", { channels: "news" });
    void broker.broadcast("2");
    await Promise.all(reads);
    expect(a.chunks.at(-1)).toBe(b.chunks.at(-1));
    expect(a.data).toEqual(["1", "2"]);
    expect(own.data).toEqual(["1", "private", "news", "2"]);
  }),
);

test(
  "fan-out: clients share the chunk of an event that is also for other channels",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [a, b] = [await setup.join(broker, { channel: "a" }), await setup.join(broker, { channel: "a" })];
    const reads = [a.read(), b.read()];
    await broker.broadcast("1", { channels: ["a", "z"] });
    await Promise.all(reads);
    expect(a.chunks.at(-1)).toBe(b.chunks.at(-1));
  }),
);

test(
  "fan-out: an event is encoded once, however many clients there are",
  withBroker(async (setup) => {
    const encode = vi.spyOn(TextEncoder.prototype, "encode");
    try {
      const broker = setup.broker();
      const clients = [];
      for (let client = 0; client < 20; client++) clients.push(await setup.join(broker, { channel: `own ${client}` }));
      const reads = clients.map((client) => client.nextData());
      encode.mockClear();
      await broker.broadcast("encoded once");
      await Promise.all(reads);
      const calls = encode.mock.calls.filter(([text]) => text?.includes("encoded once"));
      expect(calls).toHaveLength(1);
    } finally {
      encode.mockRestore();
    }
  }),
);

test(
  "fan-out: an event to 100 channels reaches a client of all of them once",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const channels = Array.from({ length: 100 }, (_, index) => `channel ${index}`);
    const all = await setup.join(broker, { overrides: { channels } });
    const one = await setup.join(broker, { channel: "channel 50" });
    expect(await broker.broadcast("everywhere", { channels: channels })).toMatchObject({ clients: 2 });
    for (const channel of channels) await broker.broadcast(channel, { channels: channel });
    await broker.broadcast("end");
    await all.untilData("end");
    await one.untilData("end");
    expect(all.data).toEqual(["everywhere", ...channels, "end"]);
    expect(one.data).toEqual(["everywhere", "channel 50", "end"]);
  }),
);

test(
  "blocked: a blocked client is sent nothing, and catches up from the log in chunks of at most 64 KiB",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 60_000 });
    const blocked = await setup.join(broker, { id: "blocked" });
    const reading = await setup.join(broker, { id: "reading" });
    const { sent } = broker.stats();
    for (let event = 0; event < 300; event++) {
      const next = reading.nextData();
      await broker.broadcast(`${event} ${"x".repeat(KIB)}`);
      await next;
    }
    // Nothing was sent to the blocked client, because it asked for nothing after it had read everything.
    expect(broker.stats().sent - sent).toBeLessThanOrEqual(301);
    expect(broker.stats().blocked).toBe(1);
    const before = blocked.chunks.length;
    for (let event = 0; event < 300; event++) {
      expect(Number.parseInt((await blocked.nextData()).data, 10)).toBe(event);
    }
    const sizes = blocked.chunks.slice(before).map(({ length }) => length);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(64 * KIB);
    // In chunks as large as allowed, not event by event.
    expect(sizes.length).toBeLessThan(15);
    expect(blocked.control("gap")).toEqual([]);
  }),
);

test(
  "chunks: an event larger than a chunk is sent alone",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    for (const size of [10, 200 * KIB, 10]) await broker.broadcast("x".repeat(size));
    const sizes = [await client.nextData(), await client.nextData(), await client.nextData()].map(
      ({ data }) => data.length,
    );
    expect(sizes).toEqual([10, 200 * KIB, 10]);
    expect(client.chunks.filter(({ length }) => length > 64 * KIB)).toHaveLength(1);
  }),
);

test(
  "chunks: clients that catch up over the same events share the chunks",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [a, b] = [await setup.join(broker, { id: "a" }), await setup.join(broker, { id: "b", channel: "own" })];
    const reading = await setup.join(broker, { id: "reading" });
    const flushed = reading.untilData("49");
    for (let event = 0; event < 50; event++) await broker.broadcast(String(event));
    await flushed;
    await a.untilData("49");
    await b.untilData("49");
    expect(a.chunks.at(-1)).toBe(b.chunks.at(-1));
    expect(a.chunks.at(-1)?.length).toBeGreaterThan(KIB);
  }),
);

test(
  "backpressure: 100,000 awaited broadcasts in a loop reach a client that reads, without a gap",
  { timeout: 240_000 },
  withBroker(async (setup) => {
    const errors: ErrorStage[] = [];
    const broker = setup.broker({ onError: (error) => errors.push(error.stage) });
    const client = await setup.join(broker);
    const count = 100_000;
    const reading = (async (): Promise<string> => {
      for (let event = 0; event < count; event++) {
        const { data, event: type } = await client.next();
        if (type !== undefined || data !== String(event)) return `${type} ${data} instead of ${event}`;
      }
      return "all";
    })();
    for (let event = 0; event < count; event++) await broker.broadcast(String(event));
    expect(await reading).toBe("all");
    expect(errors).toEqual([]);
    expect(broker.stats()).toMatchObject({ gaps: 0, published: count, sent: count });
  }),
);

test(
  "backpressure: with a blocked client an awaited loop goes on, and a client that reads receives everything",
  { timeout: 240_000 },
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 60_000, log: { logBytes: 4 * KIB * KIB } });
    await setup.join(broker, { id: "blocked" });
    const client = await setup.join(broker, { id: "reading" });
    const count = 4_000;
    const reading = (async (): Promise<void> => {
      for (let event = 0; event < count; event++) await client.nextData();
    })();
    for (let event = 0; event < count; event++) await broker.broadcast(`${event} ${"x".repeat(4 * KIB)}`);
    await reading;
    expect(client.control("gap")).toEqual([]);
    expect(client.data).toHaveLength(count);
  }),
);

test(
  "overrun: a publisher that does not await overruns the log, which causes a gap and calls onError with setup overrun",
  withBroker(async (setup) => {
    const errors = new Recorder<{ error: unknown; stage: ErrorStage }>();
    const engine = setup.immediateEngine({ logBytes: 64 * KIB });
    const broker = setup.broker({ engine, onError: errors.record });
    const client = await setup.join(broker);
    const next = client.next();
    const published: Promise<{ id: string }>[] = [];
    for (let event = 0; event < 1_000; event++) published.push(broker.broadcast(String(event)));
    const { error, stage: part } = await errors.next();
    expect([part, error instanceof Error]).toEqual(["overrun", true]);
    const gap = await next;
    expect(gap.event).toBe("fanwire-gap");
    const first = await client.next();
    expect(seqOf(first.id)).toBe(seqOf(gap.id) + 1);
    await client.untilData("999");
    expect(client.data.length).toBe(1_000 - seqOf(gap.id));
    expect(client.control("gap")).toHaveLength(1);
    await Promise.all(published);
  }),
);

test(
  "chunks: a client with several waiting reads misses nothing when a flush takes several chunks",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const answer = await broker.clientHandler(new Request("https://fanwire.test/connect"));
    const reader = answer.body?.getReader() as ReadableStreamDefaultReader<Uint8Array>;
    await reader.read();
    const reads = Array.from({ length: 12 }, () => reader.read());
    await turn();
    const data = Array.from({ length: 10 }, (_, index) => `${index} ${"x".repeat(40 * KIB)}`);
    await Promise.all(data.map((each) => broker.broadcast(each)));
    await broker.broadcast("end");
    const decoder = new TextDecoder();
    let text = "";
    for (const read of reads) {
      text += decoder.decode((await read).value, { stream: true });
      if (text.includes("data: end")) break;
    }
    const numbers = [...text.matchAll(/^data: (\d+) x/gm)].map(([, number]) => Number(number));
    expect(numbers).toEqual(data.map((_, index) => index));
    await reader.cancel();
  }),
);

test(
  "listen(): a listener with several waiting reads misses nothing when a flush takes several chunks",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const listener = broker.listen();
    const reads = Array.from({ length: 6 }, () => listener.next());
    const data = Array.from({ length: 5 }, (_, index) => `${index} ${"x".repeat(40 * KIB)}`);
    await Promise.all(data.map((each) => broker.broadcast(each)));
    await broker.broadcast("end");
    const received: string[] = [];
    for (const next of reads) {
      const { value } = await next;
      received.push(value?.type === "event" ? (value.data.split(" ")[0] ?? "") : "gap");
    }
    expect(received).toEqual(["0", "1", "2", "3", "4", "end"]);
  }),
);
