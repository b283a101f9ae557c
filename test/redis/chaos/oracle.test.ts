import { expect, test } from "vitest";
import { type Allowed, judge, type Life, type Publication, type Sight } from "./oracle.ts";

// The oracle is made to find each thing that a run could have wrong.

const publication = (number: number, id: string | undefined, more: Partial<Publication> = {}): Publication => ({
  number,
  id,
  channels: ["news"],
  doubtful: false,
  ...more,
});
const event = (number: number, id: string): Sight => ({ type: "event", id, number });
const gap = (after: string | null, through: string, channels: readonly string[] = ["news"]): Sight => ({
  type: "gap",
  id: through,
  after,
  through,
  channels,
});
const ready = (asked: string | undefined, id: string | undefined, resumed: boolean): Sight => ({
  type: "ready",
  asked,
  id,
  resumed,
});
const life = (...seen: readonly Sight[]): Life => ({
  name: "ann",
  channels: ["fanwire-common", "fanwire-inbox:ann", "news", "sport"],
  claim: 0,
  seen,
});

const three = [publication(1, "a-1"), publication(2, "a-2"), publication(3, "a-3")];
const start = ready(undefined, "a-0", false);
const faultsOf = (
  published: readonly Publication[],
  seen: readonly Sight[],
  { epochs = ["a"], change = epochs.length > 1, miss = false }: Partial<Allowed & { epochs: readonly string[] }> = {},
): readonly string[] => judge(published, [life(...seen)], epochs, { change, miss }).faults;
const NOTHING = { change: false, miss: false };
const CHANGE = { change: true, miss: false };

test("judge: a client that has everything once and in order is right", () => {
  const seen = [start, event(1, "a-1"), ready("a-1", "a-1", true), event(2, "a-2"), event(3, "a-3")];
  expect(faultsOf(three, seen)).toEqual([]);
  expect(judge(three, [life(...seen)], ["a"], NOTHING)).toMatchObject({ silent: 0, gaps: 0, events: 3, wasted: 0 });
});

test("judge: a lost event is found, in the middle and at the end", () => {
  expect(faultsOf(three, [start, event(1, "a-1"), event(3, "a-3")])).toEqual([
    expect.stringContaining("publication 2"),
  ]);
  expect(faultsOf(three, [start, event(1, "a-1"), event(2, "a-2")])).toEqual([
    expect.stringContaining("publication 3"),
  ]);
  expect(judge(three, [life(start)], ["a"], NOTHING).silent).toBe(3);
});

test("judge: what began before the client was ready, or was never acknowledged, need not come", () => {
  const published = [publication(1, "a-1"), publication(2, undefined, { doubtful: true }), publication(3, "a-3")];
  expect(judge(published, [{ ...life(start, event(3, "a-3")), claim: 1 }], ["a"], NOTHING).faults).toEqual([]);
});

test("judge: an event that was not acknowledged may come", () => {
  expect(faultsOf([publication(1, undefined, { doubtful: true })], [start, event(1, "a-1")])).toEqual([]);
});

test("judge: a doubled event is found, at one position and at two", () => {
  const twice = [start, event(1, "a-1"), event(2, "a-2"), event(2, "a-2"), event(3, "a-3")];
  expect(faultsOf(three, twice)).toEqual([expect.stringContaining("event 2 at a-2 came after a-2")]);
  const doubled = [...[start, event(1, "a-1"), event(2, "a-2"), event(3, "a-3")], event(1, "a-4")];
  expect(faultsOf(three, doubled)).toEqual([
    expect.stringContaining("publication 1 is doubled: it is at a-1 and at a-4"),
    expect.stringContaining("event 1 at a-4 came twice"),
  ]);
});

test("judge: a retry that doubles is found though only the publisher was told the second position", () => {
  const published = [publication(1, "a-2", { doubtful: true })];
  expect(faultsOf(published, [start, event(1, "a-1"), event(1, "a-2")])).toContainEqual(
    expect.stringContaining("publication 1 is doubled"),
  );
});

test("judge: an event out of order is found", () => {
  expect(faultsOf(three, [start, event(1, "a-1"), event(3, "a-3"), event(2, "a-2")])).toEqual([
    expect.stringContaining("event 2 at a-2 came after a-3"),
  ]);
});

test("judge: an event of somebody else, and one that nobody published, are found", () => {
  const foreign = publication(1, "a-1", { channels: ["fanwire-inbox:bob"] });
  expect(faultsOf([foreign], [start, event(1, "a-1")])).toEqual([expect.stringContaining("is not for it")]);
  expect(faultsOf([], [start, event(7, "a-1")])).toEqual([expect.stringContaining("event 7 was never published")]);
});

test("judge: one position that names two events is found", () => {
  const published = [publication(1, "a-1"), publication(2, "a-1")];
  expect(faultsOf(published, [start, event(1, "a-1")])).toContainEqual(
    expect.stringContaining("a-1 is the position of publication 1 and of 2"),
  );
});

test("judge: a gap within an epoch is found, whether it covers something lost or nothing", () => {
  const covering = [start, event(1, "a-1"), gap("a-1", "a-2"), event(3, "a-3")];
  expect(faultsOf(three, covering)).toEqual([expect.stringContaining("everything is kept")]);
  const empty = [start, event(1, "a-1"), event(2, "a-2"), gap("a-2", "a-2"), event(3, "a-3")];
  expect(faultsOf(three, empty)).toEqual([expect.stringContaining("everything is kept")]);
  // So it is where another epoch came after it.
  const options = { epochs: ["a", "b"] };
  expect(faultsOf(three, [...covering, gap(null, "b-0")], options)).toEqual([
    expect.stringContaining("everything is kept"),
  ]);
});

