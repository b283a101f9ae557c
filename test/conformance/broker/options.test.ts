import { expect, test } from "vitest";
import { resolveOptions } from "../../../src/broker/options.ts";
import { createBroker, memoryEngine } from "../../../src/index.ts";
import { type Scene, scene } from "../../support/test-broker.ts";

// Options: their defaults, and that a wrong one is told when the broker or the engine is made, and not at the first request.

/** The least that each number may be. */
const least: Readonly<Record<string, number>> = {
  timeout: 1,
  tolerance: 0,
  heartbeat: 1,
  retry: 0,
  inboxLinger: 0,
  maxEventBytes: 1,
  maxBodyBytes: 1,
  authorizeTimeout: 1,
  maxConnectionAge: 1,
  maxClients: 0,
  maxClientsPerSubject: 1,
  maxClientsPerId: 1,
  maxPending: 1,
  maxChannelsPerClient: 0,
  maxChannelsPerEvent: 1,
  maxNameLength: 1,
};
/** What is no number from `low` on. */
const wrongNumbers = (low: number): unknown[] => [low - 1, -5, Number.NaN, -Infinity, "5", "", null, true, {}, [5], 5n];

const makes = (stage: Scene, options: object): (() => unknown) => {
  const engine = stage.engine();
  return () => createBroker({ engine, ...options });
};
const makesEngine =
  (stage: Scene, options: object): (() => unknown) =>
  () =>
    memoryEngine({ durableObject: stage.durableObject ?? {}, ...options });

/** What happens to a wrong argument: it is told by one of the language's own errors, or is accepted. */
function outcome(call: () => unknown): "refused" | "accepted" {
  try {
    call();
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) return "refused";
    throw error;
  }
  return "accepted";
}
/** Those of the values that are not refused. */
const accepted = (values: readonly unknown[], make: (value: unknown) => () => unknown): unknown[] =>
  values.filter((value) => outcome(make(value)) === "accepted");

test(
  "createBroker: the defaults are those that the options state",
  scene(async (stage) => {
    expect(resolveOptions({ engine: stage.engine() })).toMatchObject({
      timeout: 30_000,
      tolerance: 3,
      heartbeat: 8_000,
      retry: 2_000,
      inboxLinger: 60_000,
      serialize: JSON.stringify,
      maxEventBytes: 1_048_576,
      maxBodyBytes: 65_536,
      paths: { connect: "/connect", broadcast: "/broadcast" },
      authorizeTimeout: 5_000,
      publishToken: undefined,
      duplicateIds: "allow",
      maxConnectionAge: Infinity,
      maxClients: 50_000,
      maxClientsPerSubject: 100,
      maxClientsPerId: 100,
      maxPending: 1_000,
      maxChannelsPerClient: 100,
      maxChannelsPerEvent: 100,
      maxNameLength: 256,
      maxReplay: { events: Infinity, bytes: Infinity },
      announce: true,
    });
  }),
);

for (const [name, low] of Object.entries(least)) {
  test(
    `${name}: ${low} is taken, less and what is no number is refused when the broker is made`,
    scene(async (stage) => {
      expect(outcome(makes(stage, { [name]: low }))).toBe("accepted");
      expect(outcome(makes(stage, { [name]: undefined }))).toBe("accepted");
      expect(accepted(wrongNumbers(low), (value) => makes(stage, { [name]: value }))).toEqual([]);
    }),
  );
}

test(
  "maxNameLength: no more than 1,024, and retry: only a whole number",
  scene(async (stage) => {
    expect(outcome(makes(stage, { maxNameLength: 1_024 }))).toBe("accepted");
    expect(accepted([1_025, Infinity], (maxNameLength) => makes(stage, { maxNameLength }))).toEqual([]);
    expect(accepted([0.5, Infinity, 2 ** 53], (retry) => makes(stage, { retry }))).toEqual([]);
  }),
);

for (const name of ["events", "bytes"]) {
  test(
    `maxReplay.${name}: 0 is taken, less and what is no number is refused when the broker is made`,
    scene(async (stage) => {
      expect(outcome(makes(stage, { maxReplay: { [name]: 0 } }))).toBe("accepted");
      expect(accepted(wrongNumbers(0), (value) => makes(stage, { maxReplay: { [name]: value } }))).toEqual([]);
    }),
  );
}

const wrongObjects: readonly (readonly [name: string, values: readonly unknown[]])[] = [
  // A number here would look like a bound and set none.
  ["maxReplay", [null, 100, "100", true, { count: 5 }, []]],
  ["paths", [null, "/events", { connect: 5 }, { connect: null }, { publish: "/x" }]],
  ["cors", [null, true, "https://app.example", { origins: "https://app.example" }, {}]],
  ["serialize", [null, "json", {}]],
  ["announce", [null, "false", 0]],
  ["engine", [null, 5, "memory", {}]],
];
for (const [name, values] of wrongObjects) {
  test(
    `${name}: what is none is refused when the broker is made`,
    scene(async (stage) => {
      expect(accepted(values, (value) => makes(stage, { [name]: value }))).toEqual([]);
    }),
  );
}

for (const name of ["authorize", "errorHandler", "onConnect", "onDisconnect", "onError"]) {
  test(
    `${name}: what is no function is refused when the broker is made`,
    scene(async (stage) => {
      expect(accepted([null, true, "allow", {}], (value) => makes(stage, { [name]: value }))).toEqual([]);
    }),
  );
}

/** Options of a memory engine with one of its numbers set. */
const engineNumbers: readonly (readonly [name: string, low: number, set: (value: unknown) => object])[] = [
  ["idempotencyWindow", 0, (idempotencyWindow) => ({ idempotencyWindow })],
  ["logBytes", 1, (logBytes) => ({ logBytes })],
  ["maxChannels", 1, (maxChannels) => ({ maxChannels })],
  ["retention.events", 1, (events) => ({ retention: { events } })],
  ["retention.bytes", 1, (bytes) => ({ retention: { bytes } })],
  ["retention.age", 1, (age) => ({ retention: { age } })],
];
for (const [name, low, set] of engineNumbers) {
  test(
    `memoryEngine: ${name}: ${low} is taken, less and what is no number is refused at the call, not at the first request`,
    scene(async (stage) => {
      expect(outcome(makesEngine(stage, set(low)))).toBe("accepted");
      expect(accepted(wrongNumbers(low), (value) => makesEngine(stage, set(value)))).toEqual([]);
    }),
  );
}

test(
  "memoryEngine: an option that does not exist, or retention that is none, is refused: it would look like a bound",
  scene(async (stage) => {
    const wrong: readonly object[] = [
      { logbytes: 5 },
      { retentoin: { events: 5 } },
      { retention: { event: 5 } },
      { retention: 5 },
      { retention: null },
    ];
    expect(accepted(wrong, (options) => makesEngine(stage, options as object))).toEqual([]);
  }),
);
