import { describe, expect, test } from "vitest";
import { MemoryRuns } from "../../../src/runs/memory-runs.ts";
import { testRunStore } from "../../support/runs/store-contract.ts";

const BYTES = 64 * 1024 * 1024;

describe("runs in memory", () => {
  testRunStore(() => {
    const store = new MemoryRuns(BYTES);
    return { store, other: () => store, close: () => store.close() };
  });

  test("memoryBytes: bounds all runs together; a run that is over gives its bytes back", async () => {
    const store = new MemoryRuns(50_000);
    const start = { leaseMs: 60_000, retainMs: 100, readers: undefined };
    await store.start("a", { ...start, generation: "one" });
    const texts = [`data: ${"x".repeat(60_000)}\n\n`];
    await store.append("a", "one", { after: 0, texts });
    await expect(store.append("a", "one", { after: 1, texts })).rejects.toMatchObject({ code: "at-capacity" });
    await expect(store.start("b", { ...start, generation: "two" })).rejects.toMatchObject({ code: "at-capacity" });
    // Its end is always taken.
    expect(await store.append("a", "one", { after: 1, texts: [], end: "failed" })).toBe(true);
    await expect.poll(() => store.read("a", 0, 1)).toBeUndefined();
    expect(await store.start("b", { ...start, generation: "two" })).toBe(true);
  });

  test("start: a run that has ended stays if there is no room for the one that replaces it", async () => {
    const store = new MemoryRuns(50_000);
    const start = { leaseMs: 60_000, retainMs: 60_000, readers: undefined };
    await store.start("a", { ...start, generation: "one" });
    await store.append("a", "one", { after: 0, texts: ["data: 1\n\n"], end: "ended" });
    await store.start("b", { ...start, generation: "two" });
    await store.append("b", "two", { after: 0, texts: [`data: ${"x".repeat(60_000)}\n\n`] });
    await expect(store.start("a", { ...start, generation: "three" })).rejects.toMatchObject({ code: "at-capacity" });
    expect(store.read("a", 0, 1)).toMatchObject({ generation: "one", end: "ended", events: 1 });
    await store.append("b", "two", { after: 1, texts: [], end: "ended" });
    // It may take the room of the one that it replaces.
    expect(await store.start("b", { ...start, generation: "four" })).toBe(true);
  });
});
