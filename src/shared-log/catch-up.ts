// Reads the events that the feed did not deliver, puts them into the log of this process, and reports those that came too late for that.
import { randomName } from "../base/random.ts";
import type { EngineListener, ReplayPage, StoredEvent } from "../engine/engine.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { ChannelSubscriptions } from "./channel-subscriptions.ts";
import { formatLostNotice, type LostRange, parseLostNotice } from "./lost-notice.ts";
import type { Checkpoint, SharedLogSession } from "./shared-log.ts";

/** Channels that one read asks for. */
const CHANNELS_PER_READ = 128;
/** Channels in one notice of lost events. */
const CHANNELS_PER_NOTICE = 128;
/** The approximate size of one page of events. */
export const PAGE_BYTES: number = 48 * 1024;

type ReadPage = (keys: readonly string[], after: number) => Promise<ReplayPage>;

/** A channel that has fewer events here than the checkpoint says. */
interface LaggingChannel {
  readonly key: string;
  readonly channel: ChannelLog;
  /** The channel's last position at the checkpoint. */
  readonly last: number;
  /** The last missing position that the store no longer retains, or 0. */
  droppedThrough: number;
  /** The first and the last missing event that later events of other channels have overtaken: those were already delivered. */
  overtaken: { readonly first: number; last: number } | undefined;
  /** The position up to which the channel was read. */
  readThrough: number;
}

/** Brings the channels of a checkpoint up to it. */
export class CatchUp {
  readonly #log: Log;
  readonly #listener: EngineListener;
  readonly #subscriptions: ChannelSubscriptions;
  readonly #checkpoint: Checkpoint;
  readonly #lagging: LaggingChannel[] = [];
  readonly #records = new Map<number, StoredEvent>();
  /** Missing events that later events of other channels have overtaken. */
  readonly #lost: LostRange[] = [];
  #bytes = 0;

  /** `keys` are the channels that the checkpoint was requested for. */
  constructor(
    log: Log,
    listener: EngineListener,
    subscriptions: ChannelSubscriptions,
    keys: readonly string[],
    checkpoint: Checkpoint,
  ) {
    this.#log = log;
    this.#listener = listener;
    this.#subscriptions = subscriptions;
    this.#checkpoint = checkpoint;
    for (const [index, key] of keys.entries()) {
      const channel = subscriptions.channel(key);
      const last = checkpoint.last[index] ?? 0;
      if (!channel || last <= subscriptions.verifiedThrough(key)) continue;
      this.#lagging.push({ key, channel, last, droppedThrough: 0, overtaken: undefined, readThrough: channel.last });
    }
    this.#lagging.sort((a, b) => a.channel.last - b.channel.last);
  }

  /** Whether no event is missing. */
  get isDone(): boolean {
    return this.#lagging.length === 0;
  }

  /**
   * Reads the missing events and appends them. Returns `false` if that is not possible any more: the log was replaced, or `isObsolete` holds.
   * After a failed read `waitToRetry` is called, and the page is read again.
   */
  async run(
    store: SharedLogSession,
    isObsolete: () => boolean,
    waitToRetry: (error: unknown) => Promise<void>,
  ): Promise<boolean> {
    const { epoch } = this.#checkpoint;
    const readWithRetries: ReadPage = async (keys, after) => {
      for (;;) {
        try {
          return await store.read(epoch, keys, after, PAGE_BYTES);
        } catch (error) {
          if (isObsolete()) throw error;
          await waitToRetry(error);
        }
      }
    };
    try {
      for (let index = 0; index < this.#lagging.length && !this.#isTooMuch; index += CHANNELS_PER_READ) {
        await this.#readGroup(this.#lagging.slice(index, index + CHANNELS_PER_READ), readWithRetries, isObsolete);
        if (isObsolete()) return false;
      }
    } catch {
      return false;
    }
    this.#apply();
    void this.#sendNotices(store, waitToRetry);
    return true;
  }

