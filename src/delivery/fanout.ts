import type { EngineSession } from "../engine/engine.ts";
import {
  type Batch,
  chunkOf,
  type HistoryRange,
  hasMissing,
  hasNews,
  type LogReader,
  makeGap,
  readBatch,
} from "../log/batch.ts";
import type { ChannelLog, Entry } from "../log/channel-log.ts";
import { type EngineListener, entryCost, type Log } from "../log/log.ts";
import type { PeerCommand } from "../shared-log/shared-log.ts";
import { type ChannelSubscribers, FanoutGroup } from "./fanout-group.ts";
import { type FlushTiming, Pace } from "./flush-scheduler.ts";
import type { HistoryLoader, HistoryLoaderHost } from "./history-loader.ts";
import type { Connection } from "./stream-connection.ts";

/** A reader that can be sent what is new. */
export interface Subscriber extends LogReader {
  /** The match it belongs to while a flush is being made. */
  group: FanoutGroup | undefined;
  /** It wants more and has all there was at the last flush. */
  live: boolean;
  /** Takes a batch; `live` and `cursor` are set before. Whether it did. MUST NOT throw. */
  receive(batch: Batch): boolean;
  /** There is more for it, but it does not want any now. */
  onBlocked?(): void;
  /** It became live without having asked just now: what it waited for came from elsewhere. */
  onCaughtUp?(): void;
  /** What was appended before, and it has not, it will never have. */
  onLogReplaced?(): void;
  /** Only of a subscriber that is no client: nothing will be appended any more. */
  finish?(): void;
}

/** Who hears of what comes from the engine, beside events. */
export interface FanoutHost {
  /** An event was appended, and has not been sent to anybody. */
  onAppended(entry: Entry): void;
  /** Publishing overran the log. */
  onOverrun(): void;
  onCommand(order: PeerCommand): void;
  onError(error: unknown): void;
}

/** Bytes that a publisher may be ahead of those who read; an eighth of the log where that is less. */
const RUN_AHEAD = 1024 * 1024;
/** Batches kept for those who are about to catch up over the same stretch. */
const RECENT = 16;

/** Hands what is appended to those who read it: once for each turn and match, and from the log to those who come late. */
export class Fanout implements EngineListener, HistoryLoaderHost {
  /** All up to here was offered to every subscriber. */
  position = 0;
  /** Subscribers read up to here: `position`, or where it will be after the flush that is going on. */
  #through = 0;
  /** Events sent to clients. */
  sentEvents = 0;
  /** Bytes sent to clients, of events and gaps. */
  sentBytes = 0;
  /** Those of them that came from the log, to clients that came back or were behind. */
  replayedEvents = 0;
  /** Gaps told to clients. */
  sentGaps = 0;
  /** Clients that were put at the head because they could not keep up. */
  overruns = 0;
  log!: Log;
  /** Those who wait for the engine before they can read anything. */
  readonly waitingForEngine: Set<Subscriber> = new Set();
  readonly #channels = new Map<string, ChannelSubscribers>();
  readonly #pending: ChannelSubscribers[] = [];
  readonly #recent: Batch[] = [];
  readonly #pace: Pace<Subscriber>;
  readonly #home: FanoutHost;
  /** Something was dropped, or is not here, that was not sent on yet. */
  #hasMissing = false;
  /** Where the log need not hold everything that is kept. */
  #pages: HistoryLoader | undefined;

  constructor(home: FanoutHost, rhythm?: FlushTiming) {
    this.#home = home;
    this.#pace = new Pace<Subscriber>(() => this.#flush(), rhythm);
  }

  open(session: EngineSession): void {
    this.log = session.log;
    this.position = this.#through = this.log.head;
    this.#pages = session.pages?.(this);
  }

