// Reading several channels in one order: what it yields, and how much it looks at. Nothing here measures time.
import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { readBatch } from "../../../src/log/batch.ts";
import { ChannelLog, type Entry } from "../../../src/log/channel-log.ts";
import { Log } from "../../../src/log/log.ts";
import { resolveLogOptions } from "../../../src/log/log-options.ts";
import { Merge } from "../../../src/log/merge.ts";
import { resolveResumePoint } from "../../../src/log/resume.ts";

const createLog = (retention = {}): Log => new Log("e", resolveLogOptions("test", { retention }));
const text = (data: string): string => `data: ${data}\n\n`;

/** Reads everything that a merge yields. */
function drain(merge: Merge): number[] {
  const seqs: number[] = [];
  for (let entry = merge.next; entry; entry = merge.next) {
    seqs.push(entry.seq);
    merge.advance();
  }
  return seqs;
}

test("Merge: yields each event once, in order, whatever channels hold it, from any position and in both directions", () => {
  const history = fc.record({
    events: fc.array(fc.uniqueArray(fc.nat({ max: 6 }), { minLength: 1 }), { maxLength: 40 }),
    start: fc.nat({ max: 40 }),
    retention: fc.integer({ min: 1, max: 40 }),
  });
  fc.assert(
    fc.property(history, ({ events, start, retention }) => {
      const log = createLog({ events: retention });
      for (const channels of events)
        log.append(
          channels.map((channel) => `#${channel}`),
          text("x"),
        );
      const channels = [0, 1, 2, 3, 4, 5, 6].map((channel) => log.pin(`#${channel}`));
      const held = new Set<number>();
      for (const channel of channels)
        for (let at = 0, entry: Entry | undefined; (entry = channel.at(at)); at++) held.add(entry.seq);
      const expected = [...held].sort((a, b) => a - b);
      const up = new Merge();
      const down = new Merge(-1);
      for (const channel of channels) {
        up.add(channel, channel.indexAfter(start));
        down.add(channel, channel.indexAfter(start) - 1);
      }
      expect(drain(up)).toEqual(expected.filter((seq) => seq > start));
      expect(drain(down)).toEqual(expected.filter((seq) => seq <= start).reverse());
    }),
    { numRuns: 500 },
  );
});

/** Runs `body`, and returns how many events it looked at. */
function countLooks(body: () => void): number {
  const at = vi.spyOn(ChannelLog.prototype, "at");
  try {
    body();
    return at.mock.calls.length;
  } finally {
    at.mockRestore();
  }
}

test("readBatch(): looks at an event once for each channel that has it, and at a channel once for each chunk", () => {
  const log = createLog();
  for (let index = 0; index < 20_000; index++) log.append([`#${index % 100}`], text("12345678"));
  const channels = Array.from({ length: 100 }, (_, channel) => log.pin(`#${channel}`));
  let cursor = 0;
  let chunks = 0;
  const looks = countLooks(() => {
    for (;;) {
      const batch = readBatch(log, { channels, cursor, missingRanges: undefined, overrun: 0 }, log.head);
      chunks++;
      if (!batch?.more) break;
      cursor = batch.through;
    }
  });
  expect(chunks).toBeGreaterThan(5);
  expect(looks).toBeLessThanOrEqual(20_000 + chunks * (channels.length + 1));
});

for (const [what, max, floor] of [
  ["bytes", { bytes: 10_000 }, undefined],
  ["events", { events: 1_000 }, 19_000],
  ["both", { bytes: Infinity, events: 5 }, 19_995],
  ["nothing", { events: 0 }, 20_000],
] as const) {
  test(`maxReplay: the bound by ${what} is found by a search, and not by a walk over the events`, () => {
    const log = createLog();
    for (let index = 0; index < 20_000; index++) log.append([`#${index % 100}`], text("12345678"));
    const channels = Array.from({ length: 100 }, (_, channel) => log.pin(`#${channel}`));
    let cursor = 0;
    const looks = countLooks(() => {
      ({ cursor } = resolveResumePoint(log, channels, { from: "earliest" }, max));
    });
    const size = log.find("#0")?.at(0)?.bytes.length ?? 0;
    const expected = floor ?? 20_000 - Math.floor(10_000 / (size + 4));
    // Ids grow by up to four digits, so the number of events within 10,000 bytes is a little lower than the first event suggests.
    expect(Math.abs(cursor - expected)).toBeLessThanOrEqual(floor === undefined ? 20 : 0);
    // Fifteen steps, and three looks at each channel to tell where it begins.
    expect(looks).toBeLessThanOrEqual(100 * (15 + 3));
  });
}

test("maxReplay: the search and the walk find the same position, and a channel knows how many events it shares", () => {
  const history = fc.record({
    events: fc.array(
      fc.record({
        channels: fc.uniqueArray(fc.nat({ max: 3 }), { minLength: 1 }),
        size: fc.integer({ min: 1, max: 50 }),
      }),
      { maxLength: 40 },
    ),
    max: fc.record({ events: fc.nat({ max: 20 }), bytes: fc.nat({ max: 1_000 }) }),
    retention: fc.record({ events: fc.integer({ min: 1, max: 20 }), bytes: fc.integer({ min: 1, max: 2_000 }) }),
  });
  fc.assert(
    fc.property(history, ({ events, max, retention }) => {
      const log = createLog(retention);
      for (const { channels, size } of events)
        log.append(
          channels.map((channel) => `#${channel}`),
          text("x".repeat(size)),
        );
      const channels = [0, 1, 2, 3].map((channel) => log.pin(`#${channel}`));
      const held = new Map<number, Entry>();
      for (const channel of channels) {
        let shared = 0;
        for (let at = 0, entry: Entry | undefined; (entry = channel.at(at)); at++) {
          held.set(entry.seq, entry);
          if (entry.keys.length > 1) shared++;
        }
        expect(channel.shared).toBe(shared);
      }
      // What the bounds say, from a plain list.
      let floor = 0;
      let { bytes, events: left } = max;
      for (const entry of [...held.values()].sort((a, b) => b.seq - a.seq)) {
        bytes -= entry.bytes.length;
        if (left-- <= 0 || bytes < 0) {
          floor = entry.seq;
          break;
        }
      }
      const { cursor } = resolveResumePoint(log, channels, { from: "earliest" }, max);
      const oldest = Math.min(log.head + 1, ...held.keys()) - 1;
      expect(cursor).toBe(Math.max(floor, held.size === 0 ? log.head : oldest));
    }),
    { numRuns: 1_000 },
  );
});
