// The parts of `fanwire/engine` that the author of an engine builds on: logs that are created, restored and read, and idempotency windows.
import { expect, test } from "vitest";
import {
  createEpoch,
  createIdempotencyWindow,
  createLog,
  eventFingerprint,
  type Log,
  readHistoryBounds,
  readLast,
  readPage,
  restoreLog,
  type StoredLog,
} from "../../../src/engine.ts";
import { codeOf } from "../../support/test-broker.ts";

const textOf = (data: string): string => `data: ${data}\n\n`;

/** Appends one event to each of these lists of channels. */
function append(log: Log, ...keys: readonly (readonly string[])[]): void {
  for (const each of keys) log.append(each, textOf(`${log.head + 1}`));
}

/** Returns what a store has to keep of a log: the events that are left, and what was dropped. */
function storedForm(log: Log, keys: readonly string[]): StoredLog {
  const { records } = readPage(log, keys, 0, Infinity);
  const channels = keys.flatMap((key) => {
    const { droppedThrough = 0 } = log.find(key) ?? {};
    return droppedThrough > 0 ? [{ key, droppedThrough }] : [];
  });
  const { epoch, head, forgottenThrough } = log;
  return { epoch, head, forgottenThrough, channels, events: records.map((record) => ({ ...record, at: Date.now() })) };
}

test("createEpoch(): returns another epoch each time, which createLog() accepts", () => {
  const epochs = Array.from({ length: 50 }, () => createLog(createEpoch()).epoch);
  expect(new Set(epochs).size).toBe(50);
});

test("createLog(): refuses an epoch without a wire form, an unknown option, and a number out of its range", () => {
  for (const epoch of ["", "a b", "a_b", "é", "x".repeat(48)]) expect(() => createLog(epoch)).toThrow(RangeError);
  expect(createLog("x".repeat(47)).epoch).toHaveLength(47);
  expect(() => createLog("e", { retention: { events: 0 } })).toThrow(RangeError);
  expect(() => createLog("e", { idempotencyWindow: 5 } as object)).toThrow(TypeError);
});

test("createLog(): applies the options, and the documented defaults", () => {
  const log = createLog("e");
  expect([log.retention, log.maxBytes]).toEqual([
    { events: Infinity, bytes: Infinity, age: 300_000 },
    32 * 1024 * 1024,
  ]);
  const small = createLog("e", { retention: { events: 2 } });
  append(small, ["#a"], ["#a"], ["#a"]);
  expect(small.size).toBe(2);
});

test("restoreLog(): the restored log reads the same, and continues after the last position", () => {
  const keys = ["", "#a", "#b", "#c"];
  const log = createLog("e", { retention: { events: 3 } });
  append(log, ["#a", "#b"], ["#a"], ["#a"], ["#a"], ["#a"], [""], ["#c", ""]);
  const restored = restoreLog(storedForm(log, keys), { retention: { events: 3 } });
  restored.applyRetention(Date.now());
  for (const key of keys) {
    for (let after = 0; after <= log.head; after++)
      expect(readPage(restored, [key], after), `${key} after ${after}`).toEqual(readPage(log, [key], after));
  }
  expect(readPage(restored, keys, 0)).toEqual(readPage(log, keys, 0));
  expect(readLast(restored, [...keys, "#never"])).toEqual(readLast(log, [...keys, "#never"]));
  expect(restored.append(["#a"], textOf("next")).seq).toBe(8);
});

test("restoreLog(): a position is not assigned again although its event was dropped, and the drop is known", () => {
  const restored = restoreLog({ epoch: "e", head: 9, channels: [{ key: "#a", droppedThrough: 7 }], events: [] });
  expect(readPage(restored, ["#a", "#b"], 0)).toEqual({
    epoch: "e",
    records: [],
    through: 9,
    droppedThrough: [7, 0],
  });
  expect(restored.append(["#a"], textOf("next")).seq).toBe(10);
});

test("restoreLog(): a channel that was forgotten may have had events up to forgottenThrough", () => {
  const restored = restoreLog({
    epoch: "e",
    forgottenThrough: 4,
    events: [{ seq: 3, keys: ["#old"], text: textOf("3"), at: Date.now() }],
  });
  expect(readPage(restored, ["#old", "#new"], 0).droppedThrough).toEqual([2, 4]);
});

