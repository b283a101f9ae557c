// Counts the subscribers of each channel in this process, and knows which channels are subscribed in the store and complete here.
import { after, now } from "../base/runtime.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { Checkpoint, FeedEvent } from "./shared-log.ts";

/** Milliseconds for which a channel stays subscribed after its last subscriber left. Most clients that leave come back. */
const IDLE_MS = 10_000;

/** A channel that has a subscriber in this process, or had one not long ago. */
interface Subscription {
  subscribers: number;
  idleSince: number;
  /** The head of the log when its last subscriber left. */
  idleHead: number;
  /** Whether every event of the channel is certain to arrive. */
  isSubscribed: boolean;
  /** The channel's record. It is complete from where it begins up to the head of the log, or up to where the feed was lost. */
  channel: ChannelLog | undefined;
  /** The head of the last checkpoint that the record was compared with. No event up to there is missing. */
  verifiedThrough: number;
  /** Whether no event up to now is missing. */
  isSynchronized: boolean;
  waiters: Set<Waiter> | undefined;
}

/** A caller that waits until some channels are synchronized. */
interface Waiter {
  /** Number of its channels that are not synchronized yet. */
  pending: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

const isInbox = (key: string): boolean => key.startsWith("@");

/** The channels that a process subscribes to, each once however many subscribers it has here. */
export class ChannelSubscriptions {
  readonly #subscriptions = new Map<string, Subscription>();
  /** Channels without a subscriber. */
  readonly #idle = new Set<string>();
  readonly #unsynchronized = new Set<string>();
  #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  get keys(): string[] {
    return [...this.#subscriptions.keys()];
  }

  get synchronizedKeys(): string[] {
    return this.keys.filter((key) => this.isSynchronized(key));
  }

  get unsynchronizedKeys(): string[] {
    return [...this.#unsynchronized];
  }

  isSynchronized(key: string): boolean {
    return this.#subscriptions.get(key)?.isSynchronized ?? false;
  }

  /** Returns the record of a channel, if it has one. */
  channel(key: string): ChannelLog | undefined {
    return this.#subscriptions.get(key)?.channel;
  }

  /**
   * Returns the position up to which no event of a channel is missing. This can be later than the channel's last event: a store that has
   * forgotten the last position of a channel reports an upper bound for it.
   */
  verifiedThrough(key: string): number {
    const subscription = this.#subscriptions.get(key);
    return Math.max(subscription?.verifiedThrough ?? 0, subscription?.channel?.last ?? 0);
  }

  /** Returns the subscribed channels of an event, or `undefined` if a previous event of one of them did not arrive. */
  continuedChannels({ seq, keys, previous }: FeedEvent): readonly ChannelLog[] | undefined {
    const channels: ChannelLog[] = [];
    for (const [index, key] of keys.entries()) {
      const channel = this.channel(key);
      if (!channel || channel.last >= seq) continue;
      if ((previous[index] ?? Infinity) > this.verifiedThrough(key)) return undefined;
      channels.push(channel);
    }
    return channels;
  }

  /** Adds a subscriber to each channel. Returns whether all of them are synchronized. */
  add(keys: readonly string[]): boolean {
    let areSynchronized = true;
    for (const key of keys) {
      let subscription = this.#subscriptions.get(key);
      if (!subscription) {
        subscription = {
          subscribers: 0,
          idleSince: 0,
          idleHead: 0,
          isSubscribed: isInbox(key),
          channel: undefined,
          verifiedThrough: 0,
          isSynchronized: false,
          waiters: undefined,
        };
        this.#subscriptions.set(key, subscription);
        this.#unsynchronized.add(key);
      }
      subscription.subscribers++;
      this.#idle.delete(key);
      areSynchronized &&= subscription.isSynchronized;
    }
    return areSynchronized;
  }

  /** Removes a subscriber from each channel. An inbox of which nothing was held here is forgotten at once. */
  remove(keys: readonly string[]): void {
    for (const key of keys) {
      const subscription = this.#subscriptions.get(key);
      if (!subscription || --subscription.subscribers > 0) continue;
      if (isInbox(key) && !subscription.channel) {
        this.#forget(key, subscription);
      } else {
        subscription.idleSince = now();
        subscription.idleHead = this.#log.head;
        this.#idle.add(key);
      }
    }
  }

  /**
   * Forgets channels that had no subscriber for a while, and inboxes that have none. Returns the channels to unsubscribe from. A channel is kept
   * until a checkpoint has shown that nothing was missing when its last subscriber left: other processes may need a notice.
   */
  forgetIdle(): string[] {
    const time = now();
    const subscribed: string[] = [];
    for (const key of this.#idle) {
      const subscription = this.#subscriptions.get(key);
      if (!subscription || subscription.verifiedThrough < subscription.idleHead) continue;
      if (!isInbox(key) && time - subscription.idleSince < IDLE_MS) continue;
      if (subscription.isSubscribed && !isInbox(key)) subscribed.push(key);
      this.#forget(key, subscription);
    }
    return subscribed;
  }

  /** Resolves when all these channels are synchronized. Rejects after `timeoutMs`. */
  whenSynchronized(keys: readonly string[], timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const onTimeout = (): void => waiter.reject(new Error(`Channels not synchronized within ${timeoutMs} ms.`));
      const cancelTimer = after(timeoutMs, onTimeout);
      const finish = (): void => {
        cancelTimer();
        for (const key of keys) this.#subscriptions.get(key)?.waiters?.delete(waiter);
      };
      const waiter: Waiter = {
        pending: 0,
        resolve: () => {
          finish();
          resolve();
        },
        reject: (error) => {
          finish();
          reject(error);
        },
      };
      for (const key of keys) {
        const subscription = this.#subscriptions.get(key);
        if (!subscription || subscription.isSynchronized) continue;
        waiter.pending++;
        (subscription.waiters ??= new Set()).add(waiter);
      }
      if (waiter.pending === 0) waiter.resolve();
    });
  }

