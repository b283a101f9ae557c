// The contract of an engine, on the memory engine; on the engine of Durable Objects in `--mode durable`.
import { expect, test } from "vitest";
import { brokerCases, type EngineHarness, engineCases, missingNeeds } from "../../../src/testing/index.ts";
import { type TestSetup, withBroker } from "../../support/test-broker.ts";

// All brokers of a case share one engine, as the brokers of one process do. Its log is in this process, so no fault can happen on the way.
const OFFERS = { offers: ["ephemeral"] } as const;
const harness = (setup: TestSetup): EngineHarness => ({
  ...OFFERS,
  // Less than the limit of a test, so that a case fails with its own message.
  timeout: 4_000,
  open(options = {}) {
    const engine = setup.engine(options);
    return { engine: () => engine, close: () => undefined };
  },
});

const cases = [...engineCases, ...brokerCases];
const isApplicable = (each: (typeof cases)[number]): boolean => missingNeeds(each, OFFERS).length === 0;

for (const each of cases.filter(isApplicable)) {
  test(
    `${each.id}: ${each.title}`,
    withBroker((setup) => each.run(harness(setup))),
  );
}

test("engineCases, brokerCases: an engine in this process skips exactly the cases about faults on the way and other processes", () => {
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

test("EngineCase: each case has a unique id, and a title that states a requirement", () => {
  const ids = cases.map(({ id }) => id);
  expect(ids).toEqual([...new Set(ids)]);
  for (const { id, title } of cases) {
    expect(id).toMatch(/^[a-z]+\/[a-z-]+$/);
    expect(title).toMatch(/ (MUST|MUST NOT|MAY) /);
    expect(title).toMatch(/\.$/);
  }
});

test(
  "EngineCase.run(): rejects if the harness does not offer what the case needs",
  withBroker(async (setup) => {
    for (const each of cases.filter((one) => !isApplicable(one)))
      await expect(each.run(harness(setup))).rejects.toThrow(missingNeeds(each, harness(setup)).join(", "));
  }),
);
