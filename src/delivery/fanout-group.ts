// Groups the subscribers of a flush by the channels that have news for them, so that each group shares one chunk.
import { type Batch, isSameBatch, readBatch } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { Transient } from "../log/transient.ts";
import { forChannels, weave } from "../log/weave.ts";

/** A channel that has news in this flush. */
interface PendingChannel {
  readonly channel: ChannelLog;
}

/**
 * The channels with news that a subscriber has. The group is found by one step per channel: `group.with(channel)`. All subscribers of a
 * group receive the same chunk, whatever other channels each of them has.
 */
export class FanoutGroup {
  readonly channels: readonly ChannelLog[];
  #batch: Batch | undefined;
  /** The last step. Most subscribers of a channel take the same one, and it costs less than a look into the map. */
  #lastChannel: PendingChannel | undefined;
  #lastGroup: FanoutGroup | undefined;
  #groups: Map<PendingChannel, FanoutGroup> | undefined;

  constructor(channels: readonly ChannelLog[]) {
    this.channels = channels;
  }

  /** Reads what the whole group receives: the events after a position, up to `through`, and transient items. They are read once. */
  read(log: Log, cursor: number, through: number, transients: readonly Transient[]): Batch | undefined {
    const { channels } = this;
    const reader = { channels, cursor, missingRanges: undefined, overrun: 0 };
    return (this.#batch ??= weave(readBatch(log, reader, through), forChannels(transients, channels, cursor), through));
  }

  /** Returns the group of subscribers that have one more channel with news. */
  with(added: PendingChannel): FanoutGroup {
    if (this.#lastChannel === added && this.#lastGroup) return this.#lastGroup;
    let group = this.#groups?.get(added);
    if (!group) {
      group = new FanoutGroup([...this.channels, added.channel]);
      (this.#groups ??= new Map()).set(added, group);
    }
    this.#lastChannel = added;
    this.#lastGroup = group;
    return group;
  }
}

/** A subscriber, as far as a group needs it. */
interface Grouped {
  group: FanoutGroup | undefined;
}

/** A channel that may have news for its subscribers. */
interface GroupedChannel<S> extends PendingChannel {
  readonly subscribers: Iterable<S>;
  pending: boolean;
}

/** The channels that have news for the next flush. */
export class PendingChannels<S extends Grouped> {
  readonly #pending: GroupedChannel<S>[] = [];

  get isEmpty(): boolean {
    return this.#pending.length === 0;
  }

  add(entry: GroupedChannel<S>): void {
    if (entry.pending) return;
    entry.pending = true;
    this.#pending.push(entry);
  }

  /** Forgets all channels, whose records are those of another log now. */
  clear(): void {
    this.#pending.length = 0;
  }

  /** Sets the group of each subscriber of a pending channel, and returns those subscribers. With `isShared`, all of them share one group. */
  take(isShared: boolean): readonly S[] {
    const root = new FanoutGroup([]);
    const concerned: S[] = [];
    const pending = this.#pending.splice(0);
    const shared = isShared ? new FanoutGroup(pending.map(({ channel }) => channel)) : undefined;
    for (const entry of pending) {
      entry.pending = false;
      for (const subscriber of entry.subscribers) {
        if (!subscriber.group) concerned.push(subscriber);
        subscriber.group = shared ?? (subscriber.group ?? root).with(entry);
      }
    }
    return concerned;
  }
}

/** Batches kept for subscribers that are about to catch up over the same events. */
const RECENT_BATCHES = 16;

/** The batches that were read last, so that subscribers that read the same events share one chunk. */
export class RecentBatches {
  readonly #batches: Batch[] = [];

  /** Returns the batch that an earlier subscriber received, if it has the same items. */
  share(batch: Batch | undefined): Batch | undefined {
    if (!batch || batch.items.length < 2 || batch.gaps > 0) return batch;
    for (const other of this.#batches) if (isSameBatch(batch, other)) return other;
    this.#batches.push(batch);
    if (this.#batches.length > RECENT_BATCHES) this.#batches.shift();
    return batch;
  }

  clear(): void {
    this.#batches.length = 0;
  }
}
