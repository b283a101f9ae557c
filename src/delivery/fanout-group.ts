import type { Batch } from "../log/batch.ts";
import type { Channel } from "../log/channel-log.ts";
import type { Subscriber } from "./fanout.ts";

/** The subscribers of one channel. */
export interface Topic {
  channel: Channel;
  readonly subscribers: Set<Subscriber>;
  /** How many of them are no clients. */
  listeners: number;
  pending: boolean;
}

/**
 * The channels with news that a subscriber has, found by one step for each of them. Subscribers with the same match are handed
 * the same chunk, whatever other channels each of them has.
 */
export class Match {
  readonly channels: readonly Channel[];
  batch: Batch | undefined;
  #topic: Topic | undefined;
  #match: Match | undefined;
  #others: Map<Topic, Match> | undefined;

  constructor(channels: readonly Channel[]) {
    this.channels = channels;
  }

  and(topic: Topic): Match {
    if (this.#topic === topic && this.#match) return this.#match;
    let match = this.#others?.get(topic);
    if (!match) {
      match = new Match([...this.channels, topic.channel]);
      (this.#others ??= new Map()).set(topic, match);
    }
    this.#topic = topic;
    this.#match = match;
    return match;
  }
}
