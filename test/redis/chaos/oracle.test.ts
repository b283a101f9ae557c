// The oracle finds each fault that a run can have.
import { expect, test } from "vitest";
import { type Allowed, type ClientHistory, judge, type Observation, type Publication } from "./oracle.ts";

const publication = (number: number, id: string | undefined, more: Partial<Publication> = {}): Publication => ({
  number,
  id,
  channels: ["news"],
  isUncertain: false,
  ...more,
});
const event = (number: number, id: string): Observation => ({ type: "event", id, number });
const gap = (after: string | null, through: string, channels: readonly string[] = ["news"]): Observation => ({
  type: "gap",
  id: through,
  after,
  through,
  channels,
});
const ready = (requestedId: string | undefined, id: string | undefined, resumed: boolean): Observation => ({
  type: "ready",
  requestedId,
  id,
  resumed,
});
const client = (...observations: readonly Observation[]): ClientHistory => ({
  name: "ann",
  channels: ["fanwire-common", "fanwire-inbox:ann", "news", "sport"],
  entitledAfter: 0,
  observations,
});

const three = [publication(1, "a-1"), publication(2, "a-2"), publication(3, "a-3")];
const start = ready(undefined, "a-0", false);
const faultsOf = (
  published: readonly Publication[],
  seen: readonly Observation[],
  {
    epochs = ["a"],
    epochChange = epochs.length > 1,
    feedLoss = false,
  }: Partial<Allowed & { epochs: readonly string[] }> = {},
): readonly string[] => judge(published, [client(...seen)], epochs, { epochChange, feedLoss }).faults;
const NOTHING_ALLOWED: Allowed = { epochChange: false, feedLoss: false };
const EPOCH_CHANGE: Allowed = { epochChange: true, feedLoss: false };

test("judge: a client that receives everything once and in order has no fault", () => {
  const seen = [start, event(1, "a-1"), ready("a-1", "a-1", true), event(2, "a-2"), event(3, "a-3")];
  expect(faultsOf(three, seen)).toEqual([]);
  expect(judge(three, [client(...seen)], ["a"], NOTHING_ALLOWED)).toMatchObject({
    silentLosses: 0,
    gaps: 0,
    events: 3,
    coveredEvents: 0,
  });
});

test("judge: finds a lost event, in the middle and at the end", () => {
  expect(faultsOf(three, [start, event(1, "a-1"), event(3, "a-3")])).toEqual([
    expect.stringContaining("publication 2"),
  ]);
  expect(faultsOf(three, [start, event(1, "a-1"), event(2, "a-2")])).toEqual([
    expect.stringContaining("publication 3"),
  ]);
  expect(judge(three, [client(start)], ["a"], NOTHING_ALLOWED).silentLosses).toBe(3);
});

test("judge: an event from before the client was ready, or without an acknowledgement, may be missing", () => {
  const published = [publication(1, "a-1"), publication(2, undefined, { isUncertain: true }), publication(3, "a-3")];
  expect(
    judge(published, [{ ...client(start, event(3, "a-3")), entitledAfter: 1 }], ["a"], NOTHING_ALLOWED).faults,
  ).toEqual([]);
});

test("judge: an event that was not acknowledged may arrive", () => {
  expect(faultsOf([publication(1, undefined, { isUncertain: true })], [start, event(1, "a-1")])).toEqual([]);
});

test("judge: finds a doubled event, at one position and at two", () => {
  const twice = [start, event(1, "a-1"), event(2, "a-2"), event(2, "a-2"), event(3, "a-3")];
  expect(faultsOf(three, twice)).toEqual([expect.stringContaining("event 2 at a-2 came after a-2")]);
  const doubled = [...[start, event(1, "a-1"), event(2, "a-2"), event(3, "a-3")], event(1, "a-4")];
  expect(faultsOf(three, doubled)).toEqual([
    expect.stringContaining("publication 1 is doubled: it is at a-1 and at a-4"),
    expect.stringContaining("event 1 at a-4 came twice"),
  ]);
});

