import { expect, test, vi } from "vitest";
import type { ErrorStage } from "../../../src/index.ts";
import { seqOf } from "../../support/clients/connection.ts";
import { scene, turn, Witness } from "../../support/test-broker.ts";

const KIB = 1024;

test(
  "fan-out: events of one turn leave as one chunk, the same for all clients that they match",
  scene(async (stage) => {
    const broker = stage.broker();
    const clients = [
      await stage.join(broker, { id: "plain" }),
      await stage.join(broker, { id: "own channel", channel: "mine" }),
      await stage.join(broker, { id: "two channels", channel: ["x", "y"] }),
      await stage.join(broker),
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
  "fan-out: a client's own events in the same turn do not spoil the sharing of the others",
  scene(async (stage) => {
    const broker = stage.broker();
    const [a, b, own] = [
      await stage.join(broker, { id: "a" }),
      await stage.join(broker, { id: "b", channel: "quiet" }),
      await stage.join(broker, { id: "own", channel: "news" }),
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
  "fan-out: clients that match by different channels share the chunk of the same events",
  scene(async (stage) => {
    const broker = stage.broker();
    const [a, b] = [await stage.join(broker, { channel: "a" }), await stage.join(broker, { channel: "a" })];
    const reads = [a.read(), b.read()];
    await broker.broadcast("1", { channels: ["a", "z"] });
    await Promise.all(reads);
    expect(a.chunks.at(-1)).toBe(b.chunks.at(-1));
  }),
);

test(
  "an event is encoded once, however many clients there are",
  scene(async (stage) => {
    const encode = vi.spyOn(TextEncoder.prototype, "encode");
    try {
      const broker = stage.broker();
      const clients = [];
      for (let client = 0; client < 20; client++) clients.push(await stage.join(broker, { channel: `own ${client}` }));
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
  "an event to 100 channels at once reaches a client of all of them once",
  scene(async (stage) => {
    const broker = stage.broker();
    const channels = Array.from({ length: 100 }, (_, index) => `channel ${index}`);
    const all = await stage.join(broker, { overrides: { channels } });
    const one = await stage.join(broker, { channel: "channel 50" });
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
  "a blocked client is given nothing, and catches up from the log in chunks of at most 64 KiB",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 60_000 });
    const blocked = await stage.join(broker, { id: "blocked" });
    const reading = await stage.join(broker, { id: "reading" });
    const { sent } = broker.stats();
    for (let event = 0; event < 300; event++) {
      const next = reading.nextData();
      await broker.broadcast(`${event} ${"x".repeat(KIB)}`);
      await next;
    }
    // What the blocked one wanted before it stopped is all that left for it: nothing, as it read only what was there.
    expect(broker.stats().sent - sent).toBeLessThanOrEqual(301);
    expect(broker.stats().blocked).toBe(1);
    const before = blocked.chunks.length;
    for (let event = 0; event < 300; event++) {
      expect(Number.parseInt((await blocked.nextData()).data, 10)).toBe(event);
    }
    const sizes = blocked.chunks.slice(before).map(({ length }) => length);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(64 * KIB);
    // In chunks as large as that allows, not event by event.
    expect(sizes.length).toBeLessThan(15);
    expect(blocked.control("gap")).toEqual([]);
  }),
);

test(
  "an event larger than a chunk goes alone",
  scene(async (stage) => {
    const broker = stage.broker();
    const client = await stage.join(broker);
    for (const size of [10, 200 * KIB, 10]) await broker.broadcast("x".repeat(size));
    const sizes = [await client.nextData(), await client.nextData(), await client.nextData()].map(
      ({ data }) => data.length,
    );
    expect(sizes).toEqual([10, 200 * KIB, 10]);
    expect(client.chunks.filter(({ length }) => length > 64 * KIB)).toHaveLength(1);
  }),
);

test(
  "clients that catch up over the same stretch share its chunks",
  scene(async (stage) => {
    const broker = stage.broker();
    const [a, b] = [await stage.join(broker, { id: "a" }), await stage.join(broker, { id: "b", channel: "own" })];
    const reading = await stage.join(broker, { id: "reading" });
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
  "for (…) await broadcast(…) 100,000 times: a client that reads has all of it and no gap",
  { timeout: 60_000 },
  scene(async (stage) => {
    const stages: ErrorStage[] = [];
    const broker = stage.broker({ onError: ({ stage }) => stages.push(stage) });
    const client = await stage.join(broker);
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
    expect(stages).toEqual([]);
    expect(broker.stats()).toMatchObject({ gaps: 0, published: count, sent: count });
  }),
);

test(
  "for (…) await broadcast(…) with a client that is blocked: the publisher goes on, and the one that reads has all",
  { timeout: 60_000 },
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 60_000, log: { logBytes: 4 * KIB * KIB } });
    await stage.join(broker, { id: "blocked" });
    const client = await stage.join(broker, { id: "reading" });
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
  "a publisher that does not await overruns the log: the gap is said, and onError has stage overrun",
  scene(async (stage) => {
    const errors = new Witness<{ error: unknown; stage: ErrorStage }>();
    const broker = stage.broker({ log: { logBytes: 64 * KIB }, onError: errors.see });
    const client = await stage.join(broker);
    const next = client.next();
    const published: Promise<{ id: string }>[] = [];
    for (let event = 0; event < 1_000; event++) published.push(broker.broadcast(String(event)));
    const { error, stage: where } = await errors.next();
    expect([where, error instanceof Error]).toEqual(["overrun", true]);
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
  "a client whose reads are queued ahead misses nothing when a flush takes several chunks",
  scene(async (stage) => {
    const broker = stage.broker();
    const answer = await broker.clientHandler(new Request("https://fanwire.test/connect"));
    const reader = answer.body?.getReader() as ReadableStreamDefaultReader<Uint8Array>;
    await reader.read();
    const queued = Array.from({ length: 12 }, () => reader.read());
    await turn();
    const data = Array.from({ length: 10 }, (_, index) => `${index} ${"x".repeat(40 * KIB)}`);
    await Promise.all(data.map((each) => broker.broadcast(each)));
    await broker.broadcast("end");
    const decoder = new TextDecoder();
    let text = "";
    for (const read of queued) {
      text += decoder.decode((await read).value, { stream: true });
      if (text.includes("data: end")) break;
    }
    const numbers = [...text.matchAll(/^data: (\d+) x/gm)].map(([, number]) => Number(number));
    expect(numbers).toEqual(data.map((_, index) => index));
    await reader.cancel();
  }),
);

test(
  "listen: reads that are queued ahead miss nothing when a flush takes several chunks",
  scene(async (stage) => {
    const broker = stage.broker();
    const listener = broker.listen();
    const queued = Array.from({ length: 6 }, () => listener.next());
    const data = Array.from({ length: 5 }, (_, index) => `${index} ${"x".repeat(40 * KIB)}`);
    await Promise.all(data.map((each) => broker.broadcast(each)));
    await broker.broadcast("end");
    const heard: string[] = [];
    for (const next of queued) {
      const { value } = await next;
      heard.push(value?.type === "event" ? (value.data.split(" ")[0] ?? "") : "gap");
    }
    expect(heard).toEqual(["0", "1", "2", "3", "4", "end"]);
  }),
);