  /** Returns the channels among `keys` that must be subscribed in the store. They count as subscribed from now on. */
  takeUnsubscribed(keys: readonly string[]): string[] {
    return keys.filter((key) => {
      const subscription = this.#subscriptions.get(key);
      if (!subscription || subscription.isSubscribed) return false;
      subscription.isSubscribed = true;
      return true;
    });
  }

  /** Marks channels as not subscribed: the feed is new, or the store did not subscribe to them. */
  markUnsubscribed(keys: readonly string[] = this.keys): void {
    for (const key of keys) {
      const subscription = this.#subscriptions.get(key);
      if (subscription) subscription.isSubscribed = isInbox(key);
    }
  }

  /** Marks channels as complete up to the head of a checkpoint. A channel without a record begins at its last position there. */
  markSynchronized(keys: readonly string[], { head, last }: Checkpoint): void {
    for (const [index, key] of keys.entries()) {
      const subscription = this.#subscriptions.get(key);
      // The channel may have been forgotten and added again since the checkpoint was requested.
      if (!subscription?.isSubscribed) continue;
      this.#createRecord(key, subscription, last[index] ?? 0);
      subscription.verifiedThrough = head;
      subscription.isSynchronized = true;
      this.#unsynchronized.delete(key);
      const { waiters } = subscription;
      subscription.waiters = undefined;
      for (const waiter of waiters ?? []) if (--waiter.pending === 0) waiter.resolve();
    }
  }

  /** Replaces the log. In the new one, this process holds no event of a channel up to its position in `last`. */
  replaceLog(log: Log, keys: readonly string[], last: readonly number[]): void {
    this.#log = log;
    for (const subscription of this.#subscriptions.values()) {
      subscription.channel = undefined;
      subscription.verifiedThrough = subscription.idleHead = 0;
    }
    for (const [index, key] of keys.entries()) {
      const subscription = this.#subscriptions.get(key);
      if (subscription) this.#createRecord(key, subscription, last[index] ?? 0);
    }
  }

  markAllUnsynchronized(): void {
    for (const [key, subscription] of this.#subscriptions) {
      subscription.isSynchronized = false;
      this.#unsynchronized.add(key);
    }
  }

  rejectWaiters(error: unknown): void {
    for (const { waiters } of this.#subscriptions.values())
      for (const waiter of [...(waiters ?? [])]) waiter.reject(error);
  }

  #createRecord(key: string, subscription: Subscription, last: number): void {
    if (subscription.channel) return;
    subscription.channel = this.#log.pin(key);
    subscription.channel.startAfter(last);
  }

  #forget(key: string, { channel }: Subscription): void {
    this.#subscriptions.delete(key);
    this.#idle.delete(key);
    this.#unsynchronized.delete(key);
    if (!channel) return;
    this.#log.unpin(channel);
    if (channel.pins === 0) this.#log.discard(channel);
  }
}
