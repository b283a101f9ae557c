import type { EngineListener, ReplayPage, StoredEvent } from "../engine/engine.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { ChannelSubscriptions } from "./channel-subscriptions.ts";
import type { Checkpoint } from "./shared-log.ts";

/** Channels that are read at once. */
const GROUP = 256;

/** A channel that is behind, and where it is to be. */
interface LaggingChannel {
  readonly key: string;
  readonly channel: ChannelLog;
  readonly last: number;
  /** How far what it missed is not kept any more. */
  dropped: number;
  /** The first event that it missed and that later ones of other channels were sent on before, and the last one. */
  late: { readonly first: number; last: number } | undefined;
  /** It was read up to there. */
  through: number;
}

/** Puts what did not come through the feed into the log, up to a mark. */
export class CatchUp {
  readonly #log: Log;
  readonly #follower: EngineListener;
  readonly #followed: ChannelSubscriptions;
  readonly #mark: Checkpoint;
  readonly #behind: LaggingChannel[] = [];
  readonly #records = new Map<number, StoredEvent>();
  #bytes = 0;

  /** `keys` are those that the mark was asked for with. */
  constructor(
    log: Log,
    follower: EngineListener,
    followed: ChannelSubscriptions,
    keys: readonly string[],
    mark: Checkpoint,
  ) {
    this.#log = log;
    this.#follower = follower;
    this.#followed = followed;
    this.#mark = mark;
    for (const [index, key] of keys.entries()) {
      const channel = followed.channel(key);
      const last = mark.last[index] ?? 0;
      if (!channel || last <= followed.provedUpTo(key)) continue;
      this.#behind.push({ key, channel, last, dropped: 0, late: undefined, through: channel.last });
    }
    this.#behind.sort((a, b) => a.channel.last - b.channel.last);
  }

  get isDone(): boolean {
    return this.#behind.length === 0;
  }

  /** Reads and applies. `false` if it was not to be done: the log began anew, or it `isOver`. What `failed` is read again after it was told. */
  async run(
    read: (keys: readonly string[], from: number) => Promise<ReplayPage>,
    isOver: () => boolean,
    failed: (error: unknown) => Promise<void>,
  ): Promise<boolean> {
    const tryToRead: typeof read = async (keys, from) => {
      for (;;) {
        try {
          return await read(keys, from);
        } catch (error) {
          if (isOver()) throw error;
          await failed(error);
        }
      }
    };
    try {
      for (let index = 0; index < this.#behind.length && !this.#isTooMuch; index += GROUP) {
        await this.#readGroup(this.#behind.slice(index, index + GROUP), tryToRead, isOver);
        if (isOver()) return false;
      }
    } catch {
      return false;
    }
    this.#apply();
    return true;
  }

  /** More was missed than is worth to be held: who has a reader that missed it has it read for that reader. */
  get #isTooMuch(): boolean {
    return this.#bytes > this.#log.maxBytes / 2;
  }

  async #readGroup(
    group: readonly LaggingChannel[],
    read: (keys: readonly string[], from: number) => Promise<ReplayPage>,
    isOver: () => boolean,
  ): Promise<void> {
    const keys = group.map(({ key }) => key);
    const byKey = new Map(group.map((behind) => [behind.key, behind]));
    const end = Math.max(...group.map(({ last }) => last));
    let from = Math.min(...group.map(({ channel }) => channel.last));
    while (from < end && !isOver()) {
      const page = await read(keys, from);
      if (page.epoch !== this.#log.epoch || page.through <= from) throw new Error("The log began anew.");
      from = page.through;
      for (const [index, behind] of group.entries()) {
        const dropped = page.droppedThrough[index] ?? 0;
        behind.through = from;
        if (dropped > behind.channel.last) behind.dropped = Math.max(behind.dropped, dropped);
      }
      for (const record of page.records) this.#take(record, byKey);
      // What is late has to be known in any case.
      if (this.#isTooMuch && from >= this.#log.head) return;
    }
  }

  #take(record: StoredEvent, byKey: ReadonlyMap<string, LaggingChannel>): void {
    const { seq, keys, text } = record;
    if (seq > this.#mark.head) return;
    for (const key of keys) {
      const behind = byKey.get(key);
      if (!behind || seq <= behind.channel.last) continue;
      if (seq <= this.#log.head) {
        behind.late ??= { first: seq, last: seq };
        behind.late.last = seq;
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
    for (const { channel, key, last, late, dropped, through } of this.#behind) {
      // One stretch: what is told of it must not be taken for all there is. What is behind the mark comes through the feed.
      const from = dropped > channel.last ? channel.last : late && late.first - 1;
      if (from !== undefined) this.#miss(key, channel, from, Math.min(Math.max(dropped, late?.last ?? 0), last));
      if (isTooMuch) this.#miss(key, channel, through >= head ? head : channel.last, last);
    }
    if (!isTooMuch) {
      const records = [...this.#records.values()].sort((a, b) => a.seq - b.seq);
      for (const { seq, keys, text } of records) {
        const channels: ChannelLog[] = [];
        for (const key of keys) {
          const channel = this.#followed.channel(key);
          if (channel && channel.last < seq) channels.push(channel);
        }
        if (channels.length > 0) log.appendAt(seq, keys, channels, text);
      }
    }
    // What was kept until just now, and is not any more.
    for (const { channel, key, last } of this.#behind) this.#miss(key, channel, channel.last, last);
    // In the same turn: a channel that is ahead of the log would have its readers read for ever.
    log.advance(this.#mark.head);
  }

  #miss(key: string, channel: ChannelLog, from: number, through: number): void {
    if (through <= channel.last) return;
    channel.startAfter(through);
    // Who is beyond the head came with a position that was told elsewhere.
    this.#follower.onMissed?.(key, from, Math.min(through, this.#log.head));
  }
}
