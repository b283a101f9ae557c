// Creates logs for the authors of engines: an empty one, or one whose events were stored outside the process.
import { quote } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { formatPosition, parsePosition } from "../event/position.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import { Log, type LogStorageListener } from "../log/log.ts";
import { type LogOptions, resolveLogOptions } from "../log/log-options.ts";
import type { StoredEvent } from "./engine.ts";

/** Returns a new epoch: 12 random characters. Do not call this at module scope on Workers, which have no random numbers there. */
export const createEpoch = (): string => randomName(12);

/**
 * Creates an empty log.
 *
 * @throws `RangeError` for an epoch that has no wire form, or a number out of its range; `TypeError` for an unknown option
 */
export function createLog(epoch: string, options: LogOptions = {}): Log {
  if (!parsePosition(formatPosition(epoch, 0))) {
    throw new RangeError(
      `createLog() refused: the epoch ${quote(epoch)} must have 1 to 47 characters of A-Z, a-z, 0-9 and -; use createEpoch().`,
    );
  }
  return new Log(epoch, resolveLogOptions("createLog()", options));
}

/** A log as it is stored outside the process. */
export interface StoredLog {
  readonly epoch: string;
  /** The last assigned position. Store it, because dropped events have used positions too. @default that of the last event */
  readonly head?: number | undefined;
  /** The log's `forgottenThrough`, if channels were forgotten. @default 0 */
  readonly forgottenThrough?: number | undefined;
  /** The `droppedThrough` of each channel that has dropped an event. A channel that is not listed has dropped none. */
  readonly channels?: Iterable<{ readonly key: string; readonly droppedThrough: number }> | undefined;
  /** In order of position. `at` is the time of the append in epoch milliseconds, and `subject` the publisher's. */
  readonly events: Iterable<StoredEvent & { readonly at: number; readonly subject?: string | undefined }>;
}

/**
 * Creates a log with stored events. `storageListener` is called for everything that the log drops from here on, also for channels beyond
 * `maxChannels` that it forgets at once. Call `applyRetention` next: it drops the events that became too old in the meantime.
 *
 * @example
 * ```ts
 * const log = restoreLog({ epoch, head, forgottenThrough, channels, events }, { retention }, {
 *   onEntryRemoved: ({ seq }) => deleteRow(seq),
 *   onChannelForgotten: () => undefined,
 * });
 * log.applyRetention(Date.now());
 * ```
 * @throws `RangeError` if events are out of order; otherwise as {@link createLog}
 */
export function restoreLog(
  { epoch, head = 0, forgottenThrough = 0, channels = [], events }: StoredLog,
  options: LogOptions = {},
  storageListener?: LogStorageListener,
): Log {
  const log = createLog(epoch, options);
  log.storageListener = storageListener;
  log.restoreForgotten(forgottenThrough);
  // Pinned until the end, so that no channel is forgotten while its events are still to come.
  const pinned = new Map<string, ChannelLog>();
  for (const { key, droppedThrough } of channels) {
    const channel = log.pin(key);
    channel.droppedThrough = channel.last = droppedThrough;
    pinned.set(key, channel);
  }
  for (const { seq, keys, text, at, subject } of events) {
    if (seq <= log.head)
      throw new RangeError(`restoreLog() refused: event ${seq} comes after ${log.head}; sort the events by position.`);
    for (const key of keys) {
      if (pinned.has(key)) continue;
      const channel = log.pin(key);
      // The channel is not listed, so it has dropped no event since its first one.
      channel.droppedThrough = Math.min(channel.droppedThrough, seq - 1);
      pinned.set(key, channel);
    }
    log.restore(seq, keys, text, at, subject);
  }
  log.head = Math.max(log.head, head);
  for (const channel of pinned.values()) {
    // An event that another channel keeps may be older than the last one that this channel dropped.
    channel.last = Math.max(channel.last, channel.droppedThrough);
    log.unpin(channel);
  }
  return log;
}
