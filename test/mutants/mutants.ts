// The list of mutants: small faults of the source that the tests must notice. They are chosen from what the broker promises, and not from what
// is tested.
import { readFileSync } from "node:fs";
import { adapterMutants } from "./adapters.ts";
import { cliMutants } from "./cli.ts";
import { clientMutants } from "./client.ts";
import { connectionMutants } from "./connections.ts";
import { deliveryMutants } from "./delivery.ts";
import { httpMutants } from "./http.ts";
import { logMutants } from "./log.ts";
import { monitoringMutants } from "./monitoring.ts";
import { nodeMutants } from "./node.ts";
import { rateMutants } from "./rates.ts";
import { redisMutants } from "./redis.ts";
import { runAdapterMutants } from "./run-adapters.ts";
import { runMutants } from "./runs.ts";
import { sharedLogMutants } from "./shared-log.ts";
import { snapshotMutants } from "./snapshots.ts";
import { sqliteMutants } from "./sqlite.ts";
import { startMutants } from "./start.ts";
import { streamMutants } from "./streams.ts";
import { testingMutants } from "./testing.ts";
import { typedEventMutants } from "./typed-events.ts";
import { workersMutants } from "./workers.ts";

/** A small fault of the source, as a text to find and its replacement. */
export interface Mutant {
  readonly name: string;
  /** Path below `src`. */
  readonly file: string;
  /** The suite that has the file of tests. @default "conformance", on Node */
  readonly suite?: "redis" | "sqlite" | "wire" | "workers";
  /** The file below the folder of the suite that has to catch the fault, without `.test.ts`. It should take a few seconds at most. */
  readonly tests: string;
  /** Occurs in the file exactly once. */
  readonly find: string;
  readonly replace: string;
  /** The harm that the fault does to a user. */
  readonly harm: string;
}

/** A mode of vitest (vitest.config.ts). */
export type Mode = "node" | "redis" | "sqlite-files" | "wire" | "workers";

/** The room of the files at the top of `src`, which are exports of the package. */
const TOP_ROOM = "exports";

const SOURCE = new URL("../../src/", import.meta.url);

export const mutants: readonly Mutant[] = [
  ...connectionMutants,
  ...deliveryMutants,
  ...snapshotMutants,
  ...streamMutants,
  ...typedEventMutants,
  ...logMutants,
  ...startMutants,
  ...httpMutants,
  ...rateMutants,
  ...runMutants,
  ...runAdapterMutants,
  ...adapterMutants,
  ...clientMutants,
  ...cliMutants,
  ...monitoringMutants,
  ...nodeMutants,
  ...testingMutants,
  ...sharedLogMutants,
  ...workersMutants,
  ...redisMutants,
  ...sqliteMutants,
];

/** Returns the path of the mutant's file of tests. */
export const testFileOf = ({ suite, tests }: Mutant): string => `test/${suite ?? "conformance"}/${tests}.test.ts`;

/** Returns the mode that runs the mutant's file of tests. */
export const modeOf = ({ suite }: Mutant): Mode => (suite === "sqlite" ? "sqlite-files" : (suite ?? "node"));

/** Returns the room of `src` that the mutant breaks. */
export const roomOf = ({ file }: Mutant): string => (file.includes("/") ? file.slice(0, file.indexOf("/")) : TOP_ROOM);

/** Whether the text to find occurs exactly once in the mutant's file. */
export const fits = ({ file, find }: Mutant): boolean =>
  readFileSync(new URL(file, SOURCE), "utf8").split(find).length === 2;
