import { expect, test } from "vitest";
import { type MemoryEngineOptions, memoryEngine } from "../../../src/index.ts";
import {
  brokerCases,
  type EngineCase,
  type EngineHarness,
  engineCases,
  missing,
  type NamespaceOptions,
  type Need,
} from "../../../src/testing/index.ts";
import { DistantLog } from "../../support/engines/asynchronous-log.ts";
import type { Lie } from "../../support/engines/faulty-engines.ts";
import { type Scene, scene } from "../../support/test-broker.ts";

// A contract is worth what it refuses: engines that do one thing wrong, each with the cases that it must fail.
const LIARS: readonly (readonly [lie: Lie, ...ids: string[]])[] = [
  ["drops the last message", "feed/last-message-vanished"],
  ["drops a message", "order/one-process", "order/processes"],
  ["does not heal a feed that was cut", "feed/cut", "feed/cut-while-busy"],
  ["does not look behind a message", "feed/swallowed"],
  ["forgets its subscriptions with its feed", "feed/cut", "feed/subscribed-while-cut"],
  ["stays with a feed that is dead", "feed/half-open"],
  ["says too late what was missed", "feed/swallowed"],
  ["shows what it has not told", "feed/told-up-to-head"],
  ["acknowledges early", "order/told-first"],
  ["repeats an id", "positions/unique", "positions/increasing"],
  ["writes its epoch as it likes", "positions/wire"],
  ["loses the order", "order/one-process", "subscribe/no-seam"],
  ["tells each process in its own order", "order/processes"],
  ["tells twice", "channels/once"],
  ["changes the text", "order/whole"],
  ["ignores case", "channels/apart"],
  ["answers a read from before the subscribe", "subscribe/then-read"],
  ["reads what is old", "replay/visible", "replay/kept", "subscribe/no-seam"],
  ["says that a page reaches further", "replay/paged"],
  ["is not sure of what it does not know", "replay/nothing"],
  ["reads an event once for each channel", "channels/previous", "replay/merged"],
  ["drops for all what one channel drops", "retention/shared"],
  ["hides what was dropped", "retention/events", "retention/bytes", "retention/age", "gaps/exact"],
  ["hides what was dropped of what is empty", "gaps/emptied"],
  ["says that too much was dropped", "gaps/exact"],
  ["keeps one event less", "retention/events", "retention/shared"],
  ["keeps everything", "retention/events", "retention/bytes", "retention/age"],
  ["subscribes too early", "subscribe/certain", "subscribe/no-seam"],
  ["subscribes once", "subscribe/counted"],
  ["forgets nonces", "nonces/once", "nonces/at-once"],
  ["knows nonces of one process", "nonces/processes"],
  ["takes any event for the nonce's", "nonces/other-event"],
  ["takes one nonce for all", "nonces/apart"],
  ["tries again what is unknown", "outcome/unknown"],
  ["says that what is unknown was refused", "outcome/unknown"],
  ["says nothing when it is away", "outage/said"],
  ["waits while it is away", "outage/refused"],
  ["appends later what it refused", "outage/refused"],
  ["forgets its subscriptions when it was away", "outage/healed"],
  ["keeps its epoch", "epoch/new"],
  ["has an epoch for each process", "epoch/one"],
  ["has one epoch for all logs", "epoch/another"],
  ["tells one that has left", "close/silent"],
  ["leaves with the first who does", "close/others"],
  ["loses its log with its last process", "replay/kept"],
  ["knows nonces of one process", "brokers/keys"],
  ["keeps its clients to itself", "brokers/inbox", "brokers/disconnect", "brokers/reject", "brokers/replace"],
  ["takes anybody for a client", "brokers/unknown-client"],
  ["drops the last message", "brokers/last-message-vanished"],
  ["forgets its subscriptions with its feed", "brokers/feed-cut"],
  ["says nothing when it is away", "brokers/away"],
  ["says nothing of its new log", "brokers/new-epoch"],
];

/** Those that brokers with a log each must fail. */
const APART = ["one-order", "move", "move-busy", "keys", "listen", "close"].map((id) => `brokers/${id}`);
const CASES = [...engineCases, ...brokerCases];

const NEEDS: readonly Need[] = ["presence", "cutFeed", "swallowFeed", "loseReply", "goAway", "comeBack", "beginAnew"];

const optionsOf = (
  { durableObject }: Scene,
  { retention, idempotencyWindow = 300_000 }: NamespaceOptions = {},
): MemoryEngineOptions => ({
  retention,
  idempotencyWindow,
  ...(durableObject ? { durableObject } : {}),
});

const harness = (stage: Scene, character: { lie?: Lie; hasItRead?: boolean } = {}): EngineHarness => ({
  offers: NEEDS,
  // What a liar fails to do it does not do later either.
  patience: character.lie ? 400 : 4_000,
  open: (options) => new DistantLog(optionsOf(stage, options), character),
});

const caseOf = (id: string): EngineCase => {
  const found = CASES.find((each) => each.id === id);
  if (!found) throw new Error(`There is no case ${id}.`);
  return found;
};

for (const each of CASES) {
  test(
    `an honest engine with its log in another place: ${each.id}`,
    scene(async (stage) => {
      expect(missing(each, harness(stage))).toEqual([]);
      await each.run(harness(stage));
    }),
  );
}

for (const each of engineCases) {
  test(
    `an honest engine that has read what was missed: ${each.id}`,
    scene((stage) => each.run(harness(stage, { hasItRead: true }))),
  );
}

for (const [lie, ...ids] of LIARS) {
  test(
    `an engine that ${lie} fails ${ids.join(", ")}`,
    scene(async (stage) => {
      for (const id of ids)
        await expect(caseOf(id).run(harness(stage, { lie })), id).rejects.toThrow(/expected .*, saw /s);
    }),
  );
}

test("every case is failed by a liar", () => {
  const failed = new Set([...APART, ...LIARS.flatMap(([, ...ids]) => ids)]);
  expect(CASES.map(({ id }) => id).filter((id) => !failed.has(id))).toEqual([]);
});

test(
  "brokers with a log each are not one",
  scene(async (stage) => {
    const apart: EngineHarness = {
      patience: 400,
      open: (options) => ({
        engine: () => memoryEngine(optionsOf(stage, options)),
        close: () => undefined,
      }),
    };
    for (const id of APART) await expect(caseOf(id).run(apart), id).rejects.toThrow(/expected .*, saw /s);
  }),
);
