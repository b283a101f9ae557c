import { after, now } from "../base/runtime.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { Checkpoint } from "./shared-log.ts";

/** Milliseconds that a channel is followed on after its last reader has left: most who leave come back. */
const LINGER = 10_000;

/** A channel that somebody reads, or read not long ago. */
interface Subscription {
  readers: number;
  idleSince: number;
  /** Whether its messages are certain to come. */
  isSubscribed: boolean;
  /** Its record, complete from where it begins up to the head of the log, or to where the feed was lost. */
  channel: ChannelLog | undefined;
  /** The last mark that this was compared with: nothing up to there is missing. */
  proved: number;
  /** Whether that is so up to now. */
  isJoined: boolean;
  waiters: Set<Waiter> | undefined;
}

/** Who waits for some channels. */
interface Waiter {
  missing: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

const isInbox = (key: string): boolean => key.startsWith("@");

/** The channels that a process follows: each once, however many read it. */
export class ChannelSubscriptions {
  readonly #follows = new Map<string, Subscription>();
  /** Those without a reader. */
  readonly #idle = new Set<string>();
  readonly #missing = new Set<string>();
  #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  get keys(): string[] {
    return [...this.#follows.keys()];
  }

  get joinedKeys(): string[] {
    return this.keys.filter((key) => this.isJoined(key));
  }

  /** Those that are to be joined. */
  get missing(): string[] {
    return [...this.#missing];
  }

  isJoined(key: string): boolean {
    return this.#follows.get(key)?.isJoined ?? false;
  }

  /** The record of a channel that has one. */
  channel(key: string): ChannelLog | undefined {
    return this.#follows.get(key)?.channel;
  }

  /** Up to where nothing of a channel is missing. A store that has forgotten where a channel was may only say how far it can have been. */
  provedUpTo(key: string): number {
    const follow = this.#follows.get(key);
    return Math.max(follow?.proved ?? 0, follow?.channel?.last ?? 0);
  }

  /** Counts a reader of each; whether all of them are joined. */
  add(keys: readonly string[]): boolean {
    let isJoined = true;
    for (const key of keys) {
      let follow = this.#follows.get(key);
      if (!follow) {
        follow = {
          readers: 0,
          idleSince: 0,
          isSubscribed: isInbox(key),
          channel: undefined,
          proved: 0,
          isJoined: false,
          waiters: undefined,
        };
        this.#follows.set(key, follow);
        this.#missing.add(key);
      }
      follow.readers++;
      this.#idle.delete(key);
      isJoined &&= follow.isJoined;
    }
    return isJoined;
  }

  /** Counts a reader less of each. Inboxes are given up at once: all of them come anyway, and hardly one is read twice. */
  remove(keys: readonly string[]): void {
    for (const key of keys) {
      const follow = this.#follows.get(key);
      if (!follow || --follow.readers > 0) continue;
      if (isInbox(key)) {
        this.#drop(key, follow);
      } else {
        follow.idleSince = now();
        this.#idle.add(key);
      }
    }
  }

  /** Gives up what nobody has read for a while; the channels to unsubscribe from. */
  dropIdle(): string[] {
    const time = now();
    const dropped: string[] = [];
    for (const key of this.#idle) {
      const follow = this.#follows.get(key);
      if (!follow || time - follow.idleSince < LINGER) continue;
      if (follow.isSubscribed) dropped.push(key);
      this.#drop(key, follow);
    }
    return dropped;
  }

  /** Resolves when all of these are joined; rejects after `ms` at the latest. */
  joined(keys: readonly string[], ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const cancel = after(ms, () => waiter.reject(new Error("The feed did not come in time.")), true);
      const done = (): void => {
        cancel();
        for (const key of keys) this.#follows.get(key)?.waiters?.delete(waiter);
      };
      const waiter: Waiter = {
        missing: 0,
        resolve: () => {
          done();
          resolve();
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
      for (const key of keys) {
        const follow = this.#follows.get(key);
        if (!follow || follow.isJoined) continue;
        waiter.missing++;
        (follow.waiters ??= new Set()).add(waiter);
      }
      if (waiter.missing === 0) waiter.resolve();
    });
  }

  /** Those of these channels that are to be subscribed to; they are taken to be from here on. */
  toSubscribe(keys: readonly string[]): string[] {
    return keys.filter((key) => {
      const follow = this.#follows.get(key);
      if (!follow || follow.isSubscribed) return false;
      follow.isSubscribed = true;
      return true;
    });
  }

  /** The feed is new, and nothing is subscribed to; or of these channels it could not be. */
  unsubscribed(keys: readonly string[] = this.keys): void {
    for (const key of keys) {
      const follow = this.#follows.get(key);
      if (follow) follow.isSubscribed = isInbox(key);
    }
  }

  /** These are complete up to the head: from where they are on, or from `last`, of those that have no record. */
  join(keys: readonly string[], { head, last }: Checkpoint): void {
    for (const [index, key] of keys.entries()) {
      const follow = this.#follows.get(key);
      // It may be another one than when this was asked for.
      if (!follow?.isSubscribed) continue;
      this.#begin(key, follow, last[index] ?? 0);
      follow.proved = head;
      follow.isJoined = true;
      this.#missing.delete(key);
      const { waiters } = follow;
      follow.waiters = undefined;
      for (const waiter of waiters ?? []) if (--waiter.missing === 0) waiter.resolve();
    }
  }

  /** What these have is in another log, where nothing of it is held that is before `last`. */
  move(log: Log, keys: readonly string[], last: readonly number[]): void {
    this.#log = log;
    for (const follow of this.#follows.values()) {
      follow.channel = undefined;
      follow.proved = 0;
    }
    for (const [index, key] of keys.entries()) {
      const follow = this.#follows.get(key);
      if (follow) this.#begin(key, follow, last[index] ?? 0);
    }
  }

  /** Nothing is joined any more. */
  lose(): void {
    for (const [key, follow] of this.#follows) {
      follow.isJoined = false;
      this.#missing.add(key);
    }
  }

  /** Those who wait will not be served. */
  fail(error: unknown): void {
    for (const { waiters } of this.#follows.values()) for (const waiter of [...(waiters ?? [])]) waiter.reject(error);
  }

  #begin(key: string, follow: Subscription, last: number): void {
    if (follow.channel) return;
    follow.channel = this.#log.pin(key);
    follow.channel.startAfter(last);
  }

  #drop(key: string, { channel }: Subscription): void {
    this.#follows.delete(key);
    this.#idle.delete(key);
    this.#missing.delete(key);
    if (!channel) return;
    this.#log.unpin(channel);
    if (channel.pins === 0) this.#log.discard(channel);
  }
}