  /**
   * Appends notices of the overtaken events. A client that was past them here may have left, and a position does not name the process that sent it.
   */
  async #sendNotices(store: SharedLogSession, waitToRetry: (error: unknown) => Promise<void>): Promise<void> {
    const { epoch, head: seq } = this.#log;
    const isOver = (): boolean => !this.#log.listeners.has(this.#listener);
    while (this.#lost.length > 0) {
      const ranges = this.#lost.splice(0, CHANNELS_PER_NOTICE);
      const keys = [...new Set(ranges.map(({ key }) => key))];
      const text = formatLostNotice(epoch, ranges);
      const idempotencyKey = `lost-${randomName(16)}`;
      for (let isSent = false; !isSent && !isOver(); ) {
        try {
          await store.append(keys, text, { epoch, seq }, idempotencyKey, undefined);
          isSent = true;
        } catch (error) {
          await waitToRetry(error);
        }
      }
    }
  }

  /** Whether more is missing than is worth holding here. The broker then reads it for each subscriber that needs it. */
  get #isTooMuch(): boolean {
    return this.#bytes > this.#log.maxBytes / 2;
  }

  async #readGroup(group: readonly LaggingChannel[], read: ReadPage, isObsolete: () => boolean): Promise<void> {
    const keys = group.map(({ key }) => key);
    const byKey = new Map(group.map((lagging) => [lagging.key, lagging]));
    const end = Math.max(...group.map(({ last }) => last));
    let cursor = Math.min(...group.map(({ channel }) => channel.last));
    while (cursor < end && !isObsolete()) {
      const page = await read(keys, cursor);
      if (page.epoch !== this.#log.epoch || page.through <= cursor) throw new Error("The log was replaced.");
      cursor = page.through;
      for (const [index, lagging] of group.entries()) {
        const droppedThrough = page.droppedThrough[index] ?? 0;
        lagging.readThrough = cursor;
        if (droppedThrough > lagging.channel.last)
          lagging.droppedThrough = Math.max(lagging.droppedThrough, droppedThrough);
      }
      for (const record of page.records) this.#collect(record, byKey);
      // Up to the head reading continues in any case, to find every overtaken event.
      if (this.#isTooMuch && cursor >= this.#log.head) return;
    }
  }

  #collect(record: StoredEvent, byKey: ReadonlyMap<string, LaggingChannel>): void {
    const { seq, keys, text } = record;
    if (seq > this.#checkpoint.head) return;
    for (const key of keys) {
      const lagging = byKey.get(key);
      if (!lagging || seq <= lagging.channel.last) continue;
      if (seq <= this.#log.head) {
        lagging.overtaken ??= { first: seq, last: seq };
        lagging.overtaken.last = seq;
      } else if (!this.#records.has(seq)) {
        this.#records.set(seq, record);
        this.#bytes += text.length;
      }
    }
  }

  #apply(): void {
    const log = this.#log;
    const { head } = log;
    const isTooMuch = this.#isTooMuch;
    for (const { channel, key, last, overtaken, droppedThrough, readThrough } of this.#lagging) {
      // One range for both kinds: a subscriber takes the reported range for everything that is missing. Events after the checkpoint still
      // come through the feed.
      const after = droppedThrough > channel.last ? channel.last : overtaken && overtaken.first - 1;
      const isOvertaken = overtaken !== undefined || droppedThrough <= head;
      if (after !== undefined)
        this.#reportMissed(
          key,
          channel,
          after,
          Math.min(Math.max(droppedThrough, overtaken?.last ?? 0), last),
          isOvertaken,
        );
      if (isTooMuch) this.#reportMissed(key, channel, readThrough >= head ? head : channel.last, last, true);
    }
    if (!isTooMuch) this.#appendRecords();
    // The store may have dropped events after the checkpoint, before they were read.
    for (const { channel, key, last } of this.#lagging) this.#reportMissed(key, channel, channel.last, last);
    // In the same turn: subscribers of a channel that is ahead of the log's head would read without end.
    log.advance(this.#checkpoint.head);
  }

  #appendRecords(): void {
    const log = this.#log;
    const records = [...this.#records.values()].sort((a, b) => a.seq - b.seq);
    for (const { seq, keys, text } of records) {
      const channels: ChannelLog[] = [];
      for (const key of keys) {
        const channel = this.#subscriptions.channel(key);
        if (channel && channel.last < seq) channels.push(channel);
      }
      if (channels.length > 0) log.appendAt(seq, keys, channels, text, parseLostNotice(text, log.epoch));
    }
  }

  /** With `isOvertaken`, events up to the head may be among the missing ones. */
  #reportMissed(key: string, channel: ChannelLog, after: number, through: number, isOvertaken = false): void {
    if (through <= channel.last) return;
    const lostThrough = Math.min(through, this.#log.head);
    if (isOvertaken && after < lostThrough) this.#lost.push({ key, after, through: lostThrough });
    channel.startAfter(through);
    // A subscriber beyond the head has its position from another process, where it received these events.
    this.#listener.onMissed?.(key, after, Math.min(through, this.#log.head));
  }
}