test("judge: finds a retry that doubles an event, although only the publisher received the second position", () => {
  const published = [publication(1, "a-2", { isUncertain: true })];
  expect(faultsOf(published, [start, event(1, "a-1"), event(1, "a-2")])).toContainEqual(
    expect.stringContaining("publication 1 is doubled"),
  );
});

test("judge: finds an event out of order", () => {
  expect(faultsOf(three, [start, event(1, "a-1"), event(3, "a-3"), event(2, "a-2")])).toEqual([
    expect.stringContaining("event 2 at a-2 came after a-3"),
  ]);
});

test("judge: finds an event of another client, and one that was never published", () => {
  const foreign = publication(1, "a-1", { channels: ["fanwire-inbox:bob"] });
  expect(faultsOf([foreign], [start, event(1, "a-1")])).toEqual([expect.stringContaining("is of another channel")]);
  expect(faultsOf([], [start, event(7, "a-1")])).toEqual([expect.stringContaining("event 7 was never published")]);
});

test("judge: finds a position of two events", () => {
  const published = [publication(1, "a-1"), publication(2, "a-1")];
  expect(faultsOf(published, [start, event(1, "a-1")])).toContainEqual(
    expect.stringContaining("a-1 is the position of publication 1 and of 2"),
  );
});

test("judge: finds a gap within an epoch, whether it covers a lost event or none", () => {
  const covering = [start, event(1, "a-1"), gap("a-1", "a-2"), event(3, "a-3")];
  expect(faultsOf(three, covering)).toEqual([expect.stringContaining("everything is retained")]);
  const empty = [start, event(1, "a-1"), event(2, "a-2"), gap("a-2", "a-2"), event(3, "a-3")];
  expect(faultsOf(three, empty)).toEqual([expect.stringContaining("everything is retained")]);
  // The same if another epoch follows.
  const options = { epochs: ["a", "b"] };
  expect(faultsOf(three, [...covering, gap(null, "b-0")], options)).toEqual([
    expect.stringContaining("everything is retained"),
  ]);
});

test("judge: if the feed may lose events, a gap may report those and no others", () => {
  const seen = [start, event(1, "a-1"), gap("a-1", "a-2"), event(3, "a-3")];
  expect(faultsOf(three, seen, { feedLoss: true })).toEqual([]);
  const nothingMissing = [start, event(1, "a-1"), event(2, "a-2"), gap("a-1", "a-2"), event(3, "a-3")];
  expect(faultsOf(three, nothingMissing, { feedLoss: true })).toEqual([
    expect.stringContaining("it covers no missing event"),
  ]);
  const tooManyChannels = [start, event(1, "a-1"), gap("a-1", "a-2", ["news", "sport"]), event(3, "a-3")];
  expect(faultsOf(three, tooManyChannels, { feedLoss: true })).toEqual([
    expect.stringContaining("it covers no missing event"),
  ]);
  const silent = [start, event(1, "a-1"), event(3, "a-3")];
  expect(faultsOf(three, silent, { feedLoss: true })).toEqual([expect.stringContaining("publication 2")]);
});

test("judge: finds a gap without a beginning if the epoch did not change", () => {
  const seen = [start, event(1, "a-1"), gap(null, "a-2"), event(3, "a-3")];
  expect(faultsOf(three, seen)).toEqual([expect.stringContaining("the epoch did not change")]);
  expect(faultsOf(three, seen, { epochs: ["a", "b"] })).toEqual([expect.stringContaining("the epoch did not change")]);
});

test("judge: finds a stream that does not resume, or resumes at another position", () => {
  const rest = [event(2, "a-2"), event(3, "a-3")];
  expect(faultsOf(three, [start, event(1, "a-1"), ready("a-1", "a-1", false), ...rest])).toEqual([
    expect.stringContaining("it did not resume"),
  ]);
  expect(faultsOf(three, [start, event(1, "a-1"), ready("a-1", "a-0", true), ...rest])).toEqual([
    expect.stringContaining("it continues at another position"),
  ]);
});

