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
