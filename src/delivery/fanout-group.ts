// Groups the subscribers of a flush by the channels that have news for them, so that each group shares one chunk.
import type { Batch } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";

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
  batch: Batch | undefined;
  /** The last step. Most subscribers of a channel take the same one, and it costs less than a look into the map. */
  #lastChannel: PendingChannel | undefined;
  #lastGroup: FanoutGroup | undefined;
  #groups: Map<PendingChannel, FanoutGroup> | undefined;

  constructor(channels: readonly ChannelLog[]) {
    this.channels = channels;
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
