// The oracle of chaos on runs: accepts what a store may do, and finds each kind of fault.
import { beforeEach, expect, test, vi } from "vitest";
import type { RunPage } from "../../../src/engine/run-store.ts";
import { encode } from "../../../src/event/sse-format.ts";
import { RunsOracle } from "./runs-oracle.ts";

const LEASE_MS = 1_000;

let oracle: RunsOracle;
beforeEach(({ onTestFinished }) => {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  oracle = new RunsOracle();
  start("one");
});

function start(name: string, isStarted = true): void {
  oracle.add("a", name, LEASE_MS);
  oracle.started(name, oracle.begin("a"), isStarted);
}
function append(name: string, events: number, end?: "ended" | "failed", isAppended = true): void {
  oracle.submit(name, events, end);
  oracle.appended(name, oracle.begin("a"), isAppended, events, end);
}
const framesOf = (name: string, numbers: readonly number[]): string =>
  numbers.map((number) => `id: ${name}-${number}\ndata: ${name} ${number}\n\n`).join("");
const pageOf = (name: string, numbers: readonly number[], changes: Partial<RunPage> = {}): RunPage => ({
  ...{ generation: name, events: numbers.length, through: numbers.at(-1) ?? 0, isStopping: false, leaseMs: LEASE_MS },
  ...{ readers: undefined, bytes: encode(framesOf(name, numbers)) },
  ...changes,
});
const read = (page: RunPage | undefined, known = oracle.begin("a"), after = 0): void =>
  oracle.read("a", after, known, page);

test("a run that is written, read, ended, replaced and lost has no fault", async () => {
  append("one", 2);
  read(pageOf("one", [1, 2]));
  read(pageOf("one", [2], { events: 2 }), undefined, 1);
  append("one", 3, "ended");
  read(pageOf("one", [1, 2, 3], { end: "ended", leaseMs: Infinity }));
  append("one", 3, "ended");
  start("two");
  vi.advanceTimersByTime(LEASE_MS);
  read(pageOf("two", [], { end: "lost", leaseMs: Infinity }));
  await oracle.wipe(() => Promise.resolve());
  read(undefined);
  expect(oracle.faults).toEqual([]);
});

test.each<[string, RegExp, ...(() => void)[]]>([
  ["an event twice", /other events/, () => read(pageOf("one", [1, 1, 2], { events: 2, through: 2 }))],
  ["an event is missing", /other events/, () => read(pageOf("one", [1], { events: 2, through: 2 }))],
  ["confirmed events are not there", /1 events of 2 confirmed/, () => read(pageOf("one", [1]))],
  ["events that nobody gave", /3 events of 2 given/, () => read(pageOf("one", [1, 2, 3]))],
  ["an empty page", /empty page/, () => read(pageOf("one", [], { events: 2 }))],
  ["lost too early", /is lost, 1000 ms before/, () => read(pageOf("one", [1, 2], { end: "lost" }))],
  ["refused too early", /append refused, 1000 ms before/, () => append("one", 3, undefined, false)],
  ["renewal refused", /renewal refused/, () => oracle.renewed("one", oracle.begin("a"), "over")],
  ["an end that nobody gave", /has the end ended at 2/, () => read(pageOf("one", [1, 2], { end: "ended" }))],
  ["unknown", /is unknown/, () => read(undefined)],
  ["a generation that nobody started", /nobody has started/, () => read(pageOf("other", []))],
  ["a start that is refused for nothing", /start refused/, () => append("one", 2, "ended"), () => start("two", false)],
  ["another end", /two ends/, () => append("one", 3, "ended"), () => read(pageOf("one", [1, 2, 3], { end: "failed" }))],
  ["live after its end", /live after its end/, () => append("one", 3, "ended"), () => read(pageOf("one", [1, 2, 3]))],
  ["more after its end", /confirmed after its end/, () => append("one", 3, "ended"), () => append("one", 4)],
  ["a lease that grows", /lease of 1001 ms/, () => read(pageOf("one", [1, 2], { leaseMs: LEASE_MS + 1 }))],
  [
    "an earlier generation",
    /after a later one/,
    () => append("one", 3, "ended"),
    () => start("two"),
    () => read(pageOf("one", [1, 2, 3], { end: "ended" })),
  ],
  [
    "a stop that is forgotten",
    /stop was forgotten/,
    () => read(pageOf("one", [1, 2], { isStopping: true })),
    () => read(pageOf("one", [1, 2])),
  ],
])("%s: is a fault", (_, fault, ...acts) => {
  append("one", 2);
  expect(oracle.faults).toEqual([]);
  for (const act of acts) act();
  expect(oracle.faults[0]).toMatch(fault);
});

test("a run that is there again after the store was emptied is a fault", async () => {
  await oracle.wipe(() => Promise.resolve());
  read(pageOf("one", []));
  expect(oracle.faults).toEqual(["a, one: is there again after the store was emptied"]);
});