test("restoreLog(): applyRetention() reports the events that became too old to the storage listener", () => {
  const events = [1, 2, 3].map((seq) => ({ seq, keys: ["#a"], text: textOf(`${seq}`), at: seq < 3 ? 0 : Date.now() }));
  const removed: number[] = [];
  const restored = restoreLog(
    { epoch: "e", events },
    {},
    { onEntryRemoved: ({ seq }) => void removed.push(seq), onChannelForgotten: () => undefined },
  );
  restored.applyRetention(Date.now());
  expect([removed, readPage(restored, ["#a"], 0).droppedThrough]).toEqual([[1, 2], [2]]);
});

test("restoreLog(): a channel keeps all that it has until the option channels answers, and then what it says", () => {
  const age = 3_600_000;
  const at = Date.now() - 600_000;
  const events = ["#chat", "#chat", "#other"].map((key, index) => ({
    seq: index + 1,
    keys: [key],
    text: textOf(key),
    at: index === 0 ? at - age : at,
  }));
  let isFailing = true;
  const restored = restoreLog(
    { epoch: "e", events },
    {
      channels: (name) => {
        if (isFailing) throw new Error("no answer yet");
        return name === "chat" ? { retention: { age } } : undefined;
      },
    },
  );
  const left = (): number[] => readPage(restored, ["#chat", "#other"], 0).records.map(({ seq }) => seq);
  expect(restored.applyRetention(Date.now())).toBe(300_000);
  expect(left()).toEqual([1, 2, 3]);
  expect(() => restored.ownersOf(["#chat"])).toThrow("no answer yet");
  expect(() => restored.append(["#new", "#chat"], textOf("4"))).toThrow("no answer yet");
  expect([restored.head, restored.channels]).toEqual([3, 2]);
  isFailing = false;
  expect(restored.applyRetention(Date.now())).toBe(age);
  expect(left()).toEqual([2]);
});

test("readHistoryBounds(): with last, says where the newest events of each channel begin, and counts only those", () => {
  const log = createLog("e");
  append(log, ["#a"], ["#a"], ["#b"], ["#a"], ["#a", "#b"]);
  const { floor, channels } = readHistoryBounds(log, ["#a", "#b", "#c"], 0, { events: 3 }, 2);
  expect(channels.map(({ lastFloor }) => lastFloor)).toEqual([3, 2, 0]);
  expect(floor).toBe(0);
  expect(readHistoryBounds(log, ["#a", "#b"], 0, { events: 2 }, 2).floor).toBe(3);
  expect(readHistoryBounds(log, ["#a"], 0).channels[0]?.lastFloor).toBeUndefined();
});

test("restoreLog(): channels beyond maxChannels are forgotten at once, and reported to the storage listener", () => {
  const events = ["#a", "#b", "#c"].map((key, index) => ({
    seq: index + 1,
    keys: [key],
    text: textOf(key),
    at: Date.now(),
  }));
  const reported: unknown[] = [];
  const restored = restoreLog(
    { epoch: "e", events },
    { maxChannels: 1 },
    {
      onEntryRemoved: ({ seq }) => void reported.push(seq),
      onChannelForgotten: (...forgotten) => void reported.push(forgotten),
    },
  );
  expect(reported).toEqual([1, ["#a", 1], 2, ["#b", 2]]);
  expect(readPage(restored, ["#a", "#b", "#c"], 0).records.map(({ seq }) => seq)).toEqual([3]);
});

test("createIdempotencyWindow(): a stored key is remembered for the rest of its window", () => {
  const window = createIdempotencyWindow("e", 60_000);
  const append = (keys: readonly string[], key: string): unknown => window.appendOnce(keys, textOf("x"), key, () => 9);
  const fingerprint = eventFingerprint(["#a"], textOf("x"));
  window.remember("own\nrecent", 4, fingerprint, 59_000);
  window.remember("own\nold", 5, fingerprint, 60_000);
  expect(append(["#a"], "own\nrecent")).toEqual({ epoch: "e", seq: 4, repeated: true });
  expect(() => append(["#b"], "own\nrecent")).toThrow(expect.objectContaining({ code: "key-reused" }));
  expect(append(["#a"], "own\nold")).toEqual({ epoch: "e", seq: 9, repeated: false });
});

