import { delivery } from "./delivery.ts";
import { face } from "./face.ts";
import { log } from "./log.ts";

/** A small breakage of the source. */
export interface Mutant {
  readonly name: string;
  /** Below `src`. */
  readonly file: string;
  /** The conformance file that most likely notices, which is tried before all of them. */
  readonly tests: string;
  /** Stands in the file exactly once. */
  readonly find: string;
  readonly replace: string;
  /** What a user would suffer from it. */
  readonly why: string;
}

/** Breakages that the suite has to notice, chosen from what the broker promises and not from what is tested. */
export const mutants: readonly Mutant[] = [...delivery, ...log, ...face];