  /** The records of these keys, kept until `leave`. */
  subscribe(subscriber: Subscriber, keys: readonly string[]): ChannelLog[] {
    return keys.map((key) => {
      let topic = this.#channels.get(key);
      if (!topic) {
        topic = { channel: this.log.pin(key), subscribers: new Set(), listeners: 0, pending: false };
        this.#channels.set(key, topic);
      }
      topic.subscribers.add(subscriber);
      if (subscriber.finish) topic.listeners++;
      // What was appended while nobody read this channel, behind a flush that is still to come.
      if (topic.channel.last > this.#through) this.#markPending(topic);
      if (topic.channel.droppedThrough > this.position) this.#hasMissing = true;
      return topic.channel;
    });
  }

  /** Gives the records back; whether it had any. */
  unsubscribe(subscriber: Subscriber): boolean {
    let left = false;
    for (const channel of subscriber.channels) {
      const topic = this.#channels.get(channel.key);
      if (!topic?.subscribers.delete(subscriber)) continue;
      left = true;
      if (subscriber.finish) topic.listeners--;
      if (topic.subscribers.size > 0) continue;
      this.#channels.delete(channel.key);
      this.log.unpin(channel);
    }
    this.#pace.taken(subscriber);
    this.#pages?.cancel(subscriber);
    return left;
  }

  /** Whether it wants more, and waits for what is kept elsewhere. */
  isLoadingHistory(subscriber: Subscriber): boolean {
    return this.#pages?.has(subscriber) ?? false;
  }

  /** Who waits for what is kept elsewhere is sent something else first, and will want more after that. Whether it did wait. */
  cancelHistory(subscriber: Subscriber): boolean {
    const waited = this.isLoadingHistory(subscriber);
    this.#pages?.cancel(subscriber);
    return waited;
  }

  /** The clients of these channels, each once. */
  connectionsOf(keys: readonly string[]): Set<Connection> {
    const clients = new Set<Connection>();
    for (const key of keys) {
      for (const subscriber of this.#channels.get(key)?.subscribers ?? NOBODY)
        if (!subscriber.finish) clients.add(subscriber as Connection);
    }
    return clients;
  }

  countConnections(keys: readonly string[]): number {
    const [key, ...others] = keys;
    if (key === undefined || others.length > 0) return this.connectionsOf(keys).size;
    const topic = this.#channels.get(key);
    return topic ? topic.subscribers.size - topic.listeners : 0;
  }

  get channels(): number {
    return this.#channels.size;
  }

  onAppended(entry: Entry): void {
    this.#home.onAppended(entry);
    for (const key of entry.keys) {
      const topic = this.#channels.get(key);
      if (topic) this.#markPending(topic);
    }
    this.onAdvanced(entry.seq);
    const { maxBytes } = this.log;
    this.#pace.appended(
      Math.max(entry.bytes.length / Math.min(RUN_AHEAD, maxBytes / 8), entryCost(entry) / (maxBytes / 8)),
    );
  }

  /** What concerns nobody here needs no flush. */
  onAdvanced(head: number = this.log.head): void {
    if (this.#pending.length === 0 && this.position === this.#through) this.position = this.#through = head;
  }

  onOverrun(): void {
    if (this.#hasMissing) return;
    this.#hasMissing = true;
    // What is kept elsewhere is not lost.
    if (!this.#pages) this.#home.onOverrun();
  }

  onLogReplaced(log: Log): void {
    this.log = log;
    this.position = this.#through = log.head;
    this.#pending.length = this.#recent.length = 0;
    this.#pages?.clear();
    const subscribers = new Set<Subscriber>();
    for (const [key, topic] of this.#channels) {
      topic.channel = log.pin(key);
      topic.pending = false;
      for (const subscriber of topic.subscribers) subscribers.add(subscriber);
    }
    for (const subscriber of subscribers) {
      subscriber.channels = subscriber.channels.map(
        ({ key }) => (this.#channels.get(key) as ChannelSubscribers).channel,
      );
      this.moveToNewLog(subscriber);
    }
  }

  /** A subscriber's cursor is of another log than this one, which it reads from its beginning. */
  moveToNewLog(subscriber: Subscriber): void {
    const keys = subscriber.channels.map(({ key }) => key);
    subscriber.cursor = subscriber.overrun = 0;
    subscriber.missingRanges = undefined;
    subscriber.onLogReplaced?.();
    this.#sendGaps(subscriber, [makeGap(this.log, { channels: keys, after: undefined, through: 0, seq: 0 })]);
  }

  onMissed(key: string, after: number, through: number): void {
    this.#hasMissing = true;
    for (const subscriber of this.#channels.get(key)?.subscribers ?? NOBODY) {
      const { cursor } = subscriber;
      const gap = { channels: [key], after, through: Math.min(through, cursor), seq: cursor };
      // What is after its cursor it is given yet, in order.
      this.#sendGaps(
        subscriber,
        gap.through > after ? [...(subscriber.pendingGaps ?? []), makeGap(this.log, gap)] : undefined,
      );
    }
  }

  /** A subscriber that was told all there was has something to hear of again. */
  #sendGaps(subscriber: Subscriber, gaps: Subscriber["pendingGaps"]): void {
    if (gaps) subscriber.pendingGaps = gaps;
    if (!subscriber.live && !this.isLoadingHistory(subscriber)) {
      subscriber.onBlocked?.();
      return;
    }
    subscriber.live = false;
    this.#pages?.cancel(subscriber);
    this.#requestNextAgain(subscriber);
  }

  onCommand(order: PeerCommand): void {
    this.#home.onCommand(order);
  }

  onError(error: unknown): void {
    this.#home.onError(error);
  }

  /** Resolves when the publisher may go on: at once, unless it is far ahead of those who read. */
  ready(): Promise<void> | undefined {
    return this.#pace.ready();
  }

  /** Hands on what is pending, lets publishers go and listeners end. Nothing is appended any more. */
  close(): void {
    this.#pace.close();
    const finishing = new Set(this.waitingForEngine);
    for (const { subscribers } of this.#channels.values()) for (const each of subscribers) finishing.add(each);
    for (const subscriber of finishing) subscriber.finish?.();
  }

  #markPending(topic: ChannelSubscribers): void {
    this.#pace.request();
    if (topic.pending) return;
    topic.pending = true;
    this.#pending.push(topic);
  }

  /** A subscriber wants more: gives it what it has not read, or else makes it live. */
  requestNext(subscriber: Subscriber): void {
    const { cursor, pendingGaps, channels } = subscriber;
    if (pendingGaps) {
      subscriber.pendingGaps = undefined;
      this.#replay(subscriber, { items: pendingGaps, events: 0, through: cursor, more: false });
      return;
    }
    if (this.#pages && hasMissing(channels, cursor)) {
      this.#pace.taken(subscriber);
      this.#pages.request(subscriber);
      return;
    }
    if (cursor < this.#through || this.#hasMissing) {
      const batch = this.#share(readBatch(this.log, subscriber, this.#through));
      if (batch) {
        this.#replay(subscriber, batch);
        return;
      }
    }
    subscriber.live = true;
    subscriber.overrun = 0;
    this.#pace.taken(subscriber);
  }

  #replay(subscriber: Subscriber, batch: Batch): void {
    this.#pace.moved(subscriber);
    if (this.#send(subscriber, batch) && !subscriber.finish) this.replayedEvents += batch.events;
  }

  /** It wanted more before, and still does. */
  #requestNextAgain(subscriber: Subscriber): void {
    this.requestNext(subscriber);
    if (subscriber.live) subscriber.onCaughtUp?.();
  }

  /** Gives one that waited for it what was kept elsewhere. */
  deliverHistory(subscriber: Subscriber, stretch: HistoryRange): void {
    const batch = this.#share(readBatch(this.log, subscriber, this.#through, stretch));
    if (batch) {
      this.#replay(subscriber, batch);
    } else {
      subscriber.cursor = Math.max(subscriber.cursor, stretch.limit);
      this.#requestNextAgain(subscriber);
    }
  }

  #flush(): void {
    const from = this.position;
    const through = this.log.head;
    const nothing = new FanoutGroup([]);
    const concerned: Subscriber[] = [];
    this.#through = through;
    for (const topic of this.#pending.splice(0)) {
      topic.pending = false;
      for (const subscriber of topic.subscribers) {
        if (!subscriber.group) concerned.push(subscriber);
        subscriber.group = (subscriber.group ?? nothing).with(topic);
      }
    }
    for (const subscriber of concerned) {
      const match = subscriber.group as FanoutGroup;
      subscriber.group = undefined;
      if (!subscriber.live) {
        // Who joined after it was appended has nothing to wait for.
        if (hasNews(match.channels, subscriber.cursor) && !this.isLoadingHistory(subscriber)) subscriber.onBlocked?.();
      } else if (subscriber.cursor > from || (this.#hasMissing && hasMissing(match.channels, from))) {
        // It joined after the last flush, or the log does not hold everything: its own way.
        if (subscriber.cursor < from) subscriber.cursor = from;
        if (this.#pages && hasMissing(subscriber.channels, subscriber.cursor)) {
          subscriber.live = false;
          this.#pages.request(subscriber);
          continue;
        }
        const batch = this.#share(readBatch(this.log, subscriber, through));
        if (batch) this.#flushTo(subscriber, batch);
      } else {
        match.batch ??= readBatch(
          this.log,
          { channels: match.channels, cursor: from, missingRanges: undefined, overrun: 0 },
          through,
        );
        if (match.batch) this.#flushTo(subscriber, match.batch);
      }
    }
    this.position = through;
    this.#hasMissing = false;
  }

  #flushTo(subscriber: Subscriber, batch: Batch): void {
    this.#pace.sent(subscriber);
    this.#send(subscriber, batch);
  }

  #send(subscriber: Subscriber, batch: Batch): boolean {
    subscriber.live = false;
    subscriber.cursor = batch.through;
    if (!subscriber.receive(batch)) return false;
    if (!subscriber.finish) {
      this.sentEvents += batch.events;
      this.sentBytes += chunkOf(batch).length;
      this.sentGaps += batch.items.length - batch.events;
      if (batch.jumpsToHead) this.overruns++;
    }
    // What comes after a stretch need not concern it.
    if (batch.more && !subscriber.live && hasNews(subscriber.channels, subscriber.cursor)) subscriber.onBlocked?.();
    return true;
  }

  /** The same batch for all who read the same events. */
  #share(batch: Batch | undefined): Batch | undefined {
    if (!batch || batch.items.length < 2 || batch.events < batch.items.length) return batch;
    for (const other of this.#recent) if (sameItems(batch, other)) return other;
    this.#recent.push(batch);
    if (this.#recent.length > RECENT) this.#recent.shift();
    return batch;
  }
}

const NOBODY: ReadonlySet<Subscriber> = new Set();

function sameItems(a: Batch, b: Batch): boolean {
  return (
    a.items.length === b.items.length &&
    a.through === b.through &&
    a.more === b.more &&
    a.items.every((item, index) => item === b.items[index])
  );
}
