// The list of mutants: small faults of the source that the tests must notice. They are chosen from what the broker promises, and not from what
// is tested.
import { adapterMutants } from "./adapters.ts";
import { deliveryMutants } from "./delivery.ts";
import { httpMutants } from "./http.ts";
import { logMutants } from "./log.ts";
import { redisMutants } from "./redis.ts";
import { sharedLogMutants } from "./shared-log.ts";
import { startMutants } from "./start.ts";
import { workersMutants } from "./workers.ts";

/** A small fault of the source, as a text to find and its replacement. */
export interface Mutant {
  readonly name: string;
  /** Path below `src`. */
  readonly file: string;
  /** The suite that has the file of tests. @default "conformance", on Node */
  readonly suite?: "redis" | "workers";
  /** The file below the folder of the suite that most likely catches the fault, without `.test.ts`. It runs before all others. */
  readonly tests: string;
  /** Occurs in the file exactly once. */
  readonly find: string;
  readonly replace: string;
  /** The harm that the fault does to a user. */
  readonly harm: string;
}

/** Returns the path of the mutant's file of tests. */
export const testFileOf = ({ suite, tests }: Mutant): string => `test/${suite ?? "conformance"}/${tests}.test.ts`;

export const mutants: readonly Mutant[] = [
  ...deliveryMutants,
  ...logMutants,
  ...startMutants,
  ...httpMutants,
  ...adapterMutants,
  ...sharedLogMutants,
  ...workersMutants,
  ...redisMutants,
];
