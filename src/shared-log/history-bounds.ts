// Turns the history bounds that a store returns into those of an engine, and checks that they answer what was asked.
import { BrokerError } from "../base/errors.ts";
import type { HistoryBounds } from "../log/resume.ts";
import type { SharedHistoryBounds } from "./shared-log.ts";

/**
 * Returns a store's answer about the log of `epoch` with the keys of its channels.
 *
 * @throws {@link BrokerError} `engine-down` if the store has another log now; {@link BrokerError} `bad-request` if the store cannot find the newest `last` events of each channel: a start elsewhere would be a
 * loss that nobody notices, or a flood
 */
export function historyBoundsOf(
  epoch: string,
  bounds: SharedHistoryBounds,
  keys: readonly string[],
  last: number | undefined,
): HistoryBounds {
  if (bounds.epoch !== epoch) throw new BrokerError("engine-down", "History refused: the log was replaced. Try again.");
  // A log that does not exist yet has no events.
  if (bounds.epoch && last !== undefined && bounds.channels.some(({ lastFloor }) => lastFloor === undefined))
    throw new BrokerError("bad-request", "Request refused: this engine does not know last; use from=earliest.");
  return { ...bounds, channels: bounds.channels.map((channel, index) => ({ key: keys[index] as string, ...channel })) };
}