test("judge: where the feed may leave something out a gap may tell of it, and of nothing else", () => {
  const seen = [start, event(1, "a-1"), gap("a-1", "a-2"), event(3, "a-3")];
  expect(faultsOf(three, seen, { miss: true })).toEqual([]);
  const alarm = [start, event(1, "a-1"), event(2, "a-2"), gap("a-1", "a-2"), event(3, "a-3")];
  expect(faultsOf(three, alarm, { miss: true })).toEqual([expect.stringContaining("it is a false alarm")]);
  const tooMany = [start, event(1, "a-1"), gap("a-1", "a-2", ["news", "sport"]), event(3, "a-3")];
  expect(faultsOf(three, tooMany, { miss: true })).toEqual([expect.stringContaining("it is a false alarm")]);
  const silent = [start, event(1, "a-1"), event(3, "a-3")];
  expect(faultsOf(three, silent, { miss: true })).toEqual([expect.stringContaining("publication 2")]);
});

test("judge: a gap without a beginning is found where the epoch did not change", () => {
  const seen = [start, event(1, "a-1"), gap(null, "a-2"), event(3, "a-3")];
  expect(faultsOf(three, seen)).toEqual([expect.stringContaining("the epoch did not change")]);
  expect(faultsOf(three, seen, { epochs: ["a", "b"] })).toEqual([expect.stringContaining("the epoch did not change")]);
});

test("judge: a stream that does not resume, or elsewhere than was asked for, is found", () => {
  const rest = [event(2, "a-2"), event(3, "a-3")];
  expect(faultsOf(three, [start, event(1, "a-1"), ready("a-1", "a-1", false), ...rest])).toEqual([
    expect.stringContaining("it did not resume"),
  ]);
  expect(faultsOf(three, [start, event(1, "a-1"), ready("a-1", "a-0", true), ...rest])).toEqual([
    expect.stringContaining("it goes on somewhere else"),
  ]);
});

const change = [publication(1, "a-1"), publication(2, "a-2"), publication(3, "b-1"), publication(4, "b-2")];
const two = { epochs: ["a", "b"] };

test("judge: what was lost with an epoch is covered by the gap that tells of the next", () => {
  const all = ["fanwire-common", "fanwire-inbox:ann", "news", "sport"];
  const seen = [start, event(1, "a-1"), gap(null, "b-0", all), event(3, "b-1"), event(4, "b-2")];
  expect(faultsOf(change, seen, two)).toEqual([]);
  expect(judge(change, [life(...seen)], two.epochs, CHANGE)).toMatchObject({ gaps: 1, wasted: 0 });
});

test("judge: a change of the epoch that nothing gave a reason for is found", () => {
  const seen = [start, event(1, "a-1"), gap(null, "b-0"), event(3, "b-1"), event(4, "b-2")];
  expect(faultsOf(change, seen, { ...two, change: false })).toEqual([expect.stringContaining("the epoch changed")]);
});

test("judge: a gap that covers too little is found: of another channel, or of some of them, or too short", () => {
  const rest = [event(3, "b-1"), event(4, "b-2")];
  expect(faultsOf(change, [start, event(1, "a-1"), gap(null, "b-0", ["sport"]), ...rest], two)).toEqual([
    expect.stringContaining("publication 2 of news at a-2 was lost in silence"),
  ]);
  const both = change.map((each) => ({ ...each, channels: ["news", "sport"] }));
  expect(faultsOf(both, [start, event(1, "a-1"), gap(null, "b-0", ["news"]), ...rest], two)).toEqual([
    expect.stringContaining("publication 2 of sport"),
  ]);
  expect(faultsOf(change, [start, event(1, "a-1"), gap("a-2", "b-0"), ...rest], two)).toEqual([
    expect.stringContaining("publication 2 of news"),
  ]);
  expect(faultsOf(change, [start, event(1, "a-1"), gap(null, "b-0"), event(4, "b-2")], two)).toEqual([
    expect.stringContaining("publication 3 of news"),
  ]);
});

test("judge: events of a new epoch without a gap, and of an old one again, are found", () => {
  expect(faultsOf(change, [start, event(1, "a-1"), event(2, "a-2"), event(3, "b-1"), event(4, "b-2")], two)).toEqual([
    expect.stringContaining("event 3 at b-1 is of another epoch, and no gap was told"),
  ]);
  const back = [start, event(1, "a-1"), gap(null, "b-0"), event(3, "b-1"), event(2, "a-2"), event(4, "b-2")];
  expect(faultsOf(change, back, two)).toEqual([expect.stringContaining("event 2 at a-2 came after b-1")]);
});

test("judge: a gap that goes back is found", () => {
  const seen = [start, event(1, "a-1"), gap(null, "b-0"), event(3, "b-1"), gap("a-1", "b-0"), event(4, "b-2")];
  expect(faultsOf(change, seen, two)).toEqual([expect.stringContaining("its id b-0 is before b-1")]);
});

test("judge: an event may come again in the next epoch if nobody was told that it was there, else not", () => {
  const seen = [start, event(1, "a-1"), gap(null, "b-0"), event(1, "b-1")];
  expect(faultsOf([publication(1, "b-1", { doubtful: true })], seen, two)).toEqual([]);
  expect(faultsOf([publication(1, "b-1")], seen, two)).toEqual([expect.stringContaining("came twice")]);
});

test("judge: what a gap covers of the new epoch is counted", () => {
  const seen = [start, event(1, "a-1"), gap(null, "b-1"), event(4, "b-2")];
  expect(judge(change, [life(...seen)], two.epochs, CHANGE)).toMatchObject({ faults: [], wasted: 1 });
});
