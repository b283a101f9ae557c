// Indexes subscribers by channel.
import type { ChannelLog } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { Connection } from "./connection.ts";
import type { ChannelSubscribers, Subscriber } from "./subscriber.ts";

const NO_SUBSCRIBERS: ReadonlySet<Subscriber> = new Set();

/** The channels that have subscribers, by key. A channel's record in the log is pinned as long as it is listed here. */
export class ChannelIndex {
  readonly #channels = new Map<string, ChannelSubscribers>();

  get size(): number {
    return this.#channels.size;
  }

  find(key: string): ChannelSubscribers | undefined {
    return this.#channels.get(key);
  }

  /** Adds a subscriber to a channel. */
  add(subscriber: Subscriber, key: string, log: Log): ChannelSubscribers {
    let entry = this.#channels.get(key);
    if (!entry) {
      entry = { channel: log.pin(key), subscribers: new Set(), listeners: 0, pending: false };
      this.#channels.set(key, entry);
    }
    entry.subscribers.add(subscriber);
    if (subscriber.kind === "listener") entry.listeners++;
    return entry;
  }

  /** Removes a subscriber from channels. Returns whether it was in any. */
  remove(subscriber: Subscriber, channels: readonly ChannelLog[], log: Log): boolean {
    let wasListed = false;
    for (const { key } of channels) {
      const entry = this.#channels.get(key);
      if (!entry?.subscribers.delete(subscriber)) continue;
      wasListed = true;
      if (subscriber.kind === "listener") entry.listeners--;
      if (entry.subscribers.size > 0) continue;
      this.#channels.delete(key);
      log.unpin(entry.channel);
    }
    return wasListed;
  }

  /** Replaces the records by those of another log, also in the subscribers. Returns all subscribers. */
  moveTo(log: Log): ReadonlySet<Subscriber> {
    const records = new Map<string, ChannelLog>();
    for (const [key, entry] of this.#channels) {
      entry.channel = log.pin(key);
      entry.pending = false;
      records.set(key, entry.channel);
    }
    const subscribers = this.subscribers();
    for (const subscriber of subscribers)
      subscriber.channels = subscriber.channels.map(({ key }) => records.get(key) as ChannelLog);
    return subscribers;
  }

  /** All subscribers, each once. */
  subscribers(): Set<Subscriber> {
    const all = new Set<Subscriber>();
    for (const { subscribers } of this.#channels.values()) for (const subscriber of subscribers) all.add(subscriber);
    return all;
  }

  subscribersOf(key: string): ReadonlySet<Subscriber> {
    return this.#channels.get(key)?.subscribers ?? NO_SUBSCRIBERS;
  }

  /** The connections of these channels, each once. */
  connectionsOf(keys: readonly string[]): Set<Connection> {
    const connections = new Set<Connection>();
    for (const key of keys)
      for (const subscriber of this.subscribersOf(key)) if (isConnection(subscriber)) connections.add(subscriber);
    return connections;
  }

  /** Counts the connections of these channels, each once. A single channel is counted without a walk. */
  countConnections(keys: readonly string[]): number {
    const [key, ...others] = keys;
    if (key === undefined || others.length > 0) return this.connectionsOf(keys).size;
    const entry = this.#channels.get(key);
    return entry ? entry.subscribers.size - entry.listeners : 0;
  }
}

const isConnection = (subscriber: Subscriber): subscriber is Connection => subscriber.kind === "connection";
