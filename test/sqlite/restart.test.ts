// Restarts of a process over a SQLite file: orderly ones and crashes, on each runtime, and from one runtime to the next.
import { expect, type TestContext, test } from "vitest";
import { formatRunEvent } from "../../src/engine/run-store.ts";
import { Lives, RUNTIMES } from "./support/life.ts";
import { StreamReader } from "./support/stream-reader.ts";

const seqOf = (id = ""): number => Number(id.slice(id.lastIndexOf("-") + 1));
const epochOf = (id = ""): string => id.slice(0, id.lastIndexOf("-"));

function livesFor({ onTestFinished }: TestContext): Lives {
  const lives = new Lives();
  onTestFinished(() => lives.end());
  return lives;
}

function reader({ onTestFinished }: TestContext, url: string, lastEventId?: string): StreamReader {
  const client = new StreamReader(url, lastEventId);
  onTestFinished(() => client.close());
  return client;
}

for (const [index, runtime] of RUNTIMES.entries()) {
  const next = RUNTIMES[(index + 1) % RUNTIMES.length] ?? "node";

  for (const end of ["kill", "close"] as const)
    test(`${runtime}, ${end}: clients resume without a gap, in the same epoch, on ${next} as well`, async (context) => {
      const lives = livesFor(context);
      const first = await lives.start(runtime);
      const client = reader(context, `${first.url}/connect?id=ada&channel=a`);
      await client.until(() => client.control.length > 0);
      const before = await first.publish("1", "?channel=a");
      await client.untilData("1");
      await first[end]();
      const second = await lives.start(next);
      const { id } = await second.publish("2", "?channel=a");
      await client.untilData("2");
      await second[end]();
      const third = await lives.start(runtime);
      await third.publish("3", "?channel=a");
      await client.untilData("3");
      expect(client.events.map(({ data }) => data)).toEqual(["1", "2", "3"]);
      expect(client.gaps).toEqual([]);
      expect(epochOf(id)).toBe(epochOf(before.id));
      expect(seqOf(id)).toBe(seqOf(before.id) + 1);
      const readies = client.control.filter(({ name }) => name === "fanwire-ready");
      expect(readies.slice(1).every(({ data }) => data.resumed === true)).toBe(true);
    });

  test(`${runtime}: after a crash a run that had ended is there byte for byte, on ${next} as well, and a live one is lost`, async (context) => {
    const lives = livesFor(context);
    const start = { generation: "one", leaseMs: 600_000, retainMs: 600_000, readers: "ada" };
    const first = await lives.start(runtime);
    const texts = ["event: tick\ndata: é ☃\n\n", "data: \ndata: 2\n\n", `data: ${"x".repeat(100_000)}\n\n`];
    for (const id of ["ended", "live"]) {
      expect(await first.runs("start", id, start)).toBe(true);
      for (const [after, text] of texts.entries())
        expect(await first.runs("append", id, "one", { after, texts: [text] })).toBe(true);
    }
    expect(await first.runs("append", "ended", "one", { after: 3, texts: [], end: "failed" })).toBe(true);
    await first.kill();
    const text = texts.map((each, index) => formatRunEvent(each, "one", index + 1)).join("");
    for (const each of [next, runtime]) {
      const life = await lives.start(each);
      expect(await life.runs("read", "ended", 0, 1e6)).toMatchObject({
        end: "failed",
        text,
        events: 3,
        readers: "ada",
      });
      expect(await life.runs("read", "live", 0, 1e6)).toMatchObject({ end: "lost", text, events: 3 });
      expect(await life.runs("append", "live", "one", { after: 3, texts: [] })).toBe(false);
      await life.kill();
    }
  });

  test(`${runtime}: a crash loses no key, no ban, no inbox that lingers, and no retention of a single channel`, async (context) => {
    const lives = livesFor(context);
    const settings = { latest: 1, engine: { retention: { events: 5 } } };
    const first = await lives.start(runtime, settings);
    const one = await first.publish("one", "?channel=a", { "idempotency-key": "k" });
    for (let event = 1; event <= 8; event++) await first.publish(`many ${event}`, "?channel=many");
    for (let event = 1; event <= 3; event++) await first.publish(`state ${event}`, "?channel=latest");
    await (await first.fetch("/bar?id=guest")).text();
    const left = new StreamReader(`${first.url}/connect?id=left`);
    await left.until(() => left.control.length > 0);
    await left.close();
    const connected = new StreamReader(`${first.url}/connect?id=connected`);
    await connected.until(() => connected.control.length > 0);
    const position = connected.lastEventId;
    await new Promise((resolve) => setTimeout(resolve, 100));
    await first.kill();
    await connected.close();

    const second = await lives.start(runtime, settings);
    expect(await second.publish("one", "?channel=a", { "idempotency-key": "k" })).toMatchObject({ id: one.id });
    expect(await second.publish("another", "?channel=a", { "idempotency-key": "k" })).toMatchObject({
      code: "key-reused",
    });
    expect((await second.fetch("/connect?id=guest")).status).toBe(204);
    for (const id of ["left", "connected"])
      expect(await second.publish(`for ${id}`, `?id=${id}`)).toMatchObject({ status: 200 });
    const back = reader(context, `${second.url}/connect?id=connected`, position);
    await back.untilData("for connected");
    expect(back.gaps).toEqual([]);
    expect((await second.history("a")).events.map(({ data }) => data)).toEqual(["one"]);
    const many = await second.history("many", one.id);
    expect([many.events.map(({ data }) => data), many.gaps.length]).toEqual([
      [4, 5, 6, 7, 8].map((n) => `many ${n}`),
      1,
    ]);
    expect((await second.history("latest")).events.map(({ data }) => data)).toEqual(["state 3"]);
  });

  test(`${runtime}: a second process waits until the first has closed, and then has its clients`, async (context) => {
    const lives = livesFor(context);
    const first = await lives.start(runtime);
    const { id } = await first.publish("1", "?channel=a");
    const second = await lives.start(next, { isBeside: true });
    // It asks clients to come back, and refuses to publish.
    const early = reader(context, `${second.url}/connect?channel=a`, id);
    await early.until(() => early.control.some(({ name }) => name === "fanwire-end"));
    expect(early.statuses[0]).toBe(200);
    expect(early.control[0]).toMatchObject({ name: "fanwire-end", data: { reason: "engine-down", reconnect: true } });
    expect(await second.publish("no", "?channel=a")).toMatchObject({ status: 503, code: "engine-down" });
    expect((await second.fetch("/health")).status).toBe(503);
    await first.publish("2", "?channel=a");
    expect(early.items).toEqual([]);
    if (index === 0) await first.kill();
    else await first.close();
    await early.untilData("2");
    const last = await second.publish("3", "?channel=a");
    expect(last).toMatchObject({ status: 200 });
    await early.untilData("3");
    expect(early.items.map(({ data }) => data)).toEqual(["2", "3"]);
    expect(seqOf(last.id)).toBe(seqOf(id) + 2);
    expect((await second.fetch("/health")).status).toBe(200);
    // The first one comes back, and waits in its turn.
    const third = await lives.start(runtime);
    expect(await third.publish("no", "?channel=a")).toMatchObject({ status: 503, code: "engine-down" });
    expect(third.output + second.output).toContain("another process has it open");
  });
}

test("durability process: a crash costs a gap of the last moments, an orderly end none, and no position is assigned twice", async (context) => {
  const lives = livesFor(context);
  const settings = { engine: { durability: "process" } } as const;
  const first = await lives.start("node", settings);
  const client = reader(context, `${first.url}/connect?channel=a`);
  await client.until(() => client.control.length > 0);
  await first.publish("1", "?channel=a");
  await client.untilData("1");
  await first.close();
  const second = await lives.start("node", settings);
  const before = await second.publish("2", "?channel=a");
  await client.untilData("2");
  expect(client.gaps).toEqual([]);
  await second.kill();
  const third = await lives.start("node", settings);
  const after = await third.publish("3", "?channel=a");
  await client.untilData("3");
  expect(client.events.map(({ data }) => data)).toEqual(["1", "2", "3"]);
  expect(client.gaps.map(({ data }) => JSON.parse(data) as { after: string; through: string })).toMatchObject([
    { after: before.id },
  ]);
  expect(seqOf(after.id)).toBeGreaterThan(seqOf(before.id) + 1);
  expect(epochOf(after.id)).toBe(epochOf(before.id));
});