const twoEpochs = [publication(1, "a-1"), publication(2, "a-2"), publication(3, "b-1"), publication(4, "b-2")];
const two = { epochs: ["a", "b"] };

test("judge: the gap at the beginning of an epoch covers events that were lost with the one before", () => {
  const all = ["fanwire-common", "fanwire-inbox:ann", "news", "sport"];
  const seen = [start, event(1, "a-1"), gap(null, "b-0", all), event(3, "b-1"), event(4, "b-2")];
  expect(faultsOf(twoEpochs, seen, two)).toEqual([]);
  expect(judge(twoEpochs, [client(...seen)], two.epochs, EPOCH_CHANGE)).toMatchObject({ gaps: 1, coveredEvents: 0 });
});

test("judge: finds a change of epoch without a reason", () => {
  const seen = [start, event(1, "a-1"), gap(null, "b-0"), event(3, "b-1"), event(4, "b-2")];
  expect(faultsOf(twoEpochs, seen, { ...two, epochChange: false })).toEqual([
    expect.stringContaining("the epoch changed"),
  ]);
});

test("judge: finds a gap that covers too little: of another channel, of some channels, or too short", () => {
  const rest = [event(3, "b-1"), event(4, "b-2")];
  expect(faultsOf(twoEpochs, [start, event(1, "a-1"), gap(null, "b-0", ["sport"]), ...rest], two)).toEqual([
    expect.stringContaining("publication 2 of news at a-2 was lost without a gap"),
  ]);
  const both = twoEpochs.map((each) => ({ ...each, channels: ["news", "sport"] }));
  expect(faultsOf(both, [start, event(1, "a-1"), gap(null, "b-0", ["news"]), ...rest], two)).toEqual([
    expect.stringContaining("publication 2 of sport"),
  ]);
  expect(faultsOf(twoEpochs, [start, event(1, "a-1"), gap("a-2", "b-0"), ...rest], two)).toEqual([
    expect.stringContaining("publication 2 of news"),
  ]);
  expect(faultsOf(twoEpochs, [start, event(1, "a-1"), gap(null, "b-0"), event(4, "b-2")], two)).toEqual([
    expect.stringContaining("publication 3 of news"),
  ]);
});

test("judge: finds events of a new epoch without a gap, and of an old epoch after a new one", () => {
  expect(faultsOf(twoEpochs, [start, event(1, "a-1"), event(2, "a-2"), event(3, "b-1"), event(4, "b-2")], two)).toEqual(
    [expect.stringContaining("event 3 at b-1 is of another epoch, and no gap came before it")],
  );
  const back = [start, event(1, "a-1"), gap(null, "b-0"), event(3, "b-1"), event(2, "a-2"), event(4, "b-2")];
  expect(faultsOf(twoEpochs, back, two)).toEqual([expect.stringContaining("event 2 at a-2 came after b-1")]);
});

test("judge: finds a gap that goes back", () => {
  const seen = [start, event(1, "a-1"), gap(null, "b-0"), event(3, "b-1"), gap("a-1", "b-0"), event(4, "b-2")];
  expect(faultsOf(twoEpochs, seen, two)).toEqual([expect.stringContaining("its id b-0 is before b-1")]);
});

test("judge: an event may arrive again in the next epoch only if its first append was not acknowledged", () => {
  const seen = [start, event(1, "a-1"), gap(null, "b-0"), event(1, "b-1")];
  expect(faultsOf([publication(1, "b-1", { isUncertain: true })], seen, two)).toEqual([]);
  expect(faultsOf([publication(1, "b-1")], seen, two)).toEqual([expect.stringContaining("came twice")]);
});

test("judge: counts events of the new epoch that a gap covers", () => {
  const seen = [start, event(1, "a-1"), gap(null, "b-1"), event(4, "b-2")];
  expect(judge(twoEpochs, [client(...seen)], two.epochs, EPOCH_CHANGE)).toMatchObject({ faults: [], coveredEvents: 1 });
});
