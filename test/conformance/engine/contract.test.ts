import { expect, test } from "vitest";
import { brokerCases, type EngineHarness, engineCases, missing } from "../../../src/testing/index.ts";
import { type Scene, scene } from "../../support/test-broker.ts";

// One engine for all, as brokers of one process share it: its log is in this process, so that nothing happens on the way to it.
const harness = (stage: Scene): EngineHarness => ({
  // Less than a test may take, so that it fails with a word.
  patience: 4_000,
  open(options = {}) {
    const engine = stage.engine(options);
    return { engine: () => engine, close: () => undefined };
  },
});

const cases = [...engineCases, ...brokerCases];
const isApplicable = (each: (typeof cases)[number]): boolean =>
  missing(each, { open: () => Promise.reject() }).length === 0;

for (const each of cases.filter(isApplicable)) {
  test(
    `${each.id}: ${each.title}`,
    scene((stage) => each.run(harness(stage))),
  );
}

test("the cases that are not run here are those of what an engine in this process knows nothing of", () => {
  const skipped = cases.filter((each) => !isApplicable(each)).map(({ id }) => id);
  expect(skipped).toEqual([
    "epoch/new",
    "outcome/unknown",
    "outage/said",
    "outage/refused",
    "outage/healed",
    "feed/cut",
    "feed/told-up-to-head",
    "feed/cut-while-busy",
    "feed/subscribed-while-cut",
    "feed/swallowed",
    "feed/last-message-vanished",
    "feed/half-open",
    "brokers/inbox",
    "brokers/disconnect",
    "brokers/reject",
    "brokers/replace",
    "brokers/feed-cut",
    "brokers/last-message-vanished",
    "brokers/away",
    "brokers/new-epoch",
  ]);
});

test("each case has an id of its own, and a title that requires something", () => {
  const ids = cases.map(({ id }) => id);
  expect(ids).toEqual([...new Set(ids)]);
  for (const { id, title } of cases) {
    expect(id).toMatch(/^[a-z]+\/[a-z-]+$/);
    expect(title).toMatch(/ (MUST|MUST NOT|MAY) /);
    expect(title).toMatch(/\.$/);
  }
});

test(
  "a case that needs what the harness does not offer is not run",
  scene(async (stage) => {
    for (const each of cases.filter((one) => !isApplicable(one)))
      await expect(each.run(harness(stage))).rejects.toThrow(missing(each, harness(stage)).join(", "));
  }),
);
