// The errors of a log that is not there.
import { BrokerError } from "../base/errors.ts";

/** Rejects what waits for the store. */
export const UNAVAILABLE: Error = new Error("The store is not reachable, or its log was replaced.");

/** Refuses a subscription. */
export function rejectSubscription(cause: unknown): never {
  throw new BrokerError("engine-down", "Subscription refused: the feed of events is not connected. Try again.", {
    cause,
  });
}
