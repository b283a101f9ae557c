// Puts transient items in their places between the events of a batch.
import type { Batch, Item, LogReader } from "./batch.ts";
import type { ChannelLog } from "./channel-log.ts";
import type { Transient } from "./transient.ts";

/** Adds transient items to a batch, in order of position. Those after its end are left out. A reader with the cursor `through` receives a missing batch. */
export function weave(batch: Batch | undefined, added: readonly Transient[], through: number): Batch | undefined {
  const end = batch?.more ? batch.through : Infinity;
  const due = added.filter(({ seq }) => seq <= end);
  if (due.length === 0) return batch;
  const items: Item[] = [];
  let next = 0;
  for (const item of batch?.items ?? []) {
    for (; next < due.length && (due[next] as Transient).seq < item.seq; next++) items.push(due[next] as Transient);
    items.push(item);
  }
  items.push(...due.slice(next));
  const { events = 0, gaps = 0, more = false } = batch ?? {};
  return {
    items,
    events: events + due.filter(({ keys }) => keys.length > 0).length,
    gaps,
    through: batch?.through ?? through,
    more,
    ...(batch?.jumpsToHead ? { jumpsToHead: true } : {}),
  };
}

/** Returns the items that a reader of these channels receives, whose cursor is not past them. */
export function forChannels(
  items: readonly Transient[],
  channels: readonly ChannelLog[],
  cursor: number,
): readonly Transient[] {
  if (items.length === 0) return items;
  const read = new Set(channels.map(({ key }) => key));
  return items.filter(({ keys, seq }) => seq >= cursor && keys.some((key) => read.has(key)));
}

/** Items that may wait for one reader. Beyond that, the oldest ephemeral event is dropped. */
export const MAX_WAITING = 64;

/** Lets items wait for a reader, in order of position. */
export function keepFor(reader: LogReader, added: readonly Transient[]): void {
  if (added.length === 0) return;
  const waiting = [...(reader.waiting ?? []), ...added].sort((a, b) => a.seq - b.seq);
  while (waiting.length > MAX_WAITING) {
    const oldest = waiting.findIndex(({ expiresAt }) => expiresAt !== undefined);
    if (oldest < 0) break;
    waiting.splice(oldest, 1);
  }
  reader.waiting = waiting;
}

/** Returns the position of the first item behind which a reader must not read yet. */
export const stopOf = ({ waiting }: LogReader): number =>
  waiting?.find(({ onReached }) => onReached !== undefined)?.seq ?? Infinity;

/**
 * Adds the items that wait for a reader to its next batch, which ends at {@link stopOf} at the latest. Those that have expired are dropped, and
 * those behind its end wait on.
 */
export function withWaiting(reader: LogReader, batch: Batch | undefined): Batch | undefined {
  const { waiting, cursor } = reader;
  if (!waiting) return batch;
  const time = Date.now();
  const end = batch?.more ? batch.through : Infinity;
  const due: Transient[] = [];
  const later = [...waiting];
  for (let [item] = later; item && item.seq <= end; [item] = later) {
    due.push(item);
    later.shift();
    if (!item.onReached) continue;
    item.onReached();
    break;
  }
  reader.waiting = later.length > 0 ? later : undefined;
  return weave(
    batch,
    due.filter(({ expiresAt = Infinity }) => expiresAt >= time),
    cursor,
  );
}
