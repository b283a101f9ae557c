// Options: their defaults, and that a wrong one is refused when the broker or the engine is created, not at the first request.
import { expect, test } from "vitest";
import { resolveOptions } from "../../../src/broker/options.ts";
import { createBroker, memoryEngine } from "../../../src/index.ts";
import { type TestSetup, turn, withBroker } from "../../support/test-broker.ts";

/** The smallest value of each number. */
const smallest: Readonly<Record<string, number>> = {
  timeout: 1,
  tolerance: 0,
  heartbeat: 1,
  retry: 0,
  inboxLinger: 0,
  maxEventBytes: 1,
  maxBodyBytes: 1,
  bodyTimeout: 1,
  authorizeTimeout: 1,
  maxConnectionAge: 1,
  maxClients: 0,
  maxClientsPerSubject: 1,
  maxClientsPerId: 1,
  maxPending: 1,
  maxChannelsPerClient: 0,
  maxChannelsPerEvent: 1,
  maxNameLength: 1,
  snapshotTimeout: 1,
  maxSnapshots: 1,
};
/** Values that are not a number from `low` up. */
const wrongNumbers = (low: number): unknown[] => [low - 1, -5, Number.NaN, -Infinity, "5", "", null, true, {}, [5], 5n];

const creating = (setup: TestSetup, options: object): (() => unknown) => {
  const engine = setup.engine();
  return () => createBroker({ engine, ...options });
};
const creatingEngine =
  (setup: TestSetup, options: object): (() => unknown) =>
  () =>
    memoryEngine({ durableObject: setup.durableObject ?? {}, ...options });

/** Whether a call is refused with a `TypeError` or `RangeError`, or accepted. */
function outcome(call: () => unknown): "refused" | "accepted" {
  try {
    call();
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) return "refused";
    throw error;
  }
  return "accepted";
}
/** Returns the values that are accepted. */
const accepted = (values: readonly unknown[], create: (value: unknown) => () => unknown): unknown[] =>
  values.filter((value) => outcome(create(value)) === "accepted");

test(
  "createBroker(): has the documented defaults",
  withBroker(async (setup) => {
    expect(resolveOptions({ engine: setup.engine() })).toMatchObject({
      timeout: 30_000,
      tolerance: 3,
      heartbeat: 8_000,
      retry: 2_000,
      inboxLinger: 60_000,
      serialize: JSON.stringify,
      maxEventBytes: 1_048_576,
      maxBodyBytes: 65_536,
      bodyTimeout: 10_000,
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
      snapshot: undefined,
      events: undefined,
      snapshotTimeout: 30_000,
      maxSnapshots: 100,
    });
  }),
);

for (const [name, low] of Object.entries(smallest)) {
  test(
    `${name}: ${low} is accepted; less, and anything but a number, is refused by createBroker()`,
    withBroker(async (setup) => {
      expect(outcome(creating(setup, { [name]: low }))).toBe("accepted");
      expect(outcome(creating(setup, { [name]: undefined }))).toBe("accepted");
      expect(accepted(wrongNumbers(low), (value) => creating(setup, { [name]: value }))).toEqual([]);
    }),
  );
}

test(
  "maxNameLength: is 1,024 at most; retry: must be a whole number",
  withBroker(async (setup) => {
    expect(outcome(creating(setup, { maxNameLength: 1_024 }))).toBe("accepted");
    expect(accepted([1_025, Infinity], (maxNameLength) => creating(setup, { maxNameLength }))).toEqual([]);
    expect(accepted([0.5, Infinity, 2 ** 53], (retry) => creating(setup, { retry }))).toEqual([]);
  }),
);

test(
  "timeout: Infinity disconnects no client, for any tolerance",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: Infinity, tolerance: 0 });
    await setup.connect(broker, { id: "patient" });
    for (let n = 0; n < 5; n++) await turn();
    expect(broker.stats()).toMatchObject({ clients: 1, disconnects: {} });
  }),
);

for (const name of ["events", "bytes"]) {
  test(
    `maxReplay.${name}: 0 is accepted; less, and anything but a number, is refused by createBroker()`,
    withBroker(async (setup) => {
      expect(outcome(creating(setup, { maxReplay: { [name]: 0 } }))).toBe("accepted");
      expect(accepted(wrongNumbers(0), (value) => creating(setup, { maxReplay: { [name]: value } }))).toEqual([]);
    }),
  );
}

const wrongObjects: readonly (readonly [name: string, values: readonly unknown[]])[] = [
  // A number here would look like a limit and set none.
  ["maxReplay", [null, 100, "100", true, { count: 5 }, []]],
  ["paths", [null, "/events", { connect: 5 }, { connect: null }, { publish: "/x" }]],
  ["cors", [null, true, "https://app.example", { origins: "https://app.example" }, {}]],
  ["serialize", [null, "json", {}]],
  ["announce", [null, "false", 0]],
  ["engine", [null, 5, "memory", {}]],
];
for (const [name, values] of wrongObjects) {
  test(
    `${name}: a value of another form is refused by createBroker()`,
    withBroker(async (setup) => {
      expect(accepted(values, (value) => creating(setup, { [name]: value }))).toEqual([]);
    }),
  );
}

for (const name of ["authorize", "errorHandler", "onConnect", "onDisconnect", "onError", "snapshot"]) {
  test(
    `${name}: anything but a function is refused by createBroker()`,
    withBroker(async (setup) => {
      expect(accepted([null, true, "allow", {}], (value) => creating(setup, { [name]: value }))).toEqual([]);
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
    `memoryEngine(): ${name}: ${low} is accepted; less, and anything but a number, is refused at the call`,
    withBroker(async (setup) => {
      expect(outcome(creatingEngine(setup, set(low)))).toBe("accepted");
      expect(accepted(wrongNumbers(low), (value) => creatingEngine(setup, set(value)))).toEqual([]);
    }),
  );
}

test(
  "memoryEngine(): an unknown option, or retention that is not an object, is refused, because it would look like a limit",
  withBroker(async (setup) => {
    const wrong: readonly object[] = [
      { logbytes: 5 },
      { retentoin: { events: 5 } },
      { retention: { event: 5 } },
      { retention: 5 },
      { retention: null },
    ];
    expect(accepted(wrong, (options) => creatingEngine(setup, options as object))).toEqual([]);
  }),
);
