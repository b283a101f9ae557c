// Errors about runs.
import { BrokerError, quote } from "../base/errors.ts";

/** Creates the error for a run that is not there. */
export const unknownRun = (id: string): BrokerError =>
  new BrokerError(
    "unknown-run",
    `Run not read: there is no run ${quote(id)}, or it is over for longer than it is kept.`,
  );

/** Creates the error for a run that another one has replaced, or that its store has dropped, while it was read. */
export const runGone = (): BrokerError =>
  new BrokerError("unknown-run", "Run not read to its end: the store has dropped it, or another one has its id.");

/** Creates the error for a run whose producer died. */
export const runLost = (): BrokerError =>
  new BrokerError("run-lost", "Run not read to its end: its producer died, so it has no end. Start a new run.");

/** Creates the error for an event of a run that is over. */
export const runEnded = (): BrokerError => new BrokerError("run-ended", "Event refused: the run has ended.");

/** Creates the error for an event that may be part of a run or not. */
export const outcomeUnknown = (cause: unknown): BrokerError =>
  new BrokerError(
    "publish-outcome-unknown",
    "Event stored or not: the store has not answered, and the run is over. Read the run to see its events.",
    { cause },
  );
