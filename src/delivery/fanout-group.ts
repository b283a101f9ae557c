import type { Batch } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { Subscriber } from "./fanout.ts";

/** The subscribers of one channel. */
export interface ChannelSubscribers {
  channel: ChannelLog;
  readonly subscribers: Set<Subscriber>;
  /** How many of them are no clients. */
  listeners: number;
  pending: boolean;
}

/**
 * The channels with news that a subscriber has, found by one step for each of them. Subscribers with the same match are sent
 * the same chunk, whatever other channels each of them has.
 */
export class FanoutGroup {
  readonly channels: readonly ChannelLog[];
  batch: Batch | undefined;
  #topic: ChannelSubscribers | undefined;
  #match: FanoutGroup | undefined;
  #others: Map<ChannelSubscribers, FanoutGroup> | undefined;

  constructor(channels: readonly ChannelLog[]) {
    this.channels = channels;
  }

  with(topic: ChannelSubscribers): FanoutGroup {
    if (this.#topic === topic && this.#match) return this.#match;
    let match = this.#others?.get(topic);
    if (!match) {
      match = new FanoutGroup([...this.channels, topic.channel]);
      (this.#others ??= new Map()).set(topic, match);
    }
    this.#topic = topic;
    this.#match = match;
    return match;
  }
}
