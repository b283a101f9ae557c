// Reads a log that holds everything that is retained, in the form in which a store answers the processes that share it.
import { decode, encode, splitId, withId } from "../event/sse-format.ts";
import { ChannelLog, type Entry } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import { Merge } from "../log/merge.ts";
import { type HistoryBounds, localHistoryBounds, type MaxReplay } from "../log/resume.ts";
import type { ReplayPage, StoredEvent } from "./engine.ts";

/**
 * Reads the retained events of some channels after a position, as `EngineSession.read` and `SharedLogSession.read` require: in order, each
 * once, about `maxBytes` bytes at most, but at least one event if there is one.
 */
export function readPage(log: Log, keys: readonly string[], after: number, maxBytes: number = 65_536): ReplayPage {
  const time = Date.now();
  const channels = keys.map((key) => log.find(key));
  const merge = new Merge();
  for (const channel of channels) {
    if (!channel) continue;
    log.trim(channel, time);
    merge.add(channel, channel.indexAfter(after));
  }
  const records: StoredEvent[] = [];
  let through = log.head;
  let remaining = maxBytes;
  for (let first = merge.next; first; first = merge.next) {
    remaining -= first.bytes.length;
    const last = records.at(-1);
    if (last && remaining < 0) {
      through = last.seq;
      break;
    }
    merge.advance();
    records.push({ seq: first.seq, keys: first.keys, text: splitId(decode(first.bytes)).text });
  }
  const droppedThrough = channels.map((channel) => channel?.droppedThrough ?? log.forgottenThrough);
  return { epoch: log.epoch, records, through, droppedThrough };
}

/** Returns the bounds of what is retained of some channels, as `historyBounds` of a session requires. */
export function readHistoryBounds(
  log: Log,
  keys: readonly string[],
  after: number,
  max: MaxReplay = {},
  last?: number,
): HistoryBounds {
  const channels = keys.map((key) => log.pin(key));
  const bounds = localHistoryBounds(log, channels, after, max, last);
  for (const channel of channels) log.unpin(channel);
  return bounds;
}

/** Returns the last position of each channel, as `FeedEvent.previous` and `Checkpoint.last` require. */
export const readLast = (log: Log, keys: readonly string[]): number[] =>
  keys.map((key) => log.find(key)?.last ?? log.forgottenThrough);

/** Returns the channels of a page as records of a log, which a reader reads in place of its own. */
export function channelsOfPage(
  log: Log,
  keys: readonly string[],
  { records, droppedThrough }: ReplayPage,
): ReadonlyMap<string, ChannelLog> {
  const channels = new Map(keys.map((key, index) => [key, new ChannelLog(key, droppedThrough[index] ?? 0)]));
  for (const { seq, keys: all, text, notice } of records) {
    const bytes = encode(withId(text, log.id(seq)));
    const entry: Entry = { seq, keys: all, at: 0, bytes, total: 0, retainCount: 0, notice };
    for (const key of all) channels.get(key)?.retain(entry);
  }
  return channels;
}
