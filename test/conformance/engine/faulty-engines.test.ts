// Proves the cases themselves: a correct engine with a log in another place passes all of them, and each case fails on an engine with a defect.
import { expect, test } from "vitest";
import { type MemoryEngineOptions, memoryEngine } from "../../../src/index.ts";
import {
  brokerCases,
  type EngineCase,
  type EngineHarness,
  engineCases,
  missingNeeds,
  type NamespaceOptions,
  type Need,
} from "../../../src/testing/index.ts";
import { AsynchronousLog } from "../../support/engines/asynchronous-log.ts";
import type { Defect } from "../../support/engines/faulty-engines.ts";
import { type TestSetup, withBroker } from "../../support/test-broker.ts";

/** Each defect, with the cases that must fail because of it. */
const FAILING_CASES: readonly (readonly [defect: Defect, ...ids: string[]])[] = [
  ["drops the last message", "feed/last-message-vanished"],
  ["drops a message", "order/one-process", "order/processes"],
  ["does not heal a feed that was cut", "feed/cut", "feed/cut-while-busy"],
  ["ignores what was before a message", "feed/swallowed"],
  ["forgets its subscriptions with its feed", "feed/cut", "feed/subscribed-while-cut"],
  ["keeps a dead feed", "feed/half-open"],
  ["reports too late what was missed", "feed/swallowed"],
  ["moves its head before it reports", "feed/told-up-to-head"],
  ["acknowledges early", "order/told-first"],
  ["repeats a position", "positions/unique", "positions/increasing"],
  ["has an epoch without a wire form", "positions/wire"],
  ["loses the order", "order/one-process", "subscribe/no-seam"],
  ["reports to each process in another order", "order/processes"],
  ["reports twice", "channels/once"],
  ["reports ephemeral events twice", "order/ephemeral"],
  ["reports ephemeral events before their time", "order/ephemeral"],
  ["appends ephemeral events", "order/ephemeral"],
  ["changes the text", "order/whole"],
  ["ignores case", "channels/apart"],
  ["answers a read from before the subscribe", "subscribe/then-read"],
  ["reads an old state", "replay/visible", "replay/kept", "subscribe/no-seam"],
  ["reads less than it says", "replay/paged"],
  ["reads another text", "channels/apart", "replay/merged", "replay/kept"],
  ["counts what it reads as dropped", "replay/merged", "replay/kept", "retention/shared"],
  ["counts unknown channels as dropped", "replay/nothing"],
  ["reads an event once for each channel", "channels/previous", "replay/merged"],
  ["drops for all channels what one channel drops", "retention/shared"],
  ["hides what was dropped", "retention/events", "retention/bytes", "retention/age", "gaps/exact"],
  ["hides what an empty channel dropped", "gaps/emptied"],
  ["reports too much as dropped", "gaps/exact"],
  ["retains one event less", "retention/events", "retention/shared"],
  ["retains everything", "retention/events", "retention/bytes", "retention/age"],
  ["subscribes too early", "subscribe/certain", "subscribe/no-seam"],
  ["does not count subscriptions", "subscribe/counted"],
  ["forgets keys", "nonces/once", "nonces/at-once"],
  ["knows the keys of one process only", "nonces/processes"],
  ["accepts another event with the same key", "nonces/other-event"],
  ["confuses similar keys", "nonces/apart"],
  ["retries an unknown outcome", "outcome/unknown"],
  ["reports an unknown outcome as refused", "outcome/unknown"],
  ["hides that it is away", "outage/said"],
  ["waits while it is away", "outage/refused"],
  ["appends later what it refused", "outage/refused"],
  ["forgets its subscriptions when it was away", "outage/healed"],
  ["keeps its epoch", "epoch/new"],
  ["has an epoch for each process", "epoch/one"],
  ["has one epoch for all logs", "epoch/another"],
  ["calls a closed listener", "close/silent"],
  ["closes with the first process", "close/others"],
  ["loses its log with its last process", "replay/kept"],
  ["knows the keys of one process only", "brokers/keys"],
  ["keeps its clients to itself", "brokers/inbox", "brokers/disconnect", "brokers/reject", "brokers/replace"],
  ["accepts every client id", "brokers/unknown-client"],
  ["drops the last message", "brokers/last-message-vanished"],
  ["forgets its subscriptions with its feed", "brokers/feed-cut"],
  ["hides that it is away", "brokers/away"],
  ["hides its new log", "brokers/new-epoch"],
];

/** Cases that brokers must fail if each has a log of its own. */
const SEPARATE_LOG_CASES = ["one-order", "move", "move-busy", "keys", "listen", "close"].map((id) => `brokers/${id}`);
const CASES = [...engineCases, ...brokerCases];

const NEEDS: readonly Need[] = [
  "ephemeral",
  "presence",
  "cutFeed",
  "swallowFeed",
  "loseReply",
  "goAway",
  "comeBack",
  "beginAnew",
];

const optionsOf = (
  { durableObject }: TestSetup,
  { retention, idempotencyWindow = 300_000 }: NamespaceOptions = {},
): MemoryEngineOptions => ({
  retention,
  idempotencyWindow,
  ...(durableObject ? { durableObject } : {}),
});

const harness = (setup: TestSetup, character: { defect?: Defect; reportsAsMissed?: boolean } = {}): EngineHarness => ({
  offers: NEEDS,
  // A faulty engine does not do later what it fails to do at once.
  timeout: character.defect ? 400 : 4_000,
  open: (options) => new AsynchronousLog(optionsOf(setup, options), character),
});

const findCase = (id: string): EngineCase => {
  const found = CASES.find((each) => each.id === id);
  if (!found) throw new Error(`There is no case ${id}.`);
  return found;
};

for (const each of CASES) {
  test(
    `correct engine with a log in another place: ${each.id}`,
    withBroker(async (setup) => {
      expect(missingNeeds(each, harness(setup))).toEqual([]);
      await each.run(harness(setup));
    }),
  );
}

for (const each of engineCases) {
  test(
    `correct engine that reports vanished events as missed: ${each.id}`,
    withBroker((setup) => each.run(harness(setup, { reportsAsMissed: true }))),
  );
}

for (const [defect, ...ids] of FAILING_CASES) {
  test(
    `faulty engine that ${defect}: fails ${ids.join(", ")}`,
    withBroker(async (setup) => {
      for (const id of ids)
        await expect(findCase(id).run(harness(setup, { defect })), id).rejects.toThrow(/expected .*, saw /s);
    }),
  );
}

test("every case fails on a faulty engine", () => {
  const failed = new Set([...SEPARATE_LOG_CASES, ...FAILING_CASES.flatMap(([, ...ids]) => ids)]);
  expect(CASES.map(({ id }) => id).filter((id) => !failed.has(id))).toEqual([]);
});

test(
  "brokers with a log each: fail the cases about brokers on one log",
  withBroker(async (setup) => {
    const separateLogs: EngineHarness = {
      timeout: 400,
      open: (options) => ({
        engine: () => memoryEngine(optionsOf(setup, options)),
        close: () => undefined,
      }),
    };
    for (const id of SEPARATE_LOG_CASES)
      await expect(findCase(id).run(separateLogs), id).rejects.toThrow(/expected .*, saw /s);
  }),
);