test("restoreLog(): refuses events that are out of order, or occur twice", () => {
  const event = (seq: number) => ({ seq, keys: ["#a"], text: textOf(`${seq}`), at: 0 });
  for (const seqs of [
    [2, 1],
    [1, 1],
    [0, 1],
  ])
    expect(() => restoreLog({ epoch: "e", events: seqs.map(event) })).toThrow(RangeError);
});

test("readPage(): ends before maxBytes, and has at least one event", () => {
  const log = createLog("e");
  append(log, ["#a"], ["#b"], ["#a", "#b"], ["#c"]);
  const pageOf = (after: number, maxBytes: number) => {
    const { records, through } = readPage(log, ["#a", "#b"], after, maxBytes);
    return [records.map(({ seq }) => seq), through];
  };
  const size = "id: e-1\n".length + textOf("1").length;
  expect(pageOf(0, 1)).toEqual([[1], 1]);
  expect(pageOf(0, 2 * size)).toEqual([[1, 2], 2]);
  expect(pageOf(1, 2 * size)).toEqual([[2, 3], 4]);
  expect(pageOf(3, 1)).toEqual([[], 4]);
  expect(readPage(log, ["#a"], 0).records[0]).toEqual({ seq: 1, keys: ["#a"], text: textOf("1") });
});

test("readHistoryBounds(): reports what is retained, and leaves no record of an unknown channel", () => {
  const log = createLog("e", { retention: { events: 2 } });
  append(log, ["#a"], ["#a"], ["#a"], ["#b"]);
  expect(readHistoryBounds(log, ["#a", "#b", "#c"], 2, { events: 2 })).toEqual({
    epoch: "e",
    head: 4,
    floor: 2,
    channels: [
      { key: "#a", droppedThrough: 1, oldest: 2, next: 3 },
      { key: "#b", droppedThrough: 0, oldest: 4, next: 4 },
      { key: "#c", droppedThrough: 0, oldest: undefined, next: undefined },
    ],
  });
  expect(log.channels).toBe(2);
});

test("createIdempotencyWindow(): appends once for each key, and refuses another event", async () => {
  const log = createLog("e");
  const window = createIdempotencyWindow(log.epoch);
  const publish = (keys: readonly string[], data: string, idempotencyKey?: string) =>
    window.appendOnce(keys, textOf(data), idempotencyKey, () => log.append(keys, textOf(data)).seq);
  expect(publish(["#a", "#b"], "x", "k")).toEqual({ epoch: "e", seq: 1, repeated: false });
  expect(publish(["#b", "#a"], "x", "k")).toEqual({ epoch: "e", seq: 1, repeated: true });
  expect(publish(["#a"], "x", "other").seq).toBe(2);
  expect(publish(["#a"], "x").seq).toBe(3);
  const reuse = async () => publish(["#a"], "y", "k");
  expect(await codeOf(reuse())).toBe("key-reused");
  expect(log.head).toBe(3);
});

test("createIdempotencyWindow(): does not remember the key of an event that could not be appended", () => {
  const window = createIdempotencyWindow("e");
  const refuse = (): number => {
    throw new Error("refused");
  };
  expect(() => window.appendOnce(["#a"], "x", "k", refuse)).toThrow("refused");
  expect(window.appendOnce(["#a"], "y", "k", () => 1)).toEqual({ epoch: "e", seq: 1, repeated: false });
});

test("createIdempotencyWindow(): 0 remembers no key, and a number below 0 is refused", () => {
  const window = createIdempotencyWindow("e", 0);
  for (const seq of [1, 2]) expect(window.appendOnce([], "x", "k", () => seq).seq).toBe(seq);
  for (const windowMs of [-1, Number.NaN]) expect(() => createIdempotencyWindow("e", windowMs)).toThrow(RangeError);
});

test("eventFingerprint(): is the same for the same channels in another order, and differs for another event", () => {
  expect(eventFingerprint(["#a", "#b"], "x")).toBe(eventFingerprint(["#b", "#a"], "x"));
  const prints = [
    eventFingerprint(["#a"], "x"),
    eventFingerprint(["#a"], "y"),
    eventFingerprint(["#b"], "x"),
    eventFingerprint(["#a", "#b"], "x"),
    eventFingerprint([""], "x"),
  ];
  expect(new Set(prints).size).toBe(prints.length);
});
